//! A balancer's program, and the one that does nothing where it is attached.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use aya::programs::{TestRun, TestRunOptions, TestRunResult};

use super::case::Taken;
use super::frame::Frame;

/// The program that does nothing has a turn after so many of the other's.
const BETWEEN: u32 = 4;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is left to the kernel.
    Passed,
    /// It goes to a backend.
    Forwarded,
}

/// The programs, and what they return.
pub(super) struct Side<'a, P> {
    pub(super) program: &'a P,
    pub(super) nothing: &'a P,
    pub(super) pass: i32,
    pub(super) forward: i32,
}

impl<P> Side<'_, P>
where
    P: for<'b> TestRun<Opts<'b> = TestRunOptions<'b>, Result = TestRunResult>,
{
    /// Adds the times of some packets, each of some client to some port, in nanoseconds.
    pub(super) fn times(
        &self,
        frame: &mut Frame,
        turns: Range<u32>,
        want: Fate,
        packet: impl Fn(u32) -> (u32, u16),
        taken: &mut Taken,
    ) -> Result<()> {
        for turn in turns {
            let (client, port) = packet(turn);
            taken.packets.push(self.send(frame, client, port, want)?);
            if turn % BETWEEN == 0 {
                let (_, ns) = run(self.nothing, frame.from(client, port))?;
                taken.empty.push(ns);
            }
        }
        Ok(())
    }

    /// The time of one packet, in nanoseconds.
    pub(super) fn send(&self, frame: &mut Frame, client: u32, port: u16, want: Fate) -> Result<u32> {
        let want = if want == Fate::Passed { self.pass } else { self.forward };
        let (done, ns) = run(self.program, frame.from(client, port))?;
        ensure!(done == want, "the program returned {done} and not {want} for client {client}, port {port}");
        Ok(ns)
    }
}

/// Runs a program on a frame: what it returned, and how many nanoseconds it took.
fn run<P>(program: &P, frame: &[u8]) -> Result<(i32, u32)>
where
    P: for<'b> TestRun<Opts<'b> = TestRunOptions<'b>, Result = TestRunResult>,
{
    let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
    let done = program.test_run(options).context("the kernel does not run programs for tests")?;
    Ok((done.return_value.cast_signed(), u32::try_from(done.duration.as_nanos()).unwrap_or(u32::MAX)))
}
