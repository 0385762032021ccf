//! What `mesh agent --cleanup` leaves.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Result, ensure};
use mesh_tests::{Lab, Node, lab_test};

use crate::kit::{
    Cli, DUAL, READY, Task, addresses, both, lab, refuses, refuses_udp, served_by, url, url_at,
};

/// Programs on a node's devices, by any way that `ip` and `tc` know of.
const PROGRAMS: &str = "ip -d link | grep -i 'prog/\\|xdp' || true; \
    for link in $(ip -o link | cut -d: -f2 | cut -d@ -f1); do \
        for way in ingress egress; do tc filter show dev $link $way; done; \
        tc qdisc show dev $link | grep clsact || true; \
    done";

/// What is mounted below a node's directory.
fn mounts(node: &Node) -> Result<Vec<String>> {
    let below = node.dir().to_string_lossy().into_owned();
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts.lines().filter(|line| line.contains(&below)).map(str::to_owned).collect())
}

/// No part of the way is left: neither on the node's devices, nor where its processes connect.
fn serves_no_more(lab: &Lab, node: &Node, vips: &[IpAddr]) -> Result<()> {
    for address in addresses(node) {
        for from in [lab.client(), node] {
            refuses(from, &url_at(address, 8080))?;
            refuses_udp(from, (address, 8080))?;
        }
    }
    for localhost in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        refuses(node, &url_at(localhost, 8080))?;
        refuses_udp(node, (localhost, 8080))?;
    }
    for vip in vips {
        let curl = ["curl", "-sS", "--max-time", "1", &url_at(*vip, 80)].map(str::to_owned);
        node.exec(&curl)?.failed()?;
    }
    Ok(())
}

/// After `--cleanup` of a stopped or killed agent nothing of the mesh is left on its node: no devices, rules or tables,
/// no programs on what devices remain, nothing pinned or mounted, no run directory. Other nodes go on, and a new start
/// makes all of it again.
#[test]
fn cleanup_leaves_no_program_and_no_pin() -> Result<()> {
    lab_test(lab()?.nodes(2), |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        let before = [super::lifecycle::network_of(n2)?, n2.exec(["sh", "-c", PROGRAMS])?.ok()?];
        lab.start_agents(READY)?;
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8080:80/udp")?;
        let web = Task::both(lab, n1, "web")?;
        let _near = Task::idle(n2, "app")?;
        let vips = both(&web, "web")?;
        served_by(lab.client(), &url(n2, 8080), &[&web])?;
        for killed in [false, true] {
            if killed {
                n2.kill_agent()?
            } else {
                n2.stop_agent().map(drop)?
            }
            // Without an agent its node serves on, until it is cleaned.
            served_by(lab.client(), &url(n2, 8080), &[&web])?;
            served_by(n2, &url_at(vips[0], 80), &[&web])?;
            let config = n2.config_file().to_string_lossy().into_owned();
            n2.mesh(["agent", "--config", &config, "--cleanup"])?.ok()?;
            let after = [super::lifecycle::network_of(n2)?, n2.exec(["sh", "-c", PROGRAMS])?.ok()?];
            ensure!(after == before, "before:\n{}\nafter:\n{}", before.join("\n"), after.join("\n"));
            ensure!(mounts(n2)?.is_empty(), "{:?}", mounts(n2)?);
            ensure!(!n2.run_dir().exists(), "{} is there", n2.run_dir().display());
            serves_no_more(lab, n2, &vips)?;
            served_by(lab.client(), &url(n1, 8080), &[&web])?;
            n2.start_agent()?;
            n2.wait_ready(READY)?;
            served_by(lab.client(), &url(n2, 8080), &[&web])?;
        }
        Ok(())
    })
}
