use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use mesh_core::kv::{LeaseId, Listing, Op, Txn, TxnOutcome};
use mesh_core::model::{Availability, NodeId};
use mesh_core::replica::Cache;
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use super::*;
use crate::attempts::Attempts;
use crate::store::conformance::{commit, put};
use crate::store::local::LocalStore;
use crate::store::{StoreError, StoreStatus};

/// A store that can be taken away and exchanged.
#[derive(Default)]
struct Switch(Mutex<Option<Arc<dyn Store>>>, watch::Sender<u64>);

impl Switch {
    fn to(&self, store: Option<Arc<dyn Store>>) {
        *self.0.lock().unwrap() = store;
        self.1.send_modify(|times| *times += 1);
    }

    fn get(&self) -> Result<Arc<dyn Store>, StoreError> {
        let none = || StoreError::Unavailable { at: "switch".to_owned(), why: "it is off".to_owned() };
        self.0.lock().unwrap().clone().ok_or_else(none)
    }
}

#[async_trait]
impl Store for Switch {
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.get()?.list(prefix).await
    }
    async fn watch(&self, prefix: &str, after: Rev) -> Result<Batches, StoreError> {
        let inner = self.get()?.watch(prefix, after).await?;
        let mut switched = self.1.subscribe();
        let off = async move { switched.changed().await };
        let lost = futures_util::stream::once(async { Err(WatchEnd::Lost("switched".to_owned())) });
        Ok(Box::pin(inner.take_until(off).chain(lost)))
    }
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.get()?.txn(txn).await
    }
    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.get()?.lease(ttl).await
    }
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.get()?.keep_alive(lease).await
    }
    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.get()?.status().await
    }
}

/// A node that follows a store, and its disk.
struct Node {
    dir: TempDir,
    store: Arc<Switch>,
    world: watch::Receiver<Arc<Snapshot>>,
    health: watch::Receiver<StoreHealth>,
    caution: Caution,
    running: Option<(CancellationToken, TaskTracker)>,
}

impl Node {
    fn new(store: Option<Arc<dyn Store>>) -> Self {
        let switch = Switch::default();
        switch.to(store);
        let (world, health) = (watch::channel(Arc::default()).1, watch::channel(StoreHealth::default()).1);
        let (dir, caution) = (tempfile::tempdir().unwrap(), Caution::default());
        Self { dir, store: Arc::new(switch), world, health, caution, running: None }
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn start(&mut self, options: SyncOptions) {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (world, health) =
            (watch::Sender::new(Arc::default()), watch::Sender::new(StoreHealth::default()));
        (self.world, self.health) = (world.subscribe(), health.subscribe());
        let store = Arc::clone(&self.store) as Arc<dyn Store>;
        let caution = self.caution.clone();
        tasks.spawn(run(store, Some(self.cache()), options, caution, world, health, stop.clone()));
        tasks.close();
        self.running = Some((stop, tasks));
    }

    async fn stop(&mut self) {
        let (stop, tasks) = self.running.take().unwrap();
        stop.cancel();
        within(tasks.wait()).await;
    }

    async fn sees(&mut self, what: impl FnMut(&Arc<Snapshot>) -> bool) -> Arc<Snapshot> {
        Arc::clone(&*within(self.world.wait_for(what)).await.unwrap())
    }

    async fn is(&mut self, what: impl FnMut(&StoreHealth) -> bool) -> StoreHealth {
        within(self.health.wait_for(what)).await.unwrap().clone()
    }

    async fn complains(&mut self, words: &str) {
        self.is(|health| !health.connected && health.problem.as_ref().is_some_and(|p| p.contains(words)))
            .await;
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("within 20 s")
}

fn local(dir: &Path) -> Arc<dyn Store> {
    Arc::new(LocalStore::open(dir.join("store.redb")).unwrap())
}

fn paused(world: &Snapshot, node: &str) -> bool {
    world.availability(&NodeId::new(node)) == Availability::Pause
}

/// Something small that a snapshot shows.
fn pause(node: &str) -> Txn {
    put(&format!("nodespec/{node}"), r#"{"availability":"pause"}"#)
}

/// Services that cannot be read count all the same.
async fn services(store: &dyn Store, count: usize) {
    let mut txn = Txn::default();
    for n in 0..count {
        txn.put(format!("svc/{n}"), "poison");
    }
    commit(store, txn).await;
}

#[tokio::test]
async fn a_node_without_its_store_serves_what_it_knew_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(dir.path());
    let mut node = Node::new(Some(Arc::clone(&store)));
    node.start(SyncOptions::default());
    let rev = commit(&*store, pause("n1")).await;
    let known = node.sees(|world| world.rev == rev).await;
    let health = node.is(|health| health.connected && health.rev == rev).await;
    assert_eq!((health.engine.as_str(), health.problem), ("local", None));
    node.stop().await;

    node.store.to(None);
    node.start(SyncOptions::default());
    assert_eq!(node.sees(|world| world.rev > Rev(0)).await, known);
    node.complains("it is off").await;

    // Meanwhile the store went on; a sign of life that was there before is not in the cache, nor missing.
    let lease = store.lease(Duration::from_secs(60)).await.unwrap();
    let live = |applied: u64| Txn {
        compares: vec![],
        ops: vec![Op::Put {
            key: "live/n1".to_owned(),
            value: format!(r#"{{"epoch":1,"applied":{applied}}}"#),
            lease: Some(lease),
        }],
    };
    commit(&*store, live(1)).await;
    node.store.to(Some(Arc::clone(&store)));
    node.sees(|world| world.live.len() == 1).await;
    node.is(|health| health.connected).await;
    node.stop().await;
    node.start(SyncOptions::default());
    let world = node.sees(|world| world.live.len() == 1).await;
    assert!(paused(&world, "n1"));
    node.stop().await;
}

#[tokio::test]
async fn a_store_that_dies_and_returns_is_followed_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(dir.path());
    let mut node = Node::new(Some(Arc::clone(&store)));
    node.start(SyncOptions::default());
    node.is(|health| health.connected).await;
    for round in 0..3 {
        node.store.to(None);
        node.is(|health| !health.connected).await;
        let rev = commit(&*store, pause(&format!("n{round}"))).await;
        assert!(node.world.borrow().rev < rev);
        node.store.to(Some(Arc::clone(&store)));
        node.sees(|world| world.rev == rev).await;
        node.is(|health| health.connected && health.problem.is_none()).await;
    }
    // A long absence: the store has forgotten, and everything is listed.
    node.store.to(None);
    for n in 0..=mesh_core::kv::HISTORY / 500 {
        let round: Vec<_> = (0..500).map(|_| commit(&*store, put("filler", &n.to_string()))).collect();
        futures_util::future::join_all(round).await;
    }
    let rev = commit(&*store, pause("last")).await;
    node.store.to(Some(store));
    let world = node.sees(|world| world.rev == rev).await;
    assert!(paused(&world, "last") && paused(&world, "n0"));
    node.stop().await;
}

#[tokio::test]
async fn another_store_or_an_older_one_changes_nothing() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = local(dir.path());
    commit(&*store, pause("n1")).await;
    drop(store);
    let backup = other.path().join("backup.redb");
    std::fs::copy(dir.path().join("store.redb"), &backup).unwrap();
    let store = local(dir.path());
    let rev = commit(&*store, pause("n2")).await;
    let mut node = Node::new(Some(Arc::clone(&store)));
    node.start(SyncOptions::default());
    let known = node.sees(|world| world.rev == rev).await;

    let stranger = local(other.path());
    for n in 0..5 {
        commit(&*stranger, pause(&format!("x{n}"))).await;
    }
    node.store.to(Some(stranger));
    node.complains("but this node belongs to").await;
    node.store.to(Some(Arc::new(LocalStore::open(&backup).unwrap())));
    node.complains("went back from revision 2 to 1").await;
    assert_eq!(*node.world.borrow(), known);

    node.store.to(Some(Arc::clone(&store)));
    node.is(|health| health.connected && health.problem.is_none()).await;
    assert_eq!(*node.world.borrow(), known);
    node.stop().await;

    // Someone restored the backup on purpose, and says so.
    node.store.to(Some(Arc::new(LocalStore::open(&backup).unwrap())));
    node.start(SyncOptions { accept_deletions: true });
    node.is(|health| health.connected).await;
    let world = node.sees(|world| world.rev == Rev(1)).await;
    assert!(paused(&world, "n1") && !paused(&world, "n2"));
    node.stop().await;
}

/// Removes all services where the node does not see it, and makes the store forget that it did.
async fn remove_and_forget(store: &dyn Store, count: usize) {
    let mut txn = Txn::default();
    for n in 0..count {
        txn.delete(format!("svc/{n}"));
    }
    commit(store, txn).await;
    for n in 0..=mesh_core::kv::HISTORY / 500 {
        let round: Vec<_> = (0..500).map(|_| commit(store, put("filler", &n.to_string()))).collect();
        futures_util::future::join_all(round).await;
    }
}

#[tokio::test]
async fn much_that_vanishes_is_held_until_someone_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(dir.path());
    services(&*store, 20).await;
    let mut node = Node::new(Some(Arc::clone(&store)));
    node.start(SyncOptions::default());
    node.is(|health| health.connected).await;
    let known = Arc::clone(&node.world.borrow());
    assert_eq!(known.poison.len(), 20, "what cannot be read is set aside and told");
    node.store.to(None);
    remove_and_forget(&*store, 20).await;
    node.store.to(Some(Arc::clone(&store)));
    node.complains("20 of 20 services").await;
    assert_eq!(*node.world.borrow(), known);
    node.stop().await;

    node.start(SyncOptions { accept_deletions: true });
    node.is(|health| health.connected).await;
    assert!(node.world.borrow().poison.is_empty());
    // What is removed one by one and seen so needs nobody's word.
    services(&*store, 20).await;
    node.sees(|world| world.poison.len() == 20).await;
    let mut txn = Txn::default();
    for n in 0..20 {
        txn.delete(format!("svc/{n}"));
    }
    commit(&*store, txn).await;
    node.sees(|world| world.poison.is_empty()).await;
    node.stop().await;
}

#[tokio::test]
async fn a_damaged_cache_is_told_of_and_the_older_one_serves() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(dir.path());
    let mut node = Node::new(Some(Arc::clone(&store)));
    commit(&*store, pause("n1")).await;
    node.start(SyncOptions::default());
    node.sees(|world| paused(world, "n1")).await;
    node.stop().await;
    node.start(SyncOptions::default());
    commit(&*store, pause("n2")).await;
    node.sees(|world| paused(world, "n2")).await;
    node.stop().await;

    node.store.to(None);
    std::fs::write(node.cache(), b"noise").unwrap();
    node.start(SyncOptions::default());
    node.sees(|world| paused(world, "n1") && !paused(world, "n2")).await;
    node.store.to(Some(Arc::clone(&store)));
    node.sees(|world| paused(world, "n2")).await;
    node.is(|health| health.connected && health.problem.is_none()).await;
    node.stop().await;

    node.store.to(None);
    std::fs::write(node.cache(), b"noise").unwrap();
    std::fs::write(node.dir.path().join("cache.old"), b"noise").unwrap();
    node.start(SyncOptions::default());
    node.complains("").await;
    assert_eq!(node.world.borrow().rev, Rev(0));
    node.store.to(Some(store));
    node.sees(|world| paused(world, "n2")).await;
    node.stop().await;
}

#[tokio::test]
async fn a_burst_is_published_as_a_whole_and_kept_a_few_times_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(dir.path());
    let mut node = Node::new(Some(Arc::clone(&store)));
    node.start(SyncOptions::default());
    node.is(|health| health.connected).await;
    node.store.to(None);
    let writes: Vec<_> = (0..900).map(|n| commit(&*store, pause(&format!("n{n}")))).collect();
    let last = futures_util::future::join_all(writes).await.into_iter().max().unwrap();
    node.world.mark_unchanged();
    node.store.to(Some(Arc::clone(&store)));
    let mut times = 0;
    while node.world.borrow_and_update().rev < last {
        within(node.world.changed()).await.unwrap();
        times += 1;
    }
    assert!(times < 20, "published {times} times");
    node.stop().await;
    let (kept, problem) = cache::load(&node.cache());
    assert_eq!((kept.unwrap().rev, problem), (last, None), "always before the end");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_asked_again_and_again_but_not_too_often() {
    struct Mute(watch::Sender<usize>);
    #[async_trait]
    impl Store for Mute {
        async fn list(&self, _: &str) -> Result<Listing, StoreError> {
            std::future::pending().await
        }
        async fn watch(&self, _: &str, _: Rev) -> Result<Batches, StoreError> {
            std::future::pending().await
        }
        async fn txn(&self, _: Txn) -> Result<TxnOutcome, StoreError> {
            std::future::pending().await
        }
        async fn lease(&self, _: Duration) -> Result<LeaseId, StoreError> {
            std::future::pending().await
        }
        async fn keep_alive(&self, _: LeaseId) -> Result<(), StoreError> {
            std::future::pending().await
        }
        async fn status(&self) -> Result<StoreStatus, StoreError> {
            self.0.send_modify(|times| *times += 1);
            std::future::pending().await
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (world, health) = (watch::Sender::new(Arc::default()), watch::Sender::new(StoreHealth::default()));
    let (stop, asked) = (CancellationToken::new(), watch::Sender::new(0));
    let times = asked.subscribe();
    let seen = health.subscribe();
    let running = run(
        Arc::new(Mute(asked)),
        Some(dir.path().join("cache")),
        SyncOptions::default(),
        Caution::default(),
        world,
        health,
        stop.clone(),
    );
    let hour = async {
        sleep(Duration::from_secs(3600)).await;
        stop.cancel();
    };
    tokio::join!(running, hour);
    let times = *times.borrow();
    assert!((350..=720).contains(&times), "asked {times} times in an hour");
    assert!(seen.borrow().problem.as_ref().is_some_and(|problem| problem.contains("nothing for 5 s")));
}

#[tokio::test]
async fn a_record_that_no_plan_can_be_made_with_is_set_aside_until_it_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(dir.path());
    let mut node = Node::new(Some(Arc::clone(&store)));
    let (complain, complaints) = watch::channel(None);
    let plans = |world: &Snapshot| world.availability(&NodeId::new("n1")) != Availability::Drain;
    node.caution = Caution::new(Attempts::default(), complaints, Arc::new(plans));
    commit(&*store, pause("n1")).await;
    node.start(SyncOptions::default());
    let good = node.sees(|world| paused(world, "n1")).await;
    let mut txn = put("nodespec/n1", r#"{"availability":"drain"}"#);
    txn.put("nodespec/n2", r#"{"availability":"pause"}"#);
    commit(&*store, txn).await;
    let world = node.sees(|world| paused(world, "n2")).await;
    assert!(!paused(&world, "n1"));
    let complaint = |good: Arc<Snapshot>, world: &Snapshot| {
        let suspects = quarantine::news(&good, world);
        complain.send_replace(Some(Arc::new(Complaint { good, suspects, why: "it panicked".to_owned() })));
    };
    complaint(good, &world);
    let world = node.sees(|world| paused(world, "n1")).await;
    assert!(paused(&world, "n2"), "the other one stays");
    assert!(world.poison["nodespec/n1"].contains("it panicked"), "{:?}", world.poison);
    // The next start knows it, and so it does without its store.
    node.stop().await;
    node.store.to(None);
    node.start(SyncOptions::default());
    let again = node.sees(|world| world.rev > Rev(0)).await;
    assert_eq!((&again.specs, &again.poison), (&world.specs, &world.poison));
    // While the store is away complaints are heard, too. One that is by no record changes nothing.
    complaint(Arc::default(), &again);
    node.store.to(Some(Arc::clone(&store)));
    commit(&*store, put("nodespec/n1", r#"{"availability":"active"}"#)).await;
    let world = node.sees(|world| world.poison.is_empty()).await;
    assert!(!paused(&world, "n1") && paused(&world, "n2"));
    node.stop().await;
}

/// An agent that finds how often those before it broke.
fn broken(node: &mut Node, failures: u32, suspects: quarantine::Forms) {
    let attempt = quarantine::Attempt { failures, suspects, ..quarantine::Attempt::default() };
    let path = node.dir.path().join("attempt");
    std::fs::write(&path, records::to_json(&attempt)).unwrap();
    node.caution = Caution::new(Attempts::open(path), watch::channel(None).1, Arc::new(|_| true));
}

#[tokio::test]
async fn after_some_that_broke_an_agent_leaves_out_what_was_new_or_holds() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(dir.path());
    let mut node = Node::new(Some(Arc::clone(&store)));
    commit(&*store, pause("n1")).await;
    node.start(SyncOptions::default());
    node.sees(|world| paused(world, "n1")).await;
    node.stop().await;
    std::fs::copy(node.cache(), cache::good(&node.cache())).unwrap();
    let rev = commit(&*store, put("nodespec/n1", r#"{"availability":"drain"}"#)).await;
    let suspects: quarantine::Forms = [("nodespec/n1".into(), rev)].into();

    broken(&mut node, 1, suspects.clone());
    node.start(SyncOptions::default());
    node.sees(|world| world.rev == rev && !paused(world, "n1")).await;
    node.stop().await;

    // What was good is that of the copy which was.
    broken(&mut node, 2, suspects.clone());
    node.start(SyncOptions::default());
    let world = node.sees(|world| world.rev == rev).await;
    assert!(paused(&world, "n1") && world.poison["nodespec/n1"].contains("3 times"), "{:?}", world.poison);
    node.is(|health| health.connected).await;
    node.stop().await;

    broken(&mut node, 5, suspects);
    node.start(SyncOptions::default());
    node.complains("tries again in 10 minutes").await;
    let world = Arc::clone(&node.world.borrow());
    assert!(paused(&world, "n1") && world.rev < rev && world.poison.is_empty());
    node.stop().await;
    // Whoever starts it anew has it try.
    node.caution = Caution::default();
    node.start(SyncOptions::default());
    commit(&*store, put("nodespec/n1", r#"{"availability":"active"}"#)).await;
    node.sees(|world| world.poison.is_empty() && !paused(world, "n1")).await;
    node.stop().await;
}

#[test]
fn a_copy_is_good_when_the_agent_has_lived_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let copy = |rev: u64| Cache { cluster: "c".to_owned(), rev: Rev(rev), ..Cache::default() };
    let good = || cache::load(&cache::good(&path)).0.map(|cache| cache.rev.0);
    assert!(cache::ripen(&path, false).is_err(), "there is none yet");
    for (rev, since_before, expected) in
        [(1, false, None), (2, true, Some(1)), (3, true, Some(2)), (4, false, Some(2))]
    {
        cache::save(&path, &copy(rev)).unwrap();
        cache::ripen(&path, since_before).unwrap();
        assert_eq!(good(), expected, "at {rev}");
    }
}
