//! The only module that calls libvirt's C library: safe handles over `virt-sys`.
//!
//! Why not the `virt` crate: its handles panic when a connection cannot be closed (which is what happens
//! when libvirtd was killed), its statistics leak, and events, job statistics of idle guests, aborts and
//! CPU comparison are not in it. Nothing here interprets what libvirt says; [`super`] does.
//!
//! **Invariant:** every pointer that libvirt hands over is owned by exactly one value here, which gives it
//! back when it is dropped; no borrowed pointer outlives the call that lent it.
#![expect(
    unsafe_code,
    reason = "libvirt is a C library; this module and its children are the only ones that call it"
)]

mod domain;
mod events;
mod params;

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulong, c_void};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::time::Duration;

use virt_sys as sys;

pub(super) use domain::{Domain, LookupTarget};
pub(super) use events::{RawEvent, Sink};
pub(super) use params::{MigrationParams, Params};

/// `VIR_ERR_NO_DOMAIN`
pub(super) const ERR_NO_DOMAIN: i32 = 42;
/// `VIR_ERR_OPERATION_INVALID`
pub(super) const ERR_OPERATION_INVALID: i32 = 55;

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
    fn ours(message: &str) -> Self {
        Self {
            code: 0,
            domain: 0,
            message: message.to_owned(),
        }
    }

    /// The calling thread's last error.
    fn last() -> Self {
        // SAFETY: takes no argument; the result is the thread's own record or null.
        let error = unsafe { sys::virGetLastError() };
        let Some(error) = NonNull::new(error) else {
            return Self::ours("libvirt gave no reason");
        };
        // SAFETY: libvirt keeps the record alive until this thread's next libvirt call.
        let error = unsafe { error.as_ref() };
        Self {
            code: error.code,
            domain: error.domain,
            message: borrowed_text(error.message).unwrap_or_default(),
        }
    }
}

pub(super) type RawResult<T> = Result<T, RawError>;

unsafe extern "C" {
    // SAFETY: the C library's own; libvirt's strings and arrays are made by the same allocator.
    fn free(pointer: *mut c_void);
}

/// Copies a C string that libvirt keeps.
fn borrowed_text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and libvirt's strings end in a zero; it is copied before any other call.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}

/// Copies a C string that libvirt gave away, and frees it.
fn owned_text(text: *mut c_char) -> RawResult<String> {
    let copy = borrowed_text(text).ok_or_else(RawError::last)?;
    // SAFETY: libvirt allocated it with malloc and gave it away; nobody else holds it.
    unsafe { free(text.cast()) };
    Ok(copy)
}

/// Takes an array of `count` pointers that libvirt allocated, and frees the array, not the elements.
fn owned_array<T>(array: *mut *mut T, count: c_int) -> Vec<NonNull<T>> {
    let Some(array) = NonNull::new(array) else {
        return vec![];
    };
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: libvirt says that `count` elements are there.
    let elements = unsafe { std::slice::from_raw_parts(array.as_ptr(), count) };
    let elements = elements.iter().filter_map(|&e| NonNull::new(e)).collect();
    // SAFETY: allocated by libvirt with malloc and given away; the elements were copied out.
    unsafe { free(array.as_ptr().cast()) };
    elements
}

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

unsafe extern "C" fn be_silent(_user: *mut c_void, _error: sys::virErrorPtr) {}

/// Prepares the library and the default event loop, once per process.
///
/// # Errors
/// When libvirt's client library does not initialise; the answer never changes afterwards.
pub(super) fn initialise() -> RawResult<()> {
    static DONE: OnceLock<RawResult<()>> = OnceLock::new();
    DONE.get_or_init(|| {
        // SAFETY: both take no pointers; called once, before any connection is opened.
        counted(unsafe { sys::virInitialize() })?;
        // SAFETY: as above.
        counted(unsafe { sys::virEventRegisterDefaultImpl() })?;
        // Errors are returned to callers; libvirt must not write them to stderr as well.
        // SAFETY: the callback has the right signature and no state.
        unsafe { sys::virSetErrorFunc(ptr::null_mut(), Some(be_silent)) };
        Ok(())
    })
    .clone()
}

/// Runs one turn of the event loop: blocks until something happens. For one thread only.
///
/// # Errors
/// When the loop itself fails.
pub(super) fn run_event_loop_once() -> RawResult<()> {
    // SAFETY: takes no argument; the default implementation is registered by `initialise`.
    counted(unsafe { sys::virEventRunDefaultImpl() }).map(drop)
}

/// What libvirt says of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeInfo {
    /// Threads.
    pub(super) cpus: u32,
}

/// An open connection; closed when dropped.
#[derive(Debug)]
pub(super) struct Connection {
    pointer: NonNull<sys::virConnect>,
    callbacks: Vec<c_int>,
}

// SAFETY: libvirt documents virConnectPtr as safe to share between threads.
unsafe impl Send for Connection {}
// SAFETY: as above.
unsafe impl Sync for Connection {}

impl Connection {
    /// Opens `uri` and keeps watch over it: broken after three silent intervals of five seconds.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn open(uri: &str) -> RawResult<Self> {
        let uri = c_text(uri)?;
        // SAFETY: a zero-terminated string that lives through the call.
        let pointer = unsafe { sys::virConnectOpen(uri.as_ptr()) };
        let pointer = NonNull::new(pointer).ok_or_else(RawError::last)?;
        let connection = Self {
            pointer,
            callbacks: vec![],
        };
        // A server without keep-alive answers 1; that is no error.
        // SAFETY: the connection is open.
        counted(unsafe { sys::virConnectSetKeepAlive(connection.raw(), 5, 3) })?;
        Ok(connection)
    }

    fn raw(&self) -> sys::virConnectPtr {
        self.pointer.as_ptr()
    }

    /// Whether the socket is still open. Asks nobody.
    pub(super) fn is_alive(&self) -> bool {
        // SAFETY: the connection is open.
        unsafe { sys::virConnectIsAlive(self.raw()) == 1 }
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
        let (mut library, mut hypervisor): (c_ulong, c_ulong) = (0, 0);
        // SAFETY: the connection is open and the place to write to is ours.
        counted(unsafe { sys::virConnectGetLibVersion(self.raw(), &raw mut library) })?;
        // SAFETY: as above.
        counted(unsafe { sys::virConnectGetVersion(self.raw(), &raw mut hypervisor) })?;
        // SAFETY: as above; the text is static.
        let kind = borrowed_text(unsafe { sys::virConnectGetType(self.raw()) });
        let dotted = |v: c_ulong| format!("{}.{}.{}", v / 1_000_000, v / 1000 % 1000, v % 1000);
        let kind = kind.unwrap_or_default();
        Ok((dotted(library), format!("{kind} {}", dotted(hypervisor))))
    }

    /// The machine as libvirt sees it. Its memory is left out: it is wrong on some machines.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn node_info(&self) -> RawResult<NodeInfo> {
        let mut info = sys::virNodeInfo {
            model: [0; 32],
            memory: 0,
            cpus: 0,
            mhz: 0,
            nodes: 0,
            sockets: 0,
            cores: 0,
            threads: 0,
        };
        // SAFETY: the connection is open and the place to write to is ours.
        counted(unsafe { sys::virNodeGetInfo(self.raw(), &raw mut info) })?;
        Ok(NodeInfo { cpus: info.cpus })
    }

    /// Capabilities XML.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn capabilities(&self) -> RawResult<String> {
        // SAFETY: the connection is open; the text is given away.
        owned_text(unsafe { sys::virConnectGetCapabilities(self.raw()) })
    }

    /// XML of every active network.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn active_networks(&self) -> RawResult<Vec<String>> {
        let mut array: *mut sys::virNetworkPtr = ptr::null_mut();
        // SAFETY: the connection is open and the place to write to is ours.
        let count = counted(unsafe {
            sys::virConnectListAllNetworks(
                self.raw(),
                &raw mut array,
                sys::VIR_CONNECT_LIST_NETWORKS_ACTIVE,
            )
        })?;
        let mut texts = vec![];
        for network in owned_array(array, count) {
            // SAFETY: a live handle out of the list; the text is given away.
            let text = owned_text(unsafe { sys::virNetworkGetXMLDesc(network.as_ptr(), 0) });
            // SAFETY: the handle is ours and not used again. Failing to free it harms nobody.
            let _ = unsafe { sys::virNetworkFree(network.as_ptr()) };
            // One that vanished between the calls is no error.
            texts.extend(text);
        }
        Ok(texts)
    }

    /// XML of every active storage pool.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn active_pools(&self) -> RawResult<Vec<String>> {
        let mut array: *mut sys::virStoragePoolPtr = ptr::null_mut();
        // SAFETY: the connection is open and the place to write to is ours.
        let count = counted(unsafe {
            sys::virConnectListAllStoragePools(
                self.raw(),
                &raw mut array,
                sys::VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE,
            )
        })?;
        let mut texts = vec![];
        for pool in owned_array(array, count) {
            // SAFETY: a live handle out of the list; the text is given away.
            let text = owned_text(unsafe { sys::virStoragePoolGetXMLDesc(pool.as_ptr(), 0) });
            // SAFETY: the handle is ours and not used again. Failing to free it harms nobody.
            let _ = unsafe { sys::virStoragePoolFree(pool.as_ptr()) };
            texts.extend(text);
        }
        Ok(texts)
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

    /// Guests without a definition of their own: they vanish when they stop.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn transient_guests(&self) -> RawResult<Vec<Domain>> {
        let mut array: *mut sys::virDomainPtr = ptr::null_mut();
        // SAFETY: the connection is open and the place to write to is ours.
        let count = counted(unsafe {
            sys::virConnectListAllDomains(
                self.raw(),
                &raw mut array,
                sys::VIR_CONNECT_LIST_DOMAINS_TRANSIENT,
            )
        })?;
        let handles = owned_array(array, count);
        Ok(handles.into_iter().map(Domain::owning).collect())
    }

    /// A guest by UUID or name; `None`: not here.
    ///
    /// # Errors
    /// libvirt's, but not "no such guest".
    pub(super) fn lookup(&self, target: LookupTarget<'_>) -> RawResult<Option<Domain>> {
        let pointer = match target {
            LookupTarget::Uuid(uuid) => {
                let uuid = c_text(uuid)?;
                // SAFETY: the connection is open; the text is zero-terminated and lives on.
                unsafe { sys::virDomainLookupByUUIDString(self.raw(), uuid.as_ptr()) }
            }
            LookupTarget::Name(name) => {
                let name = c_text(name)?;
                // SAFETY: as above.
                unsafe { sys::virDomainLookupByName(self.raw(), name.as_ptr()) }
            }
        };
        match NonNull::new(pointer) {
            Some(pointer) => Ok(Some(Domain::owning(pointer))),
            None => match RawError::last() {
                error if error.code == ERR_NO_DOMAIN => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Statistics of all guests, running or not. Guests that are busy are answered in part.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn all_stats(&self, groups: StatsGroups) -> RawResult<Vec<StatsRecord>> {
        let mut array: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
        // SAFETY: the connection is open and the place to write to is ours.
        let count = counted(unsafe {
            sys::virConnectGetAllDomainStats(
                self.raw(),
                groups.0,
                &raw mut array,
                sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT,
            )
        })?;
        if array.is_null() {
            return Ok(vec![]);
        }
        let length = usize::try_from(count).unwrap_or(0);
        // SAFETY: libvirt says that `count` records are there.
        let records = unsafe { std::slice::from_raw_parts(array, length) };
        let records = records.iter().filter_map(|&r| StatsRecord::copy(r));
        let records = records.collect();
        // SAFETY: libvirt's own function for this list; everything was copied out of it.
        unsafe { sys::virDomainStatsRecordListFree(array) };
        Ok(records)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        events::deregister(self.raw(), &self.callbacks);
        // The result is of no use: a broken connection cannot be closed better.
        // SAFETY: the handle is ours and not used again.
        let _ = unsafe { sys::virConnectClose(self.raw()) };
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
    /// Everything that reports hold.
    pub(super) const ALL: Self = Self(
        Self::FREQUENT.0
            | sys::VIR_DOMAIN_STATS_CPU_TOTAL
            | sys::VIR_DOMAIN_STATS_BLOCK
            | sys::VIR_DOMAIN_STATS_INTERFACE
            | sys::VIR_DOMAIN_STATS_DIRTYRATE,
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
    fn copy(record: sys::virDomainStatsRecordPtr) -> Option<Self> {
        let record = NonNull::new(record)?;
        // SAFETY: libvirt keeps the record alive until the list is freed.
        let record = unsafe { record.as_ref() };
        let domain = NonNull::new(record.dom)?;
        Some(Self {
            name: domain::name_of(domain),
            uuid: domain::uuid_of(domain)?,
            id: domain::id_of(domain),
            params: Params::copy(record.params, record.nparams),
        })
    }
}

/// Waits a little when the event loop fails, so that a failing one does not spin.
pub(super) const EVENT_LOOP_PAUSE: Duration = Duration::from_millis(200);
