//! **Effect.** DNS for tasks: one server per task, inside the task's own network namespace, at 127.0.0.11:53 as in
//! Docker. Who asks is known by the socket that the question came in through, which nobody can forge, so what
//! `mesh_core::dns` decides about networks holds.
//!
//! [`DnsServer::serve`] opens the sockets (`inside`), `listen` reads them (`datagrams` many at once),
//! `mesh_core::dns::reply` turns a packet into an answer or into a question for the world, and `forward` asks the
//! world. Nothing is logged per query: [`DnsCounters`] tells what happened.

mod count;
mod datagrams;
mod forward;
mod inside;
mod listen;
mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh_core::dns::Zone;
use mesh_core::model::{NetworkId, TaskId};

pub use self::count::DnsCounters;
pub use self::inside::DnsError;

/// Where every task finds its server.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// How to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsConfig {
    /// How long clients may keep our own answers, also the negative ones.
    pub ttl: Duration,
    /// Who answers what is not ours, best first. See [`upstreams_from_resolv_conf`].
    pub upstreams: Vec<SocketAddr>,
    /// How many of their answers are kept, for as long as they allow; zero: none.
    pub cache: usize,
    /// How long one upstream may take before the next is asked.
    pub upstream_timeout: Duration,
    /// How long all of them together may take; below the 5 s after which the C library asks again.
    pub forward_timeout: Duration,
    /// The longest answer over UDP, whatever the client offers. It crosses the task's loopback device only, which
    /// fragments nothing; HAProxy's documentation has its users offer 8192.
    pub udp_limit: u16,
    /// Questions to upstreams at once; more are refused.
    pub max_forwards: usize,
    /// The same for one task, so that none can use up what all share.
    pub max_forwards_per_task: usize,
    /// TCP connections at once for one task; more wait.
    pub max_connections_per_task: usize,
    /// How long a TCP connection may be silent.
    pub idle_timeout: Duration,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(5),
            upstreams: Vec::new(),
            cache: 4096,
            upstream_timeout: Duration::from_secs(2),
            forward_timeout: Duration::from_millis(4500),
            udp_limit: 8192,
            max_forwards: 1024,
            max_forwards_per_task: 256,
            max_connections_per_task: 64,
            idle_timeout: Duration::from_secs(10),
        }
    }
}

/// All tasks' servers. A clone is another handle to the same; when the last is dropped, all sockets close.
#[derive(Clone)]
pub struct DnsServer {
    office: Arc<listen::Office>,
    serving: Arc<Mutex<BTreeMap<TaskId, listen::Listener>>>,
    /// One task is begun or ended at a time, so that two calls for the same one never meet.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl DnsServer {
    /// Prepares to serve; whatever `zone` holds at the moment of a question answers it.
    pub fn new(config: DnsConfig, zone: Arc<ArcSwap<Zone>>) -> Self {
        Self {
            office: Arc::new(listen::Office::new(config, zone)),
            serving: Arc::default(),
            turn: Arc::default(),
        }
    }

    /// Serves a task in its network namespace, whose loopback device must be up, with the names of these
    /// networks, of which the first that has a name wins. Again: takes over the networks.
    ///
    /// What is not ours is asked of `upstreams`, if there are any, and from inside the namespace: they may be
    /// the task itself, or others in its networks. Else it is asked of the node's, from the node's.
    ///
    /// A namespace is one task's: of two tasks in one namespace the later is asked.
    pub async fn serve(
        &self,
        key: TaskId,
        netns: Arc<File>,
        networks: Vec<NetworkId>,
        upstreams: Vec<SocketAddr>,
    ) -> Result<(), DnsError> {
        let _turn = self.turn.lock().await;
        let which = inside::identity(&key, &netns)?;
        if let Some(listener) = self.all().get(&key)
            && listener.namespace() == which
        {
            listener.set_networks(networks);
            return Ok(());
        }
        self.end(&key).await;
        let sockets = inside::open(&key, &netns).await?;
        let listener =
            listen::Listener::start(&self.office, &key, sockets, netns, which, networks, upstreams)?;
        self.all().insert(key, listener);
        Ok(())
    }

    /// Closes a task's sockets and takes our rules out of its namespace.
    pub async fn stop(&self, key: &TaskId) {
        let _turn = self.turn.lock().await;
        self.end(key).await;
    }

    /// Sets the rules of all namespaces again, for a task may have flushed them; says where that failed. Runs nft
    /// once per task, so it is for sweeps, not for every round.
    pub async fn repair(&self) -> BTreeMap<TaskId, DnsError> {
        let _turn = self.turn.lock().await;
        let mut errors = BTreeMap::new();
        for (task, (netns, ports)) in self.places() {
            if let Err(error) = inside::redirect(&task, &netns, ports).await {
                errors.insert(task, error);
            }
        }
        errors
    }

    /// Whose rules are not as they were set.
    pub async fn look(&self) -> BTreeMap<TaskId, Result<bool, DnsError>> {
        let _turn = self.turn.lock().await;
        let mut found = BTreeMap::new();
        for (task, (netns, ports)) in self.places() {
            let is_led = inside::is_led(&task, &netns, ports).await;
            found.insert(task, is_led);
        }
        found
    }

    /// Where each task's server is; a copy, for looking there takes time.
    fn places(&self) -> Vec<(TaskId, (Arc<File>, inside::Ports))> {
        self.all().iter().map(|(task, listener)| (task.clone(), listener.place())).collect()
    }

    async fn end(&self, key: &TaskId) {
        let listener = self.all().remove(key);
        if let Some(listener) = listener {
            let netns = listener.stop().await;
            if let Err(error) = inside::clear(key, &netns).await {
                tracing::warn!(%error, "a stopped task's DNS rules stay behind");
            }
        }
    }

    /// The tasks that are served.
    pub fn serving(&self) -> BTreeSet<TaskId> {
        self.all().keys().cloned().collect()
    }

    /// What happened since the start.
    pub fn counters(&self) -> DnsCounters {
        self.office.counts.read()
    }

    /// Asks others from now on, as when the node's own resolv.conf changed.
    pub fn set_upstreams(&self, upstreams: Vec<SocketAddr>) {
        self.office.forwarder.set_upstreams(upstreams);
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<TaskId, listen::Listener>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes our rules out of a task's namespace, whoever set them.
pub async fn forget(task: &TaskId, netns: &Arc<File>) -> Result<(), DnsError> {
    inside::clear(task, netns).await
}

/// The name servers of a resolv.conf(5), port 53, without ourselves and without doubles. An address with a
/// device's name (`fe80::1%eth0`) is left out: it means something in one namespace only.
pub fn upstreams_from_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let mut upstreams = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else {
            continue;
        };
        let upstream = SocketAddr::new(address, 53);
        if may_ask(upstream) && !upstreams.contains(&upstream) {
            upstreams.push(upstream);
        }
    }
    upstreams
}

/// Not ourselves: a question would come back to us for ever.
fn may_ask(upstream: SocketAddr) -> bool {
    let ip = upstream.ip().to_canonical();
    ip != IpAddr::V4(SERVER) && !ip.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_gives_upstreams() {
        let text = "# nameserver 1.1.1.1\nsearch example.com\nnameserver 127.0.0.11\nnameserver 10.0.0.2\n\
                    nameserver\nnameserver  127.0.0.53 # the stub\nnameserver 10.0.0.2\nnameserver fd00::53\n\
                    nameserver fe80::1%eth0\nnameserver ::ffff:127.0.0.11\nnameserver 0.0.0.0\noptions ndots:0\n\
                    \tnameserver nonsense";
        let upstreams: Vec<_> = upstreams_from_resolv_conf(text).iter().map(ToString::to_string).collect();
        assert_eq!(upstreams, ["10.0.0.2:53", "127.0.0.53:53", "[fd00::53]:53"]);
        assert!(upstreams_from_resolv_conf("").is_empty());
    }
}
