//! Tasks that make nothing of connections are found without a health check, and left out while others serve.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Load, Node, Report, eventually};

use crate::kit::{
    AT_ONCE, Cli, Datagrams, SOON, Task, curl, everywhere, holds, mentions, mesh, on_ebpf, served_by, text,
    url, vip,
};
use crate::tasks::{foreign, web_in};

/// How long one is left out the first time.
const TURN: Duration = Duration::from_secs(5);
const LIMIT: &[&str] = &["--passive-health", "only a health check finds them"];

/// A server that stops to listen while a file is there, and lives on.
fn fickle(lab: &Lab, server: &[String]) -> Vec<String> {
    let (dir, server) = (lab.dir().display(), server.join(" "));
    let closed = format!("{dir}/closed-$MESH_TASK_NAME");
    let turn = format!(
        "{server} & p=$!; while [ ! -e {closed} ]; do sleep 0.02; done; kill -9 $p; wait $p; \
         while [ -e {closed} ]; do sleep 0.02; done"
    );
    ["sh", "-c", &format!("while :; do {turn}; done")].map(str::to_owned).to_vec()
}

fn web<'a>(lab: &Lab, node: &'a Node) -> Result<Task<'a>> {
    Task::serve(node, "web", &fickle(lab, &lab.programs().web(80)), "tcp6", 80)
}

fn close(lab: &Lab, task: &Task<'_>) -> Result<()> {
    fs::write(lab.dir().join(format!("closed-{}", task.name)), "").context("close")
}

fn open(lab: &Lab, task: &Task<'_>) -> Result<()> {
    fs::remove_file(lab.dir().join(format!("closed-{}", task.name))).context("open")
}

/// What a node says of why a task is left out; empty: it is not.
fn ejected(by: &Node, task: &Task<'_>) -> Result<String> {
    Ok(by.inspect("task", &task.name)?["Ejected"]["Why"].as_str().unwrap_or_default().to_owned())
}

/// From the first request that failed to the last.
fn lasted(report: &Report) -> Result<Duration> {
    let (first, last) = (report.failed.first(), report.failed.last());
    let (first, last) = first.zip(last).with_context(|| format!("nobody noticed: {report}"))?;
    ensure!(report.ok > 0, "{report}");
    println!("{} requests failed within {:?}", report.failed.len(), last.at - first.at);
    Ok(last.at - first.at)
}

/// A task whose program does not listen any more, while the task lives, gets no new flow by any node within a second of
/// the first that it refused, and is back by itself once it listens; its slow start does not begin again.
#[test]
fn who_refuses_connections_is_left_out_within_a_second() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [web(lab, n1)?, web(lab, n2)?];
        let (well, sick) = (&tasks[0], &tasks[1]);
        for node in [n1, n2] {
            served_by(lab.client(), &url(node, 8080), &[well, sick])?;
        }
        if !on_ebpf(lab, LIMIT)? {
            return Ok(());
        }
        let idle = [Task::idle(n1, "app")?, Task::idle(n2, "app")?];
        let since = text(&n1.inspect("task", &sick.name)?["InBalanceSince"]);
        let load = Load::start(lab.client().netns(), &everywhere(lab, 8080), 100)?;
        sleep(AT_ONCE);
        close(lab, sick)?;
        // All that follows has to happen before its turn is over.
        sleep(2 * AT_ONCE);
        let report = load.stop()?;
        ensure!(lasted(&report)? < AT_ONCE, "too late: {report}");
        for node in [n1, n2] {
            ensure!(ejected(node, sick)? == "refuses connections");
            ensure!(ejected(node, well)?.is_empty());
            mentions(&node.ok("task ls")?, &["ejected: refuses connections"])?;
            mentions(&node.ok("service ps web")?, &["ejected: refuses connections"])?;
        }
        let address = vip(n1, "web")?;
        for idle in &idle {
            for _ in 0..4 {
                let answer = curl(idle, &format!("http://{address}/"))?;
                ensure!(answer.starts_with(&well.name), "{answer}");
            }
        }
        open(lab, sick)?;
        sick.listens("tcp6", 80)?;
        // Where that took until its turn had ended, it has another, which is twice as long.
        eventually(2 * TURN + SOON, "it is let in", || {
            let why = ejected(n1, sick)?;
            ensure!(why.is_empty(), "{why}");
            Ok(())
        })?;
        for node in [n1, n2] {
            served_by(lab.client(), &url(node, 8080), &[well, sick])?;
        }
        let back = text(&n1.inspect("task", &sick.name)?["InBalanceSince"]);
        ensure!(back == since, "it is no new one: {since}, {back}");
        Ok(())
    })
}

/// One that drops what begins connections, so that their clients wait for nothing, is found as well.
#[test]
fn who_does_not_answer_connections_is_left_out_within_a_second() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let (well, sick) = (&tasks[0], &tasks[1]);
        for node in [n1, n2] {
            served_by(lab.client(), &url(node, 8080), &[well, sick])?;
        }
        if !on_ebpf(lab, LIMIT)? {
            return Ok(());
        }
        let load = Load::start(lab.client().netns(), &everywhere(lab, 8080), 30)?;
        sleep(AT_ONCE);
        let rules = "add table inet quiet; add chain inet quiet in { type filter hook input priority 0; }; \
                     add rule inet quiet in tcp dport 80 tcp flags & (syn | ack) == syn counter drop";
        sick.command(["nft", rules]).ok()?;
        let dropped = || -> Result<u64> {
            let rules = sick.command(["nft", "list", "table", "inet", "quiet"]).ok()?;
            let (_, count) = rules.split_once("packets ").context("no counter")?;
            Ok(count.split(' ').next().unwrap_or_default().parse()?)
        };
        eventually(SOON, "one is dropped", || {
            ensure!(dropped()? > 0);
            Ok(())
        })?;
        let start = Instant::now();
        eventually(AT_ONCE, "it is found", || {
            ensure!(ejected(n1, sick)? == "does not answer connections");
            Ok(())
        })?;
        println!("found {:?} after it was noticed, {} were dropped", start.elapsed(), dropped()?);
        sleep(AT_ONCE / 4);
        let before = dropped()?;
        sleep(2 * AT_ONCE);
        let after = dropped()?;
        ensure!(after == before, "{} more were sent there", after - before);
        println!("{}", load.stop()?);
        sick.command(["nft", "delete table inet quiet"]).ok()?;
        eventually(TURN + SOON, "it is let in", || {
            let why = ejected(n1, sick)?;
            ensure!(why.is_empty(), "{why}");
            Ok(())
        })?;
        served_by(lab.client(), &url(n1, 8080), &[well, sick])
    })
}

/// What all tasks make wrong may be no task's fault: half of them are left out at most, and the rest is tried on.
#[test]
fn half_of_the_tasks_are_left_out_at_most() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [web(lab, n1)?, web(lab, n1)?, web(lab, n2)?, web(lab, n2)?];
        served_by(lab.client(), &url(n1, 8080), &tasks.each_ref())?;
        if !on_ebpf(lab, LIMIT)? {
            return Ok(());
        }
        let load = Load::start(lab.client().netns(), &everywhere(lab, 8080), 50)?;
        for task in &tasks {
            close(lab, task)?;
        }
        let left_out = || -> Result<u64> {
            let serving = n1.inspect("service", "web")?["ServiceStatus"]["RunningTasks"].as_u64();
            Ok(tasks.len() as u64 - serving.context("how many serve")?)
        };
        eventually(SOON, "some are left out", || {
            ensure!(left_out()? == 2);
            Ok(())
        })?;
        eventually(SOON, "that is told", || {
            mentions(&n1.mesh(["status"])?.stdout, &["more of its tasks than may be left out"])
        })?;
        holds(Duration::from_secs(8), || {
            let left_out = left_out()?;
            ensure!(left_out <= 2, "{left_out} of 4 are left out");
            Ok(())
        })?;
        load.stop()?;
        for task in &tasks {
            open(lab, task)?;
        }
        eventually(4 * TURN, "all are back", || {
            ensure!(left_out()? == 0);
            Ok(())
        })?;
        served_by(lab.client(), &url(n2, 8080), &tasks.each_ref())
    })
}

/// Who wants it off has it off, also for a task that is left out right now.
#[test]
fn it_can_be_turned_off() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80 --passive-health off")?;
        let tasks = [web(lab, n1)?, web(lab, n1)?];
        served_by(lab.client(), &url(n1, 8080), &tasks.each_ref())?;
        close(lab, &tasks[1])?;
        let load = Load::start(lab.client().netns(), &everywhere(lab, 8080), 50)?;
        sleep(3 * AT_ONCE);
        let report = load.stop()?;
        ensure!(lasted(&report)? > 2 * AT_ONCE, "somebody was left out: {report}");
        ensure!(ejected(n1, &tasks[1])?.is_empty());
        if !on_ebpf(lab, LIMIT)? {
            return Ok(());
        }
        n1.ok("service update --passive-health on web")?;
        let load = Load::start(lab.client().netns(), &everywhere(lab, 8080), 50)?;
        eventually(SOON, "it is found", || {
            ensure!(!ejected(n1, &tasks[1])?.is_empty());
            Ok(())
        })?;
        n1.ok("service update --passive-health off web")?;
        eventually(AT_ONCE, "it is let in at once", || {
            ensure!(ejected(n1, &tasks[1])?.is_empty());
            Ok(())
        })?;
        load.stop()?;
        Ok(())
    })
}

/// Of datagrams only a refusal is known.
#[test]
fn who_refuses_datagrams_is_left_out() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8053:53/udp")?;
        let server = fickle(lab, &lab.programs().udp(53));
        let serve = |node| Task::serve(node, "web", &server, "udp6", 53);
        let tasks = [serve(n1)?, serve(n2)?];
        if !on_ebpf(lab, LIMIT)? {
            return Ok(());
        }
        let ask = || -> Result<usize> {
            let asked = (0..8).map(|_| Datagrams::open(lab.client(), (n1.address(), 8053))?.ask("who?"));
            Ok(asked.filter(Result::is_ok).count())
        };
        close(lab, &tasks[1])?;
        let start = Instant::now();
        eventually(SOON, "it is found", || {
            let answered = ask()?;
            let why = ejected(n2, &tasks[1])?;
            ensure!(why == "refuses datagrams", "{answered} of 8 were answered: {why}");
            Ok(())
        })?;
        println!("found after {:?}", start.elapsed());
        eventually(AT_ONCE, "all are answered", || {
            ensure!(ask()? == 8);
            Ok(())
        })?;
        open(lab, &tasks[1])
    })
}

/// Of a task that was sick a moment ago and one whose node has just died, the first gets what comes.
#[test]
fn a_sick_task_is_better_than_one_of_a_dead_node() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [web(lab, n2)?, Task::web(lab, n3, "web")?];
        served_by(lab.client(), &url(n1, 8080), &tasks.each_ref())?;
        if !on_ebpf(lab, LIMIT)? {
            return Ok(());
        }
        let sick = &tasks[0];
        close(lab, sick)?;
        let load = Load::start(lab.client().netns(), &[(n1.address(), 8080).into()], 50)?;
        // Long enough to tell it from being let in.
        eventually(4 * TURN, "it is left out for longer", || {
            let row = n1.inspect("task", &sick.name)?["Ejected"]["Row"].as_u64();
            ensure!(row.is_some_and(|row| row >= 3), "{row:?}");
            Ok(())
        })?;
        load.stop()?;
        open(lab, sick)?;
        sick.listens("tcp6", 80)?;
        lab.unplug("n3")?;
        let start = Instant::now();
        eventually(SOON, "the one that is left serves", || curl(lab.client(), &url(n1, 8080)))?;
        println!("it serves {:?} after the other's node died", start.elapsed());
        ensure!(!ejected(n1, sick)?.is_empty(), "it was let in before that");
        served_by(lab.client(), &url(n1, 8080), &[sick])?;
        lab.plug("n3")
    })
}

/// A task that is registered before its program listens is tried again soon.
#[test]
fn who_listens_a_little_later_is_not_left_out_for_long() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let well = Task::web(lab, n1, "web")?;
        served_by(lab.client(), &url(n1, 8080), &[&well])?;
        if !on_ebpf(lab, LIMIT)? {
            return Ok(());
        }
        let load = Load::start(lab.client().netns(), &everywhere(lab, 8080), 100)?;
        let process = foreign(n2)?;
        n2.ok(&format!("task add --service web --pid {}", process.id()))?;
        let late = Task::find(n2, "web.2")?;
        eventually(SOON, "it is found", || {
            let why = ejected(n1, &late)?;
            ensure!(why == "refuses connections", "{why:?}");
            Ok(())
        })?;
        let _server = web_in(lab, n2, process.id(), &late.name)?;
        let start = Instant::now();
        eventually(TURN - AT_ONCE, "it serves", || {
            let answer = curl(lab.client(), &url(n2, 8080))?;
            ensure!(answer.starts_with(&late.name), "{answer}");
            Ok(())
        })?;
        println!("it serves {:?} after it listens", start.elapsed());
        load.stop()?;
        served_by(lab.client(), &url(n2, 8080), &[&well, &late])
    })
}
