//! Events: C callbacks that hand a copied value to a [`Sink`] and never unwind. virt binds none of these.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use virt::sys;

use super::domain::lent;
use super::params::Params;
use super::{RawResult, counted};

/// Something that libvirt pushed. Guests by UUID as text.
#[derive(Debug, Clone)]
pub(in super::super) enum RawEvent {
    /// `virDomainEventType` and its detail.
    Lifecycle {
        guest: String,
        event: i32,
        detail: i32,
    },
    /// Metadata, devices or limits of a running guest changed.
    Edited { guest: String },
    /// A copy began another pass over the memory.
    Iteration { guest: String },
    /// A job is over; its final figures.
    JobCompleted { guest: String, figures: Params },
    /// The connection broke.
    Closed,
}

/// Where events go. Called on the event loop's thread: must be quick and must not call libvirt.
pub(in super::super) type Sink = Arc<dyn Fn(RawEvent) + Send + Sync>;

/// A sink as an opaque pointer for libvirt, freed by [`free_sink`].
fn opaque(sink: &Sink) -> *mut c_void {
    Box::into_raw(Box::new(Arc::clone(sink))).cast()
}

unsafe extern "C" fn free_sink(opaque: *mut c_void) {
    // SAFETY: `opaque` was made by the function of that name, and libvirt frees it once.
    let sink = unsafe { Box::from_raw(opaque.cast::<Sink>()) };
    let _ = catch_unwind(AssertUnwindSafe(move || drop(sink)));
}

/// UUID of the guest that an event is about.
///
/// # Safety
/// `domain` must be null or live.
unsafe fn guest_of(domain: sys::virDomainPtr) -> Option<String> {
    // SAFETY: the caller's promise; the view ends here.
    unsafe { lent(NonNull::new(domain)?) }.uuid_string().ok()
}

/// Calls the sink behind `opaque`. A panic would cross C code, so it ends here.
///
/// # Safety
/// `opaque` must come from [`opaque`] and must not have been freed.
unsafe fn emit(opaque: *mut c_void, event: RawEvent) {
    // SAFETY: the caller's promise.
    let sink = unsafe { &*opaque.cast::<Sink>() };
    let _ = catch_unwind(AssertUnwindSafe(|| sink(event)));
}

/// Emits what happened to a guest.
///
/// # Safety
/// As for [`emit`]; `domain` must be null or live.
unsafe fn emit_of(
    domain: sys::virDomainPtr,
    opaque: *mut c_void,
    event: impl FnOnce(String) -> RawEvent,
) {
    // SAFETY: the caller's promise.
    if let Some(guest) = unsafe { guest_of(domain) } {
        // SAFETY: as above.
        unsafe { emit(opaque, event(guest)) };
    }
}

unsafe extern "C" fn on_lifecycle(
    _connection: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let event = |guest| RawEvent::Lifecycle {
        guest,
        event,
        detail,
    };
    // SAFETY: registered together with a sink; libvirt lends the guest for the time of this call.
    unsafe { emit_of(domain, opaque, event) };
    0
}

unsafe extern "C" fn on_iteration(
    _connection: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _iteration: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { emit_of(domain, opaque, |guest| RawEvent::Iteration { guest }) };
}

unsafe extern "C" fn on_metadata(
    _connection: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _kind: c_int,
    _namespace: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { emit_of(domain, opaque, |guest| RawEvent::Edited { guest }) };
}

unsafe extern "C" fn on_device(
    _connection: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { emit_of(domain, opaque, |guest| RawEvent::Edited { guest }) };
}

unsafe extern "C" fn on_tunable(
    _connection: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _params: sys::virTypedParameterPtr,
    _count: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { emit_of(domain, opaque, |guest| RawEvent::Edited { guest }) };
}

unsafe extern "C" fn on_job_completed(
    _connection: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    params: sys::virTypedParameterPtr,
    count: c_int,
    opaque: *mut c_void,
) {
    let figures = Params::copy(params, count);
    // SAFETY: as in `on_lifecycle`.
    unsafe {
        emit_of(domain, opaque, |guest| RawEvent::JobCompleted {
            guest,
            figures,
        })
    };
}

unsafe extern "C" fn on_close(
    _connection: sys::virConnectPtr,
    _reason: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: registered together with a sink.
    unsafe { emit(opaque, RawEvent::Closed) };
}

/// A callback in the one type that libvirt takes for all kinds of events.
type Generic = sys::virConnectDomainEventGenericCallback;

type Lifecycle =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type Iteration = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, *mut c_void);
type WithParams = unsafe extern "C" fn(
    sys::virConnectPtr,
    sys::virDomainPtr,
    sys::virTypedParameterPtr,
    c_int,
    *mut c_void,
);
type Device =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);
type Metadata =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, *const c_char, *mut c_void);

/// Every event that is listened to, with its callback.
fn callbacks() -> [(c_uint, Generic); 7] {
    // SAFETY: libvirt casts each callback back to the type that belongs to its event id (its own
    // VIR_DOMAIN_EVENT_CALLBACK macro does this cast); all are plain function pointers.
    unsafe {
        let lifecycle = std::mem::transmute::<Option<Lifecycle>, Generic>(Some(on_lifecycle));
        let iteration = std::mem::transmute::<Option<Iteration>, Generic>(Some(on_iteration));
        let completed = std::mem::transmute::<Option<WithParams>, Generic>(Some(on_job_completed));
        let tunable = std::mem::transmute::<Option<WithParams>, Generic>(Some(on_tunable));
        let device = std::mem::transmute::<Option<Device>, Generic>(Some(on_device));
        let metadata = std::mem::transmute::<Option<Metadata>, Generic>(Some(on_metadata));
        [
            (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle),
            (sys::VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, iteration),
            (sys::VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, completed),
            (sys::VIR_DOMAIN_EVENT_ID_TUNABLE, tunable),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, device),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, device),
            (sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, metadata),
        ]
    }
}

/// Registers all callbacks; their ids are added to `ids` as they come, also when a later one fails.
pub(super) fn register(
    connection: sys::virConnectPtr,
    sink: &Sink,
    ids: &mut Vec<c_int>,
) -> RawResult<()> {
    for (event, callback) in callbacks() {
        let event = c_int::try_from(event)?;
        let opaque = opaque(sink);
        // SAFETY: an open connection, a callback of the right kind, and a sink that libvirt frees.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(
                connection,
                ptr::null_mut(),
                event,
                callback,
                opaque,
                Some(free_sink),
            )
        };
        let id = counted(id).inspect_err(|_| {
            // SAFETY: libvirt did not take the sink, so it is still ours.
            unsafe { free_sink(opaque) };
        })?;
        ids.push(id);
    }
    register_close(connection, sink)
}

fn register_close(connection: sys::virConnectPtr, sink: &Sink) -> RawResult<()> {
    let opaque = opaque(sink);
    // SAFETY: as for the other callbacks.
    let result = unsafe {
        sys::virConnectRegisterCloseCallback(connection, Some(on_close), opaque, Some(free_sink))
    };
    counted(result).map(drop).inspect_err(|_| {
        // SAFETY: libvirt did not take the sink, so it is still ours.
        unsafe { free_sink(opaque) };
    })
}

/// Takes all callbacks back, so that the connection can be freed. Failures are of no use: on a broken
/// connection the server's part is gone already, and the client's part is removed first.
pub(super) fn deregister(connection: sys::virConnectPtr, ids: &[c_int]) {
    for &id in ids {
        // SAFETY: an open (perhaps broken) connection, and an id that it gave out.
        let _ = unsafe { sys::virConnectDomainEventDeregisterAny(connection, id) };
    }
    if !ids.is_empty() {
        // SAFETY: as above; the callback is the one that was registered.
        let _ = unsafe { sys::virConnectUnregisterCloseCallback(connection, Some(on_close)) };
    }
}
