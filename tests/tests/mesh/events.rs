//! `mesh events`: what happens, told by every node.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Node, Process, eventually};
use serde_json::Value;

use crate::kit::{Cli, READY, Task, mentions, mesh};

/// A `mesh events` that runs.
struct Follower(Process);

impl Follower {
    fn start(node: &Node, options: &str) -> Result<Self> {
        let mesh = mesh_tests::built_mesh()?;
        let mut argv = vec![mesh.display().to_string(), "events".to_owned()];
        argv.extend(options.split_whitespace().map(str::to_owned));
        let name: String = options.chars().filter(char::is_ascii_alphanumeric).collect();
        Ok(Self(node.spawn_daemon(&format!("events{name}"), argv)?))
    }

    fn text(&self) -> Result<String> {
        fs::read_to_string(self.0.log()).context("the events so far")
    }

    /// Waits until these happened, in this order, whatever else did.
    fn tells(&self, wanted: &[&str]) -> Result<Vec<Value>> {
        eventually(READY, &format!("{wanted:?} are told"), || in_order(&self.text()?, wanted))
    }
}

/// The events of these lines, if they have the wanted ones in order: `task start web.1`.
fn in_order(text: &str, wanted: &[&str]) -> Result<Vec<Value>> {
    let events: Vec<Value> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().with_context(|| text.to_owned())?;
    let mut left = wanted.iter();
    let mut next = left.next();
    let mut found = Vec::new();
    for event in events {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let attributes = &event["Actor"]["Attributes"];
        let line =
            format!("{} {} {}", word(&event["Type"]), word(&event["Action"]), word(&attributes["name"]));
        if next.is_some_and(|next| *next == line) {
            found.push(event);
            next = left.next();
        }
    }
    ensure!(next.is_none(), "no {:?} at its place in:\n{text}", next.unwrap_or(&""));
    Ok(found)
}

/// Whoever follows a node learns of what is done on another; what an agent finds when it starts is not told as new.
#[test]
fn every_node_tells_all() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        let all = Follower::start(n2, "--since 1s --format json")?;
        let of_tasks =
            Follower::start(n2, "--since 1s --filter type=task --filter service=web --format json")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80 --health-tcp 80 --health-interval 200ms")?;
        n1.ok("service update --health-retries 1 --health-start-interval 200ms web")?;
        let task = Task::web(lab, n1, "web")?;
        all.tells(&["task health_status: healthy web.1"])?;
        // Nobody listens there.
        n1.ok("service update --health-tcp 81 web")?;
        all.tells(&["task health_status: unhealthy web.1"])?;
        n1.ok("service update --health-tcp 80 web")?;
        all.tells(&["task health_status: unhealthy web.1", "task health_status: healthy web.1"])?;
        n2.ok("task drain web.1")?;
        n1.ok("node update --availability drain n1")?;
        n1.ok("node update --availability active n1")?;
        n1.ok("task rm web.1")?;
        drop(task);
        n1.ok("service rm web")?;
        n1.ok("network rm app")?;
        let life = [
            "task create web.1",
            "task start web.1",
            "task health_status: healthy web.1",
            "task health_status: unhealthy web.1",
            "task health_status: healthy web.1",
            "task drain web.1",
            "task stop web.1",
            "task remove web.1",
        ];
        let events = of_tasks.tells(&life)?;
        ensure!(of_tasks.text()?.lines().all(|line| line.contains("web.1")), "{}", of_tasks.text()?);
        for event in &events {
            let attributes = &event["Actor"]["Attributes"];
            ensure!(attributes["node"] == "n1" && attributes["service"] == "web", "{event:#}");
        }
        mentions(&events[3].to_string(), &["health check tcp:81", "refused"])?;
        all.tells(&[
            "network create app",
            "service create web",
            "service update web",
            "task start web.1",
            "node drain n1",
            "node active n1",
            "service remove web",
            "network remove app",
        ])?;
        // In whole nanoseconds, and the seconds of the same moment.
        let times: Vec<_> = events.iter().map(|event| event["timeNano"].as_u64()).collect();
        ensure!(times.is_sorted() && times.iter().all(Option::is_some), "{times:?}");
        ensure!(events.iter().all(
            |event| event["time"].as_u64() == event["timeNano"].as_u64().map(|nano| nano / 1_000_000_000)
        ));
        // What is past is told as it was; each is a line of the log.
        let past = n2.ok("events --until 0s --format json")?;
        ensure!(past.ends_with(&all.text()?), "{past}\n  is not what was told:\n{}", all.text()?);
        let log = fs::read_to_string(n2.log_file())?;
        mentions(&log, &["event kind=task action=\"start\"", "event kind=network action=\"create\""])?;
        // A moment names where to go on.
        let from = times[2].context("a time")?;
        let since = format!("{}.{:09}", from / 1_000_000_000, from % 1_000_000_000);
        let later =
            n2.ok(&format!("events --no-follow --since {since} -f event=health_status -f event=stop"))?;
        let actions: Vec<_> = later.lines().filter_map(|line| line.split(' ').nth(2)).collect();
        // Whoever is asked to stop may be probed once more.
        let wanted = ["health_status:", "health_status:", "health_status:", "stop"];
        ensure!(actions.starts_with(&wanted), "{later}");
        Ok(())
    })
}

/// An agent that starts takes nothing for new that was there, and tells that it has started.
#[test]
fn a_restart_is_one_event() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let _web = Task::web(lab, n1, "web")?;
        for (node, other) in [(n1, n2), (n2, n1)] {
            let mut follower = Follower::start(node, "--since 1h --format json")?;
            eventually(READY, "it follows", || {
                ensure!(!follower.text()?.is_empty(), "nothing is told yet");
                Ok(())
            })?;
            node.restart_agent(READY)?;
            let status = follower.0.wait(READY)?;
            ensure!(status.code() == Some(1), "{status}");
            mentions(&follower.text()?, &["the agent has ended"])?;
            let name = node.name();
            let told = eventually(READY, "its start is told", || {
                let told = node.ok("events --no-follow --format json")?;
                in_order(&told, &[&format!("node start {name}")])?;
                Ok(told)
            })?;
            ensure!(!told.contains("\"create\""), "what was there is told as new:\n{told}");
            // The record of its start gets there by the store.
            eventually(READY, "its start is told elsewhere", || {
                let elsewhere = other.ok("events --no-follow --format json")?;
                in_order(&elsewhere, &[&format!("node start {name}")])
            })?;
        }
        Ok(())
    })
}

/// Who does not answer is told by those who find out, with the reason, and so is that it does again.
#[test]
fn nodes_go_down_and_come_up() -> Result<()> {
    mesh(3, |lab| {
        let n1 = lab.node("n1")?;
        let follower = Follower::start(n1, "--filter node=n3 --filter type=node --since 1s --format json")?;
        // Whoever was never heard is not judged: some probes have to be answered first.
        thread::sleep(Duration::from_secs(2));
        lab.unplug("n3")?;
        let down = follower.tells(&["node down n3"])?;
        let attributes = &down[0]["Actor"]["Attributes"];
        ensure!(attributes["by"] == "n1" && attributes["reason"] == "it does not answer", "{down:#?}");
        lab.plug("n3")?;
        follower.tells(&["node down n3", "node up n3"]).map(drop)
    })
}

/// What is asked for wrongly gets one clear error.
#[test]
fn wrong_questions_are_refused() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        for (command, parts) in [
            ("events --filter pod=x", &["invalid filter 'pod'", "type, event, service"][..]),
            ("events --filter web", &["bad format of filter", "name=value"]),
            ("events --filter type=pod", &["must be one of 'network'"]),
            ("events --since yesterday", &["--since", "it is no time", "10m"]),
            ("events --until 2026-99-99", &["--until", "it is no time"]),
            ("events --since 1m --until 2m", &["--since is later than --until"]),
            ("events --format yaml", &["'yaml' is neither", "json"]),
            ("events --follow --no-follow", &["cannot be used with"]),
            ("events --format {{.Nope}}", &["Nope"]),
        ] {
            mentions(&n1.refused(command)?, parts)?;
        }
        // A name that nothing has is no error: it may come to be. So are names that are not of this alphabet.
        for filter in ["service=nope", "task=wéb.1", "node=Straße"] {
            let told = n1.ok(&format!("events --no-follow --filter {filter}"))?;
            ensure!(told.is_empty(), "{told}");
        }
        Ok(())
    })
}
