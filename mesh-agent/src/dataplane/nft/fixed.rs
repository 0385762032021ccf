//! **Decision.** The part of the table that is the same on every node: hooks, gates and source translation. Pure.
//!
//! Rules here name no service, network or task; those are elements of the sets and maps that the rules look
//! into. So a change in the world touches elements and pools' chains, never these rules.
//!
//! A packet meets, in this order: `guard` (may this source send to that destination? judged on what the
//! sender wrote, so before translation), `closed` (nobody is behind that VIP), `balance` (destination
//! translation, first packet of a flow only), `egress` (forwarded to the world), `source` (source
//! translation, first packet only). Replies are let through by conntrack and translated back where the flow
//! was translated, for they come back through that node: either the client's address is in the same network
//! and routed, or the source was made this node's own.

use std::collections::BTreeMap;

use mesh_core::model::FIRST_VNI;
use mesh_core::plan::{Family, VTEP_DEVICE};

use super::ruleset::{Chain, Ruleset, Set};

/// The number in names of a family's sets and maps.
pub(super) fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

/// The word before `saddr`, `daddr` and after `dnat`.
pub(super) fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// Puts a family's words in the place of `$ip`, `$n` and so on, so that both families have the same rules.
fn localised(text: &str, family: Family) -> String {
    let (address, protocol, loopback) = match family {
        Family::V4 => ("ipv4_addr", "ipv4", "127.0.0.0/8"),
        Family::V6 => ("ipv6_addr", "ipv6", "::1"),
    };
    text.replace("$ip", word(family))
        .replace("$addr", address)
        .replace("$proto", protocol)
        .replace("$loopback", loopback)
        .replace("$n", &digit(family).to_string())
        .replace("$vtep", VTEP_DEVICE)
        .replace("$first", &FIRST_VNI.to_string())
}

/// Sets and maps of each family: name, type.
const SETS: [(&str, &str); 7] = [
    // All networks' addresses.
    ("subnets$n", "type $addr; flags interval;"),
    // Which addresses a device group's tasks may reach: those of their network.
    ("members$n", "type devgroup . $addr; flags interval;"),
    // Both addresses are in the same network.
    ("inside$n", "type $addr . $addr; flags interval;"),
    // A local task's device and the address that it may send from.
    ("ports$n", "type ifname . $addr;"),
    // A local task that was balanced to itself.
    ("hairpins$n", "type $addr . $addr;"),
    // Addresses of networks without, and with, a way to the world.
    ("internal$n", "type $addr; flags interval;"),
    ("egress$n", "type $addr; flags interval;"),
];

const MAPS: [(&str, &str); 5] = [
    // The node's own address in the network of the key.
    ("gateways$n", "type $addr : $addr; flags interval;"),
    ("vips$n", "type $addr : verdict;"),
    // VIPs that are closed to everybody or to some.
    ("closed$n", "type $addr : verdict;"),
    ("published$n", "type inet_proto . inet_service : verdict;"),
    (
        "published_at$n",
        "type $addr . inet_proto . inet_service : verdict;",
    ),
];

/// A chain: name, hook, rules with what they are for.
type Fixed = (
    &'static str,
    Option<&'static str>,
    &'static [(&'static str, &'static str)],
);

/// A rule with `$ip` or `$n` in it is there once for each family.
const CHAINS: [Fixed; 13] = [
    (
        "guard",
        // After conntrack (-200), so that replies are known; before any translation (-100).
        Some("type filter hook prerouting priority -150; policy accept;"),
        &[
            ("iifname \"lo\" accept", "the node to itself"),
            (
                "$ip daddr $loopback drop",
                "nothing that comes by a device is for the node's loopback",
            ),
            ("iifname \"$vtep\" jump from_mesh", "from other nodes"),
            ("meta iifgroup >= $first jump from_task", "from local tasks"),
            (
                "meta iifgroup < $first iifname != \"$vtep\" jump from_outside",
                "from elsewhere",
            ),
            ("jump closed", "to VIPs that nobody is behind"),
        ],
    ),
    (
        "from_task",
        None,
        &[
            (
                "iifname . $ip saddr != @ports$n drop",
                "a task sends from its own address only",
            ),
            ("ct direction reply accept", "answers to whoever was let in"),
            (
                "$ip daddr @subnets$n meta iifgroup . $ip daddr != @members$n goto prohibit",
                "other networks",
            ),
        ],
    ),
    (
        "from_mesh",
        None,
        &[
            ("$ip saddr . $ip daddr @inside$n return", "within one network"),
            (
                "ct state related return",
                "errors about known flows come from routers too",
            ),
            ("drop", "no network is left or entered in the tunnel"),
        ],
    ),
    (
        "from_outside",
        None,
        &[
            ("$ip saddr @subnets$n drop", "nobody outside has a mesh address"),
            ("ct direction reply accept", "answers to the node and to tasks"),
            (
                "$ip daddr @subnets$n goto prohibit",
                "what is not published is not reached from outside",
            ),
        ],
    ),
    (
        "closed_out",
        Some("type filter hook output priority -150; policy accept;"),
        &[("jump closed", "to VIPs that nobody is behind")],
    ),
    (
        "closed",
        None,
        &[
            (
                "ct state established,related return",
                "flows of backends that left end by themselves",
            ),
            ("$ip daddr vmap @closed$n", "VIPs that nobody is behind"),
        ],
    ),
    (
        "balance_in",
        Some("type nat hook prerouting priority -100; policy accept;"),
        &[("jump balance", "what comes by a device")],
    ),
    (
        "balance_out",
        Some("type nat hook output priority -100; policy accept;"),
        &[("jump balance", "the node's own")],
    ),
    (
        "balance",
        None,
        &[
            ("meta l4proto { tcp, udp } $ip daddr vmap @vips$n", "VIPs"),
            ("$ip daddr @subnets$n return", "our own addresses publish nothing"),
            // The kernel takes no answer to ::1 from a device: better refused at once than waited for.
            ("ip6 daddr ::1 return", "cannot be translated"),
            (
                "$ip daddr . meta l4proto . th dport vmap @published_at$n",
                "ports published on one address",
            ),
            (
                "meta nfproto $proto fib daddr type local meta l4proto . th dport vmap @published$n",
                "ports published on all addresses of the node",
            ),
        ],
    ),
    (
        "forwarded",
        Some("type filter hook forward priority 0; policy accept;"),
        &[("meta iifgroup >= $first jump egress", "from local tasks")],
    ),
    (
        "egress",
        None,
        &[
            ("ct direction reply return", "answers to whoever was let in"),
            ("oifname \"$vtep\" return", "to other nodes"),
            ("meta oifgroup >= $first return", "to local tasks"),
            ("meta iifgroup @world return", "networks with a way to the world"),
            ("goto prohibit", "internal networks have none"),
        ],
    ),
    (
        "prohibit",
        None,
        &[
            (
                "meta l4proto tcp reject with tcp reset",
                "not allowed: say so at once",
            ),
            (
                "reject with icmpx type admin-prohibited",
                "not allowed: say so at once",
            ),
        ],
    ),
    (
        "refuse",
        None,
        &[
            (
                "meta l4proto tcp reject with tcp reset",
                "nobody there: say so at once",
            ),
            (
                "reject with icmpx type port-unreachable",
                "nobody there: say so at once",
            ),
        ],
    ),
];

/// Kept apart from [`CHAINS`] only for its comments: who loses his address, and why.
const SOURCE: [(&str, &str); 7] = [
    (
        "ct status dnat $ip saddr . $ip daddr @hairpins$n snat $ip to $ip daddr map @gateways$n",
        "a task to itself",
    ),
    // Answers are routed back through here, for both ends are reached by way of their nodes.
    (
        "$ip saddr . $ip daddr @inside$n accept",
        "within one network sources stay",
    ),
    // The other node lets nothing else in, and would not answer through here. The node's own direct traffic
    // is meant too: its source may be any address of the node.
    (
        "oifname \"$vtep\" snat $ip to $ip daddr map @gateways$n",
        "others to tasks of other nodes",
    ),
    // Their answer would be taken for traffic between networks.
    (
        "$ip saddr @subnets$n snat $ip to $ip daddr map @gateways$n",
        "from another network",
    ),
    (
        "$ip saddr $loopback snat $ip to $ip daddr map @gateways$n",
        "from the node's localhost",
    ),
    // Such a task has no route to the client.
    (
        "$ip daddr @internal$n snat $ip to $ip daddr map @gateways$n",
        "into an internal network",
    ),
    (
        "$ip saddr @egress$n $ip daddr != @subnets$n meta oifgroup < $first oifname != { \"lo\", \"$vtep\" } masquerade",
        "tasks to the world",
    ),
];

/// The table without any service, network or task.
pub(super) fn ruleset() -> Ruleset {
    let mut ruleset = Ruleset::default();
    for family in Family::ALL {
        let mut add = |name: &str, header: &str, map| {
            let set = Set {
                header: localised(header, family),
                map,
                elements: BTreeMap::new(),
            };
            ruleset.sets.insert(localised(name, family), set);
        };
        SETS.iter().for_each(|(name, header)| add(name, header, false));
        MAPS.iter().for_each(|(name, header)| add(name, header, true));
    }
    let world = Set {
        header: "type devgroup;".to_owned(),
        map: false,
        elements: BTreeMap::new(),
    };
    ruleset.sets.insert("world".to_owned(), world);
    let source: Fixed = (
        "source",
        Some("type nat hook postrouting priority 100; policy accept;"),
        &SOURCE,
    );
    for (name, hook, rules) in CHAINS.iter().chain([&source]) {
        let mut chain = Chain {
            hook: hook.map(str::to_owned),
            rules: Vec::new(),
        };
        for (rule, comment) in *rules {
            let each = rule.contains("$ip") || rule.contains("$n");
            for family in Family::ALL.into_iter().take(if each { 2 } else { 1 }) {
                chain.rule(localised(rule, family), comment);
            }
        }
        ruleset.chains.insert((*name).to_owned(), chain);
    }
    ruleset
}
