//! Handles of guests.

use std::ffi::{c_char, c_int};
use std::ptr::{self, NonNull};
use std::time::Duration;

use virt_sys as sys;

use super::params::{MigrationParams, Params};
use super::{RawError, RawResult, borrowed_text, c_text, counted, owned_text};

/// How to find a guest.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum LookupTarget<'a> {
    /// By UUID.
    Uuid(&'a str),
    /// By name.
    Name(&'a str),
}

/// A guest; the handle is freed when dropped, the guest is not touched.
#[derive(Debug)]
pub(in super::super) struct Domain(NonNull<sys::virDomain>);

// SAFETY: libvirt documents virDomainPtr as safe to share between threads.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

pub(super) fn name_of(domain: NonNull<sys::virDomain>) -> String {
    // SAFETY: a live handle; the text belongs to it and is copied at once.
    borrowed_text(unsafe { sys::virDomainGetName(domain.as_ptr()) }).unwrap_or_default()
}

pub(super) fn uuid_of(domain: NonNull<sys::virDomain>) -> Option<String> {
    // VIR_UUID_STRING_BUFLEN: 36 characters and the zero.
    let mut text: [c_char; 37] = [0; 37];
    // SAFETY: a live handle, and a buffer of the length that libvirt asks for.
    let result = unsafe { sys::virDomainGetUUIDString(domain.as_ptr(), text.as_mut_ptr()) };
    (result == 0).then(|| borrowed_text(text.as_ptr()))?
}

pub(super) fn id_of(domain: NonNull<sys::virDomain>) -> Option<u32> {
    // SAFETY: a live handle; asks nobody.
    let id = unsafe { sys::virDomainGetID(domain.as_ptr()) };
    // libvirt says -1, as an unsigned number, for a guest that does not run.
    (id != u32::MAX).then_some(id)
}

impl Domain {
    pub(super) fn owning(pointer: NonNull<sys::virDomain>) -> Self {
        Self(pointer)
    }

    fn raw(&self) -> sys::virDomainPtr {
        self.0.as_ptr()
    }

    /// libvirt's name.
    pub(in super::super) fn name(&self) -> String {
        name_of(self.0)
    }

    /// UUID as text.
    pub(in super::super) fn uuid(&self) -> Option<String> {
        uuid_of(self.0)
    }

    /// State and reason (`virDomainState`, and the reason's number within it).
    ///
    /// # Errors
    /// libvirt's; a guest that has vanished is `ERR_NO_DOMAIN`.
    pub(in super::super) fn state(&self) -> RawResult<(i32, i32)> {
        let (mut state, mut reason): (c_int, c_int) = (0, 0);
        // SAFETY: a live handle; the places to write to are ours.
        counted(unsafe { sys::virDomainGetState(self.raw(), &raw mut state, &raw mut reason, 0) })?;
        Ok((state, reason))
    }

    /// Whether it has a definition that outlives its process.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn is_persistent(&self) -> RawResult<bool> {
        // SAFETY: a live handle.
        counted(unsafe { sys::virDomainIsPersistent(self.raw()) }).map(|answer| answer == 1)
    }

    /// The definition: of the running guest, as a migration would hand it over, or of the shut-off one.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn definition(&self) -> RawResult<String> {
        // SAFETY: a live handle; the text is given away.
        let text = unsafe { sys::virDomainGetXMLDesc(self.raw(), sys::VIR_DOMAIN_XML_MIGRATABLE) };
        owned_text(text)
    }

    /// Snapshots of it; a guest with any cannot be migrated live.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn snapshots(&self) -> RawResult<u32> {
        // SAFETY: a live handle.
        let count = counted(unsafe { sys::virDomainSnapshotNum(self.raw(), 0) })?;
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// Virtual size of a disk in bytes.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn disk_bytes(&self, disk: &str) -> RawResult<u64> {
        let disk = c_text(disk)?;
        let mut info = sys::virDomainBlockInfo {
            capacity: 0,
            allocation: 0,
            physical: 0,
        };
        // SAFETY: a live handle, a zero-terminated text, and a place to write to that is ours.
        counted(unsafe {
            sys::virDomainGetBlockInfo(self.raw(), disk.as_ptr(), &raw mut info, 0)
        })?;
        Ok(info.capacity)
    }

    /// The job that holds the guest (`virDomainJobType`) and its figures.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn job(&self) -> RawResult<(i32, Params)> {
        let mut kind: c_int = 0;
        let mut params: sys::virTypedParameterPtr = ptr::null_mut();
        let mut count: c_int = 0;
        // SAFETY: a live handle; the places to write to are ours.
        counted(unsafe {
            sys::virDomainGetJobStats(
                self.raw(),
                &raw mut kind,
                &raw mut params,
                &raw mut count,
                0,
            )
        })?;
        Ok((kind, Params::owning(params, count)))
    }

    /// Aborts the job that holds it.
    ///
    /// # Errors
    /// libvirt's; `ERR_OPERATION_INVALID` when there is none.
    pub(in super::super) fn abort_job(&self) -> RawResult<()> {
        // SAFETY: a live handle.
        counted(unsafe { sys::virDomainAbortJob(self.raw()) }).map(drop)
    }

    /// Sets the longest pause that the running copy may aim at.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn set_max_downtime(&self, downtime: Duration) -> RawResult<()> {
        let ms = u64::try_from(downtime.as_millis()).unwrap_or(u64::MAX);
        // SAFETY: a live handle.
        counted(unsafe { sys::virDomainMigrateSetMaxDowntime(self.raw(), ms, 0) }).map(drop)
    }

    /// Migrates, peer to peer; blocks until libvirt is done.
    ///
    /// # Errors
    /// libvirt's. Evidence, not proof: the guest may have moved all the same.
    pub(in super::super) fn migrate(
        &self,
        peer_uri: &str,
        params: &MigrationParams,
        flags: u32,
    ) -> RawResult<()> {
        let peer_uri = c_text(peer_uri)?;
        let (array, count) = params.raw();
        // SAFETY: a live handle, a zero-terminated text, and an array of `count` parameters that
        // `params` keeps alive; libvirt only reads it.
        counted(unsafe {
            sys::virDomainMigrateToURI3(self.raw(), peer_uri.as_ptr(), array, count, flags)
        })
        .map(drop)
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // Freeing a handle fails only for an invalid one, which this is not.
        // SAFETY: the handle is ours and not used again.
        let _ = unsafe { sys::virDomainFree(self.raw()) };
    }
}

impl From<std::num::TryFromIntError> for RawError {
    fn from(_: std::num::TryFromIntError) -> Self {
        Self::ours("a number is out of libvirt's range")
    }
}
