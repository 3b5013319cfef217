//! Parsers of the kernel's text files: pure, bounded, total.
//!
//! Every function takes whatever text there is and answers `None` for what is not in it: kernels differ, and a
//! file may be empty, truncated or somebody else's. Numbers that do not fit are taken as missing.

/// Lines that are looked at: more than any of these files has on the largest machine.
const MOST_LINES: usize = 4096;
/// `USER_HZ`: the unit of `/proc/stat` on every architecture that runs KVM, in µs.
const TICK_US: u64 = 10_000;
/// Interfaces that carry what another one carries too, or that belong to a guest: counting them would count
/// the same bytes twice.
const NOT_COUNTED: [&str; 14] = [
    "lo", "vnet", "tap", "tun", "macvtap", "macvlan", "veth", "docker", "virbr", "br", "bond",
    "team", "ovs", "dummy",
];

/// Microseconds that tasks were stalled since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stalled {
    /// At least one task waited, µs.
    pub some_us: u64,
    /// All tasks waited, µs; `None` where the kernel has no such line (cpu before 5.13).
    pub full_us: Option<u64>,
}

/// Pressure of one host or cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PressureTotals {
    /// Waiting for a CPU.
    pub cpu: Stalled,
    /// Waiting for memory.
    pub memory: Stalled,
    /// Waiting for block I/O.
    pub io: Stalled,
}

/// Memory of the machine, MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// `MemTotal`
    pub total_mib: u64,
    /// `MemAvailable`
    pub available_mib: u64,
    /// `SwapTotal` − `SwapFree`
    pub swap_used_mib: u64,
}

/// Reads a pressure file; `None`: no `some` line, so pressure is off or this is something else.
#[must_use]
pub fn stalled(text: &str) -> Option<Stalled> {
    let total = |kind: &str| {
        let line = lines(text).find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let total = line
            .split_ascii_whitespace()
            .find_map(|w| w.strip_prefix("total="))?;
        total.parse().ok()
    };
    Some(Stalled {
        some_us: total("some")?,
        full_us: total("full"),
    })
}

/// Reads `/proc/meminfo`. Kernels before 3.14 lack `MemAvailable`; what is free stands for it.
#[must_use]
pub fn meminfo(text: &str) -> Option<Memory> {
    let mib = |name: &str| {
        let line = lines(text).find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
        Some(kib / 1024)
    };
    let total_mib = mib("MemTotal").filter(|&total| total > 0)?;
    let available = mib("MemAvailable").or_else(|| mib("MemFree"))?;
    let swap_free = mib("SwapFree").unwrap_or(0);
    Some(Memory {
        total_mib,
        available_mib: available.min(total_mib),
        swap_used_mib: mib("SwapTotal").unwrap_or(0).saturating_sub(swap_free),
    })
}

/// CPU time used by everything since boot, µs, from `/proc/stat`: idle, waiting for I/O and stolen time are
/// not use. Guests' time is within `user` already.
#[must_use]
pub fn stat_cpu_us(text: &str) -> Option<u64> {
    let line = lines(text).find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Option<Vec<u64>> = line
        .split_ascii_whitespace()
        .take(7)
        .map(|number| number.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq] = ticks?[..] else {
        return None;
    };
    let used = [user, nice, system, irq, softirq].into_iter();
    used.fold(0, u64::saturating_add).checked_mul(TICK_US)
}

/// CPU time used by a cgroup, µs, from `cpu.stat` of version 2.
#[must_use]
pub fn cgroup_cpu_us(text: &str) -> Option<u64> {
    named_number(text, "usage_usec")
}

/// A line `name number`, as cgroup files have them.
#[must_use]
pub fn named_number(text: &str, name: &str) -> Option<u64> {
    let line = lines(text).find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// A file that holds one number; `max` and the like are `None`.
#[must_use]
pub fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Bytes received and sent by the machine's own interfaces, from `/proc/net/dev`.
#[must_use]
pub fn net_bytes(text: &str) -> Option<u64> {
    let mut seen = false;
    let mut sum = 0_u64;
    for line in lines(text) {
        let Some((name, figures)) = line.split_once(':') else {
            continue;
        };
        seen = true;
        let name = name.trim();
        // VLANs (`eth0.5`) are part of the interface below them.
        if name.contains('.') || NOT_COUNTED.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        let figures: Vec<u64> = figures
            .split_ascii_whitespace()
            .take(9)
            .map(|number| number.parse().unwrap_or(0))
            .collect();
        for at in [0, 8] {
            sum = sum.saturating_add(figures.get(at).copied().unwrap_or(0));
        }
    }
    seen.then_some(sum)
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take(MOST_LINES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pressure_is_read_with_and_without_full() {
        let both = "some avg10=1.01 avg60=2.08 avg300=1.62 total=9625037\n\
                    full avg10=0.52 avg60=1.45 avg300=1.18 total=7561329\n";
        let read = |some_us, full_us| Some(Stalled { some_us, full_us });
        assert_eq!(stalled(both), read(9_625_037, Some(7_561_329)));
        assert_eq!(stalled("some avg10=0.00 total=5"), read(5, None));
        assert_eq!(stalled(""), None);
        assert_eq!(stalled("full avg10=0.00 total=5"), None);
        assert_eq!(stalled("some total=99999999999999999999999"), None);
        assert_eq!(stalled("something total=5"), None);
    }

    #[test]
    fn memory_is_what_the_kernel_can_give() {
        let text = "MemTotal: 524288 kB\nMemFree: 1024 kB\nMemAvailable: 262144 kB\n\
                    SwapTotal: 4096 kB\nSwapFree: 2048 kB\n";
        let memory = |available_mib, swap_used_mib| {
            Some(Memory {
                total_mib: 512,
                available_mib,
                swap_used_mib,
            })
        };
        assert_eq!(meminfo(text), memory(256, 2));
        assert_eq!(
            meminfo("MemTotal: 524288 kB\nMemFree: 1024 kB"),
            memory(1, 0)
        );
        assert_eq!(meminfo("MemFree: 1024 kB"), None);
        assert_eq!(meminfo("MemTotal: 0 kB\nMemFree: 0 kB"), None);
    }

    #[test]
    fn only_work_is_use() {
        let text = "cpu  10 20 30 1000 500 4 6 700 9 9\ncpu0 1 1 1 1 1 1 1\n";
        assert_eq!(stat_cpu_us(text), Some(70 * TICK_US));
        assert_eq!(stat_cpu_us("cpu  10 20"), None);
        assert_eq!(stat_cpu_us("cpu0 10 20 30 1 1 1 1"), None);
        assert_eq!(
            cgroup_cpu_us("usage_usec 20027743\nuser_usec 1\n"),
            Some(20_027_743)
        );
        assert_eq!(number("max\n"), None);
        assert_eq!(number("4096\n"), Some(4096));
    }

    #[test]
    fn bytes_are_counted_once() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n\
                    lo: 7 0 0 0 0 0 0 0 7 0\n  eth0: 100 1 0 0 0 0 0 0 20 1\n\
                    br0: 100 1 0 0 0 0 0 0 20 1\n eth0.5: 9 1 0 0 0 0 0 0 9 1\nvnet0: 5 1 0 0 0 0 0 0 5 1\n";
        assert_eq!(net_bytes(text), Some(120));
        assert_eq!(net_bytes("nothing"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "(some |full |cpu |MemTotal:|[ -~\n]|[0-9]{1,25}){0,60}") {
            let _ = (stalled(&text), meminfo(&text), stat_cpu_us(&text), cgroup_cpu_us(&text));
            let _ = (net_bytes(&text), number(&text), named_number(&text, "some"));
        }
    }
}
