//! `hosts`, `guests` and `migrations`

use std::cmp::Ordering;

use super::Session;
use super::fleet::Fleet;
use super::session::lines;
use super::watch::{Painter, show};
use crate::args::{GuestColumn, HostColumn, ListArgs, MigrationColumn, MigrationsArgs};
use crate::exit::{Exit, Failure};
use crate::output::{table, time};
use crate::view::{Guest, Guests, Host, Hosts, Migration, Migrations, float};

pub(super) async fn hosts(
    session: &mut Session<'_>,
    args: &ListArgs<HostColumn>,
) -> Result<Exit, Failure> {
    let fleet = Fleet::open(session, &args.source)?;
    let painter = Painter::new(session, args.watch);
    show(session, args.watch, async || {
        let mut hosts = fleet.hosts().await?;
        if !args.labels.is_empty() {
            let labels = fleet.labels().await?;
            hosts.retain(|host| labels.host_has(host, &args.labels));
        }
        let column = args.sort.unwrap_or(HostColumn::Name);
        hosts.sort_by(|a, b| by_host(column, a, b).then_with(|| a.name.cmp(&b.name)));
        let list = Hosts::new(hosts);
        let steady = list.clone().steady();
        painter.paint(
            &list,
            &steady,
            |list, look| table::hosts(&list.hosts, look),
            |list| lines(list.hosts.iter().map(|host| host.name.clone())),
        )
    })
    .await
}

fn by_host(column: HostColumn, a: &Host, b: &Host) -> Ordering {
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let falling = |number: fn(&Host) -> f64| number(b).total_cmp(&number(a));
    match column {
        HostColumn::Name => a.name.cmp(&b.name),
        HostColumn::State => a.state.cmp(&b.state),
        HostColumn::Cpu => share(b.cpu_demand_cores, b.cpu_cores)
            .total_cmp(&share(a.cpu_demand_cores, a.cpu_cores)),
        HostColumn::Memory => share(float(b.memory_allocated_mib), float(b.memory_mib))
            .total_cmp(&share(float(a.memory_allocated_mib), float(a.memory_mib))),
        HostColumn::Stalled => falling(|h| h.pressure.map_or(-1.0, |p| f64::from(p.cpu_some_bp))),
        HostColumn::Loss => falling(|h| h.loss_guest_seconds_per_second),
        HostColumn::Guests => falling(|h| f64::from(h.guests)),
    }
}

pub(super) async fn guests(
    session: &mut Session<'_>,
    args: &ListArgs<GuestColumn>,
) -> Result<Exit, Failure> {
    let fleet = Fleet::open(session, &args.source)?;
    let painter = Painter::new(session, args.watch);
    show(session, args.watch, async || {
        let mut guests = fleet.guests().await?;
        if !args.labels.is_empty() {
            let labels = fleet.labels().await?;
            guests.retain(|guest| labels.guest_has(guest, &args.labels));
        }
        let column = args.sort.unwrap_or(GuestColumn::Name);
        let whole = |g: &Guest| (g.name.clone(), g.host.clone());
        guests.sort_by(|a, b| by_guest(column, a, b).then_with(|| whole(a).cmp(&whole(b))));
        let list = Guests::new(guests);
        painter.paint(
            &list,
            &list,
            |list, look| table::guests(&list.guests, look),
            |list| lines(list.guests.iter().map(|guest| guest.name.clone())),
        )
    })
    .await
}

fn by_guest(column: GuestColumn, a: &Guest, b: &Guest) -> Ordering {
    match column {
        GuestColumn::Name => a.name.cmp(&b.name),
        GuestColumn::Host => a.host.cmp(&b.host),
        GuestColumn::State => a.state.cmp(&b.state),
        GuestColumn::Cpu => b.cpu_demand_cores.total_cmp(&a.cpu_demand_cores),
        GuestColumn::Memory => b.memory_mib.cmp(&a.memory_mib),
        GuestColumn::Dirty => {
            let rate = |g: &Guest| g.dirty_rate_mib_s.unwrap_or(-1.0);
            rate(b).total_cmp(&rate(a))
        }
    }
}

pub(super) async fn migrations(
    session: &mut Session<'_>,
    args: &MigrationsArgs,
) -> Result<Exit, Failure> {
    let fleet = Fleet::open(session, &args.source)?;
    let painter = Painter::new(session, args.watch);
    show(session, args.watch, async || {
        let mut migrations = fleet.migrations(args.open).await?;
        if let Some(column) = args.sort {
            migrations.sort_by(|a, b| by_migration(column, a, b));
        }
        let list = Migrations::new(migrations);
        painter.paint(
            &list,
            &list,
            |list, look| table::migrations(&list.migrations, look),
            |list| lines(list.migrations.iter().filter_map(|m| m.id.clone())),
        )
    })
    .await
}

fn by_migration(column: MigrationColumn, a: &Migration, b: &Migration) -> Ordering {
    let took = |m: &Migration| match (m.started_at, m.ended_at) {
        (Some(start), Some(end)) => Some(time::between(start, end)),
        (None, _) | (_, None) => None,
    };
    // Remembered migrations have lost the time of their order.
    let start = |m: &Migration| m.created_at.or(m.started_at);
    match column {
        MigrationColumn::Guest => a.guest.cmp(&b.guest),
        MigrationColumn::From => a.source.cmp(&b.source),
        MigrationColumn::To => a.target.cmp(&b.target),
        MigrationColumn::Phase => a.phase.cmp(&b.phase),
        MigrationColumn::Started => start(b).cmp(&start(a)),
        MigrationColumn::Took => took(b).cmp(&took(a)),
    }
}
