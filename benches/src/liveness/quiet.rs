//! Nobody dies, but every wire loses a twentieth of its packets each way, and many busy loops want the processors.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Process};

use super::Mesh;
use super::report::Quiet;

/// What an agent says when it has come to think that another node is not there.
const VERDICTS: [&str; 2] = ["does not answer", "answers others only"];

/// How often a node is taken for dead meanwhile.
pub(super) fn measure(mesh: &Mesh, time: Duration, busy: usize) -> Result<Quiet> {
    eprintln!("liveness: {busy} busy loops for {} s", time.as_secs());
    let before = verdicts(mesh)?;
    let lossy = Lossy::begin(&mesh.lab)?;
    let hogs = hogs(&mesh.lab, busy)?;
    thread::sleep(time);
    let after = verdicts(mesh)?;
    drop(hogs);
    let dropped = lossy.end()?;
    ensure!(dropped > 0, "no packet was dropped");
    Ok(Quiet { minutes: time.as_secs_f64() / 60.0, busy, dropped, false_masks: after - before })
}

/// By all agents since they were started.
fn verdicts(mesh: &Mesh) -> Result<usize> {
    let mut count = 0;
    for node in mesh.lab.nodes() {
        let log = node.log_file();
        let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
        count += text.lines().filter(|line| VERDICTS.iter().any(|what| line.contains(what))).count();
    }
    Ok(count)
}

/// They end when these are dropped. Each node has its share, beside its agent.
fn hogs(lab: &Lab, busy: usize) -> Result<Vec<Process>> {
    let nodes = lab.nodes();
    let share = |place: usize| busy * (place + 1) / nodes.len() - busy * place / nodes.len();
    let start = |place: usize| {
        let script = format!("for i in $(seq {}); do while :; do :; done & done; wait", share(place));
        nodes[place].spawn_daemon("busy", ["sh", "-c", &script])
    };
    (0..nodes.len()).map(start).collect()
}

/// What each node sends is lost at random where its wire ends. Programs answer probes before a node's own rules.
struct Lossy<'a> {
    lab: &'a Lab,
}

impl<'a> Lossy<'a> {
    fn begin(lab: &'a Lab) -> Result<Self> {
        let mut rules = "add table netdev lossy; add counter netdev lossy lost; ".to_owned();
        for node in lab.nodes().iter().map(|node| node.name()) {
            rules += &format!(
                "add chain netdev lossy {node} {{ type filter hook ingress device {node} priority 0; }}; \
                 add rule netdev lossy {node} numgen random mod 100 < 5 counter name lost drop; "
            );
        }
        lab.fabric().exec(["nft", &rules])?.ok()?;
        Ok(Self { lab })
    }

    /// How many packets were lost.
    fn end(self) -> Result<u64> {
        let said =
            self.lab.fabric().exec(["nft", "-j", "list", "counters", "table", "netdev", "lossy"])?.ok()?;
        self.lab.fabric().exec(["nft", "delete table netdev lossy"])?.ok()?;
        let said: serde_json::Value = serde_json::from_str(&said).context("nft does not answer in JSON")?;
        let all = said["nftables"].as_array().into_iter().flatten();
        let packets = all.filter_map(|object| object["counter"]["packets"].as_u64());
        Ok(packets.sum())
    }
}
