//! What depends on who balances: these rules, or programs.

use nftables::types::NfChainType::{Filter, NAT};
use nftables::types::NfHook::{Output, Prerouting};

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

/// Where programs balance: what of a VIP gets past them (fragments, odd options) is refused before the node's own
/// sockets can have it, for a VIP is an address of the node. `own` are the node's other addresses in networks.
pub(in super::super) fn close_vips(ruleset: &mut Ruleset) {
    declare(ruleset, "own", &["addr"], false, None);
    let closed = Chain::default().each("VIPs are the programs'", |f| {
        [is(daddr(f), at("subnets", f)), is_not(daddr(f), at("own", f)), is_local(), goto("refuse")]
    });
    let guard = ruleset.chains.entry("guard".to_owned()).or_default();
    // After what the node says to itself: among that is what the programs let through.
    guard.rules.splice(1..1, closed.rules);
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
