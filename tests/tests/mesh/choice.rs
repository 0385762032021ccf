//! Which task a flow finds, where that is not left to chance.

use std::{collections::BTreeSet, net::UdpSocket, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, eventually};

use crate::kit::{Cli, Place, SOON, Task, mesh, served_by, spread, status, text, url};

/// A service with four tasks on three nodes, known to all of them.
fn four<'a>(lab: &'a Lab, options: &str) -> Result<Vec<Task<'a>>> {
    let n1 = lab.node("n1")?;
    n1.ok("network create app")?;
    n1.ok(&format!("service create --name web --network app -p 8080:80 -p 8080:80/udp {options}"))?;
    let mut tasks = Vec::new();
    for node in ["n1", "n2", "n3", "n3"] {
        tasks.push(Task::both(lab, lab.node(node)?, "web")?);
    }
    for node in lab.nodes() {
        eventually(SOON, "every node has every task in its balance", || {
            let services = node.rows("service ls")?;
            ensure!(text(&services[0]["Replicas"]) == "4/4", "{services:?}");
            status(node).map(drop)
        })?;
    }
    Ok(tasks)
}

/// One request to each node over connections from one's own port, for many ports: who answers, in a line for each.
const FROM_PORTS: &str = "
import http.client, socket, sys
own, first, last, *nodes = sys.argv[1:]
for port in range(int(first), int(last) + 1):
    who = []
    for node in nodes:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.settimeout(3)
        s.bind((own, port))
        s.connect((node, 8080))
        talk = http.client.HTTPConnection(node, 8080)
        talk.sock = s
        talk.request('GET', '/')
        who.append(talk.getresponse().read().decode().split()[0])
        talk.close()
    print(*who)
";

/// With `--balancing maglev` every node makes the same choice: a client's port leads to one task by whichever node, by
/// TCP and UDP; other ports lead to all others.
#[test]
fn with_maglev_every_node_chooses_alike() -> Result<()> {
    mesh(3, |lab| {
        let tasks = four(lab, "--balancing maglev")?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &tasks.iter().collect::<Vec<_>>())?;
        }
        let own = lab.client().address().to_string();
        let nodes: Vec<_> = lab.nodes().iter().map(|node| node.address().to_string()).collect();
        let mut all = BTreeSet::new();
        let mut argv = vec!["python3", "-c", FROM_PORTS, &own, "20001", "20020"];
        argv.extend(nodes.iter().map(String::as_str));
        for line in lab.client().exec(argv)?.ok()?.lines() {
            let who: BTreeSet<_> = line.split(' ').map(str::to_owned).collect();
            ensure!(who.len() == 1, "one port leads to {line}");
            all.extend(who);
        }
        // That one of four is not among 20 choices happens once in 80 times; two, hardly ever.
        ensure!(all.len() >= 3, "all ports lead to {all:?}");

        for port in 20_001..=20_010 {
            let socket = lab.client().netns_at()?.run(|| UdpSocket::bind(("0.0.0.0", port)))??;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            let mut who = BTreeSet::new();
            for node in lab.nodes() {
                socket.send_to(b"who are you?", (node.address(), 8080))?;
                let mut buffer = [0; 99];
                let (read, _) = socket.recv_from(&mut buffer).with_context(|| node.name().to_owned())?;
                let answer = String::from_utf8_lossy(&buffer[..read]).into_owned();
                who.insert(answer.split(" from ").next().unwrap_or_default().to_owned());
            }
            ensure!(who.len() == 1, "port {port} by UDP leads to {who:?}");
        }
        Ok(())
    })
}

/// With `--affinity client-ip` all connections of a client end at one task, by whichever node.
#[test]
fn with_affinity_a_client_stays_with_one_task() -> Result<()> {
    mesh(3, |lab| {
        four(lab, "--affinity client-ip=10m")?;
        for client in [lab.client(), lab.outside()] {
            let mut who = BTreeSet::new();
            for node in lab.nodes() {
                // Two rounds, so that a client comes back to where it was first.
                for _ in 0..2 {
                    who.extend(spread(client, &url(node, 8080), 10)?.into_keys());
                }
            }
            ensure!(who.len() == 1, "{} is with {who:?}", client.name());
        }
        Ok(())
    })
}
