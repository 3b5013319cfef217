//! Local disks of fake hosts: one pool with the directory `/pool`, its files in memory.

use std::collections::BTreeMap;

use evenkeel_types::{GuestId, Presence, Refusal};

use super::{
    ERR_INTERNAL, ERR_OPERATION_ABORTED, ERR_OPERATION_INVALID, FakeHypervisor, FakeWorld, failed,
};
use crate::hypervisor::disks::{DiskImage, Disks, LocalDisk, Piece, Spot, Volume};
use crate::hypervisor::{CallGate, HypervisorError, HypervisorEvent, LiveMigration};

/// The pool's directory.
const POOL: &str = "/pool/";
/// Bytes of a piece that is read.
const PIECE: usize = 4096;

/// What a host's pool holds.
#[derive(Debug)]
pub(super) struct Store {
    files: BTreeMap<String, File>,
    /// Bytes that the pool has, and that are free whatever is written.
    bytes: (u64, u64),
    /// Counts writes: the fake's time.
    clock: u64,
    /// After so many pieces the next reading or writing fails.
    breaks_after: Option<u32>,
    /// Writes that change nothing but what is read back.
    corrupts: bool,
    /// Somebody else makes the next file first.
    outrun: bool,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            files: BTreeMap::new(),
            bytes: (1 << 40, 1 << 40),
            clock: 0,
            breaks_after: None,
            corrupts: false,
            outrun: false,
        }
    }
}

#[derive(Debug, Clone)]
struct File {
    image: DiskImage,
    backing: Option<String>,
    contents: Vec<u8>,
    modified: u64,
}

impl FakeWorld {
    /// Gives a guest a local disk `vda` at `path` with these contents.
    pub fn add_disk(&self, host: &str, id: &GuestId, path: &str, contents: &[u8]) {
        let image = DiskImage {
            path: path.to_owned(),
            format: "raw".into(),
            capacity_bytes: u64::try_from(contents.len()).unwrap_or(u64::MAX),
        };
        let disk = LocalDisk {
            name: "vda".into(),
            image: image.clone(),
            allocation_bytes: image.capacity_bytes,
            backing: vec![],
        };
        self.put_file(host, image, contents);
        self.edit_traits(host, id, |traits| {
            traits.hindrances = vec!["local_disk".into()]
        });
        self.on(host, |state| {
            if let Some(guest) = state.guests.get_mut(id) {
                guest.disks.push(disk);
            }
        });
    }

    /// Puts the image below a guest's disk: a layer that must be at the target, too.
    pub fn add_backing(&self, host: &str, id: &GuestId, image: DiskImage) {
        self.on(host, |state| {
            if let Some(disk) = state.guests.get_mut(id).and_then(|g| g.disks.first_mut()) {
                disk.backing.push(image);
            }
        });
    }

    /// Puts a file into a host's pool.
    pub fn put_file(&self, host: &str, image: DiskImage, contents: &[u8]) {
        self.on(host, |state| {
            state.store.clock += 1;
            let file = File {
                backing: None,
                contents: contents.to_vec(),
                modified: state.store.clock,
                image: image.clone(),
            };
            state.store.files.insert(image.path, file);
        });
    }

    /// A file's contents.
    #[must_use]
    pub fn file(&self, host: &str, path: &str) -> Option<Vec<u8>> {
        let hosts = self.lock();
        let file = hosts.get(host)?.store.files.get(path)?;
        Some(file.contents.clone())
    }

    /// Bytes that a host's pool has free.
    pub fn set_free(&self, host: &str, bytes: u64) {
        self.on(host, |state| state.store.bytes.1 = bytes);
    }

    /// Lets reading and writing at a host fail after so many pieces.
    pub fn break_disks(&self, host: &str, after: Option<u32>) {
        self.on(host, |state| state.store.breaks_after = after);
    }

    /// Lets what is written at a host be read back otherwise.
    pub fn corrupt_disks(&self, host: &str) {
        self.on(host, |state| state.store.corrupts = true);
    }

    /// Lets somebody else make the next file that a host is asked for, right before it does.
    pub fn outrun_disks(&self, host: &str) {
        self.on(host, |state| state.store.outrun = true);
    }

    /// Whether a guest is started with a host.
    #[must_use]
    pub fn starts_with(&self, host: &str, id: &GuestId) -> bool {
        let hosts = self.lock();
        let guest = hosts.get(host).and_then(|state| state.guests.get(id));
        guest.is_some_and(|guest| guest.autostart)
    }

    /// Has a guest started with a host.
    pub fn start_with(&self, host: &str, id: &GuestId) {
        self.on(host, |state| {
            if let Some(guest) = state.guests.get_mut(id) {
                guest.autostart = true;
            }
        });
    }
}

impl Store {
    fn breaks(&mut self) -> bool {
        match &mut self.breaks_after {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}

fn no_file(path: &str) -> HypervisorError {
    failed(ERR_INTERNAL, &format!("no volume {path}"))
}

impl FakeHypervisor {
    fn on_store<T>(
        &self,
        use_it: impl FnOnce(&mut Store) -> Result<T, HypervisorError>,
    ) -> Result<T, HypervisorError> {
        self.read(|state| use_it(&mut state.store))
    }
}

impl Disks for FakeHypervisor {
    fn local_disks(
        &self,
        guest: &GuestId,
    ) -> Result<Result<Vec<LocalDisk>, (Refusal, String)>, HypervisorError> {
        self.guest(guest, |g| Ok(g.disks.clone()))
    }

    fn spot(&self, path: &str) -> Result<Option<Spot>, HypervisorError> {
        self.on_store(|store| {
            if !path.starts_with(POOL) {
                return Ok(None);
            }
            let volume = store.files.get(path).map(|file| Volume {
                image: file.image.clone(),
                allocation_bytes: u64::try_from(file.contents.len()).unwrap_or(u64::MAX),
                backing: file.backing.clone(),
                modified: file.modified.to_string(),
            });
            Ok(Some(Spot {
                pool: "pool".into(),
                pool_bytes: store.bytes,
                volume,
            }))
        })
    }

    fn users(&self, path: &str, but: &GuestId) -> Result<Vec<String>, HypervisorError> {
        self.read(|state| {
            let others = state.guests.iter().filter(|(id, _)| *id != but);
            let users = others.filter(|(_, g)| g.disks.iter().any(|d| d.image.path == path));
            Ok(users.map(|(_, g)| g.counters.name.clone()).collect())
        })
    }

    fn make_volume(
        &self,
        image: &DiskImage,
        backing: Option<&DiskImage>,
    ) -> Result<(), HypervisorError> {
        self.on_store(|store| {
            let outrun = std::mem::take(&mut store.outrun);
            if !outrun && store.files.contains_key(&image.path) {
                return Err(failed(ERR_INTERNAL, "volume exists already"));
            }
            store.clock += 1;
            let file = File {
                image: image.clone(),
                backing: backing.map(|b| b.path.clone()),
                contents: vec![],
                modified: store.clock,
            };
            store.files.insert(image.path.clone(), file);
            if outrun {
                return Err(failed(ERR_INTERNAL, "volume exists already"));
            }
            Ok(())
        })
    }

    fn remove_volume(&self, path: &str) -> Result<(), HypervisorError> {
        self.on_store(|store| {
            store.files.remove(path);
            Ok(())
        })
    }

    fn read_volume(
        &self,
        path: &str,
        take: &mut dyn FnMut(Piece) -> bool,
    ) -> Result<(), HypervisorError> {
        let file =
            self.on_store(|store| store.files.get(path).cloned().ok_or_else(|| no_file(path)))?;
        for piece in file.contents.chunks(PIECE) {
            if self.on_store(|store| Ok(store.breaks()))? {
                return Err(failed(ERR_INTERNAL, "reading broke off as scripted"));
            }
            let zeroes = piece.iter().all(|byte| *byte == 0);
            let piece = if zeroes {
                Piece::Hole(u64::try_from(piece.len()).unwrap_or(u64::MAX))
            } else {
                Piece::Data(piece.to_vec())
            };
            if !take(piece) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn write_volume(
        &self,
        path: &str,
        give: &mut dyn FnMut() -> Result<Option<Piece>, HypervisorError>,
    ) -> Result<(), HypervisorError> {
        let mut written: Vec<u8> = vec![];
        while let Some(piece) = give()? {
            if self.on_store(|store| Ok(store.breaks()))? {
                return Err(failed(ERR_INTERNAL, "writing broke off as scripted"));
            }
            match piece {
                Piece::Data(data) => written.extend(data),
                Piece::Hole(bytes) => {
                    let more = usize::try_from(bytes).unwrap_or(0);
                    written.resize(written.len().saturating_add(more), 0);
                }
            }
            self.put_contents(path, &written)?;
        }
        Ok(())
    }

    fn autostart(&self, guest: &GuestId) -> Result<bool, HypervisorError> {
        self.guest(guest, |g| g.autostart)
    }

    fn set_autostart(&self, guest: &GuestId) -> Result<(), HypervisorError> {
        self.guest(guest, |g| g.autostart = true)
    }

    fn move_definition(
        &self,
        guest: &GuestId,
        peer_uri: &str,
        gate: &CallGate,
    ) -> Result<(), HypervisorError> {
        if !gate.pass() {
            return Err(failed(ERR_OPERATION_ABORTED, "given up before the call"));
        }
        let mut hosts = self.world.lock();
        let here = hosts
            .get(&self.host)
            .and_then(|state| state.guests.get(guest));
        let mut moved = match here {
            Some(here) if here.presence == Presence::ShutOff => here.clone(),
            Some(_) => return Err(failed(ERR_OPERATION_INVALID, "the guest was started")),
            None => {
                return Err(HypervisorError::NoSuchGuest {
                    guest: guest.clone(),
                });
            }
        };
        let ending = hosts.get(&self.host).map(|state| state.script.ending);
        moved.autostart = false;
        let there = hosts
            .iter_mut()
            .find(|(name, _)| FakeWorld::peer_uri(name) == peer_uri);
        match there {
            Some((_, there)) if there.up => drop(there.guests.insert(guest.clone(), moved)),
            _ => return Err(failed(ERR_INTERNAL, "no route to host")),
        }
        let here = hosts.get_mut(&self.host);
        let here = here.ok_or_else(|| failed(ERR_INTERNAL, "no such host"))?;
        here.migrations += 1;
        // The source's libvirtd was killed after the target had defined it.
        if ending == Some(super::Ending::FailsThoughMoved) {
            return Err(failed(ERR_INTERNAL, "end of file while reading data"));
        }
        here.guests.remove(guest);
        // No receiver is no error: nobody listens yet.
        drop(
            here.events
                .send(HypervisorEvent::GuestChanged(guest.clone())),
        );
        Ok(())
    }
}

impl FakeHypervisor {
    /// What a live migration has copied of the guest's disks is at the target.
    pub(super) fn mirror(&self, target: &str, migration: &LiveMigration) {
        let mut hosts = self.world.lock();
        let there = hosts
            .get(target)
            .and_then(|state| state.guests.get(&migration.guest));
        let disks = there.map(|guest| guest.disks.clone()).unwrap_or_default();
        for disk in disks
            .iter()
            .filter(|disk| migration.disks.contains(&disk.name))
        {
            let path = &disk.image.path;
            let here = hosts
                .get(&self.host)
                .and_then(|state| state.store.files.get(path));
            let contents = here.map(|file| file.contents.clone()).unwrap_or_default();
            let there = hosts.get_mut(target);
            if let Some(file) = there.and_then(|state| state.store.files.get_mut(path)) {
                file.contents = contents;
            }
        }
    }

    fn put_contents(&self, path: &str, contents: &[u8]) -> Result<(), HypervisorError> {
        self.on_store(|store| {
            store.clock += 1;
            let (clock, corrupts) = (store.clock, store.corrupts);
            let file = store.files.get_mut(path).ok_or_else(|| no_file(path))?;
            file.contents = contents.to_vec();
            file.modified = clock;
            if let Some(first) = file.contents.first_mut().filter(|_| corrupts) {
                *first ^= 1;
            }
            Ok(())
        })
    }
}
