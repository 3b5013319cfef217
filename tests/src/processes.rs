//! Processes of a lab's machines, found and signalled without a detour: a fault that is to hit a window of
//! milliseconds has no time to start a program.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

use crate::Lab;

impl Lab {
    /// Live processes of a machine (`router`, `s1`, `h1` …) whose command line has all of `words`: the first names
    /// the program.
    #[must_use]
    pub fn processes(&self, machine: &str, words: &[&str]) -> Vec<Pid> {
        let group = format!("evenkeel-{}/{machine}/cgroup.procs", self.id());
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
        let members = roots
            .iter()
            .map(|root| fs::read_to_string(root.join(&group)));
        let members = members.flatten().next().unwrap_or_default();
        let pids = members.lines().filter_map(|line| line.parse::<i32>().ok());
        let fits = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            let program = line.split('\0').next().unwrap_or_default();
            words.first().is_some_and(|word| program.ends_with(word))
                && words.iter().skip(1).all(|word| line.contains(word))
        };
        pids.filter(fits).filter_map(Pid::from_raw).collect()
    }
}

/// Sends a signal to each; those that are gone by then need none.
pub fn signal(processes: &[Pid], signal: Signal) {
    for process in processes {
        let _gone = kill_process(*process, signal);
    }
}
