//! **Decision.** The part of the table that is the same on every node: hooks, gates and source translation. Pure.
//!
//! Rules here name no service, network or task; those are elements of the sets and maps that the rules look
//! into. So a change in the world touches elements and pools' chains, never these rules.
//!
//! A packet meets, in this order: `untracked_in` or `untracked_out` (nodes among themselves are not tracked), `guard`
//! (may this source send to that destination? judged on what the sender wrote, so before translation), `closed`
//! (nobody is behind that VIP), `balance` (destination translation, first packet of a flow only), `egress` (forwarded
//! to the world), `source` (source translation, first packet only). Replies are let through by conntrack and
//! translated back where the flow was translated, for they come back through that node: either the client's address
//! is in the same network and routed, or the source was made this node's own.
//!
//! Where programs balance, `vips` has the place of `closed` and `balance`, and tasks among themselves are not tracked.

use std::collections::BTreeMap;

use mesh_core::model::FIRST_VNI;
use mesh_core::plan::{Family, VTEP_DEVICE};
use nftables::types::NfChainType::{Filter, NAT};
use nftables::types::NfHook::{Forward, Output, Postrouting, Prerouting};
use nftables::types::RejectCode::{AdminProhibited, PortUnreach};

pub(super) use self::services::{balance, leave_to_programs};

use super::ruleset::{Chain, Kind, Ruleset, Set};
use super::words::*;

mod services;

const LOOPBACK: &str = "lo";

/// Sets of each family: name, type of a key (`addr` is the family's), whether it has prefixes.
const SETS: [(&str, &[&str], bool); 8] = [
    // All networks' addresses.
    ("subnets", &["addr"], true),
    // Which addresses a device group's tasks may reach: those of their network.
    ("members", &["devgroup", "addr"], true),
    // Both addresses are in the same network.
    ("inside", &["addr", "addr"], true),
    // A local task's device and the address that it may send from.
    ("ports", &["ifname", "addr"], false),
    // A local task that was balanced to itself.
    ("hairpins", &["addr", "addr"], false),
    // The other ends of tunnels, and the port that those lead to.
    ("tunnels", &["addr", "inet_service"], false),
    // Addresses of networks without, and with, a way to the world.
    ("internal", &["addr"], true),
    ("egress", &["addr"], true),
];

/// Maps: the same, and the type of values.
type Map = (&'static str, &'static [&'static str], bool, &'static str);

/// The node's own address in the network of the key.
const GATEWAYS: Map = ("gateways", &["addr"], true, "addr");

/// A chain and its name.
type Named = (&'static str, Chain);

/// What every node has, without any service, network or task.
pub(super) fn gates() -> Ruleset {
    let mut ruleset = Ruleset::default();
    for (name, key, interval) in SETS {
        declare(&mut ruleset, name, key, interval, None);
    }
    let (name, key, interval, value) = GATEWAYS;
    declare(&mut ruleset, name, key, interval, Some(value));
    for (name, key) in [("world", "devgroup"), ("vtep", "inet_service")] {
        let kind = Kind { key: vec![key], value: None, interval: false };
        ruleset.sets.insert(name.to_owned(), Set { kind, elements: BTreeMap::new() });
    }
    for (name, chain) in untracked().into_iter().chain(guards()).chain(egress()).chain(refusals()) {
        ruleset.chains.insert(name.to_owned(), chain);
    }
    ruleset.chains.insert("source".to_owned(), source());
    ruleset
}

/// An empty set of each family, or a map, if there is a type of values.
fn declare(
    ruleset: &mut Ruleset,
    name: &str,
    key: &[&'static str],
    interval: bool,
    value: Option<&'static str>,
) {
    for family in Family::ALL {
        let addr = match family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        let of = |kind| if kind == "addr" { addr } else { kind };
        let kind = Kind { key: key.iter().copied().map(of).collect(), value: value.map(of), interval };
        ruleset.sets.insert(format!("{name}{}", digit(family)), Set { kind, elements: BTreeMap::new() });
    }
}

/// Tunnels have a port of their own for each flow. Tracked, every connection of a client would take places in the
/// tables of two nodes for minutes, also where programs balance; and a full table would cut the nodes off from each
/// other.
fn untracked() -> Vec<Named> {
    // Before conntrack (-200).
    let coming = Chain::at(Filter, Prerouting, -300).each("tunnels of other nodes", |f| {
        [is(l4proto(), "udp"), is_tunnel(saddr(f), f), is_local(), notrack()]
    });
    let going = Chain::at(Filter, Output, -300)
        .each("tunnels to other nodes", |f| [is(l4proto(), "udp"), is_tunnel(daddr(f), f), notrack()]);
    vec![("untracked_in", coming), ("untracked_out", going)]
}

fn guards() -> Vec<Named> {
    // After conntrack (-200), so that replies are known; before any translation (-100).
    let guard = Chain::at(Filter, Prerouting, -150)
        .rule("the node to itself", [is(iifname(), LOOPBACK), accept()])
        .each("nothing that comes by a device is for the node's loopback", |f| {
            [is(daddr(f), loopback(f)), discard()]
        })
        .each("only nodes get something into the tunnel", |f| {
            [is(l4proto(), "udp"), is(dport(), "@vtep"), is_local(), is_no_tunnel(saddr(f), f), discard()]
        })
        .rule("from other nodes", [is(iifname(), VTEP_DEVICE), jump("from_mesh")])
        .rule("from local tasks", [at_least(iifgroup(), FIRST_VNI), jump("from_task")])
        .rule(
            "from elsewhere",
            [below(iifgroup(), FIRST_VNI), is_not(iifname(), VTEP_DEVICE), jump("from_outside")],
        );
    let from_task = Chain::default()
        .each("a task sends from its own address only", |f| {
            [is_not(concat([iifname(), saddr(f)]), at("ports", f)), discard()]
        })
        .rule("answers to whoever was let in", [is_reply(), accept()])
        .each("other networks", |f| {
            let member = concat([iifgroup(), daddr(f)]);
            [is(daddr(f), at("subnets", f)), is_not(member, at("members", f)), goto("prohibit")]
        });
    let from_mesh = Chain::default()
        .each("within one network", |f| [is_inside(f), leave()])
        .rule("errors about known flows come from routers too", [ct_state(["related"]), leave()])
        .rule("no network is left or entered in the tunnel", [discard()]);
    let from_outside = Chain::default()
        // What is in them comes by the tunnel's own device, and is judged then.
        .each("tunnels of other nodes", |f| {
            [ct_state(["untracked"]), is(l4proto(), "udp"), is_tunnel(saddr(f), f), accept()]
        })
        .each("nobody outside has a mesh address", |f| [is(saddr(f), at("subnets", f)), discard()])
        .rule("answers to the node and to tasks", [is_reply(), accept()])
        .each("what is not published is not reached from outside", |f| {
            [is(daddr(f), at("subnets", f)), goto("prohibit")]
        });
    vec![("guard", guard), ("from_task", from_task), ("from_mesh", from_mesh), ("from_outside", from_outside)]
}

fn egress() -> Vec<Named> {
    let forwarded = Chain::at(Filter, Forward, 0)
        .rule("from local tasks", [at_least(iifgroup(), FIRST_VNI), jump("egress")]);
    let egress = Chain::default()
        .rule("answers to whoever was let in", [is_reply(), leave()])
        .rule("to other nodes", [is(oifname(), VTEP_DEVICE), leave()])
        .rule("to local tasks", [at_least(oifgroup(), FIRST_VNI), leave()])
        .rule("networks with a way to the world", [is(iifgroup(), "@world"), leave()])
        .rule("internal networks have none", [goto("prohibit")]);
    vec![("forwarded", forwarded), ("egress", egress)]
}

fn refusals() -> Vec<Named> {
    let refusal =
        |why, code| Chain::default().rule(why, [is(l4proto(), "tcp"), reset()]).rule(why, [reject(code)]);
    vec![
        ("prohibit", refusal("not allowed: say so at once", AdminProhibited)),
        ("refuse", refusal("nobody there: say so at once", PortUnreach)),
    ]
}

/// Who loses his address, and why.
fn source() -> Chain {
    let own = |f| snat(f, map(daddr(f), at("gateways", f)));
    Chain::at(NAT, Postrouting, 100)
        .each("a task to itself", |f| {
            [ct_status("dnat"), is(concat([saddr(f), daddr(f)]), at("hairpins", f)), own(f)]
        })
        // Answers are routed back through here, for both ends are reached by way of their nodes.
        .each("within one network sources stay", |f| [is_inside(f), accept()])
        // The other node lets nothing else in, and would not answer through here. The node's own direct
        // traffic is meant too: its source may be any address of the node.
        .each("others to tasks of other nodes", |f| [is(oifname(), VTEP_DEVICE), own(f)])
        // Their answer would be taken for traffic between networks.
        .each("from another network", |f| [is(saddr(f), at("subnets", f)), own(f)])
        .each("from the node's localhost", |f| [is(saddr(f), loopback(f)), own(f)])
        // Such a task has no route to the client.
        .each("into an internal network", |f| [is(daddr(f), at("internal", f)), own(f)])
        .each("tasks to the world", |f| {
            [
                is(saddr(f), at("egress", f)),
                is_not(daddr(f), at("subnets", f)),
                below(oifgroup(), FIRST_VNI),
                is_not(oifname(), set([LOOPBACK, VTEP_DEVICE])),
                masquerade(),
            ]
        })
}

/// Of UDP: between this node and the one with that address.
fn is_tunnel(other: Expr, family: Family) -> Stmt {
    is(concat([other, dport()]), at("tunnels", family))
}

fn is_no_tunnel(other: Expr, family: Family) -> Stmt {
    is_not(concat([other, dport()]), at("tunnels", family))
}

fn is_inside(family: Family) -> Stmt {
    is(concat([saddr(family), daddr(family)]), at("inside", family))
}

fn loopback(family: Family) -> Expr {
    match family {
        Family::V4 => prefix("127.0.0.0", 8),
        Family::V6 => "::1".word(),
    }
}
