//! **Decision.** What DNS answers, and to whom: names are seen only by tasks that share a network.
//!
//! A name that belongs to the mesh never leaves it: it is answered or denied here, also when its service has no
//! task left or lives in a network that the asker is not in. Asking the world for it would leak what runs here,
//! and a wildcard out there would answer.

mod build;
pub mod cache;
pub mod kept;
mod names;
pub mod quick;
pub mod reply;
pub mod whose;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

pub(crate) use self::build::Names;
use self::names::{Addresses, NetworkNames};
use crate::model::{NetworkId, Protocol, SharedMap};

/// Where every task finds its server.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Everything DNS knows. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    networks: SharedMap<NetworkId, Arc<NetworkNames>>,
    /// Every name of the mesh that is nobody else's, and how many have it: never asked upstream.
    known: SharedMap<Arc<str>, u32>,
    network_names: Arc<BTreeSet<String>>,
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
    /// Where a service's tasks serve a port (RFC 2782).
    Srv,
    /// Any other record.
    Other,
}

/// One task that an SRV answer points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A name that has the task's addresses.
    pub name: String,
    /// The task's share of new flows, in relation to the others', as SRV records have it.
    pub weight: u16,
    /// The task's addresses in this network.
    pub addresses: Vec<IpAddr>,
}

/// What to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These addresses, in this order.
    Addresses(Vec<IpAddr>),
    /// This name.
    Name(String),
    /// This port of these tasks, in this order.
    Targets(u16, Vec<Target>),
    /// The name is ours and has no such record.
    NoData,
    /// The name is ours to deny.
    NxDomain,
    /// Not ours: ask upstream.
    Forward,
}

impl Zone {
    /// Answers a question of an asker who is in these networks, in their order. `seed` shuffles what there are
    /// several of.
    pub fn answer(&self, asker: &[NetworkId], name: &str, question: Question, seed: u64) -> Answer {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let mine = || self.mine(asker);
        if let Some(address) = reverse_address(&name) {
            return match mine().find_map(|names| names.name_of(address)) {
                Some(name) if question == Question::Ptr => Answer::Name(name),
                Some(_) => Answer::NoData,
                None if self.subnets.iter().any(|net| net.contains(&address)) => Answer::NxDomain,
                None => Answer::Forward,
            };
        }
        if let Some(addresses) = self.addresses(asker, &name) {
            return match question {
                Question::A => pick(&addresses, IpAddr::is_ipv4, seed),
                Question::Aaaa => pick(&addresses, IpAddr::is_ipv6, seed),
                Question::Ptr | Question::Srv | Question::Other => Answer::NoData,
            };
        }
        if let Some((port, protocol, service)) = port_and_service(&name)
            && let Some((mut targets, port)) =
                find(mine, service, |names, name| names.serving(name, port, protocol))
        {
            let Some(port) = port else { return Answer::NxDomain };
            if question != Question::Srv || targets.is_empty() {
                return Answer::NoData;
            }
            shuffle(&mut targets, seed);
            return Answer::Targets(port, targets);
        }
        if self.owns(&name) { Answer::NxDomain } else { Answer::Forward }
    }

    /// All addresses that a name, in small letters and without a dot at its end, has for an asker; none: he sees no
    /// such name.
    fn addresses(&self, asker: &[NetworkId], name: &str) -> Option<Addresses<'_>> {
        find(|| self.mine(asker), name, NetworkNames::addresses)
    }

    /// The names of an asker's networks, in their order.
    fn mine(&self, asker: &[NetworkId]) -> impl Iterator<Item = &NetworkNames> {
        asker.iter().filter_map(|id| self.networks.get(id)).map(AsRef::as_ref)
    }

    /// Whether labels are made of a name of ours.
    fn knows(&self, labels: &[&str]) -> bool {
        match labels {
            [name] | ["tasks" | "nearest", name] => self.known.contains_key(*name),
            [name, part] => (is_number(part) || is_task_id(part)) && self.known.contains_key(*name),
            [name, slot, id] => is_number(slot) && is_task_id(id) && self.known.contains_key(*name),
            _ => false,
        }
    }

    /// Whether a name that the asker cannot see is ours to deny all the same: it is made of a service's, an
    /// alias' or a task's name. A network's name alone makes nothing ours, for `dev` and `app` are also
    /// top-level domains.
    fn owns(&self, name: &str) -> bool {
        let labels: Vec<_> = name.split('.').collect();
        // Whatever a port or a protocol is called, nobody else knows it of a name of ours.
        let known = |labels: &[&str]| match labels {
            [port, protocol, rest @ ..] if port.starts_with('_') && protocol.starts_with('_') => {
                self.knows(rest)
            }
            labels => self.knows(labels),
        };
        match labels.split_last() {
            Some((last, front)) if self.network_names.contains(*last) => known(front) || known(&labels),
            _ => known(&labels),
        }
    }
}

/// Looks in each of the asker's networks for the name, then, where it ends in the network's own name, for what
/// is in front of that.
fn find<'a, N, T>(
    mine: impl Fn() -> N,
    name: &str,
    get: impl Fn(&'a NetworkNames, &str) -> Option<T>,
) -> Option<T>
where
    N: Iterator<Item = &'a NetworkNames>,
{
    mine().find_map(|names| get(names, name)).or_else(|| {
        let (front, network) = name.rsplit_once('.')?;
        mine().filter(|names| names.name.as_str() == network).find_map(|names| get(names, front))
    })
}

fn pick(addresses: &[IpAddr], wanted: impl Fn(&IpAddr) -> bool, seed: u64) -> Answer {
    let mut addresses: Vec<_> = addresses.iter().copied().filter(wanted).collect();
    if addresses.is_empty() {
        return Answer::NoData;
    }
    shuffle(&mut addresses, seed);
    Answer::Addresses(addresses)
}

/// Takes `_http._tcp.web` or `_80._tcp.web` apart. A number is the one that tasks listen on.
fn port_and_service(name: &str) -> Option<(&str, Protocol, &str)> {
    let (port, rest) = name.strip_prefix('_')?.split_once('.')?;
    let (protocol, service) = rest.split_once('.')?;
    Some((port, protocol.strip_prefix('_')?.parse().ok()?, service))
}

fn is_number(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a label has the form of a task's id, so that `web.1.com` stays the world's.
fn is_task_id(label: &str) -> bool {
    label.len() == 25 && label.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Reads `4.3.2.1.in-addr.arpa` (RFC 1035 §3.5) and the nibbles of `ip6.arpa` (RFC 3596 §2.5).
fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let octet = |label: &str| label.parse::<u8>().ok().filter(|_| is_number(label));
        let mut octets: Vec<u8> = labels.split('.').map(octet).collect::<Option<_>>()?;
        octets.reverse();
        return Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?));
    }
    let nibble = |label: &str| match label.as_bytes() {
        [digit] => char::from(*digit).to_digit(16).map(u128::from),
        _ => None,
    };
    let nibbles: Vec<u128> = name.strip_suffix(".ip6.arpa")?.split('.').map(nibble).collect::<Option<_>>()?;
    if nibbles.len() != 32 {
        return None;
    }
    Some(IpAddr::from(nibbles.iter().rev().fold(0u128, |all, nibble| all << 4 | nibble).to_be_bytes()))
}

/// Fisher–Yates with SplitMix64 (Steele et al., OOPSLA 2014), which has no seed that it gets stuck on: fair
/// enough to spread clients, and repeatable.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut random = state;
        random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        random ^= random >> 31;
        items.swap(last, (random % (last as u64 + 1)) as usize);
    }
}
