//! Which data plane is in use, and what it says of itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use mesh_tests::{Lab, LabBuilder, Netns, Node};

use crate::kit::{
    CLIENT_ADDRESS, Cli, DUAL, Datagrams, Place, Talk, Task, addresses, both, lab, mentions, mesh, on_ebpf,
    planes, served_by, started, status, text, url_at,
};

/// `mesh status` names the data plane in use: the one that the configuration asks for.
#[test]
fn the_plane_is_the_one_that_was_asked_for() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        let wanted = lab.dataplane().unwrap_or("ebpf");
        let other = if wanted == "nft" { "ebpf" } else { "nft" };
        let planes = planes(n1)?;
        ensure!(planes.iter().any(|plane| plane == wanted), "{wanted} is not in {planes:?}");
        ensure!(!planes.iter().any(|plane| plane == other), "{other} is in {planes:?}");
        mentions(&n1.ok("status")?, &[&format!("{wanted}: ")])
    })
}

/// What nftables cannot do is told as a limit there, and not where eBPF can.
#[test]
fn limits_are_told_where_they_are() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        let limits: Vec<_> = status(n1)?["Limits"].as_array().into_iter().flatten().map(text).collect();
        if on_ebpf(lab, CLIENT_ADDRESS)? {
            for cured in ["sees the entry node's overlay address", "by ::1"] {
                ensure!(!limits.iter().any(|limit| limit.contains(cured)), "{cured:?} is in {limits:?}");
            }
        } else {
            for flag in ["--return-path", "--idle-timeout"] {
                ensure!(limits.iter().any(|limit| limit.contains(flag)), "{flag} is not in {limits:?}");
            }
        }
        Ok(())
    })
}

/// The whole of what a mesh does, in short.
fn serves(lab: &Lab) -> Result<()> {
    let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
    n1.ok(DUAL)?;
    n1.ok("service create --name web --network app -p 8080:80 -p 8080:80/udp")?;
    let tasks = [Task::both(lab, n1, "web")?, Task::both(lab, n2, "web")?];
    let tasks: Vec<_> = tasks.iter().collect();
    let vips = both(tasks[0], "web")?;
    for node in [n1, n2] {
        for address in addresses(node) {
            served_by(lab.client(), &url_at(address, 8080), &tasks)?;
            served_by(node, &url_at(address, 8080), &tasks)?;
            Datagrams::open(lab.client(), (address, 8080))?.ask("who are you?")?;
            Datagrams::open(node, (address, 8080))?.ask("who are you?")?;
        }
        served_by(node, "http://127.0.0.1:8080/", &tasks)?;
        for vip in vips {
            served_by(node, &url_at(vip, 80), &tasks)?;
            served_by(tasks[0], &url_at(vip, 80), &tasks)?;
            Datagrams::open(tasks[1], (vip, 80))?.ask("who are you?")?;
        }
    }
    if on_ebpf(lab, CLIENT_ADDRESS)? {
        for address in [n1, n2].into_iter().flat_map(|node| addresses(node)) {
            for _ in 0..8 {
                Talk::open(lab.client(), (address, 8080))?.is_seen_as_it_is()?;
                Datagrams::open(lab.client(), (address, 8080))?.is_seen_as_it_is()?;
            }
        }
    }
    Ok(())
}

fn without(features: &str) -> Result<LabBuilder> {
    Ok(lab()?.nodes(2).config(&format!("[dataplane]\nwithout = [{features}]\n")))
}

/// What a node says of each feature of the kernel: `used`, `missing` or `off`.
fn features(node: &Node) -> Result<BTreeMap<String, String>> {
    let said = status(node)?;
    let all = said["Features"].as_array().into_iter().flatten();
    Ok(all.map(|feature| (text(&feature["Name"]), text(&feature["State"]))).collect())
}

/// A kernel without a feature that the eBPF plane likes to use serves all the same, and the node says so.
fn serves_without(off: &[&str]) -> Result<()> {
    let words: Vec<_> = off.iter().map(|name| format!("'{name}'")).collect();
    started(without(&words.join(", "))?, |lab| {
        serves(lab)?;
        let n1 = lab.node("n1")?;
        let said = features(n1)?;
        if !on_ebpf(lab, CLIENT_ADDRESS)? {
            ensure!(said == BTreeMap::from([("ebpf".to_owned(), "off".to_owned())]), "{said:?}");
            return mentions(&n1.ok("status")?, &["ebpf: off; nftables balances"]);
        }
        for (name, state) in &said {
            let needs = name == "sock_lb" && off.contains(&"sock_destroy");
            let wanted = if off.contains(&name.as_str()) {
                "off"
            } else if needs {
                "missing"
            } else {
                "used"
            };
            ensure!(state == wanted, "{name} is {state} without {off:?}");
        }
        ensure!(said.len() == 6, "{said:?}");
        let words: Vec<_> = off.iter().map(|name| format!("{name}: off; ")).collect();
        mentions(&n1.ok("status")?, &words.iter().map(String::as_str).collect::<Vec<_>>())
    })
}

#[test]
fn without_tcx_all_is_served() -> Result<()> {
    serves_without(&["tcx"])
}

#[test]
fn without_balancing_at_sockets_all_is_served() -> Result<()> {
    serves_without(&["sock_lb"])
}

#[test]
fn without_ending_of_sockets_all_is_served() -> Result<()> {
    serves_without(&["sock_destroy"])
}

#[test]
fn without_sums_of_ipv6_all_is_served() -> Result<()> {
    serves_without(&["csum_v6"])
}

#[test]
fn without_answers_to_probes_all_is_served() -> Result<()> {
    serves_without(&["reflector"])
}

#[test]
fn without_any_of_it_all_is_served() -> Result<()> {
    serves_without(&["tcx", "sock_lb", "sock_destroy", "csum_v6", "reflector"])
}

/// Where programs cannot be loaded nftables balance, and the node says why.
#[test]
fn without_ebpf_all_is_served() -> Result<()> {
    // Nobody can make a directory in a file.
    let dir = tempfile::tempdir()?;
    let pins = dir.path().join("file/pins");
    std::fs::write(dir.path().join("file"), "")?;
    let cannot = format!("[dataplane]\nmode = 'auto'\npins = '{}'\n", pins.display());
    started(lab()?.nodes(2).config(&cannot), |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::both(lab, n1, "web")?, Task::both(lab, n2, "web")?];
        let tasks: Vec<_> = tasks.iter().collect();
        for address in addresses(n1).into_iter().chain(addresses(n2)) {
            served_by(lab.client(), &url_at(address, 8080), &tasks)?;
        }
        ensure!(features(n1)? == BTreeMap::from([("ebpf".to_owned(), "missing".to_owned())]));
        mentions(&n1.ok("status")?, &["ebpf: missing (", "; nftables balances", "nft: "])
    })
}

/// Connects, and says whom the process is told that it is connected to, and whom the kernel has its packets go to.
const PEERS: &str = r#"
import ipaddress, socket, struct, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)
port = f"{s.getsockname()[1]:04X}"
file = "/proc/self/net/tcp6" if s.family == socket.AF_INET6 else "/proc/self/net/tcp"
ends = [line.split()[1:3] for line in open(file).readlines()[1:]]
peer = next(peer.split(":")[0] for own, peer in ends if own.endswith(":" + port))
words = [int(peer[i : i + 8], 16) for i in range(0, len(peer), 8)]
print(s.getpeername()[0], ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)))
"#;

/// A process is led to a task at once and still told what it asked for, so that its packets need no translation: where
/// sockets are balanced, which is where nobody asked to do without.
fn leads(lab: &Lab, at_sockets: bool) -> Result<()> {
    let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
    n1.ok(DUAL)?;
    n1.ok("service create --name web --network app -p 8080:80")?;
    let web = Task::both(lab, n1, "web")?;
    let at_sockets = at_sockets && on_ebpf(lab, CLIENT_ADDRESS)?;
    let leads = |from: &dyn Place, address: IpAddr, port: u16| -> Result<()> {
        served_by(from, &url_at(address, port), &[&web])?;
        let said =
            from.command_at(&["python3", "-c", PEERS, &address.to_string(), &port.to_string()]).ok()?;
        let ends: Vec<IpAddr> = said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(ends.first() == Some(&address) && (ends.last() != Some(&address)) == at_sockets, "{said}");
        Ok(())
    };
    for node in [n1, n2] {
        let idle = Task::idle(node, "app")?;
        for vip in both(&idle, "web")? {
            leads(&idle, vip, 80)?;
            leads(node, vip, 80)?;
        }
        let localhost = Ipv4Addr::LOCALHOST.into();
        for address in addresses(node).into_iter().chain([localhost]) {
            leads(node, address, 8080)?;
        }
    }
    Ok(())
}

/// A task whose sockets are to be left alone is balanced packet by packet, beside one whose are not.
#[test]
fn sockets_of_a_task_are_not_led_where_that_is_not_wanted() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app")?;
        let web = [Task::both(lab, n1, "web")?, Task::both(lab, n2, "web")?];
        let led = Task::idle(n1, "app")?;
        let left = Task::run(n1, "--name left --network app --socket-balancing off", &["sleep", "1000"])?;
        let added = Netns::new()?;
        let path = added.path();
        n1.ok(&format!(
            "task add --name added --network app --socket-balancing off --netns {}",
            path.display()
        ))?;
        let ends = |from: &dyn Place, vip: IpAddr| -> Result<bool> {
            let said = from.command_at(&["python3", "-c", PEERS, &vip.to_string(), "80"]).ok()?;
            let ends: Vec<&str> = said.split_whitespace().collect();
            ensure!(ends.first() == Some(&vip.to_string().as_str()), "{said}");
            Ok(ends.first() != ends.last())
        };
        for vip in both(&led, "web")? {
            let at_sockets = on_ebpf(lab, CLIENT_ADDRESS)?;
            ensure!(ends(&led, vip)? == at_sockets, "the one");
            ensure!(!ends(&left, vip)?, "the other");
            served_by(&left, &url_at(vip, 80), &[&web[0], &web[1]])?;
            if at_sockets {
                let asked = |task: &str| n1.ok(&format!("explain {task} {}", SocketAddr::new(vip, 80)));
                mentions(&asked("idle-app-n1")?, &["a socket that is bound to no address is led"])?;
                ensure!(!asked("left")?.contains("a socket"), "left is not led");
            }
        }
        for (task, wanted) in [("idle-app-n1", true), ("left", false), ("added", false)] {
            let said = n1.inspect("task", task)?;
            ensure!(said["SocketBalancing"] == wanted, "{said}");
        }
        Ok(())
    })
}

#[test]
fn sockets_are_led_to_tasks() -> Result<()> {
    mesh(2, |lab| leads(lab, true))
}

#[test]
fn sockets_are_not_led_where_that_is_not_wanted() -> Result<()> {
    started(without("'sock_lb'")?, |lab| leads(lab, false))?;
    started(without("'sock_destroy'")?, |lab| leads(lab, false))
}
