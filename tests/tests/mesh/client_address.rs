//! Who the client is, as a task sees it.

use std::{collections::BTreeSet, net::UdpSocket, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Host, eventually};

use crate::kit::{
    CLIENT_ADDRESS, Cli, DUAL, Datagrams, Place, SOON, Talk, Task, addresses, both, mesh, on_ebpf, served_by,
    url, url_at,
};

/// Through any node's published port, a task sees the client's own address and port: by TCP and UDP, IPv4 and IPv6,
/// whoever the client is. Through the node that it runs on it does so on every plane.
#[test]
fn a_task_sees_the_clients_own_address_and_port() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8080:80/udp")?;
        let web = Task::both(lab, n3, "web")?;
        let mut entries = vec![n3];
        if on_ebpf(lab, CLIENT_ADDRESS)? {
            entries.extend([n1, n2]);
        }
        let clients: [&Host; 3] = [lab.client(), lab.outside(), n2];
        for entry in entries {
            for address in addresses(entry) {
                served_by(lab.client(), &url_at(address, 8080), &[&web])?;
                for client in clients.iter().filter(|client| client.name() != entry.name()) {
                    let case = format!("from {} to {address} of {}", client.name(), entry.name());
                    // Several at a time, each with its own port.
                    let mut talks = Vec::new();
                    for _ in 0..3 {
                        talks.push(Talk::open(*client, (address, 8080)).context(case.clone())?);
                    }
                    for talk in talks.iter_mut().rev() {
                        talk.is_seen_as_it_is().with_context(|| case.clone())?;
                    }
                    let sockets = [(); 3].map(|()| Datagrams::open(*client, (address, 8080)));
                    for socket in sockets {
                        socket?.is_seen_as_it_is().with_context(|| case.clone())?;
                    }
                }
            }
        }
        Ok(())
    })
}

/// Inside, too: by a VIP, a task sees the address and port of the task that asks, on its own node and on another.
#[test]
fn a_task_sees_the_task_that_asks_by_a_vip() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8080:80/udp")?;
        let web = Task::both(lab, n1, "web")?;
        for node in [n1, n2] {
            let idle = Task::idle(node, "app")?;
            for address in both(&idle, "web")? {
                served_by(&idle, &url_at(address, 80), &[&web])?;
                let case = || format!("from a task of {} to {address}", node.name());
                Talk::open(&idle, (address, 80))?.is_seen_as_it_is().with_context(case)?;
                Datagrams::open(&idle, (address, 80))?.is_seen_as_it_is().with_context(case)?;
            }
        }
        Ok(())
    })
}

/// From one address and port to the same port of each node, all at once; then one question after the other, on all of
/// them before any answer is read.
const COLLIDE: &str = r#"
import http.client, socket, sys
own, port, *nodes = sys.argv[1:]
talks = []
for node in nodes:
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.settimeout(3)
    s.bind((own, int(port)))
    talks.append((http.client.HTTPConnection(node, 8080), s))
for talk, s in talks:
    s.connect((talk.host, 8080))
    talk.sock = s
for turn in range(20):
    said = [(f"to {talk.host} in turn {turn}; " * 200).encode() for talk, _ in talks]
    for (talk, _), body in zip(talks, said):
        talk.request("POST", "/echo", body)
    for (talk, _), body in zip(talks, said):
        answer = talk.getresponse().read()
        assert answer == body, f"{talk.host} was told {body[:40]} and says {answer[:40]}"
"#;

/// A client may use one port of its own to several nodes at a time, also when all lead to the same task: each
/// connection is its own.
#[test]
fn one_port_of_a_client_to_several_nodes_is_several_flows() -> Result<()> {
    mesh(3, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8080:80/udp")?;
        let web = Task::both(lab, lab.node("n3")?, "web")?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&web])?;
        }
        let own = lab.client().address().to_string();
        let nodes: Vec<_> = lab.nodes().iter().map(|node| node.address().to_string()).collect();
        for port in ["20001", "20002", "20003"] {
            let mut argv = vec!["python3", "-c", COLLIDE, &own, port];
            argv.extend(nodes.iter().map(String::as_str));
            lab.client().exec(argv)?.ok()?;
        }

        let socket = lab.client().netns_at()?.run(|| UdpSocket::bind("0.0.0.0:20001"))??;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        eventually(SOON, "every node answers its own datagram", || {
            let mut missing = BTreeSet::new();
            for node in lab.nodes() {
                let text = format!("echo by {}", node.address());
                socket.send_to(text.as_bytes(), (node.address(), 8080))?;
                missing.insert(text);
            }
            let mut buffer = [0; 99];
            while !missing.is_empty() {
                let (read, from) = socket.recv_from(&mut buffer)?;
                let text = String::from_utf8_lossy(&buffer[..read]);
                ensure!(text == format!("echo by {}", from.ip()), "{text:?} came from {from}");
                missing.remove(&*text);
            }
            Ok(())
        })
    })
}
