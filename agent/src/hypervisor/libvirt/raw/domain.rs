//! Handles of guests.

use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::time::Duration;

use virt::domain::MigrateParameters;
use virt::sys;

use super::handle::Handle;
use super::params::Params;
use super::{RawResult, StatsGroups, StatsRecord, c_text, counted};

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
pub(in super::super) struct Domain(Handle<virt::domain::Domain>);

/// A guest that libvirt lends: virt's view of it, which is not freed.
///
/// # Safety
/// The handle must live for as long as the view.
pub(super) unsafe fn lent(domain: NonNull<sys::virDomain>) -> ManuallyDrop<virt::domain::Domain> {
    // SAFETY: the caller's promise; the reference stays libvirt's, for it is never dropped.
    ManuallyDrop::new(unsafe { virt::domain::Domain::from_ptr(domain.as_ptr()) })
}

impl Domain {
    pub(super) fn new(handle: virt::domain::Domain) -> Self {
        Self(Handle::new(handle))
    }

    fn raw(&self) -> sys::virDomainPtr {
        // SAFETY: only copies the pointer; callers use it while `self` lives.
        unsafe { self.0.as_ptr() }
    }

    /// libvirt's name.
    pub(in super::super) fn name(&self) -> String {
        self.0.name().unwrap_or_default()
    }

    /// UUID as text.
    pub(in super::super) fn uuid(&self) -> Option<String> {
        self.0.uuid_string().ok()
    }

    /// State and reason (`virDomainState`, and the reason's number within it).
    ///
    /// # Errors
    /// libvirt's; a guest that has vanished is `ERR_NO_DOMAIN`.
    pub(in super::super) fn state(&self) -> RawResult<(i32, i32)> {
        let (mut state, mut reason): (c_int, c_int) = (0, 0);
        // Raw: virt's `state` drops the error and calls a vanished guest's state unknown.
        // SAFETY: a live handle; the places to write to are ours.
        counted(unsafe { sys::virDomainGetState(self.raw(), &raw mut state, &raw mut reason, 0) })?;
        Ok((state, reason))
    }

    /// Whether it has a definition that outlives its process.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn is_persistent(&self) -> RawResult<bool> {
        Ok(self.0.is_persistent()?)
    }

    /// The definition: of the running guest, as a migration would hand it over, or of the shut-off one.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn definition(&self) -> RawResult<String> {
        Ok(self.0.xml_desc(sys::VIR_DOMAIN_XML_MIGRATABLE)?)
    }

    /// The definition as the guest runs: also with what libvirt has found out, such as the images below its
    /// disks, and leaves out of [`Domain::definition`].
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn live_definition(&self) -> RawResult<String> {
        Ok(self.0.xml_desc(0)?)
    }

    /// The definition that outlives its process, with everything in it.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn kept_definition(&self) -> RawResult<String> {
        let flags = sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE;
        Ok(self.0.xml_desc(flags)?)
    }

    /// Whether the memory of its last run was saved for its next start.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn has_saved_state(&self) -> RawResult<bool> {
        Ok(self.0.has_managed_save(0)?)
    }

    /// Whether it is started with its host.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn autostart(&self) -> RawResult<bool> {
        Ok(self.0.autostart()?)
    }

    /// Has it started with its host.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn set_autostart(&self) -> RawResult<()> {
        Ok(self.0.set_autostart(true)?)
    }

    /// Snapshots of it; a guest with any cannot be migrated live.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn snapshots(&self) -> RawResult<u32> {
        Ok(self.0.num_snapshots(0)?)
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
        // Raw: virt's `block_info` drops the error and reads memory that was not written.
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
        // Raw: virt's `job_stats` makes a `Vec` of a null pointer for a guest without a job, and gives C's
        // memory to Rust's allocator.
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
        // Raw: virt has no such call.
        // SAFETY: a live handle.
        counted(unsafe { sys::virDomainAbortJob(self.raw()) }).map(drop)
    }

    /// Removes the definition; refused for a guest with saved memory or snapshots, which would be lost with it.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn undefine(&self) -> RawResult<()> {
        Ok(self.0.undefine_flags(sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)?)
    }

    /// Ends its process as pulling the plug would.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn destroy(&self) -> RawResult<()> {
        Ok(self.0.destroy()?)
    }

    /// Sets the longest pause that the running copy may aim at.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn set_max_downtime(&self, downtime: Duration) -> RawResult<()> {
        let ms = u64::try_from(downtime.as_millis()).unwrap_or(u64::MAX);
        Ok(self.0.migrate_set_max_downtime(ms, 0)?)
    }

    /// Hands it over before the running copy is complete.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn start_post_copy(&self) -> RawResult<()> {
        // Raw: virt has no such call.
        // SAFETY: a live handle.
        counted(unsafe { sys::virDomainMigrateStartPostCopy(self.raw(), 0) }).map(drop)
    }

    /// Begins to sample which of its pages change within `seconds` (1 to 60); does not wait for it.
    ///
    /// # Errors
    /// libvirt's, also when it is being sampled already.
    pub(in super::super) fn start_dirty_rate_calc(&self, seconds: u32) -> RawResult<()> {
        let mode = sys::VIR_DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING;
        // Raw: virt has no such call.
        // SAFETY: a live handle.
        counted(unsafe {
            sys::virDomainStartDirtyRateCalc(self.raw(), c_int::try_from(seconds)?, mode)
        })
        .map(drop)
    }

    /// Its statistics; in part, or none, while something keeps it busy.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn stats(&self, groups: StatsGroups) -> RawResult<Params> {
        let mut guests = [self.raw(), ptr::null_mut()];
        let mut array: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
        // Raw: virt's records are bare pointers into a list that it never frees.
        // SAFETY: a live handle in a list that ends in null; the place to write to is ours.
        let count = counted(unsafe {
            sys::virDomainListGetStats(
                guests.as_mut_ptr(),
                groups.0,
                &raw mut array,
                sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT,
            )
        })?;
        // SAFETY: libvirt has just given away so many records.
        let records = unsafe { StatsRecord::take_all(array, count) };
        let record = records.into_iter().next();
        Ok(record.map(|record| record.params).unwrap_or_default())
    }

    /// Migrates, peer to peer; blocks until libvirt is done.
    ///
    /// # Errors
    /// libvirt's. Evidence, not proof: the guest may have moved all the same.
    pub(in super::super) fn migrate(
        &self,
        peer_uri: &str,
        params: MigrateParameters,
        flags: u32,
    ) -> RawResult<()> {
        // virt panics on a zero byte in either text. It also leaks a copy of each text among the
        // parameters: some twenty bytes a migration.
        c_text(peer_uri)?;
        c_text(params.uri.as_deref().unwrap_or_default())?;
        for disk in &params.migrate_disks {
            c_text(disk)?;
        }
        Ok(self.0.migrate_to_uri3(Some(peer_uri), params, flags)?)
    }
}
