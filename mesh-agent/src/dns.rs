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
mod upstreams;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh_core::dns::Zone;
use mesh_core::model::{NetworkId, TaskId};

pub use self::count::DnsCounters;
pub use self::inside::DnsError;
pub use self::upstreams::{follow, from_resolv_conf as upstreams_from_resolv_conf};

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
    /// once per task, which takes long where there are many: others have their turns in between.
    pub async fn repair(&self) -> BTreeMap<TaskId, DnsError> {
        let mut errors = BTreeMap::new();
        for task in self.serving() {
            let _turn = self.turn.lock().await;
            // It may be gone by now, and its rules with it.
            let Some((netns, ports)) = self.all().get(&task).map(listen::Listener::place) else { continue };
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
