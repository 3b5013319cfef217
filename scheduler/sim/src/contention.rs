//! What guests lose to each other on a host: vCPUs that want to run and wait.
//!
//! Within a tick each vCPU runs or sleeps by chance, so that the number of runnable ones varies around what is wanted:
//! its mean is the demand, its variance Σ v·p·(1 − p). The waiting ones are counted over that distribution, summed
//! numerically. Variation from tick to tick is not in here: the load brings that itself.

/// Deviations to either side that are looked at, and steps per deviation.
const REACH: f64 = 4.0;
const STEPS: u32 = 32;
/// Share of a host's memory that may be in use before it stalls, and the stalled share of time when all of it is.
const MEMORY_EDGE: f64 = 0.97;
const STALL_AT_FULL: f64 = 0.2;

/// What runs on a host in a tick.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Crowd {
    /// Wanted by guests, cores.
    pub(crate) wanted: f64,
    /// Σ v·p·(1 − p), cores².
    pub(crate) variance: f64,
    /// vCPUs of running guests.
    pub(crate) vcpus: f64,
    /// Memory that is in use, MiB.
    pub(crate) active_mib: f64,
}

impl Crowd {
    /// A guest comes in.
    pub(crate) fn add(&mut self, wanted: f64, vcpus: f64, active_mib: f64) {
        let share = (wanted / vcpus.max(1.0)).min(1.0);
        self.wanted += wanted;
        self.variance += vcpus * share * (1.0 - share);
        self.vcpus += vcpus;
        self.active_mib += active_mib;
    }

    /// Share of what guests want that they do not get, for CPU and for memory.
    ///
    /// `own` is what the host itself uses, cores.
    pub(crate) fn starved(&self, cores: f64, memory_mib: f64, own: f64) -> f64 {
        if self.wanted <= 0.0 {
            return 0.0;
        }
        let all = self.wanted + own;
        let waiting = waiting(all, self.variance, cores, self.vcpus + own);
        let cpu = (waiting / all).min(1.0);
        1.0 - (1.0 - cpu) * (1.0 - self.stalled(memory_mib))
    }

    fn stalled(&self, memory_mib: f64) -> f64 {
        let edge = MEMORY_EDGE * memory_mib;
        if self.active_mib <= edge || memory_mib <= 0.0 {
            return 0.0;
        }
        (STALL_AT_FULL * (self.active_mib - edge) / (memory_mib - edge)).min(1.0)
    }
}

/// Mean number of runnable vCPUs beyond `cores`, of at most `most`.
fn waiting(mean: f64, variance: f64, cores: f64, most: f64) -> f64 {
    let deviation = variance.max(0.0).sqrt();
    if mean + REACH * deviation <= cores {
        return 0.0;
    }
    let width = 2.0 * REACH / f64::from(STEPS);
    let (mut sum, mut weights) = (0.0, 0.0);
    for step in 0..=STEPS {
        let z = f64::from(step) * width - REACH;
        let weight = (-0.5 * z * z).exp();
        weights += weight;
        sum += weight * ((mean + z * deviation).min(most) - cores).max(0.0);
    }
    sum / weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_on_an_idle_host_and_the_excess_waits_on_a_full_one() {
        assert_eq!(waiting(2.0, 1.0, 8.0, 20.0), 0.0);
        assert!((waiting(12.0, 0.0, 8.0, 20.0) - 4.0).abs() < 1e-12);
        // At the edge: deviation × φ(0).
        let edge = waiting(8.0, 4.0, 8.0, 40.0);
        assert!((edge - 2.0 * 0.398_942).abs() < 0.01, "{edge}");
        assert_eq!(
            waiting(4.0, 1.0, 4.0, 4.0),
            0.0,
            "there are no more vCPUs than cores"
        );
    }

    #[test]
    fn what_guests_lose_grows_with_the_crowd_and_when_memory_is_short() {
        let mut crowd = Crowd::default();
        let mut before = 0.0;
        for _ in 0..12 {
            crowd.add(1.0, 2.0, 100.0);
            let starved = crowd.starved(8.0, 4000.0, 0.1);
            assert!(starved >= before && starved < 1.0, "{starved}");
            before = starved;
        }
        assert!(before > 0.3);
        let short = crowd.starved(8.0, 1200.0, 0.1);
        assert!((1.0 - short) < (1.0 - before) * 0.81, "{short}");
        assert_eq!(Crowd::default().starved(8.0, 100.0, 9.0), 0.0);
    }
}
