//! `evenkeel`: see the library's documentation.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use evenkeel::args::Cli;
use evenkeel::commands::{Io, run};
use evenkeel::exit::{Exit, Failure};

fn main() -> ExitCode {
    let mut io = Io::of_process();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A help text that nobody reads to its end is no failure.
            let _ = error.print();
            let asked_for = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            return if asked_for { Exit::Ok } else { Exit::Usage }.into();
        }
    };
    match start(cli, &mut io) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if let Some(words) = failure.words() {
                io.say(&format!("evenkeel: {words}"));
            }
            failure.exit().into()
        }
    }
}

fn start(cli: Cli, io: &mut Io) -> Result<Exit, Failure> {
    // Fails only when a provider is installed already, which does as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(cli, io))
}
