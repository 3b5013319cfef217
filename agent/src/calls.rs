//! Hypervisor calls from async code: each on a thread that may block, with a deadline, and bounded in number.
//!
//! A call whose time is over goes on in its thread (libvirt cannot be interrupted) and keeps its permit, so a
//! hypervisor that hangs uses up the permits and is then answered for with "unreachable" at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::hypervisor::{Hypervisor, HypervisorError};

/// Short calls under way at one time. libvirt answers them in milliseconds; more than a few mean that it hangs.
const AT_ONCE: usize = 16;
/// How long a short call may take: libvirt gives up on a stuck QEMU's monitor after 30 s, nobody waits that long.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// A hypervisor that can be asked from async code. Cheap to clone.
#[derive(Debug)]
pub struct Calls<H> {
    hypervisor: Arc<H>,
    permits: Arc<Semaphore>,
}

impl<H> Clone for Calls<H> {
    fn clone(&self) -> Self {
        Self {
            hypervisor: Arc::clone(&self.hypervisor),
            permits: Arc::clone(&self.permits),
        }
    }
}

fn unreachable(detail: String) -> HypervisorError {
    HypervisorError::Unreachable { detail }
}

impl<H: Hypervisor> Calls<H> {
    /// Wraps a hypervisor.
    #[must_use]
    pub fn new(hypervisor: Arc<H>) -> Self {
        Self {
            hypervisor,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The hypervisor itself, for what does not block and for a migration's own thread.
    #[must_use]
    pub fn hypervisor(&self) -> &Arc<H> {
        &self.hypervisor
    }

    /// Makes one short call within [`DEADLINE`].
    ///
    /// # Errors
    /// What the hypervisor said; `Unreachable` when it did not answer in time.
    pub async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&H) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        self.call_within(DEADLINE, call).await
    }

    /// Makes one call within `deadline`.
    ///
    /// # Errors
    /// As [`Calls::call`].
    pub async fn call_within<T: Send + 'static>(
        &self,
        deadline: Duration,
        call: impl FnOnce(&H) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Err(unreachable(format!("{AT_ONCE} calls hang")));
        };
        let hypervisor = Arc::clone(&self.hypervisor);
        let answer = tokio::task::spawn_blocking(move || {
            let answer = call(&hypervisor);
            drop(permit);
            answer
        });
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Err(unreachable(format!("call did not finish: {error}"))),
            Err(_) => Err(unreachable(format!("no answer within {deadline:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::fake::FakeWorld;

    #[tokio::test]
    async fn a_hanging_call_is_given_up_and_when_all_hang_nobody_waits() {
        let calls = Calls::new(FakeWorld::new().host("h1"));
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        for _ in 0..AT_ONCE {
            let gate = Arc::clone(&gate);
            let hang = move |_: &_| {
                drop(gate.lock().map(|g| g.recv()));
                Ok(())
            };
            let answer = calls.call_within(Duration::from_millis(5), hang).await;
            assert!(matches!(answer, Err(HypervisorError::Unreachable { .. })));
        }
        let refused = calls.call(|h| h.host_facts()).await.unwrap_err();
        assert!(refused.to_string().contains("hang"), "{refused}");
        drop(release);
    }
}
