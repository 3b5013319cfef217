//! The verbs: each asks, turns the answer into a document and prints it.

mod apply;
mod change;
mod cordon;
mod doctor;
mod drain;
mod events;
mod explain;
mod fleet;
mod follow;
mod history;
mod list;
mod migrate;
mod place;
mod plan;
mod policy;
mod remembered;
mod resolve;
mod roll;
mod session;
mod show;
mod simulate;
mod status;
mod top;
mod watch;

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use evenkeel_proto::v1;

pub use session::{Io, Session};

use crate::args::{Cli, Command, Format, ShowGuest};
use crate::client::THOROUGH;
use crate::exit::{Exit, Failure};

/// Does what the command line asks for.
///
/// # Errors
/// When it could not be done; the failure knows its exit code.
pub async fn run(cli: Cli, io: &mut Io) -> Result<Exit, Failure> {
    let Cli { global, command } = cli;
    let mut session = Session::new(global, io);
    match command {
        Command::Status(args) => status::status(&mut session, &args).await,
        Command::Hosts(args) => list::hosts(&mut session, &args).await,
        Command::Guests(args) => list::guests(&mut session, &args).await,
        Command::Migrations(args) => list::migrations(&mut session, &args).await,
        Command::Events(args) => events::events(&mut session, &args).await,
        Command::Host(args) => show::host(&mut session, &args).await,
        Command::Guest(ShowGuest::Show { name, source }) => {
            show::guest(&mut session, &name, &source).await
        }
        Command::Guest(ShowGuest::Resolve(args)) => resolve::resolve(&mut session, &args).await,
        Command::Migration(args) => show::migration(&mut session, &args).await,
        Command::Plan(args) => plan::plan(&mut session, &args).await,
        Command::Apply(args) => apply::apply(&mut session, &args).await,
        Command::Explain(args) => explain::explain(&mut session, &args).await,
        Command::Place(args) => place::place(&mut session, &args).await,
        Command::Top { source } => top::top(&mut session, &source).await,
        Command::Simulate(args) => simulate::simulate(&mut session, &args),
        Command::Mode(args) => change::mode(&mut session, &args).await,
        Command::Pause(args) => change::pause(&mut session, &args).await,
        Command::Resume(args) => change::resume(&mut session, args).await,
        Command::Migrate(args) => migrate::migrate(&mut session, &args).await,
        Command::Cancel(args) => change::cancel(&mut session, &args).await,
        Command::Cordon(args) => cordon::cordon(&mut session, &args).await,
        Command::Uncordon(args) => cordon::uncordon(&mut session, &args).await,
        Command::Drain(args) => drain::drain(&mut session, &args).await,
        Command::Roll(args) => roll::roll(&mut session, &args).await,
        Command::Doctor => doctor::doctor(&mut session).await,
        Command::Snapshot => snapshot(&mut session).await,
        Command::Policy(args) => policy::policy(&mut session, &args).await,
        Command::Completion { shell } => completion(&mut session, shell),
        Command::Man { dir } => man(&mut session, dir.as_deref()),
    }
}

async fn snapshot(session: &mut Session<'_>) -> Result<Exit, Failure> {
    session.only("snapshot", &[Format::Json])?;
    let document = session
        .client()?
        .read(THOROUGH, async |mut scheduler| {
            scheduler.get_snapshot(v1::GetSnapshotRequest {}).await
        })
        .await?;
    session.print_document(&document.json)?;
    Ok(Exit::Ok)
}

fn completion(session: &mut Session<'_>, shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Cli::command(), "evenkeel", &mut script);
    session.io.out.write_all(&script)?;
    Ok(Exit::Ok)
}

fn man(session: &mut Session<'_>, dir: Option<&Path>) -> Result<Exit, Failure> {
    let command = Cli::command();
    match dir {
        Some(dir) => {
            clap_mangen::generate_to(command, dir).map_err(|source| Failure::Unwritable {
                path: dir.display().to_string(),
                source,
            })?
        }
        None => {
            let mut page = vec![];
            clap_mangen::Man::new(command).render(&mut page)?;
            session.io.out.write_all(&page)?;
        }
    }
    Ok(Exit::Ok)
}
