//! **Decision.** Which flows conntrack sends to the wrong place after a change. Pure.
//!
//! Rules decide on a flow's first packet only. A UDP client with a fixed port has a flow that never ends: it would go to a
//! backend that left, or to the node itself because it began before the port was published, for as long as it sends. A
//! connection that a dead backend has never answered is remembered for minutes, and one whose backend died without a word for
//! days, and a new one from the same port of the client would follow it. Such flows are forgotten, and their next packet
//! meets the rules. Connections of backends that only get nothing new any more go on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use mesh_core::model::{Protocol, SharedMap, Vni};
use mesh_core::plan::{Balance, Family, Frontend, NetworkGate, Pool, Site};

use crate::dataplane::conntrack::Flow;
use crate::plane::Depth;

/// What flows are judged by.
#[derive(Debug, Clone, Default)]
pub(super) struct Stale {
    /// Frontends to look at; none behind one: it is gone or empty.
    frontends: BTreeMap<Frontend, Option<Arc<Pool>>>,
    /// Whether some are no longer there.
    gone: bool,
    /// What is balanced to where, before and now.
    balanced: [SharedMap<Frontend, Arc<Pool>>; 2],
    /// Where tasks run.
    sites: SharedMap<(Vni, IpAddr), Arc<Site>>,
    /// All mesh addresses.
    subnets: Vec<(Vni, IpNet)>,
    /// The node's own addresses.
    local: BTreeSet<IpAddr>,
}

/// What was applied before.
#[derive(Debug, Clone, Default)]
pub(super) struct Former {
    pub(super) frontends: SharedMap<Frontend, Arc<Pool>>,
    pub(super) sites: SharedMap<(Vni, IpAddr), Arc<Site>>,
}

impl Former {
    pub(super) fn of(balance: &Balance) -> Self {
        Self { frontends: balance.frontends.clone(), sites: balance.sites.clone() }
    }
}

impl Stale {
    /// Looks at the frontends that differ from before, and in a sweep at all of them, for flows of an earlier
    /// agent, or of a time when the table was damaged.
    pub(super) fn after(before: &Former, now: &Balance, depth: Depth, local: BTreeSet<IpAddr>) -> Self {
        let changed = before.frontends.changes(&now.frontends).map(|(at, _, is)| (at, is));
        let all = now.frontends.iter().filter(|_| depth != Depth::Delta).map(|(at, pool)| (at, Some(pool)));
        let served = |pool: Option<&Arc<Pool>>| pool.filter(|pool| !pool.backends.is_empty()).cloned();
        let mut frontends: BTreeMap<_, _> =
            changed.chain(all).map(|(at, pool)| (at.clone(), served(pool))).collect();
        let changed = !frontends.is_empty();
        frontends.retain(|at, _| !matches!(at, Frontend::Published { protocol: Protocol::Tcp, .. }));
        let nets = |(vni, network): (&Vni, &NetworkGate)| {
            network.subnets.iter().map(|net| (*vni, *net)).collect::<Vec<_>>()
        };
        let subnets = now.networks.iter().flat_map(nets).collect();
        let gone = changed || before.sites.changes(&now.sites).any(|(_, _, is)| is.is_none());
        let balanced = [before.frontends.clone(), now.frontends.clone()];
        Self { frontends, gone, balanced, sites: now.sites.clone(), subnets, local }
    }

    /// Nothing can be stale.
    pub(super) fn is_empty(&self) -> bool {
        self.frontends.is_empty() && !self.gone
    }

    /// Whether a flow must be forgotten.
    pub(super) fn is(&self, flow: &Flow) -> bool {
        match flow.protocol {
            Protocol::Tcp => self.is_stale_connection(flow),
            Protocol::Udp => self.is_stale_stream(flow),
        }
    }

    /// A connection that was balanced, by us, to whoever gets nothing more, and was not answered, or whose backend is gone.
    fn is_stale_connection(&self, flow: &Flow) -> bool {
        if flow.answers == flow.to {
            return false;
        }
        let [before, now] =
            self.balanced.each_ref().map(|balanced| self.at(flow).find_map(|at| balanced.get(&at)));
        let Some(pool) = now.or(before) else { return false };
        let port = pool.target.unwrap_or(flow.to.port());
        let serves = |pool: &Arc<Pool>| {
            pool.backends.iter().any(|backend| SocketAddr::new(backend.address, port) == flow.answers)
        };
        let runs = || self.sites.contains_key(&(pool.vni, flow.answers.ip()));
        let goes_on = now.is_some_and(serves) || flow.answered && runs();
        !goes_on
    }

    /// Which frontends a destination may belong to, in the order of the rules.
    fn at(&self, flow: &Flow) -> impl Iterator<Item = Frontend> {
        let address = flow.to.ip();
        let vip = self.subnets.iter().find(|(_, net)| net.contains(&address));
        let published = |at| Frontend::Published {
            protocol: flow.protocol,
            port: flow.to.port(),
            address: at,
            family: Family::of(address),
        };
        let own = self.local.contains(&address) || address.is_loopback();
        match vip {
            // No two networks share an address.
            Some((vni, _)) => [Some(Frontend::Vip { vni: *vni, address }), None],
            None => [Some(published(Some(address))), own.then(|| published(None))],
        }
        .into_iter()
        .flatten()
    }

    fn is_stale_stream(&self, flow: &Flow) -> bool {
        let Some(pool) = self.at(flow).find_map(|at| self.frontends.get(&at)) else {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Not;

    use mesh_core::plan::{Backend, Mac};

    use crate::dataplane::nft::render::tests::{NET, balance, port, task, vip};

    fn flow(to: &str, answers: &str) -> Flow {
        let client = "192.0.2.9".parse().unwrap();
        Flow::new(Protocol::Udp, client, to.parse().unwrap(), answers.parse().unwrap(), true)
    }

    fn connection(to: &str, answers: &str, answered: bool) -> Flow {
        let client = "192.0.2.9".parse().unwrap();
        Flow::new(Protocol::Tcp, client, to.parse().unwrap(), answers.parse().unwrap(), answered)
    }

    fn stale(before: &Balance, now: &Balance) -> Stale {
        let local = BTreeSet::from(["203.0.113.1".parse().unwrap()]);
        Stale::after(&Former::of(before), now, Depth::Delta, local)
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

    /// With tasks that run there.
    fn running(mut balance: Balance, addresses: &[&str]) -> Balance {
        for address in addresses {
            let (mac, device) = (Mac::of_task("x"), Box::default());
            let site = Site { mac, device, peer: None, weight: 1, silent: false };
            balance.sites.insert((NET, address.parse().unwrap()), Arc::new(site));
        }
        balance
    }

    #[test]
    fn connections_to_whoever_is_gone_are_stale_and_those_that_only_end_are_not() {
        let tasks = [task("10.10.1.2"), task("10.10.1.3")];
        let all =
            |tasks: &[Backend]| balance(vec![vip("10.10.0.5", tasks), port(Protocol::Tcp, 8080, 80, tasks)]);
        let before = running(all(&tasks), &["10.10.1.2", "10.10.1.3"]);
        let drained = running(all(&tasks[..1]), &["10.10.1.2", "10.10.1.3"]);
        let gone = running(all(&tasks[..1]), &["10.10.1.2"]);
        let ways = [("10.10.0.5:80", "10.10.1.3:80"), ("203.0.113.1:8080", "10.10.1.3:80")];
        for (to, answers) in ways {
            let judged =
                |judge: &Stale| [false, true].map(|answered| judge.is(&connection(to, answers, answered)));
            assert_eq!(judged(&stale(&before, &drained)), [true, false], "{to}");
            assert_eq!(judged(&stale(&before, &gone)), [true, true], "{to}");
            assert_eq!(judged(&stale(&drained, &gone)), [true, true], "it was left out before");
            assert_eq!(judged(&stale(&before, &balance(vec![]))), [true, true], "its service is gone");
            let well = to.replace("10.10.1.3", "10.10.1.2");
            assert!(!stale(&before, &gone).is(&connection(&well, "10.10.1.2:80", false)), "{to}");
            let direct = connection("10.10.1.3:80", "10.10.1.3:80", false);
            assert!(!stale(&before, &gone).is(&direct), "nobody has balanced it");
        }
        assert!(
            !stale(&before, &gone).is(&connection("203.0.113.1:8081", "10.10.1.3:80", false)),
            "not our port"
        );
        assert!(
            !stale(&before, &gone).is(&connection("198.51.100.1:8080", "10.10.1.3:80", false)),
            "not our address"
        );
        assert!(stale(&gone, &gone).is_empty() && stale(&gone, &before).is_empty().not());
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
