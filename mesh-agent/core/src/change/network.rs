//! **Decision.** Networks come and go.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::janitor::AT_ONCE;
use super::{Change, Fresh, Refusal};
use crate::kv::Txn;
use crate::model::{
    FIRST_VNI, LAST_VNI, MAX_V4_PREFIX, MAX_V6_PREFIX, MIN_V4_PREFIX, MIN_V6_PREFIX, Name, Network,
    NetworkId, Snapshot, Vni, is_usable,
};
use crate::records::{self, Claim};

/// A wish for a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkRequest {
    /// A DNS label.
    pub name: String,
    /// At most one per family; without an IPv4 one, a free /16 is chosen.
    pub subnets: Vec<IpNet>,
    /// Without a way to the world.
    pub internal: bool,
    /// Encrypted between nodes.
    pub encrypted: bool,
    /// Smaller than the underlay allows; bytes.
    pub mtu: Option<u16>,
    /// Free text.
    pub labels: BTreeMap<String, String>,
}

/// Makes a network: its subnets overlap nothing, its VNI is its own.
pub fn create_network(
    world: &Snapshot,
    request: NetworkRequest,
    fresh: Fresh,
) -> Result<Change<Network>, Refusal> {
    let name: Name = request.name.parse()?;
    if let Some(other) = world.networks.values().find(|network| network.name == name) {
        return Err(Refusal::Conflict(format!(
            "network with name {name} already exists ({})",
            other.id.short()
        )));
    }
    if request.encrypted {
        return Err(Refusal::Invalid(
            "encrypted networks are not supported yet; leave out --opt encrypted".to_owned(),
        ));
    }
    if let Some(mtu) = request.mtu.filter(|mtu| !(576..=9000).contains(mtu)) {
        return Err(Refusal::Invalid(format!("an MTU of {mtu} is out of range: 576 to 9000 bytes")));
    }
    let (v4, v6) = families(world, &request.subnets)?;
    let vni = (FIRST_VNI..=LAST_VNI)
        .map(Vni)
        .find(|vni| !world.claims.contains_key(&*records::vni_claim(*vni)))
        .ok_or_else(|| Refusal::Exhausted("every network identifier (VNI) is taken".to_owned()))?;
    let network = Network {
        id: NetworkId::from_random(fresh.id),
        name,
        v4,
        v6,
        vni,
        mtu: request.mtu,
        internal: request.internal,
        encrypted: false,
        labels: request.labels,
        created: fresh.now,
    };
    let mut txn = Txn::default();
    txn.claim(records::network_name(&network.name), network.id.as_str());
    txn.claim(records::vni_claim(vni), Claim::held(network.id.as_str()));
    txn.claim(records::network(&network.id), records::to_json(&network));
    // Two networks made at the same moment must see each other.
    txn.unchanged(records::GUARD_SUBNETS, world.rev_of(records::GUARD_SUBNETS));
    txn.put(records::GUARD_SUBNETS, network.id.as_str());
    Ok(Change { txn, result: network })
}

/// Removes a network that nothing uses. Its VNI waits until every node has let go of it.
pub fn remove_network(world: &Snapshot, reference: &str, fresh: Fresh) -> Result<Change<Network>, Refusal> {
    let network = world.network(reference).ok_or_else(|| Refusal::not_found("network", reference))?;
    let service = world.services.values().find(|service| service.attachment(&network.id).is_some());
    let task = world.tasks.values().find(|task| task.addresses.contains_key(&network.id));
    let user = service
        .map(|s| format!("service {}", s.name))
        .or(task.map(|t| format!("task {}", world.task_name(t))));
    if let Some(user) = user {
        return Err(Refusal::Conflict(format!(
            "network {} is in use by {user}; remove that first",
            network.name
        )));
    }
    if let Some(key) = world.poison.keys().find(|key| key.starts_with("svc/") || key.starts_with("task/")) {
        return Err(Refusal::Conflict(format!(
            "record {key} cannot be read and may be using network {}; mend or remove it first",
            network.name
        )));
    }
    let mut txn = Txn::default();
    let key = records::network(&network.id);
    txn.unchanged(&key, world.rev_of(&key));
    txn.delete(key);

    txn.delete(records::network_name(&network.name));
    txn.put(records::vni_claim(network.vni), Claim::given_back(network.id.as_str(), fresh.now));
    // Whoever attaches to it meanwhile bumps this guard too, and one of both loses.
    txn.unchanged(records::GUARD_SUBNETS, world.rev_of(records::GUARD_SUBNETS));
    txn.put(records::GUARD_SUBNETS, network.id.as_str());
    // As many as go into one transaction; the janitor takes the rest.
    for ((id, block), _) in world.blocks.iter().filter(|((id, _), _)| *id == network.id).take(AT_ONCE) {
        txn.delete(records::block_claim(id, *block));
    }
    Ok(Change { txn, result: network.as_ref().clone() })
}

fn families(world: &Snapshot, subnets: &[IpNet]) -> Result<(Ipv4Net, Option<Ipv6Net>), Refusal> {
    let mut v4: Option<Ipv4Net> = None;
    let mut v6: Option<Ipv6Net> = None;
    for subnet in subnets {
        check_shape(*subnet)?;
        check_overlap(world, *subnet)?;
        let twice = match subnet {
            IpNet::V4(net) => v4.replace(*net).is_some(),
            IpNet::V6(net) => v6.replace(*net).is_some(),
        };
        if twice {
            return Err(Refusal::Invalid("a network has at most one IPv4 and one IPv6 subnet".to_owned()));
        }
    }
    let v4 = match v4 {
        Some(net) => net,
        None => free_subnet(world)?,
    };
    Ok((v4, v6))
}

fn check_shape(subnet: IpNet) -> Result<(), Refusal> {
    let refuse = |why: String| Err(Refusal::Invalid(format!("invalid subnet {subnet}: {why}")));
    if subnet.trunc() != subnet {
        return refuse(format!("it has host bits set; did you mean {}?", subnet.trunc()));
    }
    if !is_usable(subnet) {
        return refuse("these addresses have a meaning of their own".to_owned());
    }
    match subnet {
        IpNet::V4(net) if net.prefix_len() < MIN_V4_PREFIX => {
            refuse(format!("it is larger than a /{MIN_V4_PREFIX}"))
        }
        IpNet::V4(net) if net.prefix_len() > MAX_V4_PREFIX => {
            refuse(format!("it is too small to give every node a block; take a /{MAX_V4_PREFIX} or larger"))
        }
        IpNet::V6(net) if !(MIN_V6_PREFIX..=MAX_V6_PREFIX).contains(&net.prefix_len()) => {
            refuse(format!("take one between /{MIN_V6_PREFIX} and /{MAX_V6_PREFIX}"))
        }
        IpNet::V4(_) | IpNet::V6(_) => Ok(()),
    }
}

/// Neither a network's nor a node's: an overlap would cut off what is reached that way now.
fn check_overlap(world: &Snapshot, subnet: IpNet) -> Result<(), Refusal> {
    for network in world.networks.values() {
        if let Some(taken) = network.subnets().find(|taken| overlap(*taken, subnet)) {
            return Err(Refusal::Conflict(format!(
                "subnet {subnet} overlaps {taken} of network {}",
                network.name
            )));
        }
    }
    for node in world.nodes.values() {
        let host = IpNet::from(node.address);
        if let Some(taken) = node.routes.iter().chain([&host]).find(|taken| overlap(**taken, subnet)) {
            return Err(Refusal::Conflict(format!(
                "subnet {subnet} overlaps route {taken} of node {}",
                node.name
            )));
        }
    }
    Ok(())
}

/// Whether two prefixes have an address in common.
pub(crate) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// The first /16 of 10.0.0.0/8 that overlaps nothing.
fn free_subnet(world: &Snapshot) -> Result<Ipv4Net, Refusal> {
    (0..=255u8)
        .map(|second| Ipv4Net::new_assert(Ipv4Addr::new(10, second, 0, 0), 16))
        .find(|net| check_overlap(world, IpNet::V4(*net)).is_ok())
        .ok_or_else(|| {
            Refusal::Exhausted(
                "no /16 of 10.0.0.0/8 is free on every node; choose one with --subnet".to_owned(),
            )
        })
}
