//! **Effect.** What Prometheus knows of every process, by the names that it has for it.

use std::fmt::{self, Write};
use std::fs;

use nix::sys::resource::{UsageWho, getrusage};

/// Appends it; what cannot be read is left out.
pub(super) fn write(text: &mut String) -> fmt::Result {
    let mut one = |name: &str, help: &str, kind: &str, value: f64| {
        write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n")
    };
    if let Ok(used) = getrusage(UsageWho::RUSAGE_SELF) {
        let times = [used.user_time(), used.system_time()];
        let seconds: f64 = times.iter().map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6).sum();
        one("process_cpu_seconds_total", "Processor time of the agent.", "counter", seconds)?;
    }
    // proc(5): the second number of statm is the resident set, in pages.
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    if let Some(pages) = statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()) {
        let bytes = pages * rustix::param::page_size() as f64;
        one("process_resident_memory_bytes", "Memory of the agent.", "gauge", bytes)?;
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        one("process_open_fds", "Open files of the agent.", "gauge", open.count() as f64)?;
    }
    Ok(())
}
