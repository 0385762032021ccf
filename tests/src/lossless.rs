//! Every planned change of a mesh, one after the other, under constant load: none may lose a request. Half of it comes from
//! outside to the published port of two nodes, half from a task to the VIP, by both families.

use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::{Lab, Load, Netns, Node, eventually, lab_test};

/// How long a start, or one change, may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two changes.
const CALM: Duration = Duration::from_millis(500);

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// All changes are made again until there were so many requests.
    pub requests: u64,
    /// How many requests a second.
    pub rate: u32,
}

/// What became of the requests.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How many there were.
    pub requests: u64,
    /// How many of them were not answered.
    pub failed: u64,
    /// During which change.
    pub operations: Vec<Operation>,
}

/// A change, however often it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// What was done.
    pub name: String,
    /// Requests that were sent meanwhile, or until the next one began, and were not answered.
    pub failed: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} requests, {} failed", self.requests, self.failed)?;
        self.operations.iter().try_for_each(|Operation { name, failed }| writeln!(f, "{failed:>8}  {name}"))
    }
}

/// A change of the mesh.
type Change = fn(&Lab, &Path) -> Result<()>;

const CHANGES: [(&str, Change); 17] = [
    ("scale up", |lab, _| first(lab, "service scale web=6")),
    ("scale down", |lab, _| first(lab, "service scale web=3")),
    ("rolling replacement, start-first", |lab, _| {
        first(lab, "service update --force --update-order start-first --update-monitor 1s web")
    }),
    ("rolling replacement, stop-first", |lab, _| {
        first(lab, "service update --force --update-order stop-first --update-monitor 1s web")
    }),
    ("drain of a node", |lab, _| {
        first(lab, "node update --availability drain n3")?;
        settled(lab)
    }),
    ("a drained node comes back", |lab, _| first(lab, "node update --availability active n3")),
    ("drain of a task", |lab, _| {
        let task = a_task(lab)?;
        first(lab, &format!("task drain {task}"))?;
        first(lab, &format!("task update --availability active {task}"))
    }),
    ("another port is published", |lab, _| first(lab, "service update --publish-add 8081:80 web")),
    ("another port is unpublished", |lab, _| first(lab, "service update --publish-rm 8081:80 web")),
    ("another network", |lab, _| first(lab, "service update --network-add back web")),
    ("the other network is left", |lab, _| first(lab, "service update --network-rm back web")),
    ("another weight of a task", |lab, _| {
        let task = a_task(lab)?;
        ["3", "1"].iter().try_for_each(|weight| {
            // A task is its own node's to change.
            let update = ["task", "update", "--weight", weight, &task];
            let tried = lab.nodes().iter().map(|node| node.mesh_command(update).timeout(PATIENCE).ok());
            tried.reduce(|former, next| former.or(next)).context("a lab without nodes")?.map(drop)
        })
    }),
    ("other balancing", |lab, _| {
        let ways = ["maglev", "least-conn", "random"];
        ways.iter().try_for_each(|way| first(lab, &format!("service update --balancing {way} web")))
    }),
    ("a health check, and none", |lab, _| {
        first(lab, "service update --health-tcp 80 --health-interval 1s web")?;
        thread::sleep(Duration::from_secs(2));
        first(lab, "service update --no-healthcheck web")
    }),
    ("another command, and back", |lab, _| {
        let server = lab.programs().web(80).join(" ");
        let update = "service update --update-order start-first --update-monitor 1s --env-add OTHER=1 --cmd";
        let update: Vec<_> = update.split(' ').chain([server.as_str(), "web"]).collect();
        node(lab, 0)?.mesh_command(update).timeout(PATIENCE).ok()?;
        first(lab, "service update --rollback web")
    }),
    ("restart of every agent", |lab, _| restart(lab)),
    ("upgrade of every agent", |lab, program| {
        // Another file in its place, as packages do it.
        let new = program.with_extension("new");
        fs::copy(program, &new).context("cannot copy the program")?;
        fs::rename(&new, program).context("cannot replace the program")?;
        restart(lab)
    }),
];

/// Runs the `mesh` program at that path in a lab of its own, and says what came of it. Progress goes to standard error.
pub fn run(mesh: &Path, options: Options) -> Result<Report> {
    let dir = tempfile::tempdir().context("cannot make a directory")?;
    let program = dir.path().join("mesh");
    fs::copy(mesh, &program).with_context(|| format!("cannot copy {}", mesh.display()))?;
    let mut report = None;
    lab_test(Lab::builder(&program).nodes(3), |lab| {
        report = Some(run_in(lab, &program, options)?);
        Ok(())
    })?;
    report.context("nothing was run")
}

fn run_in(lab: &Lab, program: &Path, options: Options) -> Result<Report> {
    lab.start_agents(PATIENCE)?;
    first(lab, "network create app --subnet 10.30.0.0/16 --subnet fd00:30::/48")?;
    first(lab, "network create back")?;
    let server = lab.programs().web(80).join(" ");
    let words = "service create --name web --network app -p 8080:80 --drain-timeout 10s --replicas 3 --cmd";
    let create: Vec<_> = words.split(' ').chain([server.as_str()]).collect();
    node(lab, 0)?.mesh_command(create).timeout(PATIENCE).ok()?;
    settled(lab)?;
    let task = inside(lab)?;
    let entries = [node(lab, 0)?, node(lab, 1)?];
    let entries = entries.iter().flat_map(|node| [IpAddr::from(node.address()), node.address6().into()]);
    let ports: Vec<_> = entries.map(|address| SocketAddr::from((address, 8080))).collect();
    let rate = (options.rate / 2).max(1);
    let loads = [Load::start(lab.client().netns(), &ports, rate)?, Load::start(&task, &vips(lab)?, rate)?];
    let begun = Instant::now();
    thread::sleep(CALM);
    let enough = Duration::from_secs(options.requests / u64::from(options.rate));
    let mut made: Vec<(Duration, &str)> = Vec::new();
    loop {
        for (name, change) in CHANGES {
            made.push((begun.elapsed(), name));
            eprintln!("{:>6.1} s  {name}", begun.elapsed().as_secs_f64());
            change(lab, program).with_context(|| name.to_owned())?;
            thread::sleep(CALM);
        }
        if begun.elapsed() >= enough {
            break;
        }
    }
    let mut told = Vec::new();
    for (load, from) in loads.into_iter().zip(["from outside", "from a task"]) {
        let report = load.stop()?;
        eprintln!("{from}: {report}");
        told.push(report);
    }
    let mut operations: Vec<_> =
        CHANGES.iter().map(|(name, _)| Operation { name: (*name).to_owned(), failed: 0 }).collect();
    for failure in told.iter().flat_map(|report| &report.failed) {
        let during = made.iter().rev().find(|(at, _)| *at <= failure.at).or(made.first());
        let during = during.and_then(|(_, name)| operations.iter_mut().find(|op| op.name == *name));
        if let Some(operation) = during {
            operation.failed += 1;
        }
    }
    let failed = operations.iter().map(|operation| operation.failed).sum();
    let answered: u64 = told.iter().map(|report| report.ok).sum();
    Ok(Report { requests: answered + failed, failed, operations })
}

fn node(lab: &Lab, place: usize) -> Result<&Node> {
    lab.nodes().get(place).context("the lab has too few nodes")
}

/// Where a task is that asks.
fn inside(lab: &Lab) -> Result<Netns> {
    let second = node(lab, 1)?;
    let run = "task run -d --name inside --network app -- sleep 100000";
    second.mesh_command(run.split(' ')).timeout(PATIENCE).ok()?;
    let pid = second.mesh(["task", "inspect", "inside", "--format", "{{.Origin.Pid}}"])?.ok()?;
    Netns::of_process(pid.trim().parse().with_context(|| format!("no process: {pid}"))?)
}

/// The service's own addresses, with the port of its tasks.
fn vips(lab: &Lab) -> Result<Vec<SocketAddr>> {
    let format = "{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}";
    let text = node(lab, 0)?.mesh(["service", "inspect", "web", "--format", format])?.ok()?;
    let addresses = text.split_whitespace().map(|net| -> Result<SocketAddr> {
        let (address, _) = net.split_once('/').with_context(|| format!("no prefix: {net}"))?;
        Ok((address.parse::<IpAddr>()?, 80).into())
    });
    addresses.collect()
}

/// A command on the first node.
fn first(lab: &Lab, command: &str) -> Result<()> {
    node(lab, 0)?.mesh_command(command.split(' ')).timeout(PATIENCE).ok().map(drop)
}

/// One of the service's tasks.
fn a_task(lab: &Lab) -> Result<String> {
    let text = node(lab, 0)?.mesh(["service", "ps", "-q", "web"])?.ok()?;
    Ok(text.lines().next().context("the service has no task")?.to_owned())
}

/// Waits until as many tasks serve as should, and no more.
fn settled(lab: &Lab) -> Result<()> {
    eventually(PATIENCE, "the service has settled", || {
        let text = node(lab, 0)?.mesh(["service", "ls", "--format", "{{.Replicas}}"])?.ok()?;
        let (serving, wanted) = text.trim().split_once('/').context("no replicas")?;
        ensure!(serving == wanted, "{text}");
        Ok(())
    })
}

fn restart(lab: &Lab) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| node.restart_agent(PATIENCE))
}
