//! **Effect.** DNS for tasks: one server per task, inside the task's own network namespace, at 127.0.0.11:53 as in
//! Docker. Who asks is known by the socket that the question came in through, which nobody can forge, so what
//! `mesh_core::dns` decides about networks holds.
//!
//! [`DnsServer::serve`] opens the sockets (`inside`), `listen` reads them on a `thread` of their own (`datagrams` many at once),
//! `mesh_core::dns::reply` turns a packet into an answer or into a question for the world, and `forward` asks the
//! world. Nothing is logged per query: [`DnsCounters`] tells what happened. Where a service manager keeps the sockets while no
//! agent runs (`kept`), what is asked meanwhile waits.

mod count;
mod datagrams;
mod forward;
mod inside;
mod kept;
mod listen;
mod probe;
mod referrals;
mod thread;
mod upstreams;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
pub use mesh_core::dns::SERVER;
use mesh_core::dns::Zone;
use mesh_core::model::{NetworkId, TaskId};
use tokio::task::JoinSet;

pub use self::count::DnsCounters;
pub use self::inside::DnsError;
pub use self::referrals::Referrals;
pub use self::upstreams::{follow, from_resolv_conf as upstreams_from_resolv_conf};
use crate::handed::Handed;

/// How long what was asked before an agent ended may keep it.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

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
    kept: Arc<kept::Kept>,
    /// One task is begun or ended at a time, so that two calls for the same one never meet.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl DnsServer {
    /// Prepares to serve, on a thread of its own; whatever `zone` holds at the moment of a question answers it. An error says
    /// that there can be no more threads or descriptors.
    pub fn new(config: DnsConfig, zone: Arc<ArcSwap<Zone>>) -> io::Result<Self> {
        Ok(Self {
            office: Arc::new(listen::Office::new(config, zone)?),
            serving: Arc::default(),
            kept: Arc::default(),
            turn: Arc::default(),
        })
    }

    /// Goes on with sockets of an agent before, once it is known whose they are. Before anybody is served.
    #[must_use]
    pub fn going_on_with(self, handed: Vec<Handed>) -> Self {
        Self { kept: Arc::new(kept::Kept::of(handed)), ..self }
    }

    /// Whether there are such sockets that are nobody's so far.
    pub fn is_to_go_on(&self) -> bool {
        self.kept.is_waiting()
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
        let served = self.all().get(&key).is_some_and(|listener| listener.serves(which, &networks));
        if !served {
            self.end(&key).await;
            let (_, inode) = which;
            let sockets = match self.kept.take(&key, inode).await {
                Some(sockets) => sockets,
                None => {
                    let sockets = inside::open(&key, &netns).await?;
                    self.kept.put(&key, inode, &sockets).await;
                    sockets
                }
            };
            self.listen(&key, sockets, netns, which, networks, upstreams)?;
        }
        // The rules are what the agent before had set, and what became of them since.
        let unsure = self.all().get(&key).filter(|listener| !listener.is_led()).map(listen::Listener::place);
        if let Some((netns, ports)) = unsure {
            inside::redirect(&key, &netns, ports).await?;
            self.all().get(&key).inspect(|listener| listener.set_led());
        }
        Ok(())
    }

    /// The same with sockets of an agent before, if there are some: nothing is opened, and no rule set.
    pub async fn go_on(
        &self,
        key: &TaskId,
        netns: Arc<File>,
        networks: Vec<NetworkId>,
        upstreams: Vec<SocketAddr>,
    ) -> Result<(), DnsError> {
        let _turn = self.turn.lock().await;
        let which = inside::identity(key, &netns)?;
        match self.kept.take(key, which.1).await {
            Some(sockets) => self.listen(key, sockets, netns, which, networks, upstreams),
            None => Ok(()),
        }
    }

    fn listen(
        &self,
        key: &TaskId,
        sockets: inside::Sockets,
        netns: Arc<File>,
        which: (u64, u64),
        networks: Vec<NetworkId>,
        upstreams: Vec<SocketAddr>,
    ) -> Result<(), DnsError> {
        let listener =
            listen::Listener::start(&self.office, key, sockets, netns, which, networks, upstreams)?;
        self.all().insert(key.clone(), listener);
        Ok(())
    }

    /// All tasks are served that there are: sockets of others that an agent before had are closed.
    pub async fn forget_others(&self) {
        self.kept.remove_rest().await;
    }

    /// Takes no more questions, and answers those that were taken, if that does not take long: whoever has the sockets next
    /// answers the others.
    pub async fn close(&self) {
        let closing: JoinSet<()> = self.all().values().map(listen::Listener::close).collect();
        let _ = tokio::time::timeout(LAST_ANSWERS, closing.join_all()).await;
    }

    /// The sockets of all tasks, for an agent that goes on with them.
    pub fn hand_on(&self) -> Vec<Handed> {
        let all = self.all();
        let named = all.iter().filter_map(|(task, listener)| {
            let (_, inode) = listener.namespace();
            Some((mesh_core::dns::kept::name(task, inode)?, listener.sockets().ok()?))
        });
        named
            .flat_map(|(name, both)| both.map(|descriptor| Handed { name: name.clone(), descriptor }))
            .collect()
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
            self.kept.remove(key).await;
            if let Err(error) = inside::clear(key, &netns).await {
                tracing::warn!(%error, "a stopped task's DNS rules stay behind");
            }
        }
    }

    /// The tasks that are served.
    pub fn serving(&self) -> BTreeSet<TaskId> {
        self.all().keys().cloned().collect()
    }

    /// Whose tasks clients were sent to themselves.
    pub fn referrals(&self) -> Referrals {
        self.office.referrals.clone()
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
