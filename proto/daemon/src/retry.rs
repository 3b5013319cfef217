//! Waiting between attempts: exponential with full jitter, so that a fleet that lost etcd does not come
//! back as a herd.

use std::time::Duration;

use rand::RngExt;

/// Exponential backoff; deterministic in its ceiling, random below it.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Starts at `first` and doubles up to `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            ceiling: first,
        }
    }

    /// How long to wait before the next attempt: between half of the ceiling and the ceiling.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(self.most);
        ceiling.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// After a success: start small again.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

impl Default for Backoff {
    /// 200 ms … 5 s: quick enough that a restart of etcd is not felt, slow enough not to hammer it.
    fn default() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_start_again_after_a_reset() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, most);
        let waits: Vec<Duration> = (0..20).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] <= first);
        assert!(waits.iter().all(|w| *w <= most));
        assert!(waits[10..].iter().all(|w| *w >= most / 2));
        backoff.reset();
        assert!(backoff.next_wait() <= first);
    }
}
