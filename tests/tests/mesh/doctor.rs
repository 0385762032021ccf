//! `mesh doctor`: what is wrong is found, named and comes with its cure; what is well is not complained of.

use std::fs;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Node, eventually};
use serde_json::Value;

use crate::kit::{Cli, READY, Task, mentions, mesh, text};

/// What it finds on a node, and its exit code.
fn doctor(node: &Node) -> Result<(Vec<Value>, i32)> {
    let config = node.config_file().display().to_string();
    let output = node.mesh(["doctor", "--config", &config, "--format", "json"])?;
    let code = output.code().context("it was killed")?;
    ensure!(code <= 1, "{}", output.stderr);
    let found = output.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    Ok((found.with_context(|| output.stdout.clone())?, code))
}

/// Nothing that does not work.
fn is_sound(node: &Node) -> Result<Vec<Value>> {
    eventually(READY, "nothing is wrong", || {
        let (found, code) = doctor(node)?;
        let wrong: Vec<_> = found.iter().filter(|finding| finding["Result"] == "error").collect();
        ensure!(wrong.is_empty() && code == 0, "{wrong:#?}");
        Ok(found)
    })
}

/// Waits until a check finds something that does not work, or may not; what is said of it and its cure.
fn tells(node: &Node, check: &str, result: &str, parts: &[&str], cure: &[&str]) -> Result<()> {
    eventually(READY, &format!("{check}: {parts:?}"), || {
        let (found, code) = doctor(node)?;
        ensure!(result != "error" || code == 1, "it exits with {code}");
        let told = found.iter().filter(|finding| finding["Check"] == check && finding["Result"] == result);
        let told: Vec<_> = told.collect();
        let right = told.iter().any(|finding| {
            mentions(&text(&finding["Detail"]), parts).is_ok()
                && mentions(&text(&finding["Cure"]), cure).is_ok()
        });
        ensure!(right, "{told:#?} of {found:#?}");
        Ok(())
    })
}

/// A mesh with something to look at.
fn ward(nodes: usize, test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    mesh(nodes, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let _tasks: Vec<_> =
            lab.nodes().iter().map(|node| Task::web(lab, node, "web")).collect::<Result<_>>()?;
        test(lab)
    })
}

#[test]
fn what_is_well_is_not_complained_of() -> Result<()> {
    ward(3, |lab| {
        for node in lab.nodes() {
            let found = is_sound(node)?;
            let of = |check: &str| {
                found.iter().find(|finding| finding["Check"] == check).cloned().unwrap_or_default()
            };
            for (check, detail) in [
                ("agent", "it runs"),
                ("underlay", "2 other nodes answer"),
                ("mtu", "packets of 1500 bytes pass"),
                ("tunnel", "packets of 1450 bytes pass to 2 nodes"),
                ("clock", "2 nodes are within"),
                ("sysctl", "forwarding is on"),
                ("firewall", "there are no rules of others"),
                ("ports", "nobody else's"),
                ("disk", "are free"),
                ("versions", "all nodes run mesh"),
            ] {
                ensure!(of(check)["Result"] == "ok", "{}: {check}: {found:#?}", node.name());
                mentions(&text(&of(check)["Detail"]), &[detail])?;
            }
        }
        let config = lab.node("n1")?.config_file().display().to_string();
        let table = lab.node("n1")?.mesh(["doctor", "--config", &config])?.ok()?;
        mentions(&table, &["CHECK", "RESULT", "DETAIL", "mtu"])
    })
}

/// The way to a node takes less than its devices do: nobody says so, and large packets are gone.
#[test]
fn a_path_that_takes_less_is_measured() -> Result<()> {
    ward(2, |lab| {
        let n1 = lab.node("n1")?;
        is_sound(n1)?;
        // A pair of devices lets four bytes more pass: room for a VLAN's tag.
        lab.fabric().ip("link set dev n2 mtu 1400\n")?;
        tells(n1, "mtu", "error", &["1500 bytes", "n2", "those of 1404 do"], &["ip link set eth0 mtu 1404"])?;
        tells(n1, "tunnel", "error", &["n2", "1450 bytes are lost", "those of 1354 come"], &["MTU"])?;
        lab.fabric().ip("link set dev n2 mtu 1500\n")?;
        is_sound(n1).map(drop)
    })
}

/// Rules of others that drop what the mesh sends are named, and what they do is seen.
#[test]
fn rules_of_others_are_named() -> Result<()> {
    ward(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        is_sound(n1)?;
        let rules = "table inet strict { chain in { type filter hook input priority 10; policy accept; udp dport 4789 drop; }; }";
        n1.exec(["nft", rules])?.ok()?;
        tells(
            n1,
            "firewall",
            "error",
            &["chain in of table inet strict drops tunnels", "udp port 4789"],
            &["accept"],
        )?;
        tells(n2, "tunnel", "error", &["n1 answers, and not through the tunnel"], &["UDP port 4789"])?;
        n1.exec(["nft", "delete table inet strict"])?.ok()?;
        is_sound(n1)?;
        let closed = "table ip closed { chain in { type filter hook input priority 10; policy drop; ct state established accept; \
            tcp dport 22 accept; ip protocol icmp accept; udp dport { 4789 } accept; iifname lo accept; tcp dport 7000-7400 accept; }; \
            chain through { type filter hook forward priority 10; policy drop; }; }";
        n1.exec(["nft", closed])?.ok()?;
        tells(
            n1,
            "firewall",
            "error",
            &["policy of chain in of table ip closed drops probes", "7304"],
            &["accept"],
        )?;
        tells(n1, "firewall", "error", &["policy of chain through", "flows from and to tasks"], &["mesh*"])?;
        n1.exec(["nft", "delete table ip closed"])?.ok()?;
        is_sound(n1).map(drop)
    })
}

/// A program that has taken a published port, a setting, a node that is gone, an agent that does not run.
#[test]
fn damages_are_told_one_by_one() -> Result<()> {
    ward(2, |lab| {
        let n1 = lab.node("n1")?;
        is_sound(n1)?;
        let server = n1.spawn_daemon("taken", ["python3", "-m", "http.server", "8080"])?;
        tells(n1, "ports", "error", &["tcp port 8080", "service web", "python3"], &["listen elsewhere"])?;
        drop(server);
        n1.sysctl("net/ipv4/conf/eth0/rp_filter", "1")?;
        tells(
            n1,
            "sysctl",
            "warning",
            &["net.ipv4.conf.eth0.rp_filter is 1"],
            &["sysctl -w", "rp_filter=2"],
        )?;
        n1.sysctl("net/ipv4/conf/eth0/rp_filter", "0")?;
        lab.unplug("n2")?;
        tells(n1, "underlay", "error", &["n2", "does not answer"], &["network"])?;
        lab.plug("n2")?;
        is_sound(n1)?;
        n1.stop_agent()?;
        let (found, code) = doctor(n1)?;
        let of =
            |check: &str| found.iter().find(|finding| finding["Check"] == check).cloned().unwrap_or_default();
        ensure!(code == 1 && of("agent")["Result"] == "error", "{found:#?}");
        mentions(&text(&of("agent")["Detail"]), &["Is the agent running?"])?;
        for check in ["underlay", "mtu", "tunnel", "ports", "versions"] {
            ensure!(of(check)["Result"] == "ok", "without an agent: {found:#?}");
        }
        // Nor does it need a mesh.
        let nowhere = n1.dir().join("nowhere.toml");
        fs::write(&nowhere, format!("[node]\nstate_dir = \"{}\"\n", n1.dir().join("nowhere").display()))?;
        let output = n1.mesh(["doctor", "--config", &nowhere.display().to_string(), "--format", "json"])?;
        mentions(&output.stdout, &["this node is in no mesh yet"])
    })
}
