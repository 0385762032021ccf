//! What `mesh agent --cleanup` leaves.

use std::fs;

use anyhow::{Result, ensure};
use mesh_tests::{Node, lab_test};

use crate::kit::{Cli, DUAL, READY, Task, lab, served_by, url};

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
        n1.ok("service create --name web --network app -p 8080:80")?;
        let web = Task::web(lab, n1, "web")?;
        let _near = Task::idle(n2, "app")?;
        served_by(lab.client(), &url(n2, 8080), &[&web])?;
        for killed in [false, true] {
            if killed {
                n2.kill_agent()?
            } else {
                n2.stop_agent().map(drop)?
            }
            // Without an agent its node serves on, until it is cleaned.
            served_by(lab.client(), &url(n2, 8080), &[&web])?;
            let config = n2.config_file().to_string_lossy().into_owned();
            n2.mesh(["agent", "--config", &config, "--cleanup"])?.ok()?;
            let after = [super::lifecycle::network_of(n2)?, n2.exec(["sh", "-c", PROGRAMS])?.ok()?];
            ensure!(after == before, "before:\n{}\nafter:\n{}", before.join("\n"), after.join("\n"));
            ensure!(mounts(n2)?.is_empty(), "{:?}", mounts(n2)?);
            ensure!(!n2.run_dir().exists(), "{} is there", n2.run_dir().display());
            served_by(lab.client(), &url(n1, 8080), &[&web])?;
            n2.start_agent()?;
            n2.wait_ready(READY)?;
            served_by(lab.client(), &url(n2, 8080), &[&web])?;
        }
        Ok(())
    })
}
