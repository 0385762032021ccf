//! Agents that go and come back, under what goes on meanwhile.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Load, Node, eventually};

use crate::kit::{Cli, Place, READY, SOON, Talk, Task, answers, mesh, served_by, url, vip};

/// How agents can go.
type Away = fn(&Node) -> Result<()>;

const WAYS: [(&str, Away); 2] =
    [("a stop", |node| node.stop_agent().map(drop)), ("kill -9", |node| node.kill_agent())];

fn back(lab: &Lab) -> Result<()> {
    lab.nodes().iter().try_for_each(Node::start_agent)?;
    lab.nodes().iter().try_for_each(|node| node.wait_ready(READY))
}

/// A connection that says nothing meanwhile stays through the end of all agents and their return: both directions go
/// on, by VIP, by the port of the task's node and of another, from a node and from its localhost.
#[test]
fn idle_connections_stay_when_all_agents_end() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let web = Task::web(lab, n2, "web")?;
        let idle = [Task::idle(n1, "app")?, Task::idle(n2, "app")?];
        let inside = (vip(n1, "web")?, 80);
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&web])?;
        }
        for task in &idle {
            answers(task, "http://web/")?;
        }
        let mut talks = [
            ("client to the task's node", Talk::open(lab.client(), (n2.address(), 8080))?),
            ("client to another node", Talk::open(lab.client(), (n3.address(), 8080))?),
            ("outside to another node", Talk::open(lab.outside(), (n1.address(), 8080))?),
            ("task to VIP", Talk::open(&idle[0], inside)?),
            ("task to VIP on one node", Talk::open(&idle[1], inside)?),
            ("node to VIP", Talk::open(n1, inside)?),
            ("node to localhost", Talk::open(n3, ([127, 0, 0, 1], 8080))?),
        ];
        let mut go_on = |when: &str| {
            for (name, talk) in &mut talks {
                let answer = talk.ask().with_context(|| format!("{name} {when}"))?;
                ensure!(answer.starts_with("web.1 from "), "{name} {when}: {answer}");
            }
            Ok::<_, anyhow::Error>(())
        };
        go_on("before")?;
        for (way, away) in WAYS {
            lab.nodes().iter().try_for_each(away)?;
            go_on(&format!("after {way}"))?;
            back(lab)?;
            go_on(&format!("after {way} and a start"))?;
            // And after whatever the agents put right once they are back.
            thread::sleep(Duration::from_secs(1));
            go_on(&format!("a while after {way} and a start"))?;
        }
        Ok(())
    })
}

/// New connections at a steady rate, by two nodes and by VIP, lose nothing while every agent ends and comes back,
/// asked to or killed.
#[test]
fn new_connections_are_not_lost_while_all_agents_end() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n3, "web")?];
        let idle = Task::idle(n2, "app")?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        served_by(&idle, "http://web/", &[&tasks[0], &tasks[1]])?;
        let ports = [(n1.address(), 8080).into(), (n2.address(), 8080).into()];
        let load = [
            Load::start(lab.client().netns(), &ports, 150)?,
            Load::start(&idle.netns_at()?, &[(vip(n1, "web")?, 80).into()], 50)?,
        ];
        for (_, away) in WAYS {
            lab.nodes().iter().try_for_each(away)?;
            thread::sleep(Duration::from_millis(300));
            back(lab)?;
            eventually(SOON, "the mesh is whole", || {
                for node in lab.nodes() {
                    node.ok("status")?;
                }
                Ok(())
            })?;
        }
        for load in load {
            let report = load.stop()?;
            report.lossless()?;
            ensure!(report.by_backend.len() == 2, "{report}");
        }
        Ok(())
    })
}
