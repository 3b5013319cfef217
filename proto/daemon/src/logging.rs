//! Logging: structured lines on standard error, level by `EVENKEEL_LOG` (default `info`).

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Starts logging for this process; a second call changes nothing.
///
/// Lines are for people when standard error is a terminal, JSON otherwise (journald keeps the fields) unless
/// `EVENKEEL_LOG_FORMAT=text`.
pub fn init() {
    let filter = EnvFilter::try_from_env("EVENKEEL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr);
    let text = std::env::var("EVENKEEL_LOG_FORMAT").is_ok_and(|format| format == "text");
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // Fails only when a subscriber is set already.
    drop(if text || terminal {
        builder.with_ansi(terminal).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    });
}
