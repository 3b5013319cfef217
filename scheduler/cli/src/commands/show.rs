//! `host show`, `guest show` and `migration show`

use super::Session;
use super::fleet::Fleet;
use crate::args::{ShowHost, ShowMigration, Source};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::view::{Guest, GuestDetail, HostDetail, Migration, MigrationDetail};

pub(super) async fn host(session: &mut Session<'_>, args: &ShowHost) -> Result<Exit, Failure> {
    let ShowHost::Show { name, source } = args;
    let fleet = Fleet::open(session, source)?;
    let found = fleet
        .hosts()
        .await?
        .into_iter()
        .find(|host| host.name == *name);
    let host = found.ok_or_else(|| not_there("host", name, &fleet))?;
    let detail = HostDetail::new(host, fleet.guests().await?);
    session.print(&detail, output::show::host, |detail| {
        detail.host.name.clone()
    })?;
    Ok(Exit::Ok)
}

pub(super) async fn guest(
    session: &mut Session<'_>,
    name: &str,
    source: &Source,
) -> Result<Exit, Failure> {
    let fleet = Fleet::open(session, source)?;
    let mut found: Vec<Guest> = fleet
        .guests()
        .await?
        .into_iter()
        .filter(|guest| guest.is_called(name))
        .collect();
    if found.len() > 1 {
        let places: Vec<String> = found.iter().map(Guest::full_name).collect();
        let found = places.join(", ");
        return Err(Failure::Ambiguous {
            kind: "guest",
            name: name.to_owned(),
            found,
        });
    }
    let guest = found
        .pop()
        .ok_or_else(|| not_there("guest", name, &fleet))?;
    let detail = GuestDetail::new(guest, fleet.migrations(false).await?);
    session.print(&detail, output::show::guest, |detail| {
        detail.guest.name.clone()
    })?;
    Ok(Exit::Ok)
}

pub(super) async fn migration(
    session: &mut Session<'_>,
    args: &ShowMigration,
) -> Result<Exit, Failure> {
    let ShowMigration::Show { id } = args;
    let fleet = Fleet::open(session, &Source::default())?;
    let prefix = id.to_ascii_lowercase();
    let fits = |m: &Migration| m.id.as_ref().is_some_and(|full| full.starts_with(&prefix));
    let mut found: Vec<Migration> = fleet
        .migrations(false)
        .await?
        .into_iter()
        .filter(fits)
        .collect();
    if found.len() > 1 {
        let ids: Vec<String> = found.into_iter().filter_map(|m| m.id).collect();
        let (name, found) = (id.clone(), ids.join(", "));
        return Err(Failure::Ambiguous {
            kind: "migration",
            name,
            found,
        });
    }
    let migration = found
        .pop()
        .ok_or_else(|| not_there("migration", id, &fleet))?;
    let detail = MigrationDetail::new(migration);
    session.print(&detail, output::show::migration, |detail| {
        detail.migration.id.clone().unwrap_or_default()
    })?;
    Ok(Exit::Ok)
}

fn not_there(kind: &'static str, name: &str, fleet: &Fleet) -> Failure {
    Failure::NotThere {
        kind,
        name: name.to_owned(),
        place: fleet.place().to_owned(),
    }
}
