//! Devices of a node that come and go while the mesh runs.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use mesh_tests::{Lab, Node};

use crate::kit::{Cli, DUAL, Task, curl, mesh};

/// Nobody waits for a sweep, which comes every 30 s.
const SOON: Duration = Duration::from_secs(1);

/// A second way to a node, straight from the client.
fn plug_in(lab: &Lab, node: &Node) -> Result<()> {
    let client = lab.client();
    let there = client.netns().path();
    node.ip(&format!("link add wan1 type veth peer name to-{} netns {}\n", node.name(), there.display()))?;
    let ends = [(client, format!("to-{}", node.name()), 2), (node, "wan1".to_owned(), 1)];
    for (host, device, last) in ends {
        host.ip(&format!(
            "link set dev {device} up\n\
             address add 10.77.0.{last}/24 dev {device}\n\
             address add fd88::{last}/64 dev {device} nodad\n"
        ))?;
    }
    Ok(())
}

/// A port is served at an address, soon after that is there.
fn soon_serves(lab: &Lab, url: &str) -> Result<()> {
    let began = Instant::now();
    while let Err(error) = curl(lab.client(), url) {
        if began.elapsed() > SOON {
            bail!("{url} is not served within {SOON:?}: {error:#}");
        }
    }
    Ok(())
}

#[test]
fn a_device_that_comes_serves_at_once() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let _web = Task::both(lab, n2, "web")?;
        for _ in 0..3 {
            plug_in(lab, n1)?;
            soon_serves(lab, "http://10.77.0.1:8080/")?;
            soon_serves(lab, "http://[fd88::1]:8080/")?;
            n1.ip("link delete dev wan1\n")?;
        }
        // Another address of a device that was there.
        n1.ip("address add 192.168.77.201/24 dev eth0\n")?;
        soon_serves(lab, "http://192.168.77.201:8080/")
    })
}
