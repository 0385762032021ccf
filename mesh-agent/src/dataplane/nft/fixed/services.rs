//! What depends on who balances: these rules, or programs.

use nftables::types::NfChainType::{Filter, NAT};
use nftables::types::NfHook::{Input, Output, Prerouting};

use super::*;

/// Who is balanced to whom.
const MAPS: [Map; 4] = [
    ("vips", &["addr"], false, "verdict"),
    // VIPs that are closed to everybody or to some.
    ("closed", &["addr"], false, "verdict"),
    ("published", &["inet_proto", "inet_service"], false, "verdict"),
    ("published_at", &["addr", "inet_proto", "inet_service"], false, "verdict"),
];

/// Where these rules balance.
pub(in super::super) fn balance(ruleset: &mut Ruleset) {
    for (name, key, interval, value) in MAPS {
        declare(ruleset, name, key, interval, Some(value));
    }
    let guard = ruleset.chains.entry("guard".to_owned()).or_default();
    *guard = std::mem::take(guard).rule("to VIPs that nobody is behind", [jump("closed")]);
    for (name, chain) in closing().into_iter().chain(balancing()) {
        ruleset.chains.insert(name.to_owned(), chain);
    }
}

/// Where programs balance. `own` are the node's addresses in networks that are no VIPs.
pub(in super::super) fn leave_to_programs(ruleset: &mut Ruleset) {
    declare(ruleset, "own", &["addr"], false, None);
    // These rules translate nothing between tasks. What has the node's own address is translated back here.
    let untracked = ruleset.chains.entry("untracked_in".to_owned()).or_default();
    *untracked = std::mem::take(untracked)
        .each("tasks among themselves", |f| [is_inside(f), is_not(daddr(f), at("own", f)), notrack()]);
    // A VIP is an address of the node: fragments, odd options and whatever else gets past the programs must not come
    // to its own sockets.
    let vips = Chain::at(Filter, Input, -150)
        .rule("the node to itself, and what programs let through", [is(iifname(), LOOPBACK), accept()])
        .each("VIPs are the programs'", |f| {
            [is(daddr(f), at("subnets", f)), is_not(daddr(f), at("own", f)), goto("refuse")]
        });
    ruleset.chains.insert("vips".to_owned(), vips);
}

fn closing() -> Vec<Named> {
    let out = Chain::at(Filter, Output, -150).rule("to VIPs that nobody is behind", [jump("closed")]);
    let closed = Chain::default()
        .rule(
            "flows of backends that left end by themselves",
            [ct_state(["established", "related"]), leave()],
        )
        .each("VIPs that nobody is behind", |f| [vmap(daddr(f), at("closed", f))]);
    vec![("closed_out", out), ("closed", closed)]
}

fn balancing() -> Vec<Named> {
    let balance = Chain::default()
        .each("VIPs", |f| [has_ports(), vmap(daddr(f), at("vips", f))])
        .each("our own addresses publish nothing", |f| [is(daddr(f), at("subnets", f)), leave()])
        // The kernel takes no answer to ::1 from a device: better refused at once than waited for.
        .rule("cannot be translated", [is(daddr(Family::V6), loopback(Family::V6)), leave()])
        .each("ports published on one address", |f| {
            [vmap(concat([daddr(f), l4proto(), dport()]), at("published_at", f))]
        })
        .each("ports published on all addresses of the node", |f| {
            [is_family(f), is_local(), vmap(concat([l4proto(), dport()]), at("published", f))]
        });
    vec![
        ("balance_in", Chain::at(NAT, Prerouting, -100).rule("what comes by a device", [jump("balance")])),
        ("balance_out", Chain::at(NAT, Output, -100).rule("the node's own", [jump("balance")])),
        ("balance", balance),
    ]
}
