//! Agents that find what another version left.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Load, Node};

use crate::kit::{Cli, Datagrams, READY, Talk, Task, mesh, served_by, url, vip};

/// Has a node's maps be those of another version, as far as the agent can see.
fn age_maps(node: &Node) -> Result<()> {
    let maps = node.run_dir().join("bpf/maps");
    let script = format!("cd {} 2>/dev/null || exit 0; mv v* v0", maps.display());
    node.exec(["sh", "-c", &script])?.ok().map(drop)
}

/// Nothing of the other version's is left.
fn is_tidy(lab: &Lab, node: &Node) -> Result<()> {
    let maps = node.run_dir().join("bpf/maps");
    let left = node.exec(["sh", "-c", &format!("ls {} 2>/dev/null || true", maps.display())])?.ok()?;
    let count = left.split_whitespace().count();
    ensure!(count == usize::from(lab.dataplane() != Some("nft")), "{left}");
    Ok(())
}

/// Connections and datagrams stay with their tasks when agents make maps of another layout or size, and new
/// connections are not lost. Tasks come after the flows, so that nothing but memory leads a packet to its own.
#[test]
fn flows_stay_when_maps_are_made_anew() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8080:80/udp")?;
        let tasks = [Task::both(lab, n1, "web")?, Task::both(lab, n3, "web")?];
        let idle = Task::idle(n2, "app")?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        served_by(&idle, "http://web/", &[&tasks[0], &tasks[1]])?;
        let inside = (vip(n1, "web")?, 80);
        let mut talks = Vec::new();
        let mut datagrams = Vec::new();
        for node in lab.nodes() {
            for _ in 0..4 {
                talks.push(Talk::open(lab.client(), (node.address(), 8080))?);
                talks.push(Talk::open(&idle, inside)?);
                talks.push(Talk::open(node, inside)?);
                datagrams.push(Datagrams::open(lab.client(), (node.address(), 8080))?);
            }
        }
        let mut go_on = |when: &str| -> Result<Vec<String>> {
            let who = |answer: String| answer.split(' ').next().map(str::to_owned).unwrap_or_default();
            let said = talks.iter_mut().map(|talk| talk.ask().map(who));
            let said: Result<Vec<_>> =
                said.chain(datagrams.iter().map(|flow| flow.ask("who").map(who))).collect();
            said.with_context(|| when.to_owned())
        };
        let before = go_on("before")?;
        let more = [Task::both(lab, n2, "web")?, Task::both(lab, n3, "web")?];
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1], &more[0], &more[1]])?;
        }
        let load = Load::start(
            lab.client().netns(),
            &[(n1.address(), 8080).into(), (n2.address(), 8080).into()],
            100,
        )?;
        for node in lab.nodes() {
            node.stop_agent()?;
            age_maps(node)?;
            node.start_agent()?;
            node.wait_ready(READY)?;
            ensure!(go_on(&format!("after {}", node.name()))? == before, "flows have other tasks");
        }
        thread::sleep(Duration::from_secs(1));
        ensure!(go_on("a while after")? == before, "flows have other tasks");
        load.stop()?.lossless()?;
        lab.nodes().iter().try_for_each(|node| is_tidy(lab, node))
    })
}
