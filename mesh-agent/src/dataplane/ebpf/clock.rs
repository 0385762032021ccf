//! **Effect.** What time it is for programs.
//!
//! They count timer interrupts, which user space cannot read; so a program is run that says how many there were.

use std::time::Duration;

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use mesh_ebpf::abi::Clock;
use mesh_ebpf::flow::TICK;
use rustix::time::{ClockId, clock_getres, clock_gettime};

use super::EbpfError;

/// The name of the program.
pub const CLOCK: &str = "mesh_clock";
/// Bytes of the shortest Ethernet frame.
pub(super) const FRAME: usize = 60;

/// Asks the program named [`CLOCK`], which has to be loaded.
pub fn clock(program: &SchedClassifier) -> Result<Clock, EbpfError> {
    let (frame, mut read) = ([0; FRAME], [0; FRAME]);
    let options =
        TestRunOptions { data_in: Some(&frame), data_out: Some(&mut read), ..TestRunOptions::new() };
    program.test_run(options).map_err(|source| EbpfError::Clock(Box::new(source)))?;
    let now = nanos(clock_gettime(ClockId::MonotonicCoarse));
    let jiffies = u64::from_ne_bytes(*read.first_chunk().unwrap_or(&[0; 8]));
    // The coarse clock is as fine as they are.
    Ok(Clock::new(nanos(clock_getres(ClockId::MonotonicCoarse)), jiffies, now))
}

/// The programs' own time, in ticks.
pub fn now() -> u32 {
    (nanos(clock_gettime(ClockId::MonotonicCoarse)) >> TICK) as u32
}

fn nanos(time: rustix::time::Timespec) -> u64 {
    let seconds = Duration::from_secs(time.tv_sec.cast_unsigned());
    u64::try_from(seconds.as_nanos()).unwrap_or(u64::MAX) + time.tv_nsec.cast_unsigned()
}
