//! What answers, and what refuses at once instead of a hang.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Host, eventually};

use crate::kit::{
    AT_ONCE, Cli, DUAL, Datagrams, SOON, Task, addresses, both, mesh, refuses, refuses_udp, served_by, url_at,
};

/// The VIPs of a service answer ping and both protocols exactly while it has a task, by IPv4 and IPv6; without one,
/// ping fails, TCP is refused and UDP gets an ICMP error, all at once.
#[test]
fn both_vips_answer_while_there_is_a_task() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8080:80/udp")?;
        let idle = [Task::idle(n1, "app")?, Task::idle(n2, "app")?];
        let vips = both(&idle[0], "web")?;
        let dead = || {
            for task in &idle {
                for vip in vips {
                    let start = Instant::now();
                    task.command(["ping", "-c1", "-W5", &vip.to_string()]).run()?.failed()?;
                    ensure!(start.elapsed() < AT_ONCE, "ping of {vip} took {:?}", start.elapsed());
                    refuses(task, &url_at(vip, 80))?;
                    refuses_udp(task, (vip, 80))?;
                }
            }
            Ok(())
        };
        dead()?;
        let web = Task::both(lab, n1, "web")?;
        for task in &idle {
            for vip in vips {
                served_by(task, &url_at(vip, 80), &[&web])?;
                let ping = task.command(["ping", "-c2", "-i0.1", "-W1", &vip.to_string()]).ok()?;
                ensure!(ping.contains("2 received") && ping.contains("ttl=64"), "{ping}");
                Datagrams::open(task, (vip, 80))?.ask("who are you?")?;
            }
        }
        web.rm()?;
        eventually(SOON, "the VIPs are dead", dead)
    })
}

/// A ping as large as a tunnel's packet, and one that has to come in pieces, are answered as small ones are.
#[test]
fn a_vip_answers_large_pings() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app")?;
        let web = Task::web(lab, n1, "web")?;
        for node in [n1, n2] {
            let idle = Task::idle(node, "app")?;
            for vip in both(&idle, "web")? {
                served_by(&idle, &url_at(vip, 80), &[&web])?;
                for size in ["0", "1400", "4000"] {
                    let ping = ["ping", "-c1", "-W2", "-s", size, &vip.to_string()].map(str::to_owned);
                    idle.command(&ping).ok().with_context(|| format!("{size} bytes from {}", node.name()))?;
                }
            }
        }
        Ok(())
    })
}

/// A port where a task does not listen is refused at once, by TCP and UDP, on its own node and on another: what the
/// task's kernel says comes back to the client.
#[test]
fn a_port_that_nothing_listens_on_is_refused_at_once() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80 -p 9999:99 -p 9999:99/udp")?;
        let web = Task::web(lab, n1, "web")?;
        for node in [n1, n2] {
            let idle = Task::idle(node, "app")?;
            for vip in both(&idle, "web")? {
                served_by(&idle, &url_at(vip, 80), &[&web])?;
                refuses(&idle, &url_at(vip, 99))?;
                refuses_udp(&idle, (vip, 99))?;
            }
            let clients: [&Host; 2] = [lab.client(), lab.outside()];
            for address in addresses(node) {
                for client in clients {
                    // Published, but not listened on; and published nowhere.
                    for port in [9999, 9998] {
                        refuses(client, &url_at(address, port))?;
                        refuses_udp(client, (address, port))?;
                    }
                }
            }
        }
        Ok(())
    })
}

/// A published port without a task is refused at once by IPv6 and UDP as well, on every node.
#[test]
fn an_empty_service_is_refused_by_both_families() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8080:80/udp")?;
        let all_refuse = || {
            for address in lab.nodes().iter().flat_map(|node| addresses(node)) {
                for client in [lab.client(), lab.outside()] {
                    refuses(client, &url_at(address, 8080))?;
                    refuses_udp(client, (address, 8080))?;
                }
            }
            Ok(())
        };
        all_refuse()?;
        let web = Task::both(lab, n2, "web")?;
        for address in lab.nodes().iter().flat_map(|node| addresses(node)) {
            served_by(lab.client(), &url_at(address, 8080), &[&web])?;
        }
        web.rm()?;
        eventually(SOON, "the port is refused on all nodes", all_refuse)
    })
}
