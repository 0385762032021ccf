//! **Decision.** Which UDP flows conntrack sends to the wrong place after a change. Pure.
//!
//! Rules decide on a flow's first packet only, and a UDP client with a fixed port has a flow that never ends:
//! it would go to a backend that left, or to the node itself because it began before the port was published,
//! for as long as it sends. Such flows are forgotten, and their next packet meets the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use mesh_core::model::{Protocol, SharedMap};
use mesh_core::plan::{Balance, Family, Frontend, Pool};

use crate::dataplane::conntrack::UdpFlow;
use crate::plane::Depth;

/// What flows are judged by.
#[derive(Debug, Clone, Default)]
pub(super) struct Stale {
    /// Frontends to look at; none behind one: it is gone or empty.
    frontends: BTreeMap<Frontend, Option<Arc<Pool>>>,
    /// All mesh addresses.
    subnets: Vec<IpNet>,
    /// The node's own addresses.
    local: BTreeSet<IpAddr>,
}

impl Stale {
    /// Looks at the frontends that differ from before, and in a sweep at all of them, for flows of an earlier
    /// agent, or of a time when the table was damaged.
    pub(super) fn after(
        before: &SharedMap<Frontend, Arc<Pool>>,
        now: &Balance,
        depth: Depth,
        local: BTreeSet<IpAddr>,
    ) -> Self {
        let changed = before.changes(&now.frontends).map(|(at, _, is)| (at, is));
        let all = now.frontends.iter().filter(|_| depth != Depth::Delta).map(|(at, pool)| (at, Some(pool)));
        let served = |pool: Option<&Arc<Pool>>| pool.filter(|pool| !pool.backends.is_empty()).cloned();
        let mut frontends: BTreeMap<_, _> =
            changed.chain(all).map(|(at, pool)| (at.clone(), served(pool))).collect();
        frontends.retain(|at, _| !matches!(at, Frontend::Published { protocol: Protocol::Tcp, .. }));
        let subnets = now.networks.values().flat_map(|network| network.subnets.iter().copied()).collect();
        Self { frontends, subnets, local }
    }

    /// Nothing can be stale.
    pub(super) fn is_empty(&self) -> bool {
        self.frontends.is_empty()
    }

    /// Whether a flow must be forgotten.
    pub(super) fn is(&self, flow: &UdpFlow) -> bool {
        let Some(pool) = self.frontend(flow.to) else {
            return false;
        };
        let balanced = flow.answers != flow.to;
        let Some(pool) = pool else { return balanced };
        let allowed = pool.allow.is_empty() || pool.allow.iter().any(|net| net.contains(&flow.client));
        if !allowed {
            return balanced;
        }
        let port = pool.target.unwrap_or(flow.to.port());
        !pool.backends.iter().any(|backend| SocketAddr::new(backend.address, port) == flow.answers)
    }

    /// The frontend that a destination belongs to, in the order of the rules.
    fn frontend(&self, to: SocketAddr) -> Option<&Option<Arc<Pool>>> {
        let ip = to.ip();
        if self.subnets.iter().any(|net| net.contains(&ip)) {
            // No two networks share an address.
            return self.frontends.iter().find_map(|(at, pool)| match at {
                Frontend::Vip { address, .. } if *address == ip => Some(pool),
                _ => None,
            });
        }
        let published = |address| Frontend::Published {
            protocol: Protocol::Udp,
            port: to.port(),
            address,
            family: Family::of(ip),
        };
        if let Some(pool) = self.frontends.get(&published(Some(ip))) {
            return Some(pool);
        }
        let own = self.local.contains(&ip) || ip.is_loopback();
        if own { self.frontends.get(&published(None)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::nft::render::tests::{balance, port, task, vip};

    fn flow(to: &str, answers: &str) -> UdpFlow {
        UdpFlow::new("192.0.2.9".parse().unwrap(), to.parse().unwrap(), answers.parse().unwrap())
    }

    fn stale(before: &Balance, now: &Balance) -> Stale {
        let local = BTreeSet::from(["203.0.113.1".parse().unwrap()]);
        Stale::after(&before.frontends, now, Depth::Delta, local)
    }

    #[test]
    fn flows_to_a_backend_that_left_are_stale_and_others_are_not() {
        let tasks = [task("10.10.1.2"), task("10.10.1.3")];
        let before = balance(vec![vip("10.10.0.5", &tasks), port(Protocol::Udp, 53, 5353, &tasks)]);
        let now = balance(vec![vip("10.10.0.5", &tasks[..1]), port(Protocol::Udp, 53, 5353, &tasks[..1])]);
        let judge = stale(&before, &now);
        assert!(judge.is(&flow("10.10.0.5:99", "10.10.1.3:99")));
        assert!(!judge.is(&flow("10.10.0.5:99", "10.10.1.2:99")));
        assert!(judge.is(&flow("203.0.113.1:53", "10.10.1.3:5353")));
        assert!(!judge.is(&flow("203.0.113.1:53", "10.10.1.2:5353")));
        assert!(stale(&now, &now).is_empty(), "nothing changed");
    }

    #[test]
    fn flows_from_before_a_port_was_published_are_stale() {
        let now = balance(vec![port(Protocol::Udp, 53, 5353, &[task("10.10.1.2")])]);
        let judge = stale(&balance(vec![]), &now);
        assert!(judge.is(&flow("203.0.113.1:53", "203.0.113.1:53")));
        assert!(!judge.is(&flow("8.8.8.8:53", "8.8.8.8:53")), "a task's own business with the world");
        assert!(!judge.is(&flow("203.0.113.1:54", "203.0.113.1:54")), "not our port");
    }

    #[test]
    fn what_the_node_itself_answers_stays_after_a_port_is_gone() {
        let before = balance(vec![port(Protocol::Udp, 53, 5353, &[task("10.10.1.2")])]);
        let judge = stale(&before, &balance(vec![]));
        assert!(judge.is(&flow("203.0.113.1:53", "10.10.1.2:5353")));
        assert!(!judge.is(&flow("203.0.113.1:53", "203.0.113.1:53")));
    }
}
