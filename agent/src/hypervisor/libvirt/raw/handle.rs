//! virt's handles without virt's way of dropping them.

use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::ops::Deref;

use tracing::debug;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::network::Network;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;
use virt::sys;

use super::RawError;

/// A handle of virt's, given back to libvirt when dropped.
///
/// virt's own `Drop` panics when libvirt does not take the handle back. libvirt 9.0 does take it back, also after
/// its daemon was killed, but documents that it need not, and a panic during another one ends the process.
///
/// **Invariant:** each handle is released exactly once (`a_refused_handle_is_released_once_and_does_not_panic`).
#[derive(Debug)]
pub(super) struct Handle<T: Release>(ManuallyDrop<T>);

impl<T: Release> Handle<T> {
    /// Takes a handle over from virt.
    pub(super) fn new(handle: T) -> Self {
        Self(ManuallyDrop::new(handle))
    }
}

impl<T: Release> Deref for Handle<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Release> Drop for Handle<T> {
    fn drop(&mut self) {
        // SAFETY: the only call, at the end of the only owner's life; virt's `Drop` never runs.
        if unsafe { self.0.release() } < 0 {
            debug!(error = %RawError::last(), "libvirt did not take a handle back");
        }
    }
}

/// What libvirt takes back.
pub(super) trait Release {
    /// Gives the handle back; negative: libvirt refused.
    ///
    /// # Safety
    /// To be called once; the handle must be neither used nor dropped afterwards.
    unsafe fn release(&self) -> c_int;
}

macro_rules! release {
    ($($handle:ty => $free:ident),* $(,)?) => {
        $(impl Release for $handle {
            unsafe fn release(&self) -> c_int {
                // SAFETY: virt's handles are live until freed, and the caller promises that this is the end.
                unsafe { sys::$free(self.as_ptr()) }
            }
        })*
    };
}

release! {
    Connect => virConnectClose,
    Domain => virDomainFree,
    Network => virNetworkFree,
    StoragePool => virStoragePoolFree,
    StorageVol => virStorageVolFree,
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    struct Refused<'a>(&'a Cell<u32>);

    impl Release for Refused<'_> {
        unsafe fn release(&self) -> c_int {
            self.0.set(self.0.get() + 1);
            -1
        }
    }

    #[test]
    fn a_refused_handle_is_released_once_and_does_not_panic() {
        super::super::initialise().unwrap();
        let released = Cell::new(0);
        drop(Handle::new(Refused(&released)));
        assert_eq!(released.get(), 1);
    }

    #[test]
    fn a_guest_outlives_the_handle_of_its_connection() {
        let connection = Handle::new(Connect::open(Some("test:///default")).unwrap());
        let guest = Handle::new(connection.lookup_domain_by_name("test").unwrap());
        drop(connection);
        assert_eq!(guest.name().unwrap(), "test");
    }
}
