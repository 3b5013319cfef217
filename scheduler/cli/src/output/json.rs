//! Documents as JSON: indented when printed once, one line each when watched.

use serde::Serialize;

/// Indented, ending in a newline.
///
/// # Errors
/// When the document cannot be written, which no document of ours is.
pub fn pretty(document: &impl Serialize) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(document)?;
    text.push('\n');
    Ok(text)
}

/// In one line, ending in a newline.
///
/// # Errors
/// As [`pretty`].
pub fn line(document: &impl Serialize) -> serde_json::Result<String> {
    let mut text = serde_json::to_string(document)?;
    text.push('\n');
    Ok(text)
}
