//! The highest epoch this host has obeyed, kept on disk: a lower one is refused before anyone is asked.
//!
//! etcd's transaction is the fence that counts ([`crate::journal`]); this one also holds when etcd was
//! restored from an old backup and hands out lower revisions again.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use evenkeel_types::Epoch;

/// The file's name in the state directory.
const FILE: &str = "epoch";

/// The floor below which no order is obeyed.
#[derive(Debug)]
pub struct EpochFloor {
    file: PathBuf,
    highest: Mutex<Epoch>,
}

/// The epoch file cannot be read, or does not hold a number.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the highest epoch from {file}")]
pub struct EpochFileError {
    /// The file.
    pub file: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

impl EpochFloor {
    /// Reads the floor from `state_dir`; none is there yet on a new host.
    ///
    /// # Errors
    /// When the file is there but cannot be read as a number.
    pub fn open(state_dir: &Path) -> Result<Self, EpochFileError> {
        let file = state_dir.join(FILE);
        let read = match std::fs::read_to_string(&file) {
            Ok(text) => text
                .trim()
                .parse()
                .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        };
        match read {
            Ok(number) => Ok(Self {
                file,
                highest: Mutex::new(Epoch(number)),
            }),
            Err(source) => Err(EpochFileError { file, source }),
        }
    }

    /// The highest epoch obeyed so far.
    #[must_use]
    pub fn highest(&self) -> Epoch {
        *self.highest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an epoch that etcd has confirmed. A disk that does not take it is logged: the fence in etcd
    /// still stands, and this process remembers.
    pub fn raise(&self, epoch: Epoch) {
        let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        if epoch <= *highest {
            return;
        }
        *highest = epoch;
        match self.write(epoch) {
            Ok(()) => tracing::info!(%epoch, "obeying a new epoch"),
            Err(error) => {
                tracing::error!(%error, %epoch, file = %self.file.display(), "epoch not persisted");
            }
        }
    }

    /// Whole or not at all: a torn file would stop the agent's next start.
    fn write(&self, epoch: Epoch) -> std::io::Result<()> {
        let fresh = self.file.with_extension("new");
        let mut file = std::fs::File::create(&fresh)?;
        std::io::Write::write_all(&mut file, format!("{epoch}\n").as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_only_rises_and_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let floor = EpochFloor::open(dir.path()).unwrap();
        assert_eq!(floor.highest(), Epoch(0));
        floor.raise(Epoch(40));
        floor.raise(Epoch(7));
        assert_eq!(EpochFloor::open(dir.path()).unwrap().highest(), Epoch(40));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_a_zero() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "forty").unwrap();
        assert!(EpochFloor::open(dir.path()).is_err());
    }
}
