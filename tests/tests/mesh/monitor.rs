//! `mesh monitor`: flows as they begin, and what is refused, for whoever watches.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Node, Process, eventually};
use serde_json::Value;

use crate::kit::{
    Cli, DUAL, Datagrams, READY, SOON, Talk, Task, both, mentions, mesh, on_ebpf, refuses, served_by, spread,
    url, url_at, vip,
};

/// How `mesh status` on nftables says that it sees nothing of this.
const UNSEEN: &[&str] = &["flows are not seen", "no `mesh monitor`"];

/// A `mesh monitor` that runs.
struct Monitor(Process);

impl Monitor {
    /// Starts one; what begins when this returns is seen.
    fn start(node: &Node, options: &str) -> Result<Self> {
        let mesh = mesh_tests::built_mesh()?;
        let mut argv = vec![mesh.display().to_string(), "monitor".to_owned()];
        argv.extend(options.split_whitespace().map(str::to_owned));
        let monitor = Self(node.spawn_daemon(&format!("monitor{}", options.replace(' ', "")), argv)?);
        eventually(SOON, "the monitor watches", || {
            ensure!(monitor.text()?.contains("watching"), "{}", monitor.text()?);
            Ok(())
        })?;
        Ok(monitor)
    }

    fn text(&self) -> Result<String> {
        fs::read_to_string(self.0.log()).context("the monitor's output")
    }

    /// The lines so far, but for messages.
    fn lines(&self) -> Result<Vec<String>> {
        Ok(self.text()?.lines().filter(|line| !line.starts_with("watching")).map(str::to_owned).collect())
    }

    /// Waits for the events of `--format json`, so many of them.
    fn events(&self, count: usize) -> Result<Vec<Value>> {
        eventually(SOON, &format!("{count} events"), || {
            let lines = self.lines()?;
            ensure!(lines.len() >= count, "{lines:#?}");
            lines.iter().map(|line| serde_json::from_str(line).with_context(|| line.clone())).collect()
        })
    }
}

/// Each new flow is one line with the task that got it; what follows in the flow is none.
#[test]
fn each_new_flow_is_told_once() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8080:80/udp")?;
        if !on_ebpf(lab, UNSEEN)? {
            return mentions(&n1.refused("monitor")?, &["nft data plane", "no monitor", "ebpf"]);
        }
        let tasks = [Task::both(lab, n1, "web")?, Task::both(lab, n2, "web")?];
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        let monitor = Monitor::start(n1, "--format json")?;
        let mut talks = Vec::new();
        for count in 1..=6 {
            let mut talk = Talk::open(lab.client(), (n1.address(), 8080))?;
            let answer = talk.ask()?;
            talk.ask()?;
            let events = monitor.events(count)?;
            ensure!(events.len() == count, "{events:#?}");
            let event = &events[count - 1];
            ensure!(event["Task"].as_str() == answer.split(" from ").next(), "{answer}: {event:#}");
            ensure!(event["Client"] == talk.own()?.to_string(), "{event:#}");
            ensure!(event["Destination"] == format!("{}:8080", n1.address()), "{event:#}");
            let (what, who) = (&event["Event"], &event["Service"]);
            ensure!(what == "new_flow" && event["Outcome"] == "balanced" && who == "web", "{event:#}");
            ensure!(event["Node"] == "n1" && event["Protocol"] == "tcp", "{event:#}");
            talks.push(talk);
        }
        Datagrams::open(lab.client(), (n1.address6(), 8080))?.ask("who?")?;
        let event = &monitor.events(7)?[6];
        ensure!(event["Protocol"] == "udp" && event["Outcome"] == "balanced", "{event:#}");
        // Inside of the mesh as well.
        let [vip, vip6] = both(&tasks[0], "web")?;
        for vip in [vip, vip6] {
            spread(&tasks[0], &url_at(vip, 80), 1)?;
        }
        let events = monitor.events(9)?;
        ensure!(events[7..].iter().all(|event| event["Service"] == "web"), "{events:#?}");
        Ok(())
    })
}

/// Refusals come with their reason; `--service` leaves out what is for others, and `--all` adds pings.
#[test]
fn refusals_are_told_with_their_reason() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("network create other")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        n1.ok("service create --name db --network app -p 8081:80")?;
        if !on_ebpf(lab, UNSEEN)? {
            return Ok(());
        }
        mentions(&n1.refused("monitor --service nope")?, &["service nope not found"])?;
        let web = Task::web(lab, n1, "web")?;
        served_by(lab.client(), &url(n1, 8080), &[&web])?;
        let (stranger, member) = (Task::idle(n1, "other")?, Task::idle(n1, "app")?);
        let (people, of_db, all) =
            (Monitor::start(n1, "")?, Monitor::start(n1, "--service db")?, Monitor::start(n1, "--all")?);
        let vip = vip(n1, "web")?;
        refuses(lab.client(), &url(n1, 8081))?;
        refuses(&stranger, &url_at(vip.into(), 80))?;
        member.command(["ping", "-c", "1", "-W", "2", &vip.to_string()]).ok()?;
        spread(lab.client(), &url(n1, 8080), 1)?;
        eventually(SOON, "all is told", || {
            mentions(
                &people.text()?,
                &[
                    "(db): refused, no_backend",
                    "(web): refused, prohibited",
                    &format!("-> {} (n1)", web.name),
                ],
            )
        })?;
        mentions(&all.text()?, &[&format!("n1 icmp {} -> {vip} (web): answered, ping", member.address()?)])?;
        ensure!(!people.text()?.contains("ping"), "{}", people.text()?);
        let lines = of_db.lines()?;
        ensure!(!lines.is_empty() && lines.iter().all(|line| line.contains("(db)")), "{lines:#?}");
        Ok(())
    })
}

/// Sends a datagram of a size that is not to be split.
const UNSPLIT: &str = "
import socket, sys
address, port, size = sys.argv[1], *map(int, sys.argv[2:])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, 10, 3)  # IP_MTU_DISCOVER: set DF, whatever is known of the way
s.sendto(b'?' * size, (address, port))
";

/// What is too large for the tunnel, and what is not even answered because there is too much of it.
#[test]
fn what_is_too_large_or_too_much_is_told() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80/udp")?;
        if !on_ebpf(lab, UNSEEN)? {
            return Ok(());
        }
        let web = Task::both(lab, n2, "web")?;
        let member = Task::idle(n1, "app")?;
        let (monitor, vip) = (Monitor::start(n1, "")?, vip(n1, "web")?);
        eventually(READY, "it is told", || {
            Datagrams::open(lab.client(), (n1.address(), 8080))?.ask("who?")?;
            lab.client().exec(["python3", "-c", UNSPLIT, &n1.address().to_string(), "8080", "1472"])?.ok()?;
            // All at once.
            member.command(["ping", "-q", "-l", "5000", "-c", "5000", "-w", "2", &vip.to_string()]).run()?;
            mentions(
                &monitor.text()?,
                &[
                    &format!("-> {} (n2)", web.name),
                    "(web): refused, too_big",
                    "(web): dropped, rate_limited",
                ],
            )
        })
    })
}

/// A monitor ends with its agent and says so; a reader that has seen enough ends it; then nobody is told any more.
#[test]
fn monitors_end() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        if !on_ebpf(lab, UNSEEN)? {
            return Ok(());
        }
        let mut first = Monitor::start(n1, "")?;
        let took = std::time::Instant::now();
        n1.restart_agent(READY)?;
        ensure!(
            took.elapsed() < Duration::from_secs(5),
            "the agent waited {:?} for its monitor",
            took.elapsed()
        );
        let status = first.0.wait(SOON)?;
        ensure!(status.code() == Some(1), "{status}");
        mentions(&first.text()?, &["the agent has ended"])?;
        // As `mesh monitor | head -1`, and the next agent's monitor works as the first one's.
        let pipe = format!("{} monitor | head -1", mesh_tests::built_mesh()?.display());
        let mut headed = n1.spawn_daemon("head", ["sh", "-c", &pipe])?;
        eventually(SOON, "it watches", || mentions(&fs::read_to_string(headed.log())?, &["watching"]))?;
        eventually(SOON, "it ends", || {
            refuses(lab.client(), &url(n1, 8080))?;
            ensure!(headed.ended()?.is_some(), "it goes on");
            Ok(())
        })?;
        mentions(&fs::read_to_string(headed.log())?, &["refused, no_backend"])
    })
}
