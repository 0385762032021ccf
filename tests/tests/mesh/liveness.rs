//! Nodes that die, or are cut off.

use anyhow::{Result, ensure};
use mesh_tests::{Lab, Node, eventually};

use crate::kit::{Cli, Datagrams, Place, READY, Task, curl, mentions, mesh, served_by, text, url};

/// How a node is listed by another.
fn is(by: &Node, name: &str, state: &str) -> Result<()> {
    eventually(READY, "the node is known for what it is", || {
        let said = text(&by.inspect("node", name)?["Status"]["State"]);
        ensure!(said == state, "{name} is {said}");
        Ok(())
    })
}

/// Many new connections in a row, all of which are answered.
fn all_answered(from: &impl Place, url: &str) -> Result<()> {
    eventually(READY, "no connection fails", || (0..30).try_for_each(|_| curl(from, url).map(drop)))
}

/// A node that is unplugged gets no new connections by any other, though its tasks' records stay; once it is back it
/// serves as before.
#[test]
fn a_node_that_is_cut_off_gets_no_new_connections() -> Result<()> {
    mesh(3, |lab: &Lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8080:80/udp")?;
        let tasks = [Task::both(lab, n2, "web")?, Task::both(lab, n3, "web")?];
        let idle = Task::idle(n1, "app")?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        let open = || Datagrams::open(lab.client(), (n1.address(), 8080));
        let flows: Vec<_> = (0..8).map(|_| open()).collect::<Result<_>>()?;
        let served = |name: &str| -> Result<usize> {
            let answers: Vec<_> = flows.iter().map(|flow| flow.ask("who")).collect::<Result<_>>()?;
            Ok(answers.iter().filter(|answer| answer.starts_with(name)).count())
        };
        ensure!(served(&tasks[1].name)? > 0, "no flow leads to the node that is about to die");
        lab.unplug("n3")?;
        is(n1, "n3", "down")?;
        eventually(READY, "datagrams go elsewhere", || {
            ensure!(served(&tasks[0].name)? == flows.len());
            Ok(())
        })?;
        for node in [n1, n2] {
            is(node, "n3", "down")?;
            all_answered(lab.client(), &url(node, 8080))?;
            mentions(&node.mesh(["status"])?.stdout, &["node n3", "does not answer"])?;
        }
        all_answered(&idle, "http://web/")?;
        ensure!(n1.names("task")?.contains(&tasks[1].name), "its tasks' records stay");
        // From where it stands, all others are gone. Its own task serves it.
        all_answered(n3, "http://127.0.0.1:8080/")?;
        lab.plug("n3")?;
        for node in [n1, n2] {
            is(node, "n3", "ready")?;
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        is(n3, "n1", "ready")
    })
}

/// Where nobody else serves, a node that is not heard is tried all the same. An agent that ends is no node that dies.
#[test]
fn the_last_task_stays_in_the_balance_and_a_dead_agent_is_no_dead_node() -> Result<()> {
    mesh(2, |lab: &Lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let web = Task::web(lab, n2, "web")?;
        served_by(lab.client(), &url(n1, 8080), &[&web])?;
        // Its kernel says no word to probes any more, and everything else works.
        n2.sysctl("net/ipv4/icmp_echo_ignore_all", "1")?;
        is(n1, "n2", "down")?;
        all_answered(lab.client(), &url(n1, 8080))?;
        n2.sysctl("net/ipv4/icmp_echo_ignore_all", "0")?;
        is(n1, "n2", "ready")?;
        n2.kill_agent()?;
        std::thread::sleep(std::time::Duration::from_secs(2));
        is(n1, "n2", "ready")?;
        all_answered(lab.client(), &url(n1, 8080))?;
        n2.start_agent()
    })
}

/// A node that is heard but not through the tunnel gets no new connections either, and `mesh status` says where to look.
#[test]
fn a_tunnel_that_is_blocked_is_found() -> Result<()> {
    mesh(2, |lab: &Lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        let block = "add table inet wall; add chain inet wall in { type filter hook prerouting priority raw - 10; }; \
                     add rule inet wall in udp dport 4789 drop";
        n2.exec(["nft", block])?.ok()?;
        is(n1, "n2", "disconnected")?;
        mentions(&n1.mesh(["status"])?.stdout, &["node n2", "not through the tunnel", "VXLAN"])?;
        all_answered(lab.client(), &url(n1, 8080))?;
        n2.exec(["nft", "delete table inet wall"])?.ok()?;
        is(n1, "n2", "ready")?;
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])
    })
}
