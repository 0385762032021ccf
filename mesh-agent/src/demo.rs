//! **Effect.** The demo: a mesh of real agents on one machine, in namespaces, with a client outside.
//!
//! It stays up and says what to try, or (`--once`) checks what Mesh promises with real programs and goes.

mod checks;
mod scene;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mesh_tests::LabInfo;
use nix::sys::signal::{SigSet, Signal};
use serde::Serialize;

use scene::Scene;

/// Where a running demo tells others of itself.
const PUBLISHED: &str = "/run/mesh-demo";

/// `mesh demo`
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Run the checks, take everything down, and exit 0 only if all passed
    #[arg(long)]
    pub once: bool,
    /// With --once: print the checks as one JSON document
    #[arg(long, requires = "once")]
    pub json: bool,
    /// Which data plane the agents use [default: the best that the kernel has]
    #[arg(long, value_name = "PLANE")]
    pub dataplane: Option<Dataplane>,
    /// What keeps the records: one node, or etcd on all three as managers of a cluster
    #[arg(long, value_name = "STORE", value_enum, default_value = "local")]
    pub store: DemoStore,
    /// Only a command inside a running demo
    #[command(subcommand)]
    pub command: Option<DemoCommand>,
}

/// A data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Dataplane {
    /// Programs in the kernel's packet path
    Ebpf,
    /// nftables
    Nft,
}

/// What keeps the demo's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DemoStore {
    /// n1, for all
    Local,
    /// etcd on each node
    Etcd,
}

impl Dataplane {
    /// As `dataplane.mode` has it.
    fn word(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Nft => "nft",
        }
    }
}

/// What can be done with a running demo.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum DemoCommand {
    /// Run a command on a host of the running demo: n1, n2, n3, client or outside
    Exec {
        // Not `host`: that is where the agent listens, for every verb.
        /// The host
        #[arg(value_name = "HOST")]
        on: String,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Outcome>,
}

#[derive(Serialize)]
struct Outcome {
    name: &'static str,
    ok: bool,
    detail: String,
}

/// Runs the demo.
pub fn main(args: &DemoArgs) -> anyhow::Result<()> {
    if let Some(DemoCommand::Exec { on, command }) = &args.command {
        let info = LabInfo::load(Path::new(PUBLISHED))
            .context("no demo is running: start one with 'mesh demo' and leave it up")?;
        let error = info.command(on, command)?.exec();
        return Err(error).with_context(|| format!("cannot run {}", command.join(" ")));
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("the demo must run as root: it makes network namespaces");
    }
    if args.once { once(args) } else { stay(args) }
}

fn once(args: &DemoArgs) -> anyhow::Result<()> {
    let (began, json) = (Instant::now(), args.json);
    let progress = |line: &str| {
        if json { eprintln!("{line}") } else { println!("{line}") }
    };
    let scene = Scene::set(args.dataplane, args.store, &progress)?;
    let mut report = Report { ok: true, checks: Vec::new() };
    let in_use = scene.dataplane()?;
    for check in checks::on(in_use, args.store) {
        let since = Instant::now();
        let result = (check.run)(&scene);
        let ok = result.is_ok();
        let detail = result.unwrap_or_else(|error| format!("{error:#}"));
        let mark = if ok { "ok  " } else { "FAIL" };
        progress(&format!("{mark} {} ({:.1} s): {detail}", check.name, since.elapsed().as_secs_f32()));
        report.ok &= ok;
        report.checks.push(Outcome { name: check.name, ok, detail });
    }
    let failed = report.checks.iter().filter(|outcome| !outcome.ok).count();
    if !report.ok {
        eprintln!("{}", scene.lab.diagnose());
    }
    drop(scene);
    progress(&format!(
        "{} passed, {failed} failed in {:.0} s",
        report.checks.len() - failed,
        began.elapsed().as_secs_f32()
    ));
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    if failed > 0 {
        bail!("{failed} of {} checks failed", report.checks.len());
    }
    Ok(())
}

fn stay(args: &DemoArgs) -> anyhow::Result<()> {
    if LabInfo::load(Path::new(PUBLISHED))
        .is_ok_and(|info| Path::new(&format!("/proc/{}", info.process)).exists())
    {
        bail!("a demo is running already; end it first (Ctrl-C where it runs)");
    }
    // Blocked before any thread starts, so that the signal waits for us and not the other way round.
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGINT);
    ends.add(Signal::SIGTERM);
    ends.thread_block().context("cannot hold signals back")?;
    let scene = Scene::set(args.dataplane, args.store, &|line| println!("{line}"))?;
    scene.lab.publish_state(Path::new(PUBLISHED))?;
    println!("{}", scene.what_to_try()?);
    std::io::stdout().flush()?;
    ends.wait().context("cannot wait for a signal")?;
    println!("taking everything down");
    drop(scene);
    // Empty by now; what tells of this demo goes with it.
    let _ = std::fs::remove_dir(PUBLISHED);
    Ok(())
}

/// How long anything of the demo may take to show everywhere.
const SOON: Duration = Duration::from_secs(10);
