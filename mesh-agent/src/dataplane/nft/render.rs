//! **Decision.** The table that stands for a plan. Pure: the same plan gives the same table, to the byte.
//!
//! What is planned becomes elements of the fixed part's sets and maps ([`super::fixed`]), and one chain per
//! pool. Nothing is read back and nothing is chosen here.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_core::model::{Affinity, Balancing, Vni};
use mesh_core::plan::{Balance, Family, Frontend, NetworkGate, Pool, PortGate};

use super::fixed::{self, digit, word};
use super::ruleset::{Chain, Ruleset};
use super::slots::{self, Slots};

/// All nodes hash alike, so that a client meets the same backend through whichever node it comes.
const SEED: u32 = 0x6d65_7368;

/// Up to so many backends a pool is a rule for each; above, one rule with a map. A map is quicker to look up in,
/// but the kernel finds a table's anonymous maps by walking their list: 5,000 pools took 9 s to commit and 1.6 s
/// to list a single chain with a map each, and 0.5 s and 0.03 s with three rules each (nft 1.0.6, Linux 6.18).
const MAX_RULES: usize = 16;

/// The table for a plan.
pub fn render(balance: &Balance) -> Ruleset {
    let Balance {
        frontends,
        networks,
        ports,
    } = balance;
    let mut ruleset = fixed::ruleset();
    for (vni, gate) in networks {
        network(&mut ruleset, *vni, gate);
    }
    for (device, gate) in ports {
        port(&mut ruleset, device, gate);
    }
    for (at, pool) in frontends {
        frontend(&mut ruleset, at, pool);
    }
    ruleset
}

/// Puts an element into a set or map of the fixed part.
fn element(ruleset: &mut Ruleset, name: &str, family: Family, key: String, value: String) {
    let set = ruleset.sets.get_mut(&format!("{name}{}", digit(family)));
    debug_assert!(set.is_some(), "{name} is not in the fixed part");
    if let Some(set) = set {
        set.elements.insert(key, value);
    }
}

fn network(ruleset: &mut Ruleset, vni: Vni, gate: &NetworkGate) {
    let NetworkGate {
        subnets,
        egress,
        gateway,
    } = gate;
    for subnet in subnets {
        let family = Family::of(subnet.addr());
        let subnet = Prefix(*subnet).to_string();
        let mut add = |name, key, value| element(ruleset, name, family, key, value);
        add("subnets", subnet.clone(), String::new());
        add("members", format!("{vni} . {subnet}"), String::new());
        let world = if *egress { "egress" } else { "internal" };
        add(world, subnet.clone(), String::new());
        if let Some(own) = gateway.and_then(|gateway| family.pick(gateway)) {
            add("gateways", subnet, own.to_string());
        }
    }
    for a in subnets {
        for b in subnets
            .iter()
            .filter(|b| Family::of(b.addr()) == Family::of(a.addr()))
        {
            let key = format!("{} . {}", Prefix(*a), Prefix(*b));
            element(ruleset, "inside", Family::of(a.addr()), key, String::new());
        }
    }
    if *egress && let Some(world) = ruleset.sets.get_mut("world") {
        world.elements.insert(vni.to_string(), String::new());
    }
}

fn port(ruleset: &mut Ruleset, device: &str, gate: &PortGate) {
    // The network is known to rules by the device's group.
    let PortGate { vni: _, addresses } = gate;
    for address in addresses.addresses() {
        let family = Family::of(address);
        element(
            ruleset,
            "ports",
            family,
            format!("{device} . {address}"),
            String::new(),
        );
        element(
            ruleset,
            "hairpins",
            family,
            format!("{address} . {address}"),
            String::new(),
        );
    }
}

/// A frontend's chain, what leads to it, and what shuts it.
fn frontend(ruleset: &mut Ruleset, at: &Frontend, pool: &Pool) {
    let name = chain_name(at);
    let goto = format!("goto {name}");
    let (family, title) = match at {
        Frontend::Vip { vni: _, address } => {
            let family = Family::of(*address);
            if pool.backends.is_empty() {
                element(
                    ruleset,
                    "closed",
                    family,
                    address.to_string(),
                    "goto refuse".to_owned(),
                );
                return;
            }
            element(ruleset, "vips", family, address.to_string(), goto);
            let title = format!("{} VIP", pool.service);
            if !pool.allow.is_empty() {
                // Without a translation the node itself would answer on the VIP.
                let mut chain = Chain::default();
                let others = format!("{} saddr != {}", word(family), clients(&pool.allow));
                chain.rule(
                    format_args!("{others} goto refuse"),
                    &format!("{title}: not for these"),
                );
                element(
                    ruleset,
                    "closed",
                    family,
                    address.to_string(),
                    format!("goto closed_{name}"),
                );
                ruleset.chains.insert(format!("closed_{name}"), chain);
            }
            (family, title)
        }
        // Without a backend nothing is translated, and the node's kernel refuses as for any closed port.
        Frontend::Published { .. } if pool.backends.is_empty() => return,
        Frontend::Published {
            protocol,
            port,
            address,
            family,
        } => {
            match address {
                None => element(
                    ruleset,
                    "published",
                    *family,
                    format!("{protocol} . {port}"),
                    goto,
                ),
                Some(address) => {
                    element(
                        ruleset,
                        "published_at",
                        *family,
                        format!("{address} . {protocol} . {port}"),
                        goto,
                    );
                }
            }
            (*family, format!("{} {port}/{protocol}", pool.service))
        }
    };
    ruleset.chains.insert(name, pool_chain(at, family, &title, pool));
}

/// A name that nft takes as an identifier; it has no colons.
fn chain_name(at: &Frontend) -> String {
    match at {
        Frontend::Vip { vni: _, address } => format!("vip_{address}").replace(':', "_"),
        Frontend::Published {
            protocol,
            port,
            address: None,
            family,
        } => {
            format!("published{}_{protocol}_{port}", digit(*family))
        }
        Frontend::Published {
            protocol,
            port,
            address: Some(address),
            family,
        } => format!("published{}_{protocol}_{port}_at_{address}", digit(*family)).replace(':', "_"),
    }
}

fn pool_chain(at: &Frontend, family: Family, title: &str, pool: &Pool) -> Chain {
    let ip = word(family);
    let mut chain = Chain::default();
    if !pool.allow.is_empty() {
        let others = format!("{ip} saddr != {}", clients(&pool.allow));
        chain.rule(
            format_args!("{others} return"),
            &format!("{title}: not for these"),
        );
    }
    // nft translates ports only where it knows the protocol.
    let known = match at {
        Frontend::Vip { .. } => String::new(),
        Frontend::Published { protocol, .. } => format!("meta l4proto {protocol} "),
    };
    let port = pool.target.map(|port| format!(":{port}")).unwrap_or_default();
    let key = match (pool.affinity, pool.balancing) {
        (Affinity::ClientIp { timeout: _ }, _) => Some(format!("{ip} saddr")),
        (Affinity::None, Balancing::Maglev) => Some(format!("{ip} saddr . th sport")),
        // There is no count of flows that a rule could look at.
        (Affinity::None, Balancing::Random | Balancing::LeastConn) => None,
    };
    if key.is_some() || pool.backends.len() > MAX_RULES {
        let hashed = key.is_some().then(|| slots::by_hash(&pool.backends));
        let slots = hashed.unwrap_or_else(|| slots::by_weight(&pool.backends));
        let draw = match key {
            Some(key) => format!("jhash {key} mod {} seed {SEED:#x}", slots.modulus),
            None => format!("numgen random mod {}", slots.modulus),
        };
        // A hash over ports asks for the protocol, too.
        let known = if known.is_empty() {
            "meta l4proto { tcp, udp } "
        } else {
            &known
        };
        let tasks: Vec<&str> = pool
            .backends
            .iter()
            .map(|backend| backend.task.as_str())
            .collect();
        let what = format!("{known}dnat {ip} to {draw} map {}{port}", table(&slots));
        chain.rule(what, &format!("{title}: {}", tasks.join(" ")));
        return chain;
    }
    // Each rule draws among those that are left, so that the shares come out as the weights.
    let slots = slots::by_weight(&pool.backends);
    for (run, backend) in slots.runs.iter().zip(&pool.backends) {
        let (length, left) = (run.last - run.first + 1, slots.modulus - run.first);
        let draw = if length == left {
            String::new()
        } else {
            format!("numgen random mod {left} < {length} ")
        };
        let to = match backend.address {
            IpAddr::V4(address) => format!("{address}{port}"),
            IpAddr::V6(address) => format!("[{address}]{port}"),
        };
        chain.rule(
            format_args!("{known}{draw}dnat {ip} to {to}"),
            &format!("{title}: {}", backend.task),
        );
    }
    chain
}

/// An anonymous map of slots to addresses.
fn table(slots: &Slots) -> String {
    let map: Vec<String> = (slots.runs.iter())
        .map(|run| match run.first == run.last {
            true => format!("{} : {}", run.first, run.address),
            false => format!("{}-{} : {}", run.first, run.last, run.address),
        })
        .collect();
    format!("{{ {} }}", map.join(", "))
}

/// An anonymous set; nft refuses one whose elements overlap.
fn clients(allow: &[IpNet]) -> String {
    let nets: Vec<String> = IpNet::aggregate(&allow.to_vec())
        .into_iter()
        .map(|net| Prefix(net).to_string())
        .collect();
    format!("{{ {} }}", nets.join(", "))
}

/// A prefix as nft prints it: a single address without its length.
struct Prefix(IpNet);

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let net = self.0.trunc();
        if net.prefix_len() == net.max_prefix_len() {
            net.addr().fmt(f)
        } else {
            net.fmt(f)
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
