//! Labs share one machine's cores: so many at a time, and those that measure load are alone.

use std::sync::{Condvar, Mutex, PoisonError};

/// Shares of the machine in all.
const SHARES: usize = 3;

static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// How much of the machine a lab wants for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Two others may run beside it.
    Third,
    /// All: pressure or CPU time is measured.
    Whole,
}

/// A place on the machine, given back when dropped.
#[derive(Debug)]
pub struct Turn(usize);

impl Turn {
    /// Waits until there is room.
    #[must_use]
    pub fn take(share: Share) -> Self {
        let wanted = match share {
            Share::Third => 1,
            Share::Whole => SHARES,
        };
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = GIVEN_BACK
            .wait_while(taken, |taken| *taken + wanted > SHARES)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += wanted;
        Self(wanted)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        GIVEN_BACK.notify_all();
    }
}
