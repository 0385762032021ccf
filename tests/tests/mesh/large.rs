//! Much data, and packets larger than the way.

use std::{fs, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Host, Lab, eventually, lab_test};

use crate::kit::{Cli, DUAL, Place, READY, SOON, Task, addresses, both, lab, served_by, url_at};

/// Twenty million bytes there and back, compared by `cmp`.
fn travels(from: &dyn Place, dir: &str, to: SocketAddr) -> Result<()> {
    let url = format!("http://{to}/echo");
    let script = "curl -sS --max-time 9 -H 'Content-Type: x/x' --data-binary @sent -o \"$1\" \"$2\" && cmp sent \"$1\"";
    let script = format!("cd {dir} && {script}");
    from.command_at(&["sh", "-c", &script, "sh", "received", &url]).ok().with_context(|| url)?;
    Ok(())
}

/// Each size from a socket that lets its kernel split what is too large, and expects it back whole.
const DATAGRAMS: &str = "
import socket, sys
address, port, *sizes = sys.argv[1:]
s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_DGRAM)
if s.family == socket.AF_INET:
    s.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: never set DF
s.settimeout(1)
s.connect((address, int(port)))
for size in map(int, sizes):
    said = (b'echo ' + bytes(range(97, 123)) * 200)[:size]
    s.send(said)
    heard = s.recv(65536)
    assert heard == said, f'of {size} bytes came {len(heard)}'
";

fn datagrams(from: &dyn Place, to: SocketAddr) -> Result<()> {
    let (address, port) = (to.ip().to_string(), to.port().to_string());
    eventually(SOON, &format!("{to} sends datagrams of all sizes back"), || {
        let argv = ["python3", "-c", DATAGRAMS, &address, &port, "100", "1300", "1400", "1472", "4000"];
        from.command_at(&argv).ok()
    })?;
    Ok(())
}

/// Two nodes whose wires carry 1,400 bytes, a web server on one of them and a task beside on the other.
fn narrow(lab: &Lab) -> Result<[Task<'_>; 2]> {
    let [n1, n3] = [lab.node("n1")?, lab.node("n3")?];
    for node in [n1, n3] {
        lab.fabric().ip(&format!("link set {} mtu 1400\n", node.name()))?;
        node.ip("link set eth0 mtu 1400\n")?;
    }
    lab.start_agents(READY)?;
    n1.ok(DUAL)?;
    n1.ok("service create --name web --network app -p 8080:80 -p 8080:80/udp")?;
    let sent: Vec<u8> = (0..20_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(lab.dir().join("sent"), sent)?;
    Ok([Task::both(lab, n3, "web")?, Task::idle(n1, "app")?])
}

/// By another node's port, the task's own node's, and VIP.
fn all_travel(lab: &Lab, [web, idle]: [&Task<'_>; 2]) -> Result<()> {
    let dir = lab.dir().to_string_lossy().into_owned();
    for address in [lab.node("n1")?, lab.node("n3")?].into_iter().flat_map(|node| addresses(node)) {
        served_by(lab.client(), &url_at(address, 8080), &[web])?;
        travels(lab.client(), &dir, (address, 8080).into())?;
    }
    for vip in both(idle, "web")? {
        served_by(idle, &url_at(vip, 80), &[web])?;
        travels(idle, &dir, (vip, 80).into())?;
    }
    Ok(())
}

/// On wires of 1,400 bytes, large transfers and datagrams get through whole, by another node's port, the task's own
/// node's, and VIP: the overlay takes the wires as they are.
#[test]
fn large_transfers_pass_a_narrow_wire() -> Result<()> {
    lab_test(lab()?.nodes(3), |lab| {
        let [web, idle] = narrow(lab)?;
        let [n1, n3] = [lab.node("n1")?, lab.node("n3")?];
        all_travel(lab, [&web, &idle])?;
        for vip in both(&idle, "web")? {
            datagrams(&idle, (vip, 80).into())?;
        }
        // A switch splits nothing: who sends through the narrow port has to know, or has a router that does.
        lab.client().ip("link set eth0 mtu 1400\n")?;
        let clients: [&Host; 2] = [lab.client(), lab.outside()];
        for client in clients {
            for address in [n1, n3].into_iter().flat_map(|node| addresses(node)) {
                datagrams(client, (address, 8080).into()).context(client.name().to_owned())?;
            }
        }
        ensure!(lab.nodes().iter().all(|node| node.agent_runs()));
        Ok(())
    })
}

/// Windows sends none: each of its segments has twelve bytes more of payload.
#[test]
fn large_transfers_need_no_timestamps() -> Result<()> {
    lab_test(lab()?.nodes(3), |lab| {
        let [web, idle] = narrow(lab)?;
        let places: [&dyn Place; 3] = [lab.client(), &web, &idle];
        for place in places {
            place.command_at(&["sh", "-c", "echo 0 >/proc/sys/net/ipv4/tcp_timestamps"]).ok()?;
        }
        all_travel(lab, [&web, &idle])
    })
}

/// Has a device neither make large bundles of small packets nor take such: TSO, GSO, GRO (linux/ethtool.h).
const ALONE: &str = "
import array, fcntl, socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for command in (0x1f, 0x24, 0x2c):
    value = array.array('I', [command, 0])
    fcntl.ioctl(s, 0x8946, struct.pack('16sP16x', sys.argv[1].encode(), value.buffer_info()[0]))
";

/// The same where each packet is one frame, on all of its way.
#[test]
fn large_transfers_pass_a_narrow_wire_frame_by_frame() -> Result<()> {
    lab_test(lab()?.nodes(3), |lab| {
        let [web, idle] = narrow(lab)?;
        let [n1, n3] = [lab.node("n1")?, lab.node("n3")?];
        let places: [&dyn Place; 5] = [n1, n3, lab.client(), &web, &idle];
        for place in places {
            place.command_at(&["python3", "-c", ALONE, "eth0"]).ok()?;
        }
        for port in ["n1", "n3", "client"] {
            lab.fabric().command(["python3", "-c", ALONE, port]).ok()?;
        }
        all_travel(lab, [&web, &idle])
    })
}

/// Sends a datagram that must not be split, and prints what the client's kernel was told of it: which ICMP it was of,
/// how much would fit, where the datagram was sent to, and whether what is quoted of it, if anything, is so.
const TOLD: &str = "
import select, socket, struct, sys
address, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
v6 = ':' in address
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
level, discover, errors = (socket.IPPROTO_IPV6, 23, 25) if v6 else (socket.IPPROTO_IP, 10, 11)
s.setsockopt(level, discover, 2)  # always set DF
s.setsockopt(level, errors, 1)
s.connect((address, port))
said = bytes(range(256)) * 8
s.send(said[:size])
poll = select.poll()
poll.register(s, 0)
if not poll.poll(2000):
    sys.exit('nothing was told')
quoted, [(_, _, error), *_], _, to = s.recvmsg(2048, 512, socket.MSG_ERRQUEUE)
number, origin, kind, code, _, most, _ = struct.unpack('=IBBBBII', error[:16])
print(origin, most, to[0], to[1], said.startswith(quoted))
";

/// What does not fit into the tunnel is answered with how much would, about the very packet that the client sent.
#[test]
fn what_is_too_large_is_told_about_the_clients_own_packet() -> Result<()> {
    lab_test(lab()?.nodes(3), |lab| {
        let [web, _idle] = narrow(lab)?;
        let n1 = lab.node("n1")?;
        for address in addresses(n1) {
            served_by(lab.client(), &url_at(address, 8080), &[&web])?;
            // It passes the wire to the node, and not the one to the task's: 1,400 bytes less the tunnel's own 50.
            let (headers, origin) = if address.is_ipv4() { (28, 2) } else { (48, 3) };
            let size = (1400 - headers).to_string();
            let argv = ["python3", "-c", TOLD, &address.to_string(), "8080", &size];
            let said = lab.client().command_at(&argv).ok()?;
            ensure!(said.trim() == format!("{origin} 1350 {address} 8080 True"), "{said}");
        }
        Ok(())
    })
}
