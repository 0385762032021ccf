//! What health checks cost a node: an agent's own checker asks ten thousand tasks, each every ten seconds whether it can be
//! connected to.
//!
//! The tasks' addresses are all this machine's, in a network namespace of the benchmark, and one listener takes up every
//! connection there. It is a process of its own and says when each came, so what it costs is not the checker's. The kernel
//! does much of its work for both ends in the checker's name.

mod listener;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mesh_agent::control::Control;
use mesh_agent::status::Status;
use mesh_agent::store::local::LocalStore;
use mesh_agent::tasks::Tasks;
use mesh_core::change::Me;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::listener::listen;
use self::listener::{Gaps, Heard};
use crate::Mesh;

/// The listener is meant.
pub const LISTEN: &str = "--listen";
/// The namespace is there.
pub const INSIDE: &str = "--inside";
/// For so long is measured.
pub const FULL: Duration = Duration::from_secs(60);
/// The same, in a hurry: each task twice.
pub const QUICK: Duration = Duration::from_secs(20);

/// So many services with so many tasks each.
const SERVICES: u16 = 10;
const TASKS: u16 = 1000;
const INTERVAL: Duration = Duration::from_secs(10);
/// Where tasks listen.
const PORT: u16 = 80;
/// Of `utime` and `stime`: proc(5). Linux shows them in hundredths on all machines (USER_HZ).
const TICKS: f64 = 100.0;

/// Becomes this program in a namespace of its own.
pub fn enter() -> Result<()> {
    let program = std::env::current_exe().context("what program is this?")?;
    let mut command = Command::new("unshare");
    command.arg("--net").arg(program).arg(INSIDE).args(std::env::args_os().skip(1));
    Err(command.exec()).context("cannot run unshare")
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Tasks that are checked.
    tasks: u32,
    /// Seconds between two checks of one task, at most.
    interval_s: f64,
    /// For so many seconds.
    measured_s: f64,
    /// Checks in a second.
    per_second: f64,
    /// Of one processor: the checker's.
    cpu_percent: f64,
    /// Processor time of one check, microseconds.
    check_us: f64,
    /// Of one processor: the listener's, for comparison.
    listener_cpu_percent: f64,
    /// Resident memory of the checker, MiB.
    memory_mib: f64,
    /// Between two checks of a task, milliseconds.
    gap_ms: Gaps,
    /// Checks in a tenth of a second.
    per_100ms: Gaps,
}

/// Measures for so long.
pub fn run(window: Duration) -> Result<Report> {
    for words in ["link set lo up", "route add local 10.0.0.0/8 dev lo"] {
        let done = Command::new("ip").args(words.split(' ')).status().context("cannot run ip")?;
        ensure!(done.success(), "`ip {words}` failed: {done}");
    }
    let mut listener = Listener::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(measure(window, &mut listener));
    runtime.shutdown_background();
    report
}

async fn measure(window: Duration, listener: &mut Listener) -> Result<Report> {
    let mut mesh = Mesh::of(1, SERVICES, TASKS).context("no mesh")?;
    mesh.check(PORT, INTERVAL).context("no checks")?;
    let world = Arc::new(mesh.world().clone());
    let (me, epoch) =
        world.nodes.iter().next().map(|(id, node)| (id.clone(), node.epoch)).context("no node")?;
    let dir = tempfile::tempdir()?;
    // Nothing is written: all tasks are known to be healthy, and are.
    let store = Arc::new(LocalStore::open(dir.path().join("store"))?);
    let (_worlds, world) = watch::channel(world);
    let (_statuses, status) = watch::channel(Arc::new(Status::default()));
    let control = Control::new(me.clone(), store, world, status);
    let (_me, me) = watch::channel(Some(Me { id: me, epoch }));
    let (stop, checks) = (CancellationToken::new(), TaskTracker::new());
    checks.spawn(mesh_agent::health::run(control.clone(), Tasks::new(control, me), stop.clone()));

    // Until each was asked once.
    tokio::time::sleep(INTERVAL + Duration::from_secs(1)).await;
    let (own, theirs) = (worked("self")?, worked(&listener.id())?);
    let start = Instant::now();
    listener.begin()?;
    tokio::time::sleep(window).await;
    let lasted = start.elapsed().as_secs_f64();
    let (own, theirs) = (worked("self")? - own, worked(&listener.id())? - theirs);
    let Heard { count, gap_ms, per_100ms, tasks } = listener.end()?;
    stop.cancel();
    let all = u32::from(SERVICES) * u32::from(TASKS);
    ensure!(tasks == all, "only {tasks} of {all} tasks were asked");
    Ok(Report {
        tasks,
        interval_s: INTERVAL.as_secs_f64(),
        measured_s: lasted,
        per_second: f64::from(count) / lasted,
        cpu_percent: own * 100.0 / lasted,
        check_us: own * 1e6 / f64::from(count),
        listener_cpu_percent: theirs * 100.0 / lasted,
        memory_mib: resident()?,
        gap_ms,
        per_100ms,
    })
}

/// Processor time of a process, seconds.
fn worked(process: &str) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Fields 14 and 15, of which the second, in parentheses, may have spaces.
    let (_, rest) = stat.rsplit_once(')').context("no process")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS)
}

fn resident() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// Takes up all connections.
struct Listener(Child);

impl Listener {
    fn start() -> Result<Self> {
        let program = std::env::current_exe().context("what program is this?")?;
        let mut command = Command::new(program);
        command.arg(LISTEN).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut listener = Self(command.spawn().context("cannot start the listener")?);
        ensure!(listener.line()?.trim() == "ready", "the listener is not ready");
        Ok(listener)
    }

    fn id(&self) -> String {
        self.0.id().to_string()
    }

    /// From now on it remembers.
    fn begin(&mut self) -> Result<()> {
        use std::io::Write as _;
        let stdin = self.0.stdin.as_mut().context("the listener hears nothing")?;
        stdin.write_all(b"begin\n").context("the listener is gone")
    }

    fn end(&mut self) -> Result<Heard> {
        drop(self.0.stdin.take());
        Ok(serde_json::from_str(&self.line()?)?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let stdout = self.0.stdout.as_mut().context("the listener says nothing")?;
        // It says one line at a time.
        BufReader::new(stdout).read_line(&mut line).context("the listener says nothing")?;
        Ok(line)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Report {
    /// In one line.
    pub fn json(&self) -> String {
        // Numbers and words only: nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people.
    pub fn table(&self) -> String {
        let Self { tasks, interval_s, measured_s, per_second, cpu_percent, check_us, .. } = self;
        let Self { listener_cpu_percent, memory_mib, gap_ms, per_100ms, .. } = self;
        format!(
            "{tasks} tasks, each asked every {interval_s} s over TCP, for {measured_s:.0} s\n\
             checks a second              {per_second:>8.0}\n\
             checker, % of a processor    {cpu_percent:>8.1}   ({check_us:.0} us a check)\n\
             listener, % of a processor   {listener_cpu_percent:>8.1}\n\
             checker's memory, MiB        {memory_mib:>8.0}\n\
             between two checks, ms       {gap_ms}\n\
             checks in 100 ms             {per_100ms}"
        )
    }
}
