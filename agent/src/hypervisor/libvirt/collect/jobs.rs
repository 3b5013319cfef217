//! Asks guests whether they migrate away, apart from the reading of counters.
//!
//! The question waits for libvirt's lock of the guest, for up to 30 s when its QEMU hangs. So the guests are
//! asked one after the other on a thread of its own; what it has not answered in time is left open, and the
//! guest that it waits for is not asked again for a while.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::on_a_thread;

/// Time for all questions of one reading; each takes about 1 ms.
const PATIENCE: Duration = Duration::from_millis(500);
/// Threads that may hang: each takes one of the five calls that libvirtd works on for a client.
const MOST_HANGING: usize = 1;
/// How long a guest that did not answer is not asked: twice as long as libvirt waits for its lock.
const REST: Duration = Duration::from_secs(60);

/// The questions; one per collector.
#[derive(Debug)]
pub(super) struct Jobs {
    patience: Duration,
    hanging: Arc<AtomicUsize>,
    /// Guests that did not answer, and when they were asked.
    silent: Mutex<HashMap<String, Instant>>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            patience: PATIENCE,
            hanging: Arc::default(),
            silent: Mutex::default(),
        }
    }
}

impl Jobs {
    /// Asks `guests` (UUIDs as text); a guest that is not among the answers has given none.
    pub(super) fn ask(
        &self,
        guests: BTreeSet<String>,
        migrates: impl Fn(&str) -> bool + Send + 'static,
    ) -> HashMap<String, bool> {
        let begun = Instant::now();
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|_, asked| begun.duration_since(*asked) < REST);
        let guests: Vec<_> = guests
            .into_iter()
            .filter(|guest| !silent.contains_key(guest))
            .collect();
        let (tell, told) = channel();
        let asked = guests.clone();
        let question = move || {
            for guest in asked {
                let answer = migrates(&guest);
                if tell.send((guest, answer)).is_err() {
                    return;
                }
            }
        };
        let mut answers = HashMap::new();
        if guests.is_empty() || !on_a_thread(&self.hanging, MOST_HANGING, question) {
            return answers;
        }
        while answers.len() < guests.len() {
            let Ok((guest, migrates)) =
                told.recv_timeout(self.patience.saturating_sub(begun.elapsed()))
            else {
                break;
            };
            answers.insert(guest, migrates);
        }
        if let Some(guest) = guests.iter().find(|guest| !answers.contains_key(*guest)) {
            tracing::debug!(
                guest,
                "does not say whether it has a job; left alone for a while"
            );
            silent.insert(guest.clone(), begun);
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    fn guests(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_guest_that_hangs_is_left_alone_and_the_others_are_asked() {
        // Enough for those that answer, however busy the machine is.
        let jobs = Jobs {
            patience: Duration::from_secs(3),
            ..Jobs::default()
        };
        let (release, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let begun = Instant::now();
        let answers = jobs.ask(guests(&["a", "b", "c"]), move |guest| {
            if guest == "b" {
                drop(wait.lock().map(|wait| wait.recv()));
            }
            guest == "a"
        });
        assert_eq!(answers, HashMap::from([("a".to_owned(), true)]));
        assert!(begun.elapsed() < Duration::from_secs(10), "it is bounded");
        assert_eq!(
            jobs.ask(guests(&["a"]), |_| true),
            HashMap::new(),
            "one hangs"
        );
        drop(release);
        while jobs.hanging.load(Ordering::Acquire) > 0 {
            std::thread::yield_now();
        }
        let answers = jobs.ask(guests(&["a", "b", "c"]), |_| false);
        let expected = ["a", "c"].map(|guest| (guest.to_owned(), false));
        assert_eq!(answers, HashMap::from(expected));
    }
}
