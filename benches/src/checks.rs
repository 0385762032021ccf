//! What health checks cost a node: those of an agent, at work in this process, of tasks for all of which one nginx answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mesh_agent::control::{Control, now};
use mesh_agent::health::{self, Histories};
use mesh_agent::liveness::Bell;
use mesh_agent::store::local::LocalStore;
use mesh_agent::tasks::Tasks;
use mesh_core::change::Me;
use mesh_core::model::{Health, HealthCheck, NodeId, Origin, Probe, Snapshot, TaskId};
use mesh_core::replica::Replica;
use mesh_tests::{Host, Lab};
use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::lab::{mesh_program, server};
use crate::scale::records::{Records, SUBNET};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Services, of ten tasks each.
    pub services: u16,
    /// Of each task's check. The last five probes of a task are remembered, and counted: `lasts` is at most four of it.
    pub interval: Duration,
    /// How long each kind of check is watched.
    pub lasts: Duration,
}

impl Plan {
    /// 10,000 tasks.
    pub const FULL: Self =
        Self { services: 1_000, interval: Duration::from_secs(10), lasts: Duration::from_secs(30) };
    /// Half a minute.
    pub const QUICK: Self =
        Self { services: 100, interval: Duration::from_secs(5), lasts: Duration::from_secs(5) };
}

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    tasks: usize,
    interval_s: u64,
    rows: Vec<Row>,
}

/// Checks of one kind.
#[derive(Debug, Serialize)]
struct Row {
    check: &'static str,
    checks_per_second: f64,
    /// Of one processor: the agent's, of which the kernel's part for both ends of a connection is a part, and that of
    /// commands; not what nginx takes.
    cpu_percent: f64,
    cpu_us_per_check: f64,
    /// The busiest tenth of a second begins so many times as many checks as the mean one.
    burst: f64,
}

/// Measures everything.
pub fn run(plan: Plan) -> Result<Report> {
    let lab = Lab::builder(mesh_program()?).nodes(1).build()?;
    let node = lab.node("n1")?;
    // All addresses of the network are here.
    node.ip(&format!("route add local {SUBNET} dev lo\n"))?;
    let _server = node.spawn_daemon("server", server::command(&lab)?)?;
    let port = server::WEB;
    let kinds = [
        ("tcp", Probe::Tcp { port }),
        ("http", Probe::Http { port, path: "/".to_owned(), tls: false }),
        ("command", Probe::Shell { command: "exit 0".to_owned() }),
    ];
    let rows = kinds.into_iter().map(|(name, probe)| {
        eprintln!("{name}");
        let check = HealthCheck { interval: plan.interval, ..HealthCheck::new(probe) };
        node.netns().run(|| measure(node, plan, name, &check))?.with_context(|| format!("checks by {name}"))
    });
    let rows = rows.collect::<Result<_>>()?;
    Ok(Report { tasks: usize::from(plan.services) * 10, interval_s: plan.interval.as_secs(), rows })
}

/// In the node's namespace, by one thread.
fn measure(node: &Host, plan: Plan, name: &'static str, check: &HealthCheck) -> Result<Row> {
    let (owner, world) = world(node, plan.services, check)?;
    let ids: Vec<TaskId> = world.tasks.iter().map(|(id, _)| id.clone()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Arc::new(LocalStore::open(node.dir().join(format!("{name}.redb")))?);
        let (_worlds, world) = watch::channel(Arc::new(world));
        let (_statuses, status) = watch::channel(Arc::default());
        let control = Control::new(owner.clone(), store, world, status);
        let (_joined, me) = watch::channel(Some(Me { id: owner, epoch: 1 }));
        let tasks = Tasks::new(control.clone(), me, plan.interval, Bell::new()?);
        let (histories, stop) = (Histories::default(), CancellationToken::new());
        let checking = health::run(control, tasks, histories.clone(), stop.clone());
        let watching = async {
            let _stop = stop.drop_guard();
            // Each has begun at a moment of its own, within the first interval.
            tokio::time::sleep(plan.interval * 2).await;
            let (from, began, before) = (now(), Instant::now(), processor()?);
            tokio::time::sleep(plan.lasts).await;
            anyhow::Ok((from, now(), began.elapsed(), processor()? - before))
        };
        let ((), watched) = tokio::join!(checking, watching);
        let (from, to, took, spent) = watched?;
        let probes = probes(&ids, &histories, from, to)?;
        let (count, seconds) = (probes.len() as f64, took.as_secs_f64());
        Ok(Row {
            check: name,
            checks_per_second: count / seconds,
            cpu_percent: spent.as_secs_f64() / seconds * 100.0,
            cpu_us_per_check: spent.as_secs_f64() * 1e6 / count,
            burst: burst(&probes, from, to),
        })
    })
}

/// What this process and its commands have taken of processors.
fn processor() -> Result<Duration> {
    let mut all = Duration::ZERO;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        for time in [usage.user_time(), usage.system_time()] {
            all += Duration::new(time.tv_sec().try_into()?, u32::try_from(time.tv_usec())? * 1000);
        }
    }
    Ok(all)
}

/// When probes began, in milliseconds; an error if one failed or a task was left out.
fn probes(ids: &[TaskId], histories: &Histories, from: u64, to: u64) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for id in ids {
        let history = histories.of(id).with_context(|| format!("nobody has asked {id}"))?;
        let failed = history.log.iter().find(|probed| probed.exit_code != 0);
        ensure!(failed.is_none(), "{id} did not serve: {failed:?}");
        let before = all.len();
        all.extend(history.log.iter().map(|probed| probed.start).filter(|start| (from..to).contains(start)));
        ensure!(all.len() > before, "{id} was not asked meanwhile");
    }
    Ok(all)
}

/// The most that begin in a tenth of a second, by the mean.
fn burst(probes: &[u64], from: u64, to: u64) -> f64 {
    let mut tenths: BTreeMap<u64, u32> = BTreeMap::new();
    for start in probes {
        *tenths.entry((start - from) / 100).or_default() += 1;
    }
    let most = tenths.values().max().copied().unwrap_or_default();
    f64::from(most) * (to - from) as f64 / 100.0 / probes.len() as f64
}

/// All tasks are on one node, and known to be healthy: nothing is written down.
fn world(node: &Host, services: u16, check: &HealthCheck) -> Result<(NodeId, Snapshot)> {
    let mut records = Records::of(services, node.address());
    let owner = records.nodes[0].id.clone();
    for (service, tasks) in &mut records.services {
        service.health = Some(check.clone());
        for task in tasks {
            (task.node, task.health, task.checked) = (owner.clone(), Health::Healthy, true);
            task.origin = Origin::Netns { path: node.netns().path() };
        }
    }
    let mut replica = Replica::default();
    replica.resync(records.listing(), true)?;
    Ok((owner, replica.world().clone()))
}

impl Report {
    /// One line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut table = format!("{} tasks, one check of each every {} s\n\n", self.tasks, self.interval_s);
        let _ = writeln!(
            table,
            "{:<10}{:>10}{:>12}{:>14}{:>8}",
            "check", "checks/s", "CPU, %", "µs per check", "burst"
        );
        for row in &self.rows {
            let Row { check, checks_per_second, cpu_percent, cpu_us_per_check, burst } = row;
            let _ = writeln!(
                table,
                "{check:<10}{checks_per_second:>10.0}{cpu_percent:>12.1}{cpu_us_per_check:>14.1}{burst:>8.2}"
            );
        }
        table
    }
}
