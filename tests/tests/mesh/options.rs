//! What a service may wish for its flows, as its users see it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Node, eventually};

use crate::kit::{
    Cli, DUAL, Datagrams, Place, SOON, Talk, Task, addresses, curl, mesh, on_ebpf, served_by, spread, status,
    url, url_at, vip,
};

/// How `mesh status` on nftables says that it has one way only.
const ONE_WAY: &[&str] = &["--return-path tunnel and dsr are not available"];
const AT_RANDOM: &[&str] = &["least-conn spreads flows at random"];

/// Packets that a node got out of the tunnel.
fn tunnelled(node: &Node) -> Result<u64> {
    let said = node.command(["ip", "-json", "-stats", "link", "show", "mesh0"]).ok()?;
    let links: serde_json::Value = serde_json::from_str(&said)?;
    links[0]["stats64"]["rx"]["packets"].as_u64().with_context(|| said.clone())
}

/// With `dsr` a task answers the client straight from its own node, and sees the client's own address as always.
#[test]
fn answers_go_straight_to_the_client() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app --return-path dsr -p 8080:80 -p 8080:80/udp")?;
        let web = Task::both(lab, n2, "web")?;
        if !on_ebpf(lab, ONE_WAY)? {
            return Ok(());
        }
        for address in addresses(n1) {
            served_by(lab.client(), &url_at(address, 8080), &[&web])?;
            let before = tunnelled(n1)?;
            for _ in 0..50 {
                Talk::open(lab.client(), (address, 8080))?.is_seen_as_it_is()?;
                Datagrams::open(lab.client(), (address, 8080))?.is_seen_as_it_is()?;
            }
            let came_back = tunnelled(n1)? - before;
            ensure!(came_back < 50, "{came_back} packets came back to the entry node");
            // Clients within the mesh have no shorter way, and those of the task's own node are not outside.
            Talk::open(n2, (address, 8080))?.ask()?;
            Talk::open(&web, (address, 8080))?.ask()?;
        }
        n1.ok("service update --return-path tunnel web")?;
        eventually(SOON, "answers come back by the entry node", || {
            let before = tunnelled(n1)?;
            Talk::open(lab.client(), (n1.address(), 8080))?.is_seen_as_it_is()?;
            ensure!(tunnelled(n1)? > before + 2);
            Ok(())
        })
    })
}

/// With `snat` a task on another node sees the entry node's address in its network, each client gets its own answers,
/// and a task on the entry node sees the client.
#[test]
fn a_task_elsewhere_sees_the_entry_node() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app --subnet 10.30.0.0/16")?;
        n1.ok("service create --name web --network app --return-path snat -p 8080:80 -p 8080:80/udp")?;
        let web = Task::both(lab, n2, "web")?;
        served_by(lab.client(), &url(n1, 8080), &[&web])?;
        let mut talks = Vec::new();
        for client in [lab.client(), lab.outside()] {
            for _ in 0..10 {
                talks.push(Talk::open(client, (n1.address(), 8080))?);
                let datagrams = Datagrams::open(client, (n1.address(), 8080))?;
                let seen = datagrams.ask("peer")?;
                ensure!(seen.contains("10.30."), "the task sees {seen}");
            }
        }
        for talk in &mut talks {
            let seen = talk.get("/peer")?;
            ensure!(seen.contains("10.30."), "the task sees {seen}");
        }
        Talk::open(lab.client(), (n2.address(), 8080))?.is_seen_as_it_is()
    })
}

/// New connections go to the task with the fewest.
#[test]
fn connections_go_to_whoever_has_the_fewest() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app --balancing least-conn -p 8080:80")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        if !on_ebpf(lab, AT_RANDOM)? {
            return Ok(());
        }
        let mut open: BTreeMap<String, Vec<Talk>> = BTreeMap::new();
        let mut more = |count: usize| -> Result<BTreeMap<String, usize>> {
            for _ in 0..count {
                let mut talk = Talk::open(lab.client(), (n1.address(), 8080))?;
                let name = talk.ask()?.split(' ').next().unwrap_or_default().to_owned();
                open.entry(name).or_default().push(talk);
            }
            let counts = open.iter().map(|(name, talks)| (name.clone(), talks.len())).collect();
            if count == 40 {
                // One has all of its connections end.
                open.remove("web.1");
            }
            Ok(counts)
        };
        let even = more(40)?;
        ensure!(even.values().all(|count| (17..=23).contains(count)), "{even:?}");
        let uneven = more(16)?;
        ensure!(uneven["web.1"] >= 12, "those that ended count no more: {uneven:?}");
        Ok(())
    })
}

/// A node that has not heard yet that a task is gone sends it a connection all the same: that one gets another task.
#[test]
fn a_connection_to_a_task_that_has_just_left_gets_another() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n2, "web")?, Task::web(lab, n3, "web")?];
        // The store is with n1: only n3 may be deaf.
        served_by(lab.client(), &url(n3, 8080), &[&tasks[0], &tasks[1]])?;
        if !on_ebpf(lab, &["another node"])? {
            return Ok(());
        }
        leaves_unheard(&tasks[0], n3, lab.client(), &url(n3, 8080))?;
        let spread = spread(lab.client(), &url(n3, 8080), 10)?;
        ensure!(spread.len() == 1, "{spread:?}");
        Ok(())
    })
}

/// The same by a VIP, where packets are balanced: with Maglev no socket is led.
#[test]
fn a_connection_by_a_vip_to_a_task_that_has_just_left_gets_another() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app --balancing maglev")?;
        let tasks = [Task::web(lab, n2, "web")?, Task::web(lab, n1, "web")?];
        let idle = Task::idle(n3, "app")?;
        served_by(&idle, "http://web/", &[&tasks[0], &tasks[1]])?;
        if !on_ebpf(lab, &["another node"])? {
            return Ok(());
        }
        let to = format!("http://{}/", vip(n1, "web")?);
        leaves_unheard(&tasks[0], n3, &idle, &to)
    })
}

/// Web.1 ends while the agent of the entry is deaf: whoever asks gets web.2, for web.1's node sends back what comes.
fn leaves_unheard(task: &Task<'_>, entry: &Node, from: &impl Place, to: &str) -> Result<()> {
    entry.pause_agent()?;
    // Not by `rm`, which waits for every node.
    task.node.command(["kill", "-9", &task.pid.to_string()]).ok()?;
    let gone = eventually(SOON, "its own node knows", || {
        ensure!(!task.node.ok("task ls")?.contains("web.1"));
        Ok(())
    });
    // And its kernel does, too, which takes it a round.
    let gone = gone.and_then(|()| status(task.node));
    let after = gone.and_then(|_| {
        for turn in 0..40 {
            let answer = curl(from, to).with_context(|| format!("turn {turn}"))?;
            ensure!(answer.starts_with("web.2 from "), "{answer}");
        }
        Ok(())
    });
    entry.resume_agent()?;
    after?;
    let counted = task.node.ok("status")?;
    ensure!(counted.contains("returned"), "{counted}");
    Ok(())
}
