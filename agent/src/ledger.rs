//! What this host has made for guests on their way here, and what guests have left behind here; on disk.
//!
//! Written before anything is made, so that a crash leaves no file whose maker is not known: what stands here
//! is all that the agent may ever remove. One small JSON file per order and per guest, for people, too.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use evenkeel_types::{GuestId, HostName, OrderId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::hypervisor::disks::DiskImage;

/// Entries of one kind that are looked at; a host has a handful.
const MOST: usize = 4096;

/// A guest that is on its way here, as far as something must be remembered of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// Its order.
    pub order: OrderId,
    /// The guest.
    pub guest: GuestId,
    /// Where it comes from.
    pub source: HostName,
    /// Whether it comes shut off.
    pub shut_off: bool,
    /// Whether this host had a definition of it before.
    pub defined_before: bool,
    /// Whether it is to be started with its host.
    pub autostart: bool,
    /// What was made for it.
    pub files: Vec<Made>,
}

/// A file for an incoming disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// What was, or is to be, made.
    pub image: DiskImage,
    /// What it is an overlay of.
    pub backing: Option<DiskImage>,
    /// Bytes that it will take.
    pub need_bytes: u64,
    /// Name of its pool.
    pub pool: String,
    /// When what gives way to it was last written to: a file that the guest itself left here.
    pub replaces: Option<String>,
    /// Whether it stands.
    pub stage: Stage,
}

/// How far a file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It is about to be made: nothing was at its path.
    Intended,
    /// It was made.
    Made,
}

/// A guest that has left with its disks copied: their files stay here, and may give way when it comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The guest.
    pub guest: GuestId,
    /// Its files.
    pub files: Vec<LeftFile>,
}

/// One file that was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftFile {
    /// Its path.
    pub path: String,
    /// When it was last written to, once the guest had left; a later time means that somebody uses it.
    pub modified: Option<String>,
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    incoming: PathBuf,
    left: PathBuf,
}

impl Ledger {
    /// Opens it below `state_dir`.
    ///
    /// # Errors
    /// When its folders cannot be made.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let ledger = Self {
            incoming: state_dir.join("incoming"),
            left: state_dir.join("left"),
        };
        fs::create_dir_all(&ledger.incoming)?;
        fs::create_dir_all(&ledger.left)?;
        Ok(ledger)
    }

    /// Notes an incoming guest; on success the note outlives a loss of power.
    ///
    /// # Errors
    /// When the disk does not take it: nothing may then be made.
    pub fn note(&self, incoming: &Incoming) -> io::Result<()> {
        write(&self.incoming, incoming.order.as_str(), incoming)
    }

    /// Removes the note of an order.
    pub fn forget(&self, order: &OrderId) {
        remove(&self.incoming, order.as_str());
    }

    /// Every note.
    #[must_use]
    pub fn incoming(&self) -> Vec<Incoming> {
        let entries = fs::read_dir(&self.incoming).into_iter().flatten();
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let notes = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
        notes.take(MOST).filter_map(|path| read(&path)).collect()
    }

    /// The note of an order.
    #[must_use]
    pub fn of(&self, order: &OrderId) -> Option<Incoming> {
        read(&file(&self.incoming, order.as_str()))
    }

    /// Notes what a guest leaves behind.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn leave(&self, left: &Left) -> io::Result<()> {
        write(&self.left, left.guest.as_str(), left)
    }

    /// What a guest has left behind.
    #[must_use]
    pub fn left(&self, guest: &GuestId) -> Option<Left> {
        read(&file(&self.left, guest.as_str()))
    }

    /// The guest has come back, or never left.
    pub fn is_back(&self, guest: &GuestId) {
        remove(&self.left, guest.as_str());
    }
}

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.json"))
}

/// Whole or not at all, and on the disk when it returns.
fn write<T: Serialize>(folder: &Path, name: &str, value: &T) -> io::Result<()> {
    let fresh = folder.join(format!("{name}.new"));
    let mut out = fs::File::create(&fresh)?;
    out.write_all(&serde_json::to_vec_pretty(value)?)?;
    out.sync_all()?;
    fs::rename(&fresh, file(folder, name))?;
    fs::File::open(folder)?.sync_all()
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = fs::read(path).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(file = %path.display(), %error, "a note cannot be read; what it is about stays");
            None
        }
    }
}

fn remove(folder: &Path, name: &str) {
    let path = file(folder, name);
    if let Err(error) = fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(file = %path.display(), %error, "a note that is done with stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming() -> Incoming {
        Incoming {
            order: OrderId::from_random(1),
            guest: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap(),
            source: "h1".parse().unwrap(),
            shut_off: false,
            defined_before: false,
            autostart: true,
            files: vec![],
        }
    }

    #[test]
    fn notes_outlive_the_process_until_they_are_done_with() {
        let dir = tempfile::tempdir().unwrap();
        let noted = incoming();
        Ledger::open(dir.path()).unwrap().note(&noted).unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.incoming(), std::slice::from_ref(&noted));
        assert_eq!(ledger.of(&noted.order), Some(noted.clone()));
        ledger.forget(&noted.order);
        ledger.forget(&noted.order);
        assert_eq!(ledger.incoming(), []);
    }

    #[test]
    fn a_note_that_is_torn_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        ledger.note(&incoming()).unwrap();
        let torn = dir.path().join("incoming/torn.json");
        fs::write(&torn, "{").unwrap();
        assert_eq!(ledger.incoming(), [incoming()]);
        assert!(torn.exists());
    }
}
