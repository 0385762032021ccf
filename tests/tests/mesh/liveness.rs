//! Nodes that die, or are cut off.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mesh_tests::{Lab, Node, STORE_PORT, eventually};

use crate::kit::{Cli, Datagrams, Place, READY, Task, curl, dig, mentions, mesh, served_by, text, url};

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
        ensure!(dig(&idle, "tasks.web")?.ips()? == [tasks[0].address()?], "who is dead is not found by name");
        ensure!(n1.names("task")?.contains(&tasks[1].name), "its tasks' records stay");
        // From where it stands, all others are gone. Its own task serves it.
        all_answered(n3, "http://127.0.0.1:8080/")?;
        lab.plug("n3")?;
        for node in [n1, n2] {
            is(node, "n3", "ready")?;
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        ensure!(dig(&idle, "tasks.web")?.ips()?.len() == 2, "and found again");
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
        // Not a word of its kernel's to probes arrives any more, and everything else works.
        let from = n2.address();
        let answers = format!(
            "ip saddr {from} udp sport 7304 drop; add rule inet wall in ip saddr {from} icmp type echo-reply"
        );
        wall(n1, &answers)?;
        is(n1, "n2", "down")?;
        all_answered(lab.client(), &url(n1, 8080))?;
        no_wall(n1)?;
        is(n1, "n2", "ready")?;
        n2.kill_agent()?;
        thread::sleep(Duration::from_secs(2));
        is(n1, "n2", "ready")?;
        all_answered(lab.client(), &url(n1, 8080))?;
        // That its agent is dead is seen, and changes nothing.
        is(n1, "n2", "unknown")?;
        all_answered(lab.client(), &url(n1, 8080))?;
        n2.start_agent()?;
        is(n1, "n2", "ready")
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
        wall(n2, "udp dport 4789")?;
        is(n1, "n2", "disconnected")?;
        mentions(&n1.mesh(["status"])?.stdout, &["node n2", "not through the tunnel", "VXLAN"])?;
        all_answered(lab.client(), &url(n1, 8080))?;
        no_wall(n2)?;
        is(n1, "n2", "ready")?;
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])
    })
}

/// Drops what a node gets that a rule is about.
fn wall(on: &Node, rule: &str) -> Result<()> {
    let table = format!(
        "add table inet wall; add chain inet wall in {{ type filter hook prerouting priority raw - 10; }}; \
         add rule inet wall in {rule} drop"
    );
    on.exec(["nft", &table])?.ok().map(drop)
}

fn no_wall(on: &Node) -> Result<()> {
    on.exec(["nft", "delete table inet wall"])?.ok().map(drop)
}

/// Two nodes that do not reach each other ask the others: it is the path that is down, and not the node.
#[test]
fn a_node_that_others_hear_is_cut_off_and_not_dead() -> Result<()> {
    mesh(3, |lab: &Lab| {
        let ([n1, n2, n3], tasks) = served_by_two(lab)?;
        served_by(lab.client(), &url(n2, 8080), &[&tasks[0], &tasks[1]])?;
        // Programs answer probes before any wall: it takes one on each side.
        wall(n2, &format!("ip saddr {}", n3.address()))?;
        wall(n3, &format!("ip saddr {}", n2.address()))?;
        for (by, about) in [(n2, "n3"), (n3, "n2")] {
            is(by, about, "disconnected")?;
            let said = by.inspect("node", about)?;
            mentions(&text(&said["Status"]["Message"]), &["answers other nodes"])?;
            is(n1, about, "ready")?;
        }
        all_answered(lab.client(), &url(n2, 8080))?;
        no_wall(n2)?;
        no_wall(n3)?;
        is(n2, "n3", "ready")?;
        served_by(lab.client(), &url(n2, 8080), &[&tasks[0], &tasks[1]])
    })
}

/// A node that is drained says so itself, also to those who do not reach the store; and it takes it back.
#[test]
fn a_drained_node_tells_those_that_the_store_cannot() -> Result<()> {
    mesh(3, |lab: &Lab| {
        let ([_, n2, n3], tasks) = served_by_two(lab)?;
        served_by(lab.client(), &url(n2, 8080), &[&tasks[0], &tasks[1]])?;
        wall(n2, &format!("tcp sport {STORE_PORT}"))?;
        n3.ok("node update --detach --availability drain n3")?;
        is(n2, "n3", "leaving")?;
        let drained = |spec: &str| spec == "drain";
        ensure!(!drained(&text(&n2.inspect("node", "n3")?["Spec"]["Availability"])), "the store told n2");
        eventually(READY, "nothing new goes to n3", || {
            (0..20).try_for_each(|_| {
                let answer = curl(lab.client(), &url(n2, 8080))?;
                ensure!(answer.contains(&tasks[0].name), "{answer}");
                Ok(())
            })
        })?;
        n3.ok("node update --detach --availability active n3")?;
        is(n2, "n3", "ready")?;
        served_by(lab.client(), &url(n2, 8080), &[&tasks[0], &tasks[1]])?;
        no_wall(n2)
    })
}

/// What most nodes see and the store confirms is written down for all, and taken back.
#[test]
fn a_node_that_is_dead_for_all_is_marked_until_it_is_back() -> Result<()> {
    mesh(3, |lab: &Lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        let marked = |by: &Node, count: usize| {
            eventually(READY, "the mark is as it should be", || {
                let said = by.inspect("node", "n3")?;
                let marks = said["Status"]["DownBy"].as_array().map_or(0, Vec::len);
                ensure!(marks == count, "{marks} nodes agree");
                Ok(())
            })
        };
        // Whoever was never heard is not judged: some probes have to be answered first.
        thread::sleep(Duration::from_secs(2));
        lab.unplug("n3")?;
        for node in [n1, n2] {
            is(node, "n3", "down")?;
            marked(node, 2)?;
        }
        mentions(&n1.ok("node inspect --pretty n3")?, &["Down by", "n1, n2"])?;
        lab.plug("n3")?;
        for node in [n1, n2] {
            marked(node, 0)?;
            is(node, "n3", "ready")?;
        }
        Ok(())
    })
}

/// Three nodes, and a task of `web` on each but the first.
fn served_by_two(lab: &Lab) -> Result<([&Node; 3], [Task<'_>; 2])> {
    let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
    n1.ok("network create app")?;
    n1.ok("service create --name web --network app -p 8080:80")?;
    let tasks = [Task::web(lab, n2, "web")?, Task::web(lab, n3, "web")?];
    Ok(([n1, n2, n3], tasks))
}

/// So many new connections in a row, each by another entry, none of which leads to who is dead.
fn none_fails(lab: &Lab, by: [&Node; 2], count: usize) -> Result<()> {
    (0..count).try_for_each(|turn| curl(lab.client(), &url(by[turn % 2], 8080)).map(drop))
}

/// An agent has begun, though not all is well: another node is dead.
fn works(node: &Node) -> Result<()> {
    eventually(READY, "its agent has planned and applied something", || {
        let said = node.mesh(["status", "--format", "json"])?.stdout;
        let status: serde_json::Value = serde_json::from_str(&said)?;
        ensure!(status["AppliedRevision"].as_u64().is_some_and(|applied| applied > 0), "{status}");
        Ok(())
    })
}

/// Two nodes are left of three, and how many say that the third is dead for all.
fn agree(by: &Node, about: &str, count: usize) -> Result<()> {
    let said = by.inspect("node", about)?;
    let marks = said["Status"]["DownBy"].as_array().map_or(0, Vec::len);
    ensure!(marks == count, "{marks} nodes agree");
    Ok(())
}

/// An agent that is killed and starts again knows at once whom the one before did not hear, and takes back nothing that
/// managers agree on.
#[test]
fn agents_that_start_anew_do_not_take_a_dead_node_back() -> Result<()> {
    mesh(3, |lab: &Lab| {
        let ([n1, n2, _], tasks) = served_by_two(lab)?;
        for node in [n1, n2] {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        lab.unplug("n3")?;
        for node in [n1, n2] {
            is(node, "n3", "down")?;
            eventually(READY, "it is marked", || agree(node, "n3", 2))?;
        }
        for node in [n1, n2] {
            node.kill_agent()?;
        }
        for node in [n1, n2] {
            node.start_agent()?;
        }
        for node in [n1, n2] {
            works(node)?;
        }
        // Managers look every three seconds.
        let until = Instant::now() + Duration::from_secs(12);
        while Instant::now() < until {
            none_fails(lab, [n1, n2], 10)?;
            for node in [n1, n2] {
                agree(node, "n3", 2)?;
                let said = text(&node.inspect("node", "n3")?["Status"]["State"]);
                ensure!(said == "down", "{} says that n3 is {said}", node.name());
            }
        }
        let listed = n1.mesh(["node", "ls"])?.stdout.to_lowercase();
        ensure!(listed.lines().any(|line| line.contains("n3") && line.contains("down")), "node ls: {listed}");
        lab.plug("n3")?;
        for node in [n1, n2] {
            is(node, "n3", "ready")?;
            eventually(READY, "the mark is gone", || agree(node, "n3", 0))?;
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        Ok(())
    })
}

/// A node that dies while no agent watches is found by those that start then.
#[test]
fn agents_that_start_find_who_died_meanwhile() -> Result<()> {
    mesh(3, |lab: &Lab| {
        let ([n1, n2, _], tasks) = served_by_two(lab)?;
        for node in [n1, n2] {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
            node.kill_agent()?;
        }
        lab.unplug("n3")?;
        for node in [n1, n2] {
            node.start_agent()?;
        }
        for node in [n1, n2] {
            works(node)?;
        }
        // Other tests use this machine, too: the promise is a second.
        thread::sleep(Duration::from_secs(2));
        none_fails(lab, [n1, n2], 40)?;
        for node in [n1, n2] {
            is(node, "n3", "down")?;
            eventually(READY, "it is marked", || agree(node, "n3", 2))?;
        }
        none_fails(lab, [n1, n2], 40)?;
        lab.plug("n3")?;
        for node in [n1, n2] {
            is(node, "n3", "ready")?;
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        Ok(())
    })
}

/// Something forbids probes to one node, which lives: an agent that starts tries others first, and then it too.
#[test]
fn who_cannot_be_probed_and_lives_is_taken_back() -> Result<()> {
    mesh(3, |lab: &Lab| {
        let ([n1, n2, n3], tasks) = served_by_two(lab)?;
        n1.kill_agent()?;
        let from = n3.address();
        let answers = |from| {
            format!(
                "ip saddr {from} udp sport 7304 drop; add rule inet wall in ip saddr {from} icmp type echo-reply"
            )
        };
        wall(n1, &answers(from))?;
        wall(n2, &answers(from))?;
        n1.start_agent()?;
        works(n1)?;
        is(n1, "n3", "down")?;
        all_answered(lab.client(), &url(n1, 8080))?;
        is(n1, "n3", "ready")?;
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        no_wall(n1)?;
        no_wall(n2)
    })
}
