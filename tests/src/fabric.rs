//! The physical network of the lab.
//!
//! ```text
//!   n1 .11   n2 .12   n3 .13 …  client .100         192.168.77.0/24, fd77::/64
//!     └────────┴───┬────┴────────────┘
//!           br0 .1 (fabric, a router)
//!                  └── outside 198.51.100.1          the internet: knows 192.168.77.0/24, no overlay
//! ```

use std::{
    fmt::Display,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::{Host, eventually};

/// An address of each family.
pub(crate) type Addresses = (Ipv4Addr, Ipv6Addr);

pub(crate) const ROUTER: Addresses = underlay(1, 0x1);
pub(crate) const CLIENT: Addresses = underlay(100, 0x100);
pub(crate) const OUTSIDE: Addresses =
    (Ipv4Addr::new(198, 51, 100, 1), Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 1));
const OUTSIDE_ROUTER: Addresses =
    (Ipv4Addr::new(198, 51, 100, 254), Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0xfe));

/// From .11 to .99.
pub(crate) const MAX_NODES: usize = 89;

/// How long the kernel may take to notice a new link.
const LINK_WITHIN: Duration = Duration::from_secs(5);

const fn underlay(last: u8, last6: u16) -> Addresses {
    (Ipv4Addr::new(192, 168, 77, last), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last6))
}

/// The addresses of the node at a place from 0: 192.168.77.11 and fd77::11 for the first.
pub(crate) fn node_addresses(place: usize) -> Addresses {
    let number = 11 + u8::try_from(place).unwrap_or(u8::MAX).min(88);
    // The hexadecimal digits read as the decimal ones of IPv4 do.
    underlay(number, u16::from(number / 10) << 4 | u16::from(number % 10))
}

/// Connects everything.
pub(crate) fn connect<'a>(
    fabric: &'a Host,
    underlay: impl Iterator<Item = &'a Host> + Clone,
    outside: &'a Host,
) -> Result<()> {
    for host in underlay.clone().chain([outside, fabric]) {
        // Without duplicate address detection, an address can be used as soon as it is there.
        host.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
    }
    fabric.sysctl("net/ipv4/ip_forward", "1")?;
    fabric.sysctl("net/ipv6/conf/all/forwarding", "1")?;

    // A switch looks at no more than frames. Where the kernel has no such setting, it does not anyway.
    for family in ["iptables", "ip6tables", "arptables"] {
        let _ = fabric.sysctl(&format!("net/bridge/bridge-nf-call-{family}"), "0");
    }

    let mut lines = format!(
        "link add name br0 type bridge mcast_snooping 0\n\
         link set dev br0 up\n\
         address add {}/24 dev br0\n\
         address add {}/64 dev br0 nodad\n",
        ROUTER.0, ROUTER.1
    );
    for host in underlay.clone().chain([outside]) {
        lines += &cable(host);
    }
    for host in underlay.clone() {
        lines += &format!("link set dev {} master br0\n", host.name());
    }
    lines += &format!(
        "address add {}/24 dev {name}\n\
         address add {}/64 dev {name} nodad\n",
        OUTSIDE_ROUTER.0,
        OUTSIDE_ROUTER.1,
        name = outside.name()
    );
    fabric.ip(&lines)?;

    for host in underlay.clone() {
        host.ip(&format!("link set dev eth0 address {}\n", hardware(host)))?;
        host.ip(&of_underlay(host))?;
    }
    // No default route: what comes from an overlay address without masquerade gets no answer, as in the internet.
    outside
        .ip(&uplink(outside, &[("192.168.77.0/24", &OUTSIDE_ROUTER.0), ("fd77::/64", &OUTSIDE_ROUTER.1)]))?;
    settle(fabric, underlay.chain([outside]))
}

fn of_underlay(host: &Host) -> String {
    uplink(host, &[("default", &ROUTER.0), ("default", &ROUTER.1)])
}

/// Takes away all that a host's kernel knows of networks, its uplink with it.
pub(crate) fn forget(host: &Host) -> Result<()> {
    let links = host.show(&["ip", "-json", "link", "show"])?;
    let links: Vec<serde_json::Value> = serde_json::from_str(&links)?;
    for name in links.iter().filter_map(|link| link["ifname"].as_str()).filter(|name| *name != "lo") {
        // One end of a pair goes with the other.
        let _ = host.show(&["ip", "link", "delete", "dev", name]);
    }
    host.show(&["nft", "flush", "ruleset"])?;
    host.show(&["ip", "rule", "flush"])?;
    // The first rule of all, which leads to a host's own addresses, stays.
    host.ip("rule add pref 32766 table main\nrule add pref 32767 table default\n")?;
    host.show(&["conntrack", "-F"])?;
    let left = host.show(&["ip", "-brief", "link"])?;
    ensure!(left.lines().count() == 1, "{} has kept\n{left}", host.name());
    Ok(())
}

/// Connects a host anew, as [`connect`] did. Its uplink has the hardware address that it had: that is the machine's.
pub(crate) fn plug_in(fabric: &Host, host: &Host) -> Result<()> {
    let mut lines = cable(host);
    lines += &format!("link set dev {} master br0\n", host.name());
    fabric.ip(&lines)?;
    host.ip(&format!("link set dev eth0 address {}\n{}", hardware(host), of_underlay(host)))?;
    settle(fabric, [host].into_iter())
}

/// Of the uplink. It follows from the address, as nothing else of the host outlives its boot.
fn hardware(host: &Host) -> String {
    let [.., last] = host.address().octets();
    format!("02:00:5e:00:77:{last:02x}")
}

/// Waits until every link carries. The kernel tells a device a while after its peer came up; what is sent before
/// is lost, and a lost question for a neighbour is asked again only after a second.
fn settle<'a>(fabric: &'a Host, hosts: impl Iterator<Item = &'a Host>) -> Result<()> {
    let up = |host: &Host| {
        let links = host.show(&["ip", "-brief", "link"])?;
        // Loopbacks, and bridges for a second, are "unknown", and carry.
        let carries = |line: &&str| line.contains(" UP ") || line.contains(" UNKNOWN ");
        let down = links.lines().find(|line| !carries(line));
        ensure!(down.is_none(), "{}: {}", host.name(), down.unwrap_or_default());
        Ok(())
    };
    for host in hosts.chain([fabric]) {
        eventually(LINK_WITHIN, "the links of the lab are up", || up(host))?;
    }
    eventually(LINK_WITHIN, "the switch of the lab forwards", || {
        let ports = fabric.show(&["bridge", "link"])?;
        let blocked = ports.lines().find(|line| !line.contains("state forwarding"));
        ensure!(blocked.is_none(), "{}", blocked.unwrap_or_default());
        Ok(())
    })
}

/// A cable from the fabric, where it has the host's name, to the host's `eth0`.
fn cable(host: &Host) -> String {
    format!(
        "link add name {name} type veth peer name eth0 netns {path}\n\
         link set dev {name} up\n",
        name = host.name(),
        path = host.netns().path().display()
    )
}

fn uplink(host: &Host, routes: &[(&str, &dyn Display)]) -> String {
    let mut lines = format!(
        "link set dev eth0 up\n\
         address add {}/24 dev eth0\n\
         address add {}/64 dev eth0 nodad\n",
        host.address(),
        host.address6()
    );
    for (to, via) in routes {
        lines += &format!("route add {to} via {via}\n");
    }
    lines
}
