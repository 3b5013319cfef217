//! Looking once, or again and again: redrawn on a terminal, a block per change elsewhere.

use std::io::Write;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::Session;
use crate::args::{Format, Watch};
use crate::exit::{Exit, Failure};
use crate::output::{Look, json};

/// Time between two looks. Reports arrive every second or two; faster would show nothing more.
const PERIOD: Duration = Duration::from_secs(2);
/// Puts the cursor home and clears what is below it.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// A document as it is shown, and what of it must change to be shown again.
#[derive(Debug)]
pub(super) struct Picture {
    text: String,
    steady: String,
}

/// How documents become pictures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Painter {
    format: Format,
    look: Look,
    watching: bool,
}

impl Painter {
    pub(super) fn new(session: &Session<'_>, watch: Watch) -> Self {
        Self {
            format: session.format(),
            look: session.look(),
            watching: watch.watch,
        }
    }

    /// `steady` is the document without what changes although nothing happens.
    pub(super) fn paint<D: Serialize>(
        self,
        document: &D,
        steady: &D,
        table: impl Fn(&D, Look) -> String,
        names: impl Fn(&D) -> String,
    ) -> Result<Picture, Failure> {
        let now = Look {
            now: Timestamp::now(),
            ..self.look
        };
        // Ages that are counted from the beginning of time do not grow.
        let never = Look {
            now: Timestamp::UNIX_EPOCH,
            ..self.look
        };
        let render = |document: &D, look: Look| match self.format {
            Format::Table | Format::Wide => Ok(table(document, look)),
            Format::Name => Ok(names(document)),
            Format::Json if self.watching => json::line(document).map_err(std::io::Error::from),
            Format::Json => json::pretty(document).map_err(std::io::Error::from),
        };
        Ok(Picture {
            text: render(document, now)?,
            steady: render(steady, never)?,
        })
    }
}

/// Shows the picture once, or until Ctrl-C.
pub(super) async fn show(
    session: &mut Session<'_>,
    watch: Watch,
    look: impl AsyncFn() -> Result<Picture, Failure>,
) -> Result<Exit, Failure> {
    let first = look().await?;
    if !watch.watch {
        session.io.out.write_all(first.text.as_bytes())?;
        session.io.out.flush()?;
        return Ok(Exit::Ok);
    }
    let mut screen = Screen {
        drawn: None,
        trouble: None,
    };
    screen.draw(session, first)?;
    loop {
        tokio::time::sleep(PERIOD).await;
        match look().await {
            Ok(picture) => screen.draw(session, picture)?,
            Err(Failure::Client(error)) if error.may_pass() => {
                screen.complain(session, &error.to_string());
            }
            Err(failure) => return Err(failure),
        }
    }
}

struct Screen {
    drawn: Option<String>,
    trouble: Option<String>,
}

impl Screen {
    fn draw(&mut self, session: &mut Session<'_>, picture: Picture) -> Result<(), Failure> {
        self.trouble = None;
        let out = &mut session.io.out;
        if session.io.out_is_terminal {
            out.write_all(CLEAR.as_bytes())?;
        } else if self.drawn.as_ref() == Some(&picture.steady) {
            return Ok(());
        } else if self.drawn.is_some() && session.global.output.unwrap_or_default() != Format::Json
        {
            out.write_all(b"\n")?;
        }
        out.write_all(picture.text.as_bytes())?;
        out.flush()?;
        self.drawn = Some(picture.steady);
        Ok(())
    }

    /// Says once what is wrong; what was drawn stays.
    fn complain(&mut self, session: &mut Session<'_>, trouble: &str) {
        if self.trouble.as_deref() != Some(trouble) {
            session
                .io
                .say(&format!("evenkeel: {trouble}; trying again"));
            self.trouble = Some(trouble.to_owned());
        }
    }
}
