//! What becomes of connections whose service, or published port, is removed.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Node, eventually};

use crate::kit::{Cli, READY, SOON, Talk, Task, comes_to_refuse, holds, lab, served_by, started, url, vip};

/// Kernels are looked at, and mended, often.
const OFTEN: &str = "[dataplane]\nsweep = 2\n";

/// Connections by their way.
type Talks<'a> = [(&'a str, Talk)];

fn go_on(talks: &mut Talks<'_>, who: &Task<'_>) -> Result<()> {
    for (way, talk) in talks {
        let answer = talk.ask().with_context(|| (*way).to_owned())?;
        ensure!(answer.starts_with(&format!("{} from ", who.name)), "{way}: {answer}");
    }
    thread::sleep(Duration::from_millis(50));
    Ok(())
}

/// Whether the kernel of each node is as planned.
fn verified(node: &Node) -> Result<()> {
    eventually(SOON, "all kernels are as planned", || node.mesh(["verify"])?.ok().map(drop))
}

/// A task to look from whose packets are balanced one by one.
fn by_packets<'a>(node: &'a Node, network: &str) -> Result<Task<'a>> {
    let options = format!("--name plain-{} --network {network} --socket-balancing off", node.name());
    Task::run(node, &options, &["sleep", "1000"])
}

fn again(lab: &Lab) -> Result<()> {
    lab.nodes().iter().try_for_each(Node::kill_agent)?;
    lab.nodes().iter().try_for_each(Node::start_agent)?;
    lab.nodes().iter().try_for_each(|node| node.wait_ready(READY))
}

/// When a service is removed its connections go on until they end, as when a task drains: by VIP, packet by packet, from the
/// task's node and from another, by the published port of both, and by localhost; also when agents are started anew
/// meanwhile. What is new is refused. Nothing is left behind.
#[test]
fn connections_of_a_service_that_is_removed_go_on() -> Result<()> {
    started(lab()?.nodes(3).config(OFTEN), |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80 --drain-timeout 60s")?;
        n1.ok("service create --name other --network app -p 8081:80")?;
        let web = Task::web(lab, n1, "web")?;
        let other = Task::web(lab, n2, "other")?;
        let plain = [by_packets(n1, "app")?, by_packets(n3, "app")?];
        let inside = (vip(n1, "web")?, 80);
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&web])?;
        }
        for task in &plain {
            served_by(task, "http://web/", &[&web])?;
        }
        let mut talks = [
            ("by n1", Talk::open(lab.client(), (n1.address(), 8080))?),
            ("by n3", Talk::open(lab.client(), (n3.address(), 8080))?),
            ("by VIP on n1", Talk::open(&plain[0], inside)?),
            ("by VIP on n3", Talk::open(&plain[1], inside)?),
            ("by localhost of n2", Talk::open(n2, ([127, 0, 0, 1], 8080))?),
        ];
        go_on(&mut talks, &web)?;
        n2.ok("service rm --detach web")?;
        for node in lab.nodes() {
            comes_to_refuse(lab.client(), &url(node, 8080), SOON)?;
        }
        holds(Duration::from_secs(5), || go_on(&mut talks, &web))?;
        verified(n1)?;
        again(lab)?;
        holds(Duration::from_secs(5), || go_on(&mut talks, &web)).context("with agents started anew")?;
        verified(n1)?;
        for node in lab.nodes() {
            comes_to_refuse(lab.client(), &url(node, 8080), SOON)?;
            served_by(lab.client(), &url(node, 8081), &[&other])?;
        }
        drop(talks);
        eventually(READY, "the task ends with its last connection", || {
            ensure!(!n2.names("task")?.contains(&web.name), "{:?}", n2.names("task")?);
            Ok(())
        })?;
        verified(n1)
    })
}

/// A port that is published no more is refused to what is new, and known connections by it go on: their task does, too.
/// Whoever publishes the port next gets what is new.
#[test]
fn connections_by_a_port_that_is_removed_go_on() -> Result<()> {
    started(lab()?.nodes(3).config(OFTEN), |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8081:80")?;
        n1.ok("service create --name other --network app")?;
        let web = Task::web(lab, n1, "web")?;
        let other = Task::web(lab, n2, "other")?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&web])?;
        }
        let mut talks = [
            ("by n1", Talk::open(lab.client(), (n1.address(), 8080))?),
            ("by n3", Talk::open(lab.client(), (n3.address(), 8080))?),
            ("by localhost of n2", Talk::open(n2, ([127, 0, 0, 1], 8080))?),
        ];
        go_on(&mut talks, &web)?;
        n2.ok("service update --publish-rm 8080:80 web")?;
        for node in lab.nodes() {
            comes_to_refuse(lab.client(), &url(node, 8080), SOON)?;
        }
        holds(Duration::from_secs(5), || go_on(&mut talks, &web))?;
        verified(n1)?;
        again(lab)?;
        holds(Duration::from_secs(5), || go_on(&mut talks, &web)).context("with agents started anew")?;
        n1.ok("service update --publish-add 8080:80 other")?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&other])?;
            served_by(lab.client(), &url(node, 8081), &[&web])?;
        }
        holds(Duration::from_secs(3), || go_on(&mut talks, &web)).context("with the port another's")?;
        verified(n1)
    })
}
