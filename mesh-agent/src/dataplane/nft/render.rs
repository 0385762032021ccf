//! **Decision.** The table that stands for a plan. Pure: the same plan gives the same table, to the byte.
//!
//! What is planned becomes elements of the fixed part's sets and maps ([`super::fixed`]), and one chain per
//! pool. Nothing is read back and nothing is chosen here.

use ipnet::IpNet;
use mesh_core::model::{Affinity, Balancing, Vni};
use mesh_core::plan::{Balance, Family, Frontend, NetworkGate, Pool, PortGate};

use super::fixed;
use super::ruleset::{Chain, Ruleset};
use super::slots::{self, Slots};
use super::words::*;

/// All nodes hash alike, so that a client meets the same backend through whichever node it comes.
const SEED: u32 = 0x6d65_7368;

/// Up to so many backends a pool is a rule for each; above, one rule with a map. A map is quicker to look up in,
/// but the kernel finds a table's anonymous maps by walking their list: 5,000 pools took 9 s to commit and 1.6 s
/// to list a single chain with a map each, and 0.5 s and 0.03 s with three rules each (nft 1.0.6, Linux 6.18).
const MAX_RULES: usize = 16;

/// The table for a plan.
pub fn render(balance: &Balance) -> Ruleset {
    let mut ruleset = gates(balance);
    fixed::balance(&mut ruleset);
    for (at, pool) in &balance.frontends {
        frontend(&mut ruleset, at, pool);
    }
    ruleset
}

/// The table of a node where programs balance: gates and source translation only, nothing of any service.
pub fn render_gates(balance: &Balance) -> Ruleset {
    let mut ruleset = gates(balance);
    fixed::leave_to_programs(&mut ruleset);
    for gate in balance.networks.values() {
        for own in gate.gateway.iter().flat_map(|own| own.addresses()) {
            element(&mut ruleset, "own", Family::of(own), own.word(), None);
        }
    }
    ruleset
}

/// What every node needs, whoever balances.
fn gates(balance: &Balance) -> Ruleset {
    let mut ruleset = fixed::gates();
    let tunnel_port = u32::from(balance.tunnel_port);
    if let Some(vtep) = ruleset.sets.get_mut("vtep").filter(|_| tunnel_port != 0) {
        vtep.add(tunnel_port.word(), None);
    }
    for peer in balance.peers.iter().filter(|_| tunnel_port != 0) {
        let tunnel = concat([peer.word(), tunnel_port.word()]);
        element(&mut ruleset, "tunnels", Family::of(*peer), tunnel, None);
    }
    for (vni, gate) in &balance.networks {
        network(&mut ruleset, *vni, gate);
    }
    for (device, gate) in &balance.ports {
        port(&mut ruleset, device, gate);
    }
    ruleset
}

/// Puts an element into a set or map of the fixed part.
fn element(ruleset: &mut Ruleset, name: &str, family: Family, key: Expr, value: Option<Expr>) {
    let set = ruleset.sets.get_mut(&format!("{name}{}", digit(family)));
    debug_assert!(set.is_some(), "{name} is not in the fixed part");
    if let Some(set) = set {
        set.add(key, value);
    }
}

fn network(ruleset: &mut Ruleset, vni: Vni, gate: &NetworkGate) {
    let NetworkGate { subnets, egress, gateway } = gate;
    for subnet in subnets {
        let family = Family::of(subnet.addr());
        let mut add = |name, key, value| element(ruleset, name, family, key, value);
        add("subnets", subnet.word(), None);
        add("members", concat([vni.0.word(), subnet.word()]), None);
        add(if *egress { "egress" } else { "internal" }, subnet.word(), None);
        if let Some(own) = gateway.and_then(|gateway| family.pick(gateway)) {
            add("gateways", subnet.word(), Some(own.word()));
        }
        for other in subnets.iter().filter(|other| Family::of(other.addr()) == family) {
            add("inside", concat([subnet.word(), other.word()]), None);
        }
    }
    if *egress && let Some(world) = ruleset.sets.get_mut("world") {
        world.add(vni.0.word(), None);
    }
}

fn port(ruleset: &mut Ruleset, device: &str, gate: &PortGate) {
    // The network is known to rules by the device's group.
    let PortGate { vni: _, addresses } = gate;
    for address in addresses.addresses() {
        let family = Family::of(address);
        let own = concat([device.to_owned().word(), address.word()]);
        element(ruleset, "ports", family, own, None);
        element(ruleset, "hairpins", family, concat([address.word(), address.word()]), None);
    }
}

/// A frontend's chain, what leads to it, and what shuts it.
fn frontend(ruleset: &mut Ruleset, at: &Frontend, pool: &Pool) {
    let name = chain_name(at);
    let here = Some(to_chain(name.clone()));
    let (family, title) = match at {
        Frontend::Vip { vni: _, address } => {
            let family = Family::of(*address);
            if pool.backends.is_empty() {
                let refuse = to_chain("refuse".to_owned());
                element(ruleset, "closed", family, address.word(), Some(refuse));
                return;
            }
            element(ruleset, "vips", family, address.word(), here);
            let title = format!("{} VIP", pool.service);
            if !pool.allow.is_empty() {
                // Without a translation the node itself would answer on the VIP.
                let closed = format!("closed_{name}");
                element(ruleset, "closed", family, address.word(), Some(to_chain(closed.clone())));
                let chain = Chain::default()
                    .rule(&format!("{title}: not for these"), [is_other(family, pool), goto("refuse")]);
                ruleset.chains.insert(closed, chain);
            }
            (family, title)
        }
        // Without a backend nothing is translated, and the node's kernel refuses as for any closed port.
        Frontend::Published { .. } if pool.backends.is_empty() => return,
        Frontend::Published { protocol, port, address, family } => {
            let (proto, number) = (protocol.to_string().word(), u32::from(*port).word());
            match address {
                None => element(ruleset, "published", *family, concat([proto, number]), here),
                Some(address) => {
                    let key = concat([address.word(), proto, number]);
                    element(ruleset, "published_at", *family, key, here);
                }
            }
            (*family, format!("{} {port}/{protocol}", pool.service))
        }
    };
    ruleset.chains.insert(name, pool_chain(at, family, &title, pool));
}

/// A name that nft takes as an identifier; it has no colons.
fn chain_name(at: &Frontend) -> String {
    let name = match at {
        Frontend::Vip { vni: _, address } => format!("vip_{address}"),
        Frontend::Published { protocol, port, address: None, family } => {
            format!("published{}_{protocol}_{port}", digit(*family))
        }
        Frontend::Published { protocol, port, address: Some(address), family } => {
            format!("published{}_{protocol}_{port}_at_{address}", digit(*family))
        }
    };
    name.replace(':', "_")
}

fn pool_chain(at: &Frontend, family: Family, title: &str, pool: &Pool) -> Chain {
    let mut chain = Chain::default();
    if !pool.allow.is_empty() {
        chain = chain.rule(&format!("{title}: not for these"), [is_other(family, pool), leave()]);
    }
    let key = match (pool.affinity, pool.balancing) {
        (Affinity::ClientIp { timeout: _ }, _) => Some(saddr(family)),
        (Affinity::None, Balancing::Maglev) => Some(concat([saddr(family), sport()])),
        // There is no count of flows that a rule could look at.
        (Affinity::None, Balancing::Random | Balancing::LeastConn) => None,
    };
    // nft translates ports only where it knows the protocol.
    let known = match at {
        Frontend::Vip { .. } => None,
        Frontend::Published { protocol, .. } => Some(is(l4proto(), protocol.to_string())),
    };
    if key.is_some() || pool.backends.len() > MAX_RULES {
        let (draw, slots) = match key {
            Some(key) => {
                let slots = slots::by_hash(&pool.backends);
                (hash(key, slots.modulus, SEED), slots)
            }
            None => {
                let slots = slots::by_weight(&pool.backends);
                (random(slots.modulus), slots)
            }
        };
        // A hash over ports asks for the protocol, too.
        let known = known.unwrap_or_else(has_ports);
        let tasks: Vec<String> = pool.backends.iter().map(|backend| pool.task(backend)).collect();
        let to = map(draw, addresses(&slots));
        return chain.rule(&format!("{title}: {}", tasks.join(" ")), [known, dnat(family, to, pool.target)]);
    }
    // Each rule draws among those that are left, so that the shares come out as the weights.
    let slots = slots::by_weight(&pool.backends);
    for (run, backend) in slots.runs.iter().zip(pool.backends.iter()) {
        let (length, left) = (run.last - run.first + 1, slots.modulus - run.first);
        let mut says = Vec::with_capacity(3);
        says.extend(known.clone());
        if length < left {
            says.push(below(random(left), length));
        }
        says.push(dnat(family, backend.address.word(), pool.target));
        chain = chain.rule(&format!("{title}: {}", pool.task(backend)), says);
    }
    chain
}

/// An anonymous map of slots to addresses.
fn addresses(slots: &Slots) -> Expr {
    table(slots.runs.iter().map(|run| (range(run.first, run.last), run.address.word())))
}

/// The client is none of those that the pool allows. nft refuses a set whose elements overlap.
fn is_other(family: Family, pool: &Pool) -> Stmt {
    is_not(saddr(family), set(IpNet::aggregate(&pool.allow)))
}

#[cfg(test)]
pub(super) mod tests;
