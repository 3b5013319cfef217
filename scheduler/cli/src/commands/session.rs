//! One run of the tool: its flags, where it writes, and how to reach the fleet.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::args::{Format, Global};
use crate::client::Client;
use crate::config::{Config, Replica, locate};
use crate::exit::Failure;
use crate::output::{Look, json};

/// What a run touches of its surroundings.
pub struct Io {
    /// Data.
    pub out: Box<dyn Write>,
    /// Talk.
    pub err: Box<dyn Write>,
    /// Whether a person reads the data.
    pub out_is_terminal: bool,
    /// Whether a person reads the talk.
    pub err_is_terminal: bool,
    /// Where the user's own configuration is.
    pub home: Option<PathBuf>,
    /// Where programs keep what they remember, if the environment says so.
    pub state: Option<PathBuf>,
    /// Whether the environment asks for no colours.
    pub no_color: bool,
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Io")
            .field("out_is_terminal", &self.out_is_terminal)
            .finish_non_exhaustive()
    }
}

impl Io {
    /// The process' own streams and environment.
    #[must_use]
    pub fn of_process() -> Self {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        let state = std::env::var_os("XDG_STATE_HOME").filter(|state| !state.is_empty());
        Self {
            out: Box::new(std::io::stdout()),
            err: Box::new(std::io::stderr()),
            out_is_terminal: std::io::stdout().is_terminal(),
            err_is_terminal: std::io::stderr().is_terminal(),
            home: home.map(PathBuf::from),
            state: state.map(PathBuf::from),
            no_color: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
        }
    }

    /// Says something to people. Nobody listening is no reason to stop.
    pub fn say(&mut self, text: &str) {
        let _ = writeln!(self.err, "{text}");
    }
}

/// One run.
#[derive(Debug)]
pub struct Session<'a> {
    /// Flags of every command.
    pub global: Global,
    /// Where it reads and writes.
    pub io: &'a mut Io,
}

impl<'a> Session<'a> {
    pub(super) fn new(global: Global, io: &'a mut Io) -> Self {
        Self { global, io }
    }

    /// How the answer is to be printed.
    #[must_use]
    pub fn format(&self) -> Format {
        self.global.output.unwrap_or_default()
    }

    /// Refuses formats that a command does not have.
    pub(super) fn only(&self, command: &str, formats: &[Format]) -> Result<(), Failure> {
        match self.global.output {
            Some(format) if !formats.contains(&format) => {
                let format = format!("{format:?}").to_lowercase();
                Err(Failure::Usage(format!(
                    "{command} cannot be printed as {format}"
                )))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// How text is to look, now.
    #[must_use]
    pub fn look(&self) -> Look {
        Look {
            colour: self.io.out_is_terminal && !self.global.no_color && !self.io.no_color,
            wide: self.format() == Format::Wide,
            now: Timestamp::now(),
        }
    }

    /// The reason given, or nothing.
    #[must_use]
    pub fn reason(&self) -> String {
        self.global.reason.clone().unwrap_or_default()
    }

    /// Reads the configuration and prepares to talk to the schedulers.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let file = locate(self.global.config.as_deref(), self.io.home.as_deref())?;
        let mut config = Config::read(&file)?;
        if let Some(address) = &self.global.scheduler {
            let known = config
                .schedulers
                .iter()
                .find(|replica| replica.address == *address);
            let server_name = known.map_or(address.host().to_owned(), |replica| {
                replica.server_name.clone()
            });
            config.schedulers = vec![Replica {
                address: address.clone(),
                server_name,
            }];
        }
        Ok(Client::new(&config, &file.display().to_string())?)
    }

    /// Prints a document that came ready-made, as it is.
    pub(super) fn print_document(&mut self, json: &[u8]) -> Result<(), Failure> {
        self.io.out.write_all(json)?;
        if !json.ends_with(b"\n") {
            self.io.out.write_all(b"\n")?;
        }
        self.io.out.flush()?;
        Ok(())
    }

    /// Prints a document in the format asked for.
    pub(super) fn print<D: Serialize>(
        &mut self,
        document: &D,
        words: impl Fn(&D, Look) -> String,
        name: impl Fn(&D) -> String,
    ) -> Result<(), Failure> {
        let text = match self.format() {
            Format::Table | Format::Wide => words(document, self.look()),
            Format::Json => json::pretty(document).map_err(std::io::Error::from)?,
            Format::Name => lines([name(document)]),
        };
        self.io.out.write_all(text.as_bytes())?;
        self.io.out.flush()?;
        Ok(())
    }
}

/// One item a line.
pub(super) fn lines(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().map(|item| item + "\n").collect()
}
