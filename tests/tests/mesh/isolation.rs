//! Who reaches whom, and who must not.

use std::{fs, path::Path, time::Instant};

use anyhow::{Result, ensure};
use mesh_tests::{Host, Node, Process, eventually};

use crate::kit::{
    AT_ONCE, Cli, Place, SOON, Task, answers, curl, listens, mesh, refuses, served_by, url, vip,
};

/// Tasks of another network reach neither a task nor its VIP, on the same node and across nodes, and are told so
/// at once.
#[test]
fn networks_do_not_meet() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("network create other")?;
        n1.ok("service create --name web --network app")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let addresses = [tasks[0].address()?, tasks[1].address()?, vip(n1, "web")?];
        for node in [n1, n2] {
            let (friend, stranger) = (Task::idle(node, "app")?, Task::idle(node, "other")?);
            for address in addresses {
                answers(&friend, &format!("http://{address}/"))?;
                refuses(&stranger, &format!("http://{address}/"))?;
                let start = Instant::now();
                let ping = ["ping", "-c1", "-W3", &address.to_string()].map(str::to_owned);
                stranger.command(&ping).run()?.failed()?;
                ensure!(start.elapsed() < AT_ONCE, "ping took {:?}", start.elapsed());
            }
        }
        Ok(())
    })
}

/// What is not published is not reachable from other machines, even if they route overlay addresses to a node.
#[test]
fn what_is_not_published_is_closed_to_the_world() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        n1.ok("service create --name db --network app")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n1, "db")?, Task::web(lab, n2, "db")?];
        for address in [vip(n1, "db")?, tasks[1].address()?, tasks[2].address()?] {
            answers(&tasks[0], &format!("http://{address}/"))?;
        }
        answers(lab.client(), &url(n1, 8080))?;
        for node in [n1, n2] {
            lab.client().ip(&format!("route replace 10.0.0.0/8 via {}\n", node.address()))?;
            let mut addresses = vec![vip(n1, "web")?, vip(n1, "db")?];
            for task in &tasks {
                addresses.push(task.address()?);
            }
            for address in addresses {
                let url = format!("http://{address}/");
                lab.client().exec(["curl", "-sS", "--max-time", "1", &url])?.failed()?;
            }
        }
        // That a port is published does not open the task's own.
        refuses(lab.client(), &url(n1, 80))
    })
}

/// A UDP server that writes down the addresses that it hears from.
const SINK: &str = r"
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', int(sys.argv[1])))
while True:
    with open(sys.argv[2], 'a') as f:
        f.write(s.recvfrom(99)[1][0] + '\n')
";

/// Sends a datagram from an address.
const SEND: &str = r"
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 0))
s.sendto(b'hi', (sys.argv[2], int(sys.argv[3])))
";

pub(crate) fn sink(port: u16, file: &Path) -> Vec<String> {
    let port = port.to_string();
    ["python3", "-c", SINK, &port, &file.to_string_lossy()].map(Into::into).into()
}

fn send(from: &Task<'_>, source: &str, to: &str, port: &str) -> Result<()> {
    from.command(["python3", "-c", SEND, source, to, port]).ok()?;
    Ok(())
}

/// A task cannot send with another's address, not to its own network and not to the world.
#[test]
fn a_false_source_is_dropped() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name log --network app")?;
        let (near, far, world) = (lab.dir().join("near"), lab.dir().join("far"), lab.dir().join("world"));
        let tasks = [
            Task::serve(n1, "log", &sink(514, &near), "udp", 514)?,
            Task::serve(n2, "log", &sink(514, &far), "udp", 514)?,
        ];
        let outside = lab.outside().spawn_daemon("sink", sink(514, &world))?;
        listens(outside.id(), "udp", 514)?;
        let liar = Task::idle(n1, "app")?;
        let own = liar.address()?.to_string();
        let false_ones = [
            "10.99.99.99".to_owned(),
            "203.0.113.7".into(),
            n1.address().to_string(),
            tasks[1].address()?.to_string(),
        ];
        for (to, file) in
            [(tasks[0].address()?, &near), (tasks[1].address()?, &far), (lab.outside().address(), &world)]
        {
            let to = to.to_string();
            eventually(SOON, "the way is open", || {
                send(&liar, &own, &to, "514")?;
                ensure!(file.exists() && !fs::read_to_string(file)?.is_empty());
                Ok(())
            })?;
            let before = fs::read_to_string(file)?;
            let honest = before.lines().next().unwrap_or_default().to_owned();
            for source in false_ones.iter().filter(|&source| *source != to) {
                let source32 = format!("{source}/32");
                liar.command(["ip", "address", "add", &source32, "dev", "lo"]).ok()?;
                send(&liar, source, &to, "514")?;
                liar.command(["ip", "address", "del", &source32, "dev", "lo"]).ok()?;
            }
            send(&liar, &own, &to, "514")?;
            // One way, one order: when the last one is there, the others would be.
            eventually(SOON, "what is honest arrives", || {
                let heard = fs::read_to_string(file)?;
                ensure!(heard.len() > before.len());
                Ok(())
            })?;
            let heard = fs::read_to_string(file)?;
            ensure!(heard.lines().all(|from| from == honest), "{to} heard:\n{heard}");
        }
        Ok(())
    })
}

/// A task reaches the world with its node's address, unless its network is internal. Internal tasks reach each
/// other all the same.
#[test]
fn the_world_is_reached_with_the_nodes_address_unless_internal() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        let world = lab.outside().spawn_daemon("web", lab.programs().web_named(80, "world"))?;
        listens(world.id(), "tcp6", 80)?;
        n1.ok("network create app")?;
        n1.ok("network create --internal vault")?;
        n1.ok("service create --name db --network vault")?;
        let db = Task::web(lab, n1, "db")?;
        for node in [n1, n2] {
            let task = Task::idle(node, "app")?;
            let answer = answers(&task, &url(lab.outside(), 80))?;
            ensure!(answer == format!("world from {}", node.address()), "{answer}");
            task.command(["ping", "-c1", "-W2", "198.51.100.1"]).ok()?;

            let hidden = Task::idle(node, "vault")?;
            served_by(&hidden, "http://db/", &[&db])?;
            for place in [url(lab.outside(), 80), "http://192.168.77.100/".into()] {
                hidden.command(["curl", "-sS", "--max-time", "1", &place]).run()?.failed()?;
            }
            hidden.command(["ping", "-c1", "-W1", "198.51.100.1"]).run()?.failed()?;
        }
        Ok(())
    })
}

/// A server of the node itself that only the node may reach.
fn private_server(node: &Node) -> Result<Process> {
    let argv = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "9000"];
    let server = node.spawn_daemon("private", argv)?;
    listens(server.id(), "tcp", 9000)?;
    curl(node, "http://127.0.0.1:9000/").map(|_| server)
}

/// Leads 127.0.0.1 to another machine, as an attacker does.
fn send_loopback_to(place: &(impl Place + ?Sized), device: &str, gateway: &str) -> Result<()> {
    let script = format!(
        "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
         ip route del table local local 127.0.0.0/8 dev lo
         ip route del table local local 127.0.0.1 dev lo
         ip route add 127.0.0.1 via {gateway} dev {device} onlink"
    );
    place.command_at(&["sh", "-ec", &script]).ok()?;
    Ok(())
}

/// What a node serves on its 127.0.0.1 is its own, also while localhost serves published ports: neither a task nor
/// another machine gets there.
#[test]
fn the_loopback_of_a_node_is_its_own() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        let _private = private_server(n1)?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let web = Task::web(lab, n1, "web")?;
        answers(n1, "http://127.0.0.1:8080/")?;

        let closed = |from: &dyn Place, url: &str| {
            from.command_at(&["curl", "-sS", "--max-time", "1", url]).run()?.failed()
        };
        refuses(&web, "http://127.0.0.1:9000/")?;
        refuses(&web, &url(n1, 9000))?;
        closed(&web, "http://169.254.1.1:9000/")?;

        // That the attacks get as far as the node.
        let watch = "table inet watch { counter seen { }
            chain c { type filter hook prerouting priority -400
                iifname != lo ip daddr 127.0.0.1 tcp dport 9000 counter name seen; }; }";
        n1.command(["nft", "-f", "-"]).stdin(watch).ok()?;
        let arrived = || {
            let seen = n1.exec(["nft", "reset", "counter", "inet", "watch", "seen"])?.ok()?;
            ensure!(!seen.contains("packets 0 "), "no packet arrived: {seen}");
            Ok(())
        };
        let client: &Host = lab.client();
        send_loopback_to(client, "eth0", "192.168.77.11")?;
        closed(client, "http://127.0.0.1:9000/")?;
        arrived()?;
        let device = "ip -brief link | grep -v ^lo | head -1 | sed 's/[@ ].*//'";
        let device = web.command(["sh", "-c", device]).ok()?;
        send_loopback_to(&web, device.trim(), "169.254.1.1")?;
        closed(&web, "http://127.0.0.1:9000/")?;
        arrived()
    })
}
