//! Parsers of the kernel's text files: pure, bounded, total.

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
