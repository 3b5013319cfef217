//! Flags of `events`.

use std::time::Duration;

use clap::Args;
use evenkeel_types::EventKind;

/// Flags of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only those of this time, for example 2h
    #[arg(long, value_name = "TIME", value_parser = super::duration)]
    pub since: Option<Duration>,
    /// Only events of this kind; any of several
    #[arg(long = "kind", value_name = "KIND", value_parser = kind)]
    pub kinds: Vec<EventKind>,
    /// Only those about this guest, by name or UUID
    #[arg(long, value_name = "GUEST")]
    pub guest: Option<String>,
    /// Only those about this host
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// At most so many, the newest; 0 for all that are kept
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: u32,
    /// Go on with what happens from now on, until Ctrl-C; in JSON, a line each
    #[arg(short, long)]
    pub follow: bool,
}

/// A kind by its name, or what was likely meant.
fn kind(text: &str) -> Result<EventKind, String> {
    if let Ok(kind) = text.parse() {
        return Ok(kind);
    }
    let names = EventKind::ALL.iter().map(|kind| kind.as_str());
    let alike = names
        .clone()
        .map(|name| (strsim::jaro_winkler(text, name), name));
    let best = alike.max_by(|a, b| a.0.total_cmp(&b.0));
    Err(match best.filter(|(likeness, _)| *likeness > 0.8) {
        Some((_, name)) => format!("there is no such kind; did you mean {name}?"),
        None => format!("expected one of {}", names.collect::<Vec<_>>().join(", ")),
    })
}
