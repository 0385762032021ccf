//! **Effect.** A node's copy of a store in etcd, through what happens to etcd.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesh_agent::facts::sync::{self, Caution, SyncOptions};
use mesh_agent::status::StoreHealth;
use mesh_agent::store::conformance::{commit, put};
use mesh_agent::store::etcd::{EtcdOptions, EtcdStore};
use mesh_core::kv::Txn;
use mesh_core::model::{Availability, NodeId, Snapshot};
use mesh_tests::Etcd;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::subject::{InEtcd, options};

/// A node that follows a store in etcd, with its copy on disk.
struct Copy {
    world: watch::Receiver<Arc<Snapshot>>,
    health: watch::Receiver<StoreHealth>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Copy {
    fn start(etcd: &Etcd, dir: &Path) -> Self {
        let cache = dir.join("cache");
        let known = sync::known(&cache);
        let store = Arc::new(EtcdStore::new(EtcdOptions { known, ..options(&etcd.urls()) }));
        let (world, health) =
            (watch::Sender::new(Arc::default()), watch::Sender::new(StoreHealth::default()));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let copy = Self { world: world.subscribe(), health: health.subscribe(), stop, tasks };
        copy.tasks.spawn(sync::run(
            store,
            Some(cache),
            SyncOptions::default(),
            Caution::default(),
            world,
            health,
            copy.stop.clone(),
        ));
        copy.tasks.close();
        copy
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// Waits until the copy knows that exactly these nodes are paused.
    async fn knows(&mut self, paused: &[&str]) {
        let known = self.world.wait_for(|world| {
            let known = world.specs.iter().filter(|(_, spec)| spec.availability == Availability::Pause);
            known.map(|(id, _)| id.clone()).eq(paused.iter().map(|id| NodeId::new(*id)))
        });
        tokio::time::timeout(Duration::from_secs(20), known).await.expect("the copy follows").unwrap();
    }

    async fn is(&mut self, what: impl Fn(&StoreHealth) -> bool) {
        let told = self.health.wait_for(what);
        tokio::time::timeout(Duration::from_secs(20), told).await.expect("it is said").unwrap();
    }
}

/// Something small that a copy shows.
fn pause(node: &str) -> Txn {
    put(&format!("nodespec/{node}"), r#"{"availability":"pause"}"#)
}

fn resume(node: &str) -> Txn {
    let mut txn = Txn::default();
    txn.delete(format!("nodespec/{node}"));
    txn
}

/// While a node is away, history is compacted, the last removal at the very revision: it lists everything anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_while_a_node_is_away_leads_to_a_new_list() {
    let subject = InEtcd::fresh();
    let dir = tempfile::tempdir().unwrap();
    commit(&*subject.store, pause("a")).await;
    for others in [false, true] {
        let mut copy = Copy::start(&subject.etcd, dir.path());
        copy.knows(&["a"]).await;
        copy.is(|health| health.connected).await;
        copy.end().await;
        if others {
            commit(&*subject.store, pause("b")).await;
            commit(&*subject.store, resume("b")).await;
        }
        commit(&*subject.store, resume("a")).await;
        subject.compact().await;
        let mut copy = Copy::start(&subject.etcd, dir.path());
        copy.knows(&[]).await;
        commit(&*subject.store, pause("a")).await;
        copy.knows(&["a"]).await;
        copy.end().await;
    }
}

/// Members come and go, and the copy goes on; when most are gone it says so, and keeps what it knew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_goes_on_over_the_loss_of_members() {
    let mut subject = InEtcd::of(3);
    let dir = tempfile::tempdir().unwrap();
    commit(&*subject.store, pause("a")).await;
    let mut copy = Copy::start(&subject.etcd, dir.path());
    copy.knows(&["a"]).await;
    for member in [0, 1, 2] {
        subject.etcd.member(member).kill().unwrap();
        commit(&*subject.store, pause("b")).await;
        copy.knows(&["a", "b"]).await;
        subject.etcd.member(member).start().unwrap();
        subject.etcd.member(member).wait_ready().unwrap();
        commit(&*subject.store, resume("b")).await;
        copy.knows(&["a"]).await;
    }
    for member in [0, 1] {
        subject.etcd.member(member).pause().unwrap();
    }
    copy.is(|health| !health.connected && health.problem.is_some()).await;
    copy.knows(&["a"]).await;
    for member in [0, 1] {
        subject.etcd.member(member).resume().unwrap();
    }
    copy.is(|health| health.connected && health.problem.is_none()).await;
    copy.end().await;
}
