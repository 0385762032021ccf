//! A mesh that keeps its records in an etcd of the user's.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mesh_tests::{Etcd, Lab, Load, Node, eventually, lab_test};
use serde_json::Value;

use crate::kit::{Cli, READY, SOON, Task, holds, lab, mentions, served_by, url};

/// Where etcd listens: on the client's host.
const ENDPOINT: &str = "http://192.168.77.100:2379";

/// How long it may take until a change is refused that no store takes.
const REFUSED: Duration = Duration::from_secs(15);

/// Runs a test in a mesh of two nodes on an etcd.
pub(crate) fn on_etcd(test: impl FnOnce(&Lab, &mut Etcd) -> Result<()>) -> Result<()> {
    let store = format!("[store]\nmode = \"external\"\nendpoints = [\"{ENDPOINT}\"]\n");
    lab_test(lab()?.nodes(2).config(&store), |lab| {
        let mut etcd = Etcd::on_host(lab.client())?;
        ensure!(etcd.urls() == [ENDPOINT], "{:?}", etcd.urls());
        lab.start_agents(READY)?;
        eventually(READY, "every node knows all nodes", || {
            for node in lab.nodes() {
                ensure!(node.rows("node ls")?.len() == 2, "{} knows fewer", node.name());
            }
            Ok(())
        })?;
        test(lab, &mut etcd)
    })
}

/// A node's own word on its store.
fn store_is(node: &Node, connected: bool) -> Result<()> {
    eventually(REFUSED, "the status says how the store fares", || {
        // It fails when not all is well, and says what all the same.
        let output = node.mesh(["status", "--format", "json"])?;
        let status: Value = serde_json::from_str(&output.stdout)?;
        let store = &status["Store"];
        ensure!(store["Engine"] == "external" && store["Connected"] == connected, "{store}");
        let problem = store["Problem"].as_str().unwrap_or_default();
        ensure!(problem.is_empty() == connected, "{store}");
        ensure!(status["Healthy"] == connected, "{status}");
        Ok(())
    })
}

/// A new start of an agent whose store is away: it cannot be healthy, but it serves what it knew.
fn restart_unready(node: &Node) -> Result<()> {
    node.stop_agent()?;
    node.start_agent()?;
    store_is(node, false)
}

/// A change is refused within a time, by one message that names the store.
fn change_is_refused(node: &Node, name: &str) -> Result<()> {
    let start = Instant::now();
    let command = format!("network create {name}");
    let output = node.mesh_command(command.split(' ')).timeout(REFUSED).run()?;
    mentions(&crate::kit::one_message(output)?, &["store", ENDPOINT])?;
    ensure!(start.elapsed() < REFUSED, "it took {:?}", start.elapsed());
    Ok(())
}

/// etcd dies and comes back: traffic goes on, also through a new start of an agent; changes are refused with the reason
/// while it is away, and made again when it is back.
#[test]
fn traffic_goes_on_without_etcd() -> Result<()> {
    on_etcd(|lab, etcd| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n2.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
            store_is(node, true)?;
        }
        let ports = [(n1.address(), 8080).into(), (n2.address(), 8080).into()];
        let load = Load::start(lab.client().netns(), &ports, 100)?;
        etcd.kill()?;
        for node in lab.nodes() {
            store_is(node, false)?;
            change_is_refused(node, "other")?;
        }
        restart_unready(n2)?;
        holds(Duration::from_secs(2), || {
            served_by(lab.client(), &url(n2, 8080), &[&tasks[0], &tasks[1]])?;
            ensure!(n1.names("service")? == ["web"] && n2.names("service")? == ["web"], "services are known");
            Ok(())
        })?;
        etcd.start()?;
        for node in lab.nodes() {
            store_is(node, true)?;
        }
        n2.ok("network create other")?;
        eventually(SOON, "the other node knows it", || {
            ensure!(n1.names("network")? == ["app", "other"], "{:?}", n1.names("network")?);
            Ok(())
        })?;
        load.stop()?.lossless()
    })
}

/// etcd freezes: its connections stay, and nothing answers.
#[test]
fn traffic_goes_on_with_a_frozen_etcd() -> Result<()> {
    on_etcd(|lab, etcd| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let task = Task::web(lab, lab.node("n2")?, "web")?;
        served_by(lab.client(), &url(n1, 8080), &[&task])?;
        let load = Load::start(lab.client().netns(), &[(n1.address(), 8080).into()], 100)?;
        etcd.member(0).pause()?;
        store_is(n1, false)?;
        change_is_refused(n1, "other")?;
        etcd.member(0).resume()?;
        store_is(n1, true)?;
        ensure!(n1.names("network")? == ["app"], "what was refused was not done: {:?}", n1.names("network")?);
        n1.ok("network create other")?;
        load.stop()?.lossless()
    })
}

/// What is given back is free again although no node keeps the records, and etcd shows the records to people.
#[test]
fn what_is_given_back_is_freed() -> Result<()> {
    on_etcd(|lab, etcd| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let claims = |etcd: &Etcd| etcd.ctl(["get", "--prefix", "--keys-only", "/mesh/records/claim/vip/"]);
        ensure!(!claims(etcd)?.trim().is_empty(), "a VIP is claimed");
        ensure!(
            etcd.ctl(["get", "--prefix", "/mesh/records/svc/"])?.contains("\"web\""),
            "the service is there"
        );
        n1.ok("service rm web")?;
        eventually(Duration::from_secs(20), "the VIP is free", || {
            let claims = claims(etcd)?;
            ensure!(claims.trim().is_empty(), "{claims}");
            Ok(())
        })
    })
}

/// An agent that is told of something else than its mesh's etcd says so and leaves everything as it is.
#[test]
fn another_etcd_changes_nothing() -> Result<()> {
    on_etcd(|lab, etcd| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let task = Task::web(lab, n2, "web")?;
        served_by(lab.client(), &url(n1, 8080), &[&task])?;
        etcd.kill()?;
        etcd.wipe()?;
        etcd.start()?;
        for node in lab.nodes() {
            store_is(node, false)?;
            change_is_refused(node, "other")?;
            mentions(&node.mesh(["status"])?.stdout, &["this node belongs to the mesh"])?;
        }
        restart_unready(n1)?;
        served_by(lab.client(), &url(n1, 8080), &[&task])?;
        let content = etcd.ctl(["get", "--prefix", ""])?;
        ensure!(content.is_empty(), "something was written: {content}");
        Ok(())
    })
}
