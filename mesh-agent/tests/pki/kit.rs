//! A manager and workers in one process: real stores, real TLS over loopback.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use mesh_agent::control::{Control, now};
use mesh_agent::facts::sync::{self, Caution, SyncOptions};
use mesh_agent::pki::{self, Admission, Authority, Files, Joined, Tls, create_ca};
use mesh_agent::status::{Status, StoreHealth};
use mesh_agent::store::Store;
use mesh_agent::store::conformance::Subject;
use mesh_agent::store::gateway::{GatewayStore, serve};
use mesh_agent::store::local::LocalStore;
use mesh_core::certificate::LIFE;
use mesh_core::change::{self, Me, NodeFacts, TokenTerms};
use mesh_core::kv::{HISTORY, Txn, TxnOutcome};
use mesh_core::model::{NodeId, Role, Snapshot};
use mesh_core::token::JoinToken;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How long something may take that takes milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// How often managers look at who is connected.
pub(crate) const RECHECK: Duration = Duration::from_millis(100);

/// A node's copy of a store, and what changes it.
pub(crate) struct Follower {
    pub(crate) control: Control,
    pub(crate) world: watch::Receiver<Arc<Snapshot>>,
    _status: watch::Sender<Arc<Status>>,
    _stop: DropGuard,
}

impl Follower {
    pub(crate) async fn of(store: Arc<dyn Store>, node: NodeId, dir: &Path) -> Self {
        let (world_tx, mut world) = watch::channel(Arc::new(Snapshot::default()));
        let (health_tx, mut health) = watch::channel(StoreHealth::default());
        let (status_tx, status) = watch::channel(Arc::new(Status::default()));
        let stop = CancellationToken::new();
        let options = SyncOptions { accept_deletions: false };
        TaskTracker::new().spawn(sync::run(
            Arc::clone(&store),
            Some(dir.join("cache")),
            options,
            Caution::default(),
            world_tx,
            health_tx,
            stop.clone(),
        ));
        let connected = tokio::time::timeout(SOON, health.wait_for(|health| health.connected)).await;
        connected.expect("the store answers").unwrap();
        world.mark_changed();
        Self {
            control: Control::new(node, store, world.clone(), status),
            world,
            _status: status_tx,
            _stop: stop.drop_guard(),
        }
    }

    /// What an agent does first.
    pub(crate) async fn enter(&self, name: &str, address: &str) -> Me {
        let facts = facts(name, address);
        let id = self.control.node().clone();
        let change = |world: &Snapshot, fresh| change::join(world, &id, facts.clone(), fresh);
        let epoch = self.control.change(change).await.unwrap().result.epoch;
        Me { id, epoch }
    }
}

pub(crate) fn facts(name: &str, address: &str) -> NodeFacts {
    NodeFacts {
        name: name.parse().unwrap(),
        address: address.parse().unwrap(),
        vxlan_port: 4789,
        boot: "boot".to_owned(),
        key: String::new(),
        reflects: false,
        uplink_mtu: 1500,
        listeners: Default::default(),
        routes: Default::default(),
        version: "0".to_owned(),
    }
}

/// The first manager of a mesh.
pub(crate) struct Manager {
    pub(crate) store: Arc<LocalStore>,
    pub(crate) follower: Follower,
    pub(crate) authority: Authority,
    pub(crate) tls: Arc<Tls>,
    pub(crate) admission: Admission,
    pub(crate) addr: String,
    pub(crate) dir: TempDir,
    _stop: DropGuard,
}

impl Manager {
    pub(crate) async fn start() -> Self {
        Self::since(now()).await
    }

    /// One whose authority began at a time.
    pub(crate) async fn since(begin: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(LocalStore::open(dir.path().join("store.redb")).unwrap());
        let files = Files::of(dir.path());
        let authority = create_ca(&store.status().await.unwrap().cluster, begin).unwrap();
        let node = NodeId::new("manager1");
        let founded = authority.found(&node, now(), LIFE, &files).unwrap();
        let follower = Follower::of(Arc::clone(&store) as _, node.clone(), dir.path()).await;
        let begin =
            |world: &Snapshot, fresh| Ok(change::begin(world, &node, founded.certificate.clone(), fresh));
        follower.control.change(begin).await.unwrap();
        follower.enter("m1", "127.0.0.1").await;
        let tls = Arc::new(Tls::open(files).unwrap());
        let admission = Admission::new(Arc::clone(&tls), follower.control.clone(), pki::PORT, LIFE);
        let admission = admission.recheck_every(RECHECK);
        let (addr, stop) = listen(Arc::clone(&store) as _, admission.clone()).await;
        Self { store, follower, authority, tls, admission, addr, dir, _stop: stop }
    }

    pub(crate) async fn token(&self, terms: TokenTerms) -> JoinToken {
        let pin = self.authority.pin();
        let change = |world: &Snapshot, fresh| change::add_token(world, pin, terms, fresh);
        let token = self.follower.control.change(change).await.unwrap().result;
        JoinToken { at: Some(self.addr.clone()), ..token }
    }

    pub(crate) async fn worker_token(&self) -> JoinToken {
        self.token(terms(Role::Worker)).await
    }

    /// A worker that has joined.
    pub(crate) async fn worker(&self, name: &str) -> Worker {
        let token = self.worker_token().await;
        Worker::join(&token, name).await
    }
}

pub(crate) fn terms(role: Role) -> TokenTerms {
    TokenTerms { role, life: None, uses: None, rotate: false }
}

/// Serves a store to nodes with certificates.
pub(crate) async fn listen(store: Arc<dyn Store>, admission: Admission) -> (String, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    TaskTracker::new().spawn(serve(store, listener, admission, stop.clone()));
    (addr, stop.drop_guard())
}

/// A node with a certificate.
pub(crate) struct Worker {
    pub(crate) joined: Joined,
    pub(crate) tls: Arc<Tls>,
    pub(crate) store: Arc<GatewayStore>,
    pub(crate) dir: TempDir,
}

impl Worker {
    pub(crate) async fn join(token: &JoinToken, name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::of(dir.path());
        let joined = pki::join(token, &name.parse().unwrap(), &files).await.unwrap();
        let tls = Arc::new(Tls::open(files).unwrap());
        let at = token.at.clone().unwrap();
        let store = Arc::new(GatewayStore::with_certificate(vec![at], Arc::clone(&tls)));
        Self { joined, tls, store, dir }
    }

    pub(crate) async fn follower(&self) -> Follower {
        Follower::of(Arc::clone(&self.store) as _, self.joined.node.clone(), self.dir.path()).await
    }
}

/// A store behind a gateway, seen with a manager's certificate.
pub(crate) struct AsManager {
    client: Arc<GatewayStore>,
    behind: Arc<LocalStore>,
    _manager: Manager,
    _stop: DropGuard,
}

impl AsManager {
    pub(crate) async fn fresh() -> Self {
        let manager = Manager::start().await;
        let tls = Arc::clone(&manager.tls);
        // An empty one: the manager's own has its records.
        let behind = Arc::new(LocalStore::open(manager.dir.path().join("empty.redb")).unwrap());
        let (addr, stop) = listen(Arc::clone(&behind) as _, manager.admission.clone()).await;
        let client = Arc::new(GatewayStore::with_certificate(vec![addr], tls));
        Self { client, behind, _manager: manager, _stop: stop }
    }
}

#[async_trait]
impl Subject for AsManager {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.client) as _
    }

    /// Ten thousand handshakes would say nothing more.
    async fn forget_history(&self) {
        for round in 0..=HISTORY / 100 {
            let filler = |n| {
                let mut txn = Txn::default();
                txn.put(format!("filler/{n}"), round.to_string());
                self.behind.txn(txn)
            };
            for done in join_all((0..100).map(filler)).await {
                assert!(matches!(done, Ok(TxnOutcome::Committed { .. })), "{done:?}");
            }
        }
    }
}
