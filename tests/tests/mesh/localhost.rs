//! The mesh from where a task is its own client, and from the nodes themselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use mesh_tests::eventually;

use crate::kit::{
    Cli, DUAL, Datagrams, Place, SOON, Talk, Task, addresses, both, mesh, on_ebpf, served_by, url_at,
};

/// One task serves both protocols there.
fn serves(from: &dyn Place, address: IpAddr, port: u16, task: &Task<'_>) -> Result<()> {
    let starts = format!("{} from ", task.name);
    served_by(from, &url_at(address, port), &[task])?;
    eventually(SOON, &format!("{address} answers by UDP"), || {
        let answer = Datagrams::open(from, (address, port))?.ask("who are you?")?;
        ensure!(answer.starts_with(&starts), "{answer}");
        Ok(())
    })?;
    // Not only the first packet of each.
    let (mut talk, socket) = (Talk::open(from, (address, port))?, Datagrams::open(from, (address, port))?);
    for _ in 0..5 {
        ensure!(talk.ask()?.starts_with(&starts));
        ensure!(socket.ask("who are you?")?.starts_with(&starts));
    }
    Ok(())
}

/// The only task of a service reaches itself by its own VIP and by every node's published port, by both protocols and
/// both families.
#[test]
fn the_only_task_reaches_itself_by_every_way() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8080:80/udp")?;
        let web = Task::both(lab, n1, "web")?;
        for vip in both(&web, "web")? {
            serves(&web, vip, 80, &web).context("its own VIP")?;
        }
        for node in [n1, n2] {
            for address in addresses(node) {
                serves(&web, address, 8080, &web).with_context(|| format!("the port of {}", node.name()))?;
            }
        }
        Ok(())
    })
}

/// A process of a node reaches VIPs and published ports, by its node's own address, another node's, and localhost,
/// wherever the task is.
#[test]
fn a_process_of_a_node_reaches_everything() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8080:80/udp")?;
        let web = Task::both(lab, n1, "web")?;
        let mut local: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into()];
        if on_ebpf(lab, &["not reached by ::1"])? {
            local.push(Ipv6Addr::LOCALHOST.into());
        }
        let vips = both(&web, "web")?;
        for node in [n1, n2] {
            for vip in vips {
                serves(node, vip, 80, &web).with_context(|| format!("the VIP from {}", node.name()))?;
            }
            for address in local.iter().copied().chain(addresses(node)).chain(addresses(n3)) {
                serves(node, address, 8080, &web)
                    .with_context(|| format!("{address} from {}", node.name()))?;
            }
        }
        Ok(())
    })
}
