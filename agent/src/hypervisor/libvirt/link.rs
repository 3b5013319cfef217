//! The connection to libvirtd: kept by one thread, which opens it again whenever it broke.
//!
//! Callers take the current [`Session`] and get `Unreachable` at once while there is none. Each change of
//! state is logged and announced once, however many attempts lie between.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use super::raw::{Connection, RawError, RawResult, Sink};
use crate::hypervisor::{HypervisorError, HypervisorEvent};

/// First pause between attempts; doubled up to [`LONGEST_PAUSE`], and each drawn between half and whole of it
/// so that agents do not return in step.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A libvirtd that was started again is found within this time. Longer would spare nothing: an attempt on a
/// missing socket costs microseconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// An open connection is looked at this often, in case its end was not announced.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// One life of the connection. Statistics have a socket of their own: libvirtd works on five calls of a
/// client at a time, and calls that a stopped QEMU blocks must not keep a migration from being aborted.
#[derive(Debug)]
pub(super) struct Session {
    /// For everything but statistics.
    pub(super) control: Connection,
    /// For statistics.
    pub(super) stats: Connection,
}

impl Session {
    fn open(uri: &str, sink: &Sink) -> RawResult<Self> {
        let mut control = Connection::open(uri)?;
        control.watch(sink)?;
        let stats = Connection::open(uri)?;
        Ok(Self { control, stats })
    }

    fn is_alive(&self) -> bool {
        self.control.is_alive() && self.stats.is_alive()
    }
}

#[derive(Debug)]
enum State {
    Up(Arc<Session>),
    Down(String),
}

/// What wakes the thread that keeps the connection.
#[derive(Debug)]
enum Signal {
    /// The connection may have broken.
    Look,
    /// The adapter is being dropped.
    Stop,
}

/// The connection as callers see it.
#[derive(Debug)]
pub(super) struct Link {
    state: Mutex<State>,
    signal: SyncSender<Signal>,
}

/// The keeping thread's end.
#[derive(Debug)]
pub(super) struct Keeper {
    signals: Receiver<Signal>,
}

impl Link {
    /// A link that is down, and the end that [`Link::keep`] needs.
    pub(super) fn new() -> (Arc<Self>, Keeper) {
        let (signal, signals) = sync_channel(16);
        let state = Mutex::new(State::Down("not connected yet".into()));
        (Arc::new(Self { state, signal }), Keeper { signals })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current session.
    ///
    /// # Errors
    /// `Unreachable` while there is none.
    pub(super) fn session(&self) -> Result<Arc<Session>, HypervisorError> {
        match &*self.state() {
            State::Up(session) => Ok(Arc::clone(session)),
            State::Down(detail) => Err(HypervisorError::Unreachable {
                detail: detail.clone(),
            }),
        }
    }

    /// Whether there is a session.
    pub(super) fn is_up(&self) -> bool {
        matches!(&*self.state(), State::Up(_))
    }

    /// Asks the keeper to look at the connection. Never blocks; a full queue holds enough such wishes.
    pub(super) fn look(&self) {
        let _ = self.signal.try_send(Signal::Look);
    }

    /// Ends the keeper.
    pub(super) fn stop(&self) {
        let _ = self.signal.try_send(Signal::Stop);
    }

    /// What a failed call on `session` means to a caller.
    pub(super) fn failure(&self, session: &Session, error: RawError) -> HypervisorError {
        if session.is_alive() {
            return HypervisorError::Failed {
                code: error.code,
                domain: error.domain,
                detail: error.message,
            };
        }
        self.look();
        HypervisorError::Unreachable {
            detail: error.message,
        }
    }

    /// Keeps the connection until stopped: the body of one thread.
    pub(super) fn keep(
        &self,
        uri: &str,
        keeper: &Keeper,
        sink: &Sink,
        tell: impl Fn(HypervisorEvent),
    ) {
        let mut pause = FIRST_PAUSE;
        let mut said_down = false;
        loop {
            match Session::open(uri, sink) {
                Ok(session) => {
                    info!(uri, "connected to libvirt");
                    (pause, said_down) = (FIRST_PAUSE, true);
                    let session = Arc::new(session);
                    *self.state() = State::Up(Arc::clone(&session));
                    tell(HypervisorEvent::Connected);
                    let stopped = watch_over(&session, keeper);
                    *self.state() = State::Down("libvirt went away".into());
                    tell(HypervisorEvent::ConnectionLost);
                    if stopped {
                        return;
                    }
                    warn!(uri, "libvirt went away; reconnecting");
                }
                Err(error) => {
                    if !said_down {
                        warn!(uri, %error, "libvirt does not answer; retrying");
                        said_down = true;
                    }
                    *self.state() = State::Down(error.message);
                }
            }
            if rest(keeper, pause) {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Returns when the session is dead (`false`) or the adapter stops (`true`).
fn watch_over(session: &Session, keeper: &Keeper) -> bool {
    while session.is_alive() {
        match keeper.signals.recv_timeout(LOOK_AGAIN) {
            Ok(Signal::Look) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
        }
    }
    false
}

/// Waits between two attempts; `true`: the adapter stops.
fn rest(keeper: &Keeper, pause: Duration) -> bool {
    let until = std::time::Instant::now() + pause.mul_f64(rand::random_range(0.5..1.0));
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        match keeper.signals.recv_timeout(left) {
            Ok(Signal::Look) => {}
            Err(RecvTimeoutError::Timeout) => return false,
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
        }
    }
}
