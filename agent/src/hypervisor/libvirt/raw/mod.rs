//! The only module that calls libvirt: the `virt` crate made fit for a daemon, and `virt-sys` for the rest.
//!
//! virt is used for all that it does soundly. Raw calls, on virt's handles, are what it lacks (events, the end
//! of a connection, aborts, comparing CPUs) or gets wrong; each says which. See
//! `docs/decisions/2026-11-23-virt-and-virt-sys.md`. Nothing here interprets what libvirt says; [`super`] does.
//!
//! **Invariant:** every handle is owned by exactly one [`Handle`], which gives it back when it is dropped; no
//! borrowed pointer outlives the call that lent it.
#![expect(
    unsafe_code,
    reason = "what virt lacks is called in C; this module and its children are the only ones that do"
)]

mod domain;
mod events;
mod handle;
mod params;
mod volume;

use std::ffi::{CString, c_int, c_uint};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::time::Duration;

use virt::connect::Connect;
use virt::sys;

use self::handle::Handle;

pub(super) use domain::{Domain, LookupTarget};
pub(super) use events::{RawEvent, Sink};
pub(super) use params::Params;
pub(super) use virt::domain::MigrateParameters;
pub(super) use volume::{Pool, RawVolume};

/// `VIR_ERR_NO_DOMAIN`
pub(super) const ERR_NO_DOMAIN: i32 = 42;
/// `VIR_ERR_OPERATION_INVALID`
pub(super) const ERR_OPERATION_INVALID: i32 = 55;
/// `VIR_ERR_OPERATION_ABORTED`
pub(super) const ERR_OPERATION_ABORTED: i32 = 78;

/// libvirt's own words for a failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code}, domain {domain})")]
pub(super) struct RawError {
    /// `VIR_ERR_*`
    pub(super) code: i32,
    /// `VIR_FROM_*`
    pub(super) domain: i32,
    /// The message.
    pub(super) message: String,
}

impl RawError {
    /// An error that libvirt itself did not make.
    pub(super) fn ours(message: &str) -> Self {
        Self {
            code: 0,
            domain: 0,
            message: message.to_owned(),
        }
    }

    /// The calling thread's last error.
    fn last() -> Self {
        virt::error::Error::last_error().into()
    }
}

impl From<virt::error::Error> for RawError {
    fn from(error: virt::error::Error) -> Self {
        Self {
            code: i32::try_from(error.code().to_raw()).unwrap_or(0),
            domain: i32::try_from(error.domain().to_raw()).unwrap_or(0),
            message: error.message().to_owned(),
        }
    }
}

impl From<std::num::TryFromIntError> for RawError {
    fn from(_: std::num::TryFromIntError) -> Self {
        Self::ours("a number is out of libvirt's range")
    }
}

pub(super) type RawResult<T> = Result<T, RawError>;

/// A text for C. Also asked of texts for those calls of virt's that panic on a zero byte.
fn c_text(text: &str) -> RawResult<CString> {
    CString::new(text).map_err(|_| RawError::ours("text holds a zero byte"))
}

/// Zero or more is success; less is an error.
fn counted(result: c_int) -> RawResult<c_int> {
    if result < 0 {
        Err(RawError::last())
    } else {
        Ok(result)
    }
}

/// Prepares the library and the default event loop, once per process.
///
/// # Errors
/// When libvirt's client library does not initialise; the answer never changes afterwards.
pub(super) fn initialise() -> RawResult<()> {
    static DONE: OnceLock<RawResult<()>> = OnceLock::new();
    DONE.get_or_init(|| {
        // Raw: virt has no such call, and libvirt demands it before any other than opening.
        // SAFETY: takes no pointers; called once, before any connection is opened.
        counted(unsafe { sys::virInitialize() })?;
        virt::event::event_register_default_impl()?;
        // Errors are returned to callers; libvirt must not write them to stderr as well.
        virt::error::clear_error_callback();
        Ok(())
    })
    .clone()
}

/// Runs one turn of the event loop: blocks until something happens. For one thread only.
///
/// # Errors
/// When the loop itself fails.
pub(super) fn run_event_loop_once() -> RawResult<()> {
    Ok(virt::event::event_run_default_impl()?)
}

/// An open connection; closed when dropped.
#[derive(Debug)]
pub(super) struct Connection {
    handle: Handle<Connect>,
    callbacks: Vec<c_int>,
}

impl Connection {
    /// Opens `uri` and keeps watch over it: broken after three silent intervals of five seconds.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn open(uri: &str) -> RawResult<Self> {
        // virt panics on a zero byte.
        c_text(uri)?;
        let handle = Handle::new(Connect::open(Some(uri))?);
        // A server without keep-alive answers 1; that is no error.
        handle.set_keep_alive(5, 3)?;
        Ok(Self {
            handle,
            callbacks: vec![],
        })
    }

    fn raw(&self) -> sys::virConnectPtr {
        // SAFETY: only copies the pointer; callers use it while `self` lives.
        unsafe { self.handle.as_ptr() }
    }

    /// Whether the socket is still open. Asks nobody.
    pub(super) fn is_alive(&self) -> bool {
        self.handle.is_alive().unwrap_or(false)
    }

    /// Sends events of all guests, and the connection's end, to `sink` from now on.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn watch(&mut self, sink: &Sink) -> RawResult<()> {
        events::register(self.raw(), sink, &mut self.callbacks)
    }

    /// `9.0.0` and `QEMU 7.2.22`.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn versions(&self) -> RawResult<(String, String)> {
        let dotted = |v: u32| format!("{}.{}.{}", v / 1_000_000, v / 1000 % 1000, v % 1000);
        let library = dotted(self.handle.lib_version()?);
        let hypervisor = dotted(self.handle.hyp_version()?);
        let kind = self.handle.driver_type().unwrap_or_default();
        Ok((library, format!("{kind} {hypervisor}")))
    }

    /// Threads of the machine. Its memory is left out: what libvirt says of it is wrong on some machines.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn cpus(&self) -> RawResult<u32> {
        Ok(self.handle.node_info()?.cpus)
    }

    /// Capabilities XML.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn capabilities(&self) -> RawResult<String> {
        Ok(self.handle.capabilities()?)
    }

    /// XML of every active network. One that vanishes meanwhile is left out.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn active_networks(&self) -> RawResult<Vec<String>> {
        let networks = self
            .handle
            .list_all_networks(sys::VIR_CONNECT_LIST_NETWORKS_ACTIVE)?;
        let networks: Vec<_> = networks.into_iter().map(Handle::new).collect();
        Ok(networks.iter().filter_map(|n| n.xml_desc(0).ok()).collect())
    }

    /// XML of every active storage pool. One that vanishes meanwhile is left out.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn active_pools(&self) -> RawResult<Vec<String>> {
        let pools = self
            .handle
            .list_all_storage_pools(sys::VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)?;
        let pools: Vec<_> = pools.into_iter().map(Handle::new).collect();
        Ok(pools.iter().filter_map(|p| p.xml_desc(0).ok()).collect())
    }

    /// Whether the host can run `cpu` (a `<cpu>` element): `false` is libvirt's plain "incompatible".
    ///
    /// # Errors
    /// libvirt's, also when it cannot compare this kind of CPU at all.
    pub(super) fn can_run_cpu(&self, place: &CpuPlace<'_>, cpu: &str) -> RawResult<bool> {
        let text = |t: Option<&str>| t.map(c_text).transpose();
        let emulator = text(place.emulator)?;
        let arch = text(place.arch)?;
        let machine = text(place.machine)?;
        let virt_type = text(place.virt_type)?;
        let cpu = c_text(cpu)?;
        let pointer = |t: &Option<CString>| t.as_ref().map_or(ptr::null(), |t| t.as_ptr());
        // Raw: virt compares with the machine's CPU only, not with what its hypervisor can offer.
        // SAFETY: the connection is open; each text is null or zero-terminated and lives on.
        let result = unsafe {
            sys::virConnectCompareHypervisorCPU(
                self.raw(),
                pointer(&emulator),
                pointer(&arch),
                pointer(&machine),
                pointer(&virt_type),
                cpu.as_ptr(),
                0,
            )
        };
        counted(result).map(|answer| answer > 0)
    }

    /// Every guest, running or not.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn all_guests(&self) -> RawResult<Vec<Domain>> {
        let guests = self.handle.list_all_domains(0)?;
        Ok(guests.into_iter().map(Domain::new).collect())
    }

    /// Defines a guest, or gives one that runs without a definition its own again.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn define(&self, definition: &str) -> RawResult<()> {
        // virt panics on a zero byte.
        c_text(definition)?;
        drop(Domain::new(self.handle.define_domain_xml(definition)?));
        Ok(())
    }

    /// Guests without a definition of their own: they vanish when they stop.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn transient_guests(&self) -> RawResult<Vec<Domain>> {
        let guests = self
            .handle
            .list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_TRANSIENT)?;
        Ok(guests.into_iter().map(Domain::new).collect())
    }

    /// A guest by UUID or name; `None`: not here.
    ///
    /// # Errors
    /// libvirt's, but not "no such guest".
    pub(super) fn lookup(&self, target: LookupTarget<'_>) -> RawResult<Option<Domain>> {
        let found = match target {
            LookupTarget::Uuid(uuid) => self.handle.lookup_domain_by_uuid_string(uuid),
            LookupTarget::Name(name) => self.handle.lookup_domain_by_name(name),
        };
        match found.map_err(RawError::from) {
            Ok(guest) => Ok(Some(Domain::new(guest))),
            Err(error) if error.code == ERR_NO_DOMAIN => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Statistics of all guests, running or not. Guests that are busy are answered in part.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn all_stats(&self, groups: StatsGroups) -> RawResult<Vec<StatsRecord>> {
        let mut array: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
        // Raw: virt's records are bare pointers into a list that it never frees.
        // SAFETY: the connection is open and the place to write to is ours.
        let count = counted(unsafe {
            sys::virConnectGetAllDomainStats(
                self.raw(),
                groups.0,
                &raw mut array,
                sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT,
            )
        })?;
        // SAFETY: libvirt has just given away so many records.
        Ok(unsafe { StatsRecord::take_all(array, count) })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // libvirt keeps a connection open for as long as callbacks hold it; the handle closes it after this.
        events::deregister(self.raw(), &self.callbacks);
    }
}

/// Where a CPU definition is to run; `None`: libvirt's default.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CpuPlace<'a> {
    /// Path of the emulator.
    pub(super) emulator: Option<&'a str>,
    /// `x86_64`
    pub(super) arch: Option<&'a str>,
    /// Machine type.
    pub(super) machine: Option<&'a str>,
    /// `kvm`, `qemu`
    pub(super) virt_type: Option<&'a str>,
}

/// Which statistics to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StatsGroups(c_uint);

impl StatsGroups {
    /// State alone: never enters a QEMU monitor.
    pub(super) const STATE: Self = Self(sys::VIR_DOMAIN_STATS_STATE);
    /// What every second's demand is made of.
    pub(super) const FREQUENT: Self = Self(
        sys::VIR_DOMAIN_STATS_STATE | sys::VIR_DOMAIN_STATS_VCPU | sys::VIR_DOMAIN_STATS_BALLOON,
    );
    /// The last sample of changed pages.
    pub(super) const DIRTY_RATE: Self = Self(sys::VIR_DOMAIN_STATS_DIRTYRATE);
    /// Everything that reports hold.
    pub(super) const ALL: Self = Self(
        Self::FREQUENT.0
            | sys::VIR_DOMAIN_STATS_CPU_TOTAL
            | sys::VIR_DOMAIN_STATS_BLOCK
            | sys::VIR_DOMAIN_STATS_INTERFACE
            | Self::DIRTY_RATE.0,
    );
}

/// One guest's statistics, copied out of libvirt's memory.
#[derive(Debug, Clone)]
pub(super) struct StatsRecord {
    /// libvirt's name.
    pub(super) name: String,
    /// UUID as text.
    pub(super) uuid: String,
    /// libvirt's id; `None`: not running.
    pub(super) id: Option<u32>,
    /// The figures.
    pub(super) params: Params,
}

impl StatsRecord {
    /// Copies `count` records out of a list that libvirt gave away, and frees it.
    ///
    /// # Safety
    /// `array` is null or libvirt's list of `count` records, and nobody else's.
    unsafe fn take_all(array: *mut sys::virDomainStatsRecordPtr, count: c_int) -> Vec<Self> {
        if array.is_null() {
            return vec![];
        }
        let length = usize::try_from(count).unwrap_or(0);
        // SAFETY: the caller's promise.
        let records = unsafe { std::slice::from_raw_parts(array, length) };
        let records = records.iter().filter_map(|&r| Self::copy(r)).collect();
        // SAFETY: libvirt's own function for this list; everything was copied out of it.
        unsafe { sys::virDomainStatsRecordListFree(array) };
        records
    }

    fn copy(record: sys::virDomainStatsRecordPtr) -> Option<Self> {
        let record = NonNull::new(record)?;
        // SAFETY: libvirt keeps the record alive until the list is freed.
        let record = unsafe { record.as_ref() };
        // SAFETY: as above, and the view ends here.
        let guest = unsafe { domain::lent(NonNull::new(record.dom)?) };
        Some(Self {
            name: guest.name().unwrap_or_default(),
            uuid: guest.uuid_string().ok()?,
            id: guest.id(),
            params: Params::copy(record.params, record.nparams),
        })
    }
}

/// Waits a little when the event loop fails, so that a failing one does not spin.
pub(super) const EVENT_LOOP_PAUSE: Duration = Duration::from_millis(200);
