//! `mesh verify`: whether the kernels are as planned, and what is not.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_tests::{Node, Output, eventually};
use serde_json::Value;

use crate::kit::{Cli, DUAL, READY, Task, lab, mentions, planes, served_by, started, url};

/// Nothing is repaired but by request.
const NEVER: &str = "[dataplane]\nsweep = 3600\n";
/// How long a node that may have died is waited for.
const ANSWERED: Duration = Duration::from_secs(40);

fn verify(node: &Node, options: &str) -> Result<Output> {
    node.mesh(format!("verify {options}").split_whitespace())
}

/// What each node's line says.
fn found(node: &Node, options: &str) -> Result<(Option<i32>, Vec<Value>)> {
    let output = verify(node, &format!("{options} --format json"))?;
    let verification: Value = serde_json::from_str(&output.stdout)?;
    let nodes = verification["Nodes"].as_array().cloned().unwrap_or_default();
    ensure!(verification["Ok"] == (output.code() == Some(0)), "{}", output.stdout);
    Ok((output.code(), nodes))
}

/// Whatever somebody changes by hand on a node is told, and by whom; nothing is mended before that is asked for.
#[test]
fn what_was_changed_by_hand_is_told_and_mended_on_request() -> Result<()> {
    started(lab()?.nodes(3).config(NEVER), |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8081:80/udp")?;
        let tasks = [Task::both(lab, n1, "web")?, Task::both(lab, n2, "web")?];
        served_by(lab.client(), &url(n2, 8080), &[&tasks[0], &tasks[1]])?;
        eventually(READY, "all are as planned", || {
            let output = verify(n1, "")?;
            ensure!(output.code() == Some(0), "{}{}", output.stdout, output.stderr);
            mentions(&output.stdout, &["NODE", "KERNEL", "DIFFERENCES", "n1", "n2", "n3", "as planned"])
        })?;
        for (change, object) in [
            ("nft flush chain inet mesh guard", "chain guard"),
            ("nft delete table inet mesh", "table inet mesh"),
            ("ip route flush table all proto 77", "route "),
            ("ip neigh flush nud permanent dev mesh0", "neighbour 192.168.77.11"),
            ("sysctl -qw net.ipv4.ip_forward=0", "net/ipv4/ip_forward: is 0, planned 1"),
        ] {
            n2.exec(["sh", "-c", change])?.ok()?;
            for _ in 0..2 {
                let output = verify(n1, "")?;
                ensure!(output.code() == Some(1), "`{change}` is not seen: {}", output.stdout);
                mentions(&output.stdout, &["differs", "n2: ", object])?;
                ensure!(!output.stdout.contains("n1: "), "{}", output.stdout);
            }
            let (code, nodes) = found(n1, "--repair")?;
            ensure!(code == Some(0), "`{change}` is not mended: {nodes:?}");
            for node in &nodes {
                let differs = node["Found"] != 0;
                ensure!(differs == (node["Hostname"] == "n2") && node["Left"] == 0, "`{change}`: {nodes:?}");
            }
            let (code, nodes) = found(n1, "")?;
            ensure!(code == Some(0) && nodes.iter().all(|node| node["Found"] == 0), "`{change}`: {nodes:?}");
        }
        served_by(lab.client(), &url(n2, 8080), &[&tasks[0], &tasks[1]])
    })
}

/// Programs that somebody takes off a device or a control group are told, and put back.
#[test]
fn programs_that_are_gone_are_told() -> Result<()> {
    started(lab()?.nodes(1).config(NEVER), |lab| {
        let n1 = lab.node("n1")?;
        if !planes(n1)?.contains(&"ebpf".to_owned()) {
            return Ok(());
        }
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let task = Task::web(lab, n1, "web")?;
        eventually(READY, "all is as planned", || {
            ensure!(verify(n1, "")?.code() == Some(0));
            Ok(())
        })?;
        for directory in ["links", "sockets"] {
            let pins = format!("find {}/run/bpf -path '*{directory}*' -type f", n1.dir().display());
            let removed = n1.exec(["sh", "-c", &format!("{pins} -print -delete")])?.ok()?;
            ensure!(!removed.is_empty(), "there are {directory}");
            let output = verify(n1, "")?;
            ensure!(output.code() == Some(1), "{}", output.stdout);
            mentions(&output.stdout, &["missing"])?;
            ensure!(found(n1, "--repair")?.0 == Some(0));
            ensure!(verify(n1, "")?.code() == Some(0));
            served_by(lab.client(), &url(n1, 8080), &[&task])?;
        }
        Ok(())
    })
}

/// Who does not answer is told.
#[test]
fn a_node_that_does_not_answer_is_told() -> Result<()> {
    started(lab()?.nodes(2), |lab| {
        let n1 = lab.node("n1")?;
        lab.node("n2")?.kill_agent()?;
        let output = n1.mesh_command(["verify"]).timeout(ANSWERED).run()?;
        ensure!(output.code() == Some(1), "{}", output.stdout);
        mentions(&output.stdout, &["n2", "no answer", "as planned"])
    })
}
