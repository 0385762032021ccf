//! What a worker does all day passes; what is not its own does not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use mesh_agent::control::ControlError;
use mesh_agent::store::gateway::GatewayStore;
use mesh_agent::store::{Store, StoreError};
use mesh_core::change::{self, AttachmentRequest, NetworkRequest, ServiceRequest, TaskChange, TaskRequest};
use mesh_core::kv::{Compare, Op, Rev, Txn, TxnOutcome};
use mesh_core::model::{Health, Live, Origin, Snapshot, TaskState};
use mesh_core::records;

use crate::kit::{Manager, SOON, listen};

fn network() -> NetworkRequest {
    NetworkRequest { name: "net".to_owned(), ..NetworkRequest::default() }
}

fn service() -> ServiceRequest {
    ServiceRequest {
        name: "web".to_owned(),
        networks: vec![AttachmentRequest { network: "net".to_owned(), aliases: Vec::new() }],
        mode: "vip".parse().unwrap(),
        ports: Vec::new(),
        balancing: "random".parse().unwrap(),
        affinity: mesh_core::model::Affinity::None,
        locality: "spread".parse().unwrap(),
        drain_timeout: Duration::ZERO,
        return_path: Default::default(),
        idle_timeout: None,
        discovery: Default::default(),
        slow_start: Duration::ZERO,
        passive_health: true,
        health: Default::default(),
        program: Default::default(),
        labels: BTreeMap::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_lives_through_the_gateway() {
    let manager = Manager::start().await;
    let boss = &manager.follower.control;
    boss.change(|world, fresh| change::create_network(world, network(), fresh)).await.unwrap();
    boss.change(|world, fresh| change::create_service(world, service(), fresh)).await.unwrap();
    let worker = manager.worker("n2").await;
    let own = worker.follower().await;
    let me = own.enter("n2", "127.0.0.2").await;
    let (control, me) = (&own.control, &me);
    control.change(|world, _| change::claim_blocks(world, me)).await.unwrap();

    let lease = worker.store.lease(Duration::from_secs(15)).await.unwrap();
    let value =
        records::to_json(&Live { epoch: me.epoch, applied: Rev(1), problems: Vec::new(), ..Live::default() });
    let put = Op::Put { key: records::live(&me.id), value, lease: Some(lease) };
    let alive = worker.store.txn(Txn { compares: Vec::new(), ops: vec![put] }).await.unwrap();
    assert!(matches!(alive, TxnOutcome::Committed { .. }), "{alive:?}");
    worker.store.keep_alive(lease).await.unwrap();

    for (round, service) in [Some("web"), None].into_iter().enumerate() {
        let request = TaskRequest {
            dns: Vec::new(),
            packets_only: false,
            service: service.map(str::to_owned),
            name: service.is_none().then(|| "job".to_owned()),
            networks: vec!["net".to_owned()],
            origin: Origin::Process { pid: round as u32 + 1, start: 1, supervised: true },
            weight: 1,
            state: TaskState::Running,
            slot: None,
            program: None,
        };
        let change = |world: &Snapshot, fresh| change::add_task(world, me, request.clone(), fresh);
        let task = control.change(change).await.unwrap().result;
        let healthy = TaskChange { health: Some(Health::Healthy), ..TaskChange::default() };
        let change =
            |world: &Snapshot, fresh| change::change_task(world, me, &task.id, healthy.clone(), fresh);
        control.change(change).await.unwrap();
        control.change(|world, _| change::stop_task(world, task.id.as_str())).await.unwrap();
        control.change(|world, _| change::forget_task(world, me, &task.id)).await.unwrap();
        assert!(manager.store.list("task/").await.unwrap().kvs.is_empty());
        assert!(manager.store.list("claim/slot/").await.unwrap().kvs.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_workers_is_refused_with_words() {
    let manager = Manager::start().await;
    let worker = manager.worker("n2").await;
    let own = worker.follower().await;
    own.enter("n2", "127.0.0.2").await;
    let other = manager.worker("n3").await;
    other.follower().await.enter("n3", "127.0.0.3").await;
    own.control.worlds().wait_for(|world| world.node("n3").is_some()).await.unwrap();
    let before = manager.store.status().await.unwrap().rev;
    let refusal = own.control.change(|world, fresh| change::create_network(world, network(), fresh)).await;
    let Err(ControlError::Store(StoreError::Denied { at, why })) = refusal else { panic!("{refusal:?}") };
    assert_eq!(at, manager.addr);
    assert!(why.contains("node n2 is a worker and may not write idx/net/net"), "{why}");
    assert!(why.contains("on a manager"), "{why}");
    let refusal = own.control.change(|world, _| change::remove_node(world, "n3", true)).await.unwrap_err();
    assert!(refusal.to_string().contains("node n2 is a worker and may not write"), "{refusal}");
    assert_eq!(manager.store.status().await.unwrap().rev, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_not_seen_by_workers() {
    let manager = Manager::start().await;
    let worker = manager.worker("n2").await;
    assert!(!manager.store.list("token/").await.unwrap().kvs.is_empty());
    let listed = worker.store.list("").await.unwrap();
    assert!(listed.kvs.iter().all(|kv| !kv.key.starts_with("token/")) && !listed.kvs.is_empty());
    let mut watch = worker.store.watch("token/", listed.rev).await.unwrap();
    manager.worker_token().await;
    let newest = manager.store.status().await.unwrap().rev;
    loop {
        let batch = tokio::time::timeout(SOON, watch.next()).await.unwrap().unwrap().unwrap();
        assert!(batch.events.is_empty(), "{batch:?}");
        if batch.rev >= newest {
            break;
        }
    }
    let guess = Txn { compares: vec![Compare::Absent("token/worker".to_owned())], ops: Vec::new() };
    let outcome = worker.store.txn(guess).await.unwrap();
    assert!(matches!(&outcome, TxnOutcome::Conflict { found, .. } if found.is_empty()), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_manager_is_asked_when_one_fails() {
    let manager = Manager::start().await;
    let worker = manager.worker("n2").await;
    let (first, stop) = listen(Arc::clone(&manager.store) as _, manager.admission.clone()).await;
    let all = vec!["127.0.0.1:1".to_owned(), first, manager.addr.clone()];
    let store = GatewayStore::with_certificate(all, Arc::clone(&worker.tls));
    store.status().await.unwrap();
    store.list("").await.unwrap();
    drop(stop);
    let answered = async {
        // What was under way when it stopped may fail; the next request goes to the other one.
        while store.list("").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, answered).await.unwrap();
}
