//! Devices of a node that come and go while the mesh runs.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use mesh_tests::{Host, Lab, Node, eventually};

use crate::kit::{Cli, DUAL, READY, Task, curl, mesh};

/// Nobody waits for a sweep, which comes every 30 s.
const SOON: Duration = Duration::from_secs(1);

/// A second way to a node, straight from the client.
fn plug_in(lab: &Lab, node: &Node) -> Result<()> {
    lay(lab, node)?;
    address(lab.client(), "to-node", 2)?;
    address(node, "wan1", 1)
}

/// A wire from the client to a node, without an address.
fn lay(lab: &Lab, node: &Node) -> Result<()> {
    let there = lab.client().netns().path();
    node.ip(&format!("link add wan1 type veth peer name to-node netns {}\n", there.display()))?;
    node.ip("link set dev wan1 up\n")?;
    lab.client().ip("link set dev to-node up\n")
}

fn address(host: &Host, device: &str, last: u8) -> Result<()> {
    host.ip(&format!(
        "link set dev {device} up\n\
         address add 10.77.0.{last}/24 dev {device}\n\
         address add fd88::{last}/64 dev {device} nodad\n"
    ))
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

/// What comes in by a port of a bridge comes in by the bridge, and so do the answers find their way.
#[test]
fn a_port_is_served_by_the_bridge_that_has_the_address() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let _web = Task::both(lab, n2, "web")?;
        lay(lab, n1)?;
        n1.ip("link add br1 type bridge\nlink set dev wan1 master br1\n")?;
        address(n1, "br1", 1)?;
        address(lab.client(), "to-node", 2)?;
        soon_serves(lab, "http://10.77.0.1:8080/")?;
        soon_serves(lab, "http://[fd88::1]:8080/")
    })
}

/// Sends a datagram in a frame of a VLAN (IEEE 802.1Q), and prints how many answers come.
const TAGGED: &str = "
import socket, struct, sys
device, address, port, vlan = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
plain.settimeout(1)
plain.connect((address, port))
plain.send(b'echo plain')
assert plain.recv(100) == b'echo plain'
neighbour = next(line.split() for line in open('/proc/net/arp') if line.split()[0] == address)
source, sport = plain.getsockname()
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind((device, 0))
said = b'echo tagged'
udp = struct.pack('!HHHH', sport, port, 8 + len(said), 0) + said
head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, *map(socket.inet_aton, (source, address)))
total = sum(struct.unpack('!10H', head))
total = (total & 0xffff) + (total >> 16)
head = head[:10] + struct.pack('!H', ~(total + (total >> 16)) & 0xffff) + head[12:]
frame = bytes.fromhex(neighbour[3].replace(':', '')) + raw.getsockname()[4] + struct.pack('!HHH', 0x8100, vlan, 0x0800)
raw.send(frame + head + udp)
try:
    print(plain.recv(100).decode())
except TimeoutError:
    print('nothing')
";

/// A frame of a VLAN is not ours to take: its own device has it. One that has but a priority is like any other.
#[test]
fn frames_of_another_vlan_are_left_alone() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80/udp")?;
        let _web = Task::both(lab, n2, "web")?;
        let node = n1.address().to_string();
        let said = |vlan: &str| {
            let argv = ["python3", "-c", TAGGED, "eth0", &node, "8080", vlan];
            eventually(READY, "the client is answered", || lab.client().command(argv).ok())
        };
        let (tagged, priority) = (said("100")?, said("0")?);
        ensure!((tagged.trim(), priority.trim()) == ("nothing", "echo tagged"), "{tagged}, {priority}");
        Ok(())
    })
}
