//! What goes between nodes, and who may say so.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Node, eventually};

use crate::isolation::sink;
use crate::kit::{CLIENT_ADDRESS, Cli, DUAL, SOON, Task, answers, lab, mesh, on_ebpf, started, url};

/// Connections of clients are all that there is to track: the tunnel between nodes, which has ports of its own for
/// each of them, takes no place in the nodes' tables.
#[test]
fn the_tunnel_is_not_tracked() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let _web = Task::web(lab, n2, "web")?;
        let idle = Task::idle(n1, "app")?;
        answers(lab.client(), &url(n1, 8080))?;
        answers(&idle, "http://web/")?;
        for node in [n1, n2] {
            let tracked = node.exec(["conntrack", "-L"])?.ok()?;
            let tunnel =
                tracked.lines().find(|flow| flow.starts_with("udp") && flow.contains(" dport=4789 "));
            ensure!(tunnel.is_none(), "{}: {tunnel:?}", node.name());
        }
        Ok(())
    })
}

/// Sends a datagram to port 514, in a frame for `mesh0`, in a tunnel's packet: `NODE MAC BY VNI FROM TO OWN OPTIONS`, where
/// OPTIONS is how many words of options its IP header has.
const TUNNEL: &str = r"
import socket, struct, sys
node, mac, by, vni, src, dst, own, words = sys.argv[1:]
options = b'\x01' * 4 * int(words)
def total(data):
    sum_ = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while sum_ >> 16:
        sum_ = (sum_ & 0xffff) + (sum_ >> 16)
    return ~sum_ & 0xffff
udp = struct.pack('!4H', 999, 514, 8 + 2, 0) + b'hi'
addresses = socket.inet_aton(src) + socket.inet_aton(dst)
begin = struct.pack('!BBHHHBB', 0x45 + int(words), 0, 20 + len(options + udp), 1, 0, 64, 17)
ip = begin + struct.pack('!H', total(begin + addresses + options)) + addresses + options
frame = bytes.fromhex((mac + by).replace(':', '')) + b'\x08\x00' + ip + udp
s = socket.socket(socket.AF_INET6 if ':' in node else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((own, 0))
s.sendto(struct.pack('!II', 0x08000000, int(vni) << 8) + frame, (node, 4789))
";

/// What comes out of the tunnel is believed, so only nodes get something into it: not a task that says to be one.
#[test]
fn a_task_is_no_node() -> Result<()> {
    mesh(2, |lab| only_nodes_tunnel(lab, lab.nodes().iter().map(|node| node.address().into()).collect()))
}

/// The same between nodes that know each other by IPv6: there the kernel does not ask which way a source is.
#[test]
fn a_task_is_no_node_by_ipv6_either() -> Result<()> {
    let of = |number| format!("[node]\naddress = \"fd77::{number}\"\n");
    started(lab()?.nodes(2).config_of("n1", &of(11)).config_of("n2", &of(12)), |lab| {
        only_nodes_tunnel(lab, lab.nodes().iter().map(|node| node.address6().into()).collect())
    })
}

fn only_nodes_tunnel(lab: &Lab, underlay: Vec<IpAddr>) -> Result<()> {
    let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
    n1.ok("network create secret")?;
    n1.ok("service create --name log --network secret")?;
    let file = lab.dir().join("heard");
    let log = Task::serve(n1, "log", &sink(514, &file), "udp", 514)?;
    let far = Task::idle(n2, "secret")?;
    let vni = vni_of_tasks(n1)?;
    let (mac, by) = (mac_of_tunnel(n1)?, mac_of_tunnel(n2)?);
    n1.ok(DUAL)?;
    let liar = Task::idle(n1, "app")?;
    let (node, peer, to) = (underlay[0].to_string(), underlay[1].to_string(), log.address()?.to_string());
    let tunnel = |source: Ipv4Addr, own: &str, options: &str| {
        let source = source.to_string();
        ["python3", "-c", TUNNEL, &node, &mac, &by, &vni, &source, &to, own, options].map(str::to_owned)
    };
    liar.command(["ip", "address", "add", &peer, "dev", "lo"]).ok()?;
    // Of the same network, so that only who sent it can be wrong.
    let nobody = Ipv4Addr::from(u32::from(far.address()?) ^ 1);
    let own = if underlay[0].is_ipv4() { "0.0.0.0" } else { "::" };
    for from in [&peer, own] {
        for options in ["0", "1"] {
            liar.command(tunnel(nobody, from, options)).ok()?;
        }
    }
    eventually(SOON, "what a node sends arrives", || {
        n2.exec(tunnel(far.address()?, &peer, "0"))?.ok()?;
        ensure!(!fs::read_to_string(&file)?.is_empty());
        Ok(())
    })?;
    let (heard, honest) = (fs::read_to_string(&file)?, far.address()?.to_string());
    ensure!(heard.lines().all(|from| from == honest), "not only {honest}:\n{heard}");
    Ok(())
}

/// Where programs balance, no connection of a client or between tasks takes a place in the table of a node, so that
/// none is refused for want of places.
#[test]
fn nothing_that_programs_balance_is_tracked() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let web = Task::web(lab, n2, "web")?;
        let idle = Task::idle(n1, "app")?;
        let tracked = |node: &Node| -> Result<bool> {
            let table = node.exec(["conntrack", "-L", "-p", "tcp"])?.ok()?;
            Ok(table.lines().any(|flow| flow.contains("dport=80 ") || flow.contains("dport=8080 ")))
        };
        let direct = format!("http://{}/", web.address()?);
        answers(lab.client(), &url(n1, 8080))?;
        answers(&idle, "http://web/")?;
        answers(&idle, &direct)?;
        let programs = on_ebpf(lab, CLIENT_ADDRESS)?;
        ensure!(tracked(n1)? != programs && tracked(n2)? != programs, "tracked: {}", !programs);
        // What a node itself asks may need to be translated back, by whichever of its addresses it asked.
        answers(n1, &direct)?;
        let own = n1.address().to_string();
        n1.exec(["curl", "-sS", "--max-time", "2", "--interface", &own, &direct])?.ok()?;
        Ok(())
    })
}

/// The address of a node's end of all tunnels.
fn mac_of_tunnel(node: &Node) -> Result<String> {
    let mesh0 = node.exec(["ip", "-brief", "link", "show", "mesh0"])?.ok()?;
    Ok(mesh0.split_whitespace().nth(2).context("mesh0 has no address")?.to_owned())
}

/// The key of the only network that has tasks on a node: the group of their devices.
fn vni_of_tasks(node: &Node) -> Result<String> {
    let links = node.exec(["ip", "-oneline", "link"])?.ok()?;
    let groups = links.lines().filter_map(|line| line.split(" group ").nth(1)?.split(' ').next());
    let vni = groups.map(str::to_owned).find(|group| group.parse::<u32>().is_ok_and(|number| number >= 4096));
    vni.with_context(|| format!("{} has no device of a task:\n{links}", node.name()))
}
