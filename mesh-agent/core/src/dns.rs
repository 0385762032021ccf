//! **Decision.** What DNS answers, and to whom: names are seen only by tasks that share a network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{EndpointMode, NetworkId, Snapshot};

/// The names of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct NetworkNames {
    /// The network's own name, which may follow a name in it: `web.app`.
    name: String,
    /// `web` (a VIP, or all tasks under dnsrr), aliases, `tasks.web`, `web.1`, `web.1.<id>`, a task's own name.
    forward: BTreeMap<String, Vec<IpAddr>>,
    reverse: BTreeMap<IpAddr, String>,
}

/// Everything DNS knows. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    networks: Arc<BTreeMap<NetworkId, NetworkNames>>,
    /// Every name of the mesh that is nobody else's: never asked upstream.
    known: Arc<BTreeSet<String>>,
    subnets: Arc<Vec<ipnet::IpNet>>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// A name.
    Ptr,
    /// Any other record.
    Other,
}

/// What to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These addresses, in this order.
    Addresses(Vec<IpAddr>),
    /// This name.
    Name(String),
    /// The name is ours and has no such record.
    NoData,
    /// The name is ours to deny.
    NxDomain,
    /// Not ours: ask upstream.
    Forward,
}

impl Zone {
    /// The names of a snapshot.
    pub fn build(world: &Snapshot) -> Self {
        let mut networks: BTreeMap<NetworkId, NetworkNames> = world
            .networks
            .values()
            .map(|n| (n.id.clone(), NetworkNames { name: n.name.to_string(), ..NetworkNames::default() }))
            .collect();
        let mut known = BTreeSet::new();
        let mut tasks = world.tasks_by_service();
        for service in world.services.values() {
            let tasks = tasks.remove(&service.id).unwrap_or_default();
            for attachment in &service.networks {
                let Some(names) = networks.get_mut(&attachment.network) else {
                    continue;
                };
                let ready: Vec<IpAddr> = tasks
                    .iter()
                    .filter(|task| world.in_balance(task))
                    .filter_map(|task| task.addresses.get(&attachment.network))
                    .flat_map(|address| address.addresses())
                    .collect();
                let vip: Vec<IpAddr> = attachment.vip.iter().flat_map(|vip| vip.addresses()).collect();
                let whole = if service.mode == EndpointMode::Vip { vip } else { ready.clone() };
                for name in std::iter::once(&service.name).chain(&attachment.aliases) {
                    // A service's own name wins over another's alias.
                    if *name == service.name || !names.forward.contains_key(name.as_str()) {
                        names.forward.insert(name.to_string(), whole.clone());
                        names.forward.insert(format!("tasks.{name}"), ready.clone());
                    }
                    known.insert(name.to_string());
                }
                for address in attachment.vip.iter().flat_map(|vip| vip.addresses()) {
                    names.reverse.insert(address, format!("{}.{}", service.name, names.name));
                }
            }
        }
        for task in world.tasks.values().filter(|task| !task.state.is_terminal()) {
            let name = world.task_name(task);
            for (network, address) in &task.addresses {
                let Some(names) = networks.get_mut(network) else {
                    continue;
                };
                let addresses: Vec<IpAddr> = address.addresses().collect();
                for address in &addresses {
                    names.reverse.insert(*address, format!("{name}.{}", names.name));
                }
                names.forward.insert(format!("{name}.{}", task.id), addresses.clone());
                names.forward.entry(name.clone()).or_insert(addresses);
            }
            if let Some(name) = &task.name {
                known.insert(name.to_string());
            }
        }
        let subnets = world.networks.values().flat_map(|network| network.subnets()).collect();
        Self { networks: Arc::new(networks), known: Arc::new(known), subnets: Arc::new(subnets) }
    }

    /// Answers a question of an asker who is in these networks, in their order. `seed` shuffles addresses.
    pub fn answer(&self, asker: &[NetworkId], name: &str, question: Question, seed: u64) -> Answer {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if question == Question::Ptr {
            return self.pointer(asker, &name);
        }
        match self.find(asker, &name) {
            Some(_) if question == Question::Other => Answer::NoData,
            Some(addresses) => {
                let v4 = question == Question::A;
                let mut wanted: Vec<_> = addresses.iter().copied().filter(|a| a.is_ipv4() == v4).collect();
                if wanted.is_empty() {
                    return Answer::NoData;
                }
                shuffle(&mut wanted, seed);
                Answer::Addresses(wanted)
            }
            None if self.owns(asker, &name) => Answer::NxDomain,
            None => Answer::Forward,
        }
    }

    fn find(&self, asker: &[NetworkId], name: &str) -> Option<&Vec<IpAddr>> {
        let mine = || asker.iter().filter_map(|id| self.networks.get(id));
        mine().find_map(|names| names.forward.get(name)).or_else(|| {
            let (front, network) = name.rsplit_once('.')?;
            mine().filter(|names| names.name == network).find_map(|names| names.forward.get(front))
        })
    }

    /// Whether a name that was not found is ours to deny: of a service that the asker cannot see or has no such
    /// task, or in one of the asker's networks.
    fn owns(&self, asker: &[NetworkId], name: &str) -> bool {
        let mut front = name;
        if let Some((rest, last)) = name.rsplit_once('.')
            && asker.iter().filter_map(|id| self.networks.get(id)).any(|names| names.name == last)
        {
            front = rest;
            if !rest.contains('.') {
                return true;
            }
        }
        let labels: Vec<_> = front.split('.').collect();
        let service = match labels.as_slice() {
            [service] | ["tasks", service] => service,
            [service, slot] | [service, slot, _] if slot.bytes().all(|b| b.is_ascii_digit()) => service,
            _ => return false,
        };
        self.known.contains(*service)
    }

    fn pointer(&self, asker: &[NetworkId], name: &str) -> Answer {
        let Some(address) = reverse_address(name) else {
            return Answer::Forward;
        };
        let mut mine = asker.iter().filter_map(|id| self.networks.get(id));
        match mine.find_map(|names| names.reverse.get(&address)) {
            Some(name) => Answer::Name(name.clone()),
            None if self.subnets.iter().any(|net| net.contains(&address)) => Answer::NxDomain,
            None => Answer::Forward,
        }
    }
}

/// Reads `4.3.2.1.in-addr.arpa` (RFC 1035 §3.5) and the nibbles of `ip6.arpa` (RFC 3596 §2.5).
fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets: Vec<u8> = labels.split('.').map(|l| l.parse().ok()).collect::<Option<_>>()?;
        octets.reverse();
        return Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?));
    }
    let nibbles: Vec<u8> = name
        .strip_suffix(".ip6.arpa")?
        .split('.')
        .map(|label| u8::from_str_radix(label, 16).ok().filter(|nibble| *nibble < 16 && label.len() == 1))
        .collect::<Option<_>>()?;
    if nibbles.len() != 32 {
        return None;
    }
    Some(IpAddr::from(
        nibbles.iter().rev().fold(0u128, |all, nibble| all << 4 | u128::from(*nibble)).to_be_bytes(),
    ))
}

/// Fisher–Yates with a xorshift of the seed: fair enough to spread clients, and repeatable.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    for last in (1..items.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(last, (state % (last as u64 + 1)) as usize);
    }
}
