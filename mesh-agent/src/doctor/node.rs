//! **Fact.** What this node is like, as far as a doctor asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use mesh_core::doctor::{Busy, Offload, Room};
use mesh_core::model::{Listener, Node, Protocol, PublishMode, PublishedPort, Snapshot};

use crate::facts::links;

/// The kernel settings that are asked for.
pub(super) fn sysctls(device: &str) -> BTreeMap<String, String> {
    let names = [
        "ipv4/ip_forward".to_owned(),
        "ipv6/conf/all/forwarding".to_owned(),
        "ipv4/conf/all/rp_filter".to_owned(),
        format!("ipv4/conf/{device}/rp_filter"),
        "netfilter/nf_conntrack_count".to_owned(),
        "netfilter/nf_conntrack_max".to_owned(),
    ];
    let read = |name: String| {
        let value = fs::read_to_string(Path::new("/proc/sys/net").join(&name)).ok()?;
        Some((name, value.trim().to_owned()))
    };
    names.into_iter().filter_map(read).collect()
}

/// How much room there is where the state is.
pub(super) fn room(dir: &Path) -> Option<(String, Room)> {
    let found = rustix::fs::statvfs(dir).ok()?;
    let (free, size) = (found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize);
    Some((dir.display().to_string(), Room { free, size }))
}

/// What the device does for packets.
pub(super) fn offload(device: &str) -> Offload {
    let driver = fs::read_link(format!("/sys/class/net/{device}/device/driver")).unwrap_or_default();
    let driver = driver.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let asked = std::process::Command::new("ethtool").args(["-k", device]).output().ok();
    let features = asked.filter(|output| output.status.success()).map(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let of = |line: &str| {
            let (name, value) = line.trim().split_once(": ")?;
            Some((name.to_owned(), value.starts_with("on")))
        };
        text.lines().filter_map(of).collect()
    });
    Offload { device: device.to_owned(), driver, features, wrong: wrong_checksums() }
}

/// How many datagrams and segments came with a wrong checksum, of how many (proc(5), `/proc/net/snmp`).
fn wrong_checksums() -> (u64, u64) {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let value = |table: &str, name: &str| {
        let mut rows = lines.iter().filter(|line| line.starts_with(table)).map(|line| line.split(' '));
        let (mut names, values) = (rows.next()?, rows.next()?);
        let place = names.position(|found| found == name)?;
        values.clone().nth(place)?.parse::<u64>().ok()
    };
    let sum =
        |parts: [(&str, &str); 2]| parts.iter().filter_map(|(table, name)| value(table, name)).sum::<u64>();
    (
        sum([("Tcp:", "InCsumErrors"), ("Udp:", "InCsumErrors")]),
        sum([("Tcp:", "InSegs"), ("Udp:", "InDatagrams")]),
    )
}

/// Ports of the mesh's and of services that other programs have. Without a record of the node only the mesh's own.
pub(super) async fn busy(
    world: Option<(&Snapshot, &Node)>,
    tunnel_port: u16,
    agent: Option<u32>,
) -> Vec<(String, Busy)> {
    let listeners = links::listeners().await;
    let mut found = Vec::new();
    let mut note = |whose: &str, listener: &Listener| {
        let program = program(*listener);
        // What the agent itself listens on is its own.
        if agent.is_none() || program.as_ref().is_none_or(|(pid, _)| Some(*pid) != agent) {
            found.push((
                whose.to_owned(),
                Busy { listener: *listener, program: program.map(|(_, name)| name) },
            ));
        }
    };
    let of = |protocol, port| listeners.iter().filter(move |l| (l.protocol, l.port) == (protocol, port));
    // The kernel's own socket of a tunnel has no program, and is nobody else's as long as the agent made it.
    of(Protocol::Udp, tunnel_port).for_each(|listener| {
        if program(*listener).is_some() {
            note("tunnels", listener);
        }
    });
    of(Protocol::Udp, mesh_ebpf::probe::PORT).for_each(|listener| note("messages between nodes", listener));
    let Some((world, me)) = world else { return found };
    for service in world.services.values() {
        for port in service.ports.iter().filter(|port| is_here(port, me)) {
            // A client's own port may be the same by chance (UDP).
            let taken = of(port.protocol, port.published).filter(|l| {
                l.address.is_unspecified() || port.host_ip.is_empty() || port.host_ip.contains(&l.address)
            });
            taken
                .filter(|l| l.protocol == Protocol::Tcp)
                .for_each(|l| note(&format!("service {}", service.name), l));
        }
    }
    found
}

fn is_here(port: &PublishedPort, me: &Node) -> bool {
    port.mode == PublishMode::Ingress && (port.nodes.is_empty() || port.nodes.contains(&me.name))
}

/// Who listens there: its process and name, if it can be found.
fn program(listener: Listener) -> Option<(u32, String)> {
    let table = match listener.protocol {
        Protocol::Tcp => ["tcp", "tcp6"],
        Protocol::Udp => ["udp", "udp6"],
    };
    let inodes: BTreeSet<String> = table.iter().flat_map(|table| inodes(table, listener)).collect();
    let wanted: BTreeSet<_> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find_map(|pid| {
        let mut fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let has =
            fds.any(|fd| fs::read_link(fd.path()).is_ok_and(|to| wanted.contains(&*to.to_string_lossy())));
        let name = has.then(|| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default())?;
        Some((pid, name.trim().to_owned()))
    })
}

/// The sockets of a listener (proc(5), the tenth field).
fn inodes(table: &str, listener: Listener) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    let head = text.lines().next().unwrap_or_default().to_owned();
    let of = |line: &str| {
        let one = format!("{head}\n{line}");
        let is = links::parse_sockets(&one, listener.protocol).any(|found| found == listener);
        let inode = line.split_ascii_whitespace().nth(9)?;
        (is && inode != "0").then(|| inode.to_owned())
    };
    text.lines().skip(1).filter_map(of).collect()
}
