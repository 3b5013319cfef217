//! Opens the files that [`parse`](super::parse) understands.
//!
//! Their places are configurable, so that one cgroup or one namespace can be a host. A file that is not there
//! is no error: the sample says what it lacks.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::parse::{self, PressureTotals, Stalled};

/// More than any of these files holds.
const MOST_BYTES: u64 = 1 << 20;
const MIB: u64 = 1 << 20;

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
    /// Bytes received and sent by the machine's own interfaces since boot.
    pub net_bytes: Option<u64>,
    /// `None`: the kernel offers no pressure information.
    pub pressure: Option<PressureTotals>,
    /// Names of what could not be read: `no_cpu`, `no_memory`, `no_network`, `no_pressure`.
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

    /// Takes one sample. Blocks for as long as reading a few kernel files takes, well under a millisecond.
    #[must_use]
    pub fn read(&self) -> HostSample {
        let machine = self.proc("meminfo").and_then(|t| parse::meminfo(&t));
        let (total, used) = self.memory(machine);
        let sample = HostSample {
            cpu_used_us: self.cpu_used_us(),
            memory_total_mib: total,
            memory_available_mib: total.zip(used).map(|(t, u)| t.saturating_sub(u)),
            swap_used_mib: machine.map(|m| m.swap_used_mib),
            net_bytes: self.proc("net/dev").and_then(|t| parse::net_bytes(&t)),
            pressure: self.pressure(),
            troubles: vec![],
        };
        let troubles = [
            (sample.cpu_used_us.is_none(), "no_cpu"),
            (sample.memory_available_mib.is_none(), "no_memory"),
            (sample.net_bytes.is_none(), "no_network"),
            (sample.pressure.is_none(), "no_pressure"),
        ];
        let troubles = troubles.into_iter().filter(|(bad, _)| *bad);
        HostSample {
            troubles: troubles.map(|(_, name)| name).collect(),
            ..sample
        }
    }

    fn proc(&self, name: &str) -> Option<String> {
        read(&self.sources.proc.join(name))
    }

    fn cgroup(&self, name: &str) -> Option<String> {
        read(&self.sources.cgroup.as_ref()?.join(name))
    }

    fn cpu_used_us(&self) -> Option<u64> {
        if self.sources.cgroup.is_some() {
            self.cgroup("cpu.stat")
                .and_then(|t| parse::cgroup_cpu_us(&t))
        } else {
            self.proc("stat").and_then(|t| parse::stat_cpu_us(&t))
        }
    }

    /// Total and used, MiB. A configured capacity beats a cgroup's limit, which beats the machine's size.
    fn memory(&self, machine: Option<parse::Memory>) -> (Option<u64>, Option<u64>) {
        let configured = self.sources.memory_capacity_mib;
        let size = machine.map(|m| m.total_mib);
        if self.sources.cgroup.is_none() {
            let used = machine.map(|m| m.total_mib.saturating_sub(m.available_mib));
            return (configured.or(size), used);
        }
        let first = |names: [&str; 2]| {
            names
                .into_iter()
                .find_map(|n| self.cgroup(n).and_then(|t| parse::number(&t)))
        };
        let held = first(["memory.current", "memory.usage_in_bytes"]);
        // An unlimited version 1 group names a number near 2^63.
        let limit = first(["memory.max", "memory.limit_in_bytes"])
            .map(|bytes| bytes / MIB)
            .filter(|&limit| size.is_none_or(|size| limit <= size));
        let used = held.map(|bytes| bytes.saturating_sub(self.droppable_bytes()) / MIB);
        (configured.or(limit).or(size), used)
    }

    /// Page cache of the cgroup that the kernel would drop at once.
    fn droppable_bytes(&self) -> u64 {
        let text = self.cgroup("memory.stat").unwrap_or_default();
        parse::named_number(&text, "total_inactive_file")
            .or_else(|| parse::named_number(&text, "inactive_file"))
            .unwrap_or(0)
    }

    fn pressure(&self) -> Option<PressureTotals> {
        let of = |resource: &str| -> Option<Stalled> {
            let directory = &self.sources.pressure;
            let text = read(&directory.join(resource))
                .or_else(|| read(&directory.join(format!("{resource}.pressure"))))?;
            parse::stalled(&text)
        };
        let (cpu, memory, io) = (of("cpu"), of("memory"), of("io"));
        if cpu.is_none() && memory.is_none() && io.is_none() {
            return None;
        }
        Some(PressureTotals {
            cpu: cpu.unwrap_or_default(),
            memory: memory.unwrap_or_default(),
            io: io.unwrap_or_default(),
        })
    }
}

/// A file's text, at most [`MOST_BYTES`] of it; `None`: not there or not readable (pressure that was switched
/// off at boot can be opened but not read).
fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let sources = Sources {
            proc: directory.path().join("proc"),
            pressure: directory.path().join("cgroup"),
            cgroup: Some(directory.path().join("cgroup")),
            memory_capacity_mib: None,
        };
        (directory, sources)
    }

    #[test]
    fn an_empty_host_is_all_trouble_and_no_error() {
        let (_directory, sources) = host(&[]);
        let sample = HostReader::new(sources).read();
        assert_eq!(
            sample.troubles,
            ["no_cpu", "no_memory", "no_network", "no_pressure"]
        );
        assert_eq!(sample.pressure, None);
    }

    #[test]
    fn a_cgroup_can_be_the_host() {
        let (_directory, sources) = host(&[
            (
                "proc/meminfo",
                "MemTotal: 1048576 kB\nMemAvailable: 1048576 kB\n",
            ),
            ("proc/net/dev", "eth0: 100 1 0 0 0 0 0 0 20 1\n"),
            ("cgroup/cpu.stat", "usage_usec 5000000\n"),
            ("cgroup/memory.current", "104857600\n"),
            ("cgroup/memory.stat", "anon 5\ninactive_file 52428800\n"),
            ("cgroup/memory.max", "9223372036854771712\n"),
            ("cgroup/cpu.pressure", "some avg10=0 total=7\n"),
        ]);
        let sample = HostReader::new(sources.clone()).read();
        assert_eq!(sample.cpu_used_us, Some(5_000_000));
        assert_eq!(sample.memory_total_mib, Some(1024));
        assert_eq!(sample.memory_available_mib, Some(1024 - 50));
        assert_eq!(sample.net_bytes, Some(120));
        assert_eq!(sample.pressure.unwrap().cpu.some_us, 7);
        assert!(sample.troubles.is_empty());
        let sources = Sources {
            memory_capacity_mib: Some(256),
            ..sources
        };
        let sample = HostReader::new(sources).read();
        assert_eq!(sample.memory_available_mib, Some(256 - 50));
    }

    #[test]
    fn a_whole_machine_can_be_the_host() {
        let (_directory, sources) = host(&[
            (
                "proc/meminfo",
                "MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n",
            ),
            ("proc/stat", "cpu  100 0 0 900 0 0 0 0 0 0\n"),
            ("cgroup/cpu", "some avg10=0 total=7\n"),
        ]);
        let sources = Sources {
            cgroup: None,
            ..sources
        };
        let sample = HostReader::new(sources).read();
        assert_eq!(sample.cpu_used_us, Some(1_000_000));
        assert_eq!(sample.memory_available_mib, Some(512));
        assert_eq!(sample.pressure.unwrap().cpu.some_us, 7);
    }
}
