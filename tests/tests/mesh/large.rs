//! Much data, and packets larger than the way.

use std::{fs, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Host, eventually, lab_test};

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

/// On wires of 1,400 bytes, large transfers and datagrams get through whole, by another node's port, the task's own
/// node's, and VIP: the overlay takes the wires as they are.
#[test]
fn large_transfers_pass_a_narrow_wire() -> Result<()> {
    lab_test(lab()?.nodes(3), |lab| {
        let [n1, n3] = [lab.node("n1")?, lab.node("n3")?];
        for node in [n1, n3] {
            lab.fabric().ip(&format!("link set {} mtu 1400\n", node.name()))?;
            node.ip("link set eth0 mtu 1400\n")?;
        }
        lab.start_agents(READY)?;
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8080:80/udp")?;
        let web = Task::both(lab, n3, "web")?;
        let idle = Task::idle(n1, "app")?;
        let dir = lab.dir().to_string_lossy().into_owned();
        let sent: Vec<u8> =
            (0..20_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        fs::write(lab.dir().join("sent"), sent)?;
        for address in [n1, n3].into_iter().flat_map(|node| addresses(node)) {
            served_by(lab.client(), &url_at(address, 8080), &[&web])?;
            travels(lab.client(), &dir, (address, 8080).into())?;
        }
        for vip in both(&idle, "web")? {
            served_by(&idle, &url_at(vip, 80), &[&web])?;
            travels(&idle, &dir, (vip, 80).into())?;
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
