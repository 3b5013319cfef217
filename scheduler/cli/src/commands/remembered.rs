//! Plans that were shown lately, so that `apply` can be given an id: files in the user's state directory.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Session;
use super::plan::write_file;
use crate::exit::Failure;

/// So many are kept; older ones are removed.
const KEPT: usize = 20;

/// Where plans are kept; `None`: there is no home directory.
fn folder(session: &Session<'_>) -> Option<PathBuf> {
    let state = |home: &PathBuf| home.join(".local/state");
    let state = session
        .io
        .state
        .clone()
        .or(session.io.home.as_ref().map(state));
    Some(state?.join("evenkeel/plans"))
}

/// Keeps a plan; whether it can be had back by its id. That it cannot is no failure: its file can still be asked for.
pub(super) fn remember(session: &Session<'_>, id: &str, document: &[u8]) -> bool {
    let Some(folder) = folder(session).filter(|_| is_id(id)) else {
        return false;
    };
    let written = std::fs::create_dir_all(&folder).is_ok()
        && write_file(&folder.join(format!("{id}.json")), document).is_ok();
    let plans = plans(&folder);
    for (_, old) in plans.iter().skip(KEPT) {
        // One that cannot be removed is removed the next time, or does no harm.
        let _ = std::fs::remove_file(old);
    }
    written
}

/// The file of the plan whose id begins so.
pub(super) fn recall(session: &Session<'_>, id: &str) -> Result<PathBuf, Failure> {
    let place = "the plans shown lately (`evenkeel plan --out FILE` writes one to keep)";
    let not_there = || Failure::NotThere {
        kind: "plan",
        name: id.to_owned(),
        place: place.to_owned(),
    };
    let folder = folder(session)
        .filter(|_| is_id(id))
        .ok_or_else(not_there)?;
    let found: Vec<PathBuf> = (plans(&folder).into_iter().map(|(_, path)| path))
        .filter(|path| stem(path).starts_with(id))
        .collect();
    match &found[..] {
        [] => Err(not_there()),
        [only] => Ok(only.clone()),
        several => Err(Failure::Ambiguous {
            kind: "plan",
            name: id.to_owned(),
            found: several
                .iter()
                .map(|path| stem(path))
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

/// What a plan's id can be: it becomes the name of a file.
fn is_id(text: &str) -> bool {
    (1..=16).contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit())
}

fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

/// The plans in a folder, the newest first.
fn plans(folder: &Path) -> Vec<(SystemTime, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut plans: Vec<(SystemTime, PathBuf)> = entries
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "json"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    plans.sort_by(|a, b| b.cmp(a));
    plans
}
