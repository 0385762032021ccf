//! What rules of others make of a packet.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::model::Protocol;

/// Where a chain looks at packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// For the node itself.
    Input,
    /// Of the node itself.
    Output,
    /// Through it.
    Forward,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No more rules of this chain's hook.
    Accept,
    /// Gone, with an answer or without.
    Drop,
    /// Back to who called.
    Return,
    /// On in another chain, and back.
    Jump(String),
    /// On in another chain.
    Goto(String),
}

/// What a rule looks at; what is empty is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matches {
    /// Of TCP, UDP.
    pub protocols: Option<BTreeSet<Protocol>>,
    /// Only what is none of these.
    pub other_protocol: bool,
    /// To one of these ports.
    pub ports: Option<Vec<RangeInclusive<u16>>>,
    /// From one of these.
    pub sources: Option<Vec<IpNet>>,
    /// By these devices; a `*` at its end stands for any.
    pub devices: Option<BTreeSet<String>>,
    /// Only what belongs to a flow that is known already.
    pub established: bool,
    /// Something that is not understood here.
    pub unknown: bool,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it looks at.
    pub matches: Matches,
    /// What it does.
    pub verdict: Verdict,
}

/// A chain of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// `ip filter`
    pub table: String,
    /// `INPUT`
    pub name: String,
    /// None: others jump here.
    pub hook: Option<Hook>,
    /// What becomes of what no rule decides.
    pub drops: bool,
    /// In order.
    pub rules: Vec<Rule>,
}

impl Chain {
    fn called(&self) -> String {
        format!("chain {} of table {}", self.name, self.table)
    }
}

/// A packet of the mesh's, the first of its flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Where it is.
    pub hook: Hook,
    /// None: any.
    pub protocol: Option<Protocol>,
    /// To which port; none: any.
    pub port: Option<u16>,
    /// The other node.
    pub peer: IpAddr,
    /// The device that it comes in by, or leaves by.
    pub device: String,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It passes all chains.
    Passes,
    /// That depends on what is not understood here: the chain that may drop it.
    Perhaps(String),
    /// This chain drops it.
    Dropped(String),
}

/// Follows a packet through all chains of its hook.
pub fn judge(chains: &[Chain], packet: &Packet) -> Outcome {
    let mut perhaps = None;
    for base in chains.iter().filter(|chain| chain.hook == Some(packet.hook) && is_of_family(chain, packet)) {
        let mut walk = Walk { chains, packet, doubt: None, depth: 0 };
        match walk.run(base) {
            Step::Accepted => {}
            Step::Dropped(by) => match walk.doubt {
                None => return Outcome::Dropped(by),
                Some(_) => perhaps = perhaps.or(Some(by)),
            },
            Step::Ended if base.drops => match walk.doubt {
                None => return Outcome::Dropped(format!("the policy of {}", base.called())),
                Some(_) => perhaps = perhaps.or(Some(format!("the policy of {}", base.called()))),
            },
            Step::Ended => {}
        }
        if let Some(Doubt { drop: Some(by) }) = walk.doubt {
            perhaps = perhaps.or(Some(by));
        }
    }
    perhaps.map_or(Outcome::Passes, Outcome::Perhaps)
}

fn is_of_family(chain: &Chain, packet: &Packet) -> bool {
    match chain.table.split(' ').next() {
        Some("ip") => packet.peer.is_ipv4(),
        Some("ip6") => packet.peer.is_ipv6(),
        Some("inet") => true,
        // Of bridges and devices.
        _ => false,
    }
}

/// That some rule may have decided already.
struct Doubt {
    /// The chain that may have dropped it.
    drop: Option<String>,
}

struct Walk<'a> {
    chains: &'a [Chain],
    packet: &'a Packet,
    doubt: Option<Doubt>,
    depth: usize,
}

enum Step {
    Accepted,
    Dropped(String),
    Ended,
}

/// Deeper than the kernel itself goes (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;

impl Walk<'_> {
    fn run(&mut self, chain: &Chain) -> Step {
        if self.depth > DEEPEST {
            return Step::Ended;
        }
        for Rule { matches, verdict } in &chain.rules {
            let Some(sure) = matches.apply(self.packet) else { continue };
            let (name, goes) = match verdict {
                Verdict::Accept if sure => return Step::Accepted,
                Verdict::Drop if sure => return Step::Dropped(chain.called()),
                Verdict::Return if sure => return Step::Ended,
                Verdict::Accept | Verdict::Return => {
                    self.doubt.get_or_insert(Doubt { drop: None });
                    continue;
                }
                Verdict::Drop => {
                    let doubt = self.doubt.get_or_insert(Doubt { drop: None });
                    doubt.drop.get_or_insert(chain.called());
                    continue;
                }
                Verdict::Jump(name) => (name, false),
                Verdict::Goto(name) => (name, true),
            };
            let target = self.chains.iter().find(|other| other.name == *name && other.table == chain.table);
            let Some(target) = target else { continue };
            self.depth += 1;
            let step = self.run(target);
            self.depth -= 1;
            match (step, sure) {
                (Step::Ended, true) if goes => return Step::Ended,
                (Step::Ended, _) => {}
                (step, true) => return step,
                (Step::Accepted, false) => _ = self.doubt.get_or_insert(Doubt { drop: None }),
                (Step::Dropped(by), false) => {
                    self.doubt.get_or_insert(Doubt { drop: None }).drop.get_or_insert(by);
                }
            }
        }
        Step::Ended
    }
}

impl Matches {
    /// Whether a packet is meant; none: it is not, false: perhaps.
    fn apply(&self, packet: &Packet) -> Option<bool> {
        let Self { protocols, other_protocol, ports, sources, devices, established, unknown } = self;
        let Packet { hook, protocol, port, peer, device } = packet;
        if *established || *other_protocol && protocol.is_some() {
            return None;
        }
        let mut sure = !unknown && !other_protocol;
        // What is for any matches some of it.
        let mut narrow = |is: Option<bool>| match is {
            Some(false) => false,
            Some(true) => true,
            None => {
                sure = false;
                true
            }
        };
        let fits = [
            protocols.as_ref().is_none_or(|all| narrow(protocol.map(|protocol| all.contains(&protocol)))),
            ports
                .as_ref()
                .is_none_or(|all| narrow(port.map(|port| all.iter().any(|range| range.contains(&port))))),
            sources.as_ref().is_none_or(|all| {
                // Who sends through a node may be anybody.
                let known = *hook == Hook::Input;
                narrow(known.then(|| all.iter().any(|net| net.contains(peer))))
            }),
            devices.as_ref().is_none_or(|all| {
                let is = |name: &String| match name.strip_suffix('*') {
                    Some(start) => device.starts_with(start),
                    None => name == device,
                };
                narrow((*hook != Hook::Forward).then(|| all.iter().any(is)))
            }),
        ];
        fits.iter().all(|fits| *fits).then_some(sure)
    }
}
