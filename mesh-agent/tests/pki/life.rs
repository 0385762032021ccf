//! Certificates are renewed, roles change, authorities are replaced, and who is removed is out.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use mesh_agent::control::now;
use mesh_agent::pki::{Files, NodeFiles, PORT, Subject, Tls, new_request, new_serial, renewal};
use mesh_agent::store::gateway::GatewayStore;
use mesh_agent::store::{Store, WatchEnd};
use mesh_core::certificate::Validity;
use mesh_core::change;
use mesh_core::kv::Txn;
use mesh_core::model::{Role, Snapshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::kit::{Follower, Manager, RECHECK, SOON, Worker};

/// Renews as an agent does.
fn renewing(worker: &Worker, follower: &Follower, manager: &Manager) -> DropGuard {
    let stop = CancellationToken::new();
    let source = renewal::Source::Managers(vec!["127.0.0.1:1".to_owned(), manager.addr.clone()], PORT);
    let run = renewal::run(Arc::clone(&worker.tls), source, follower.world.clone(), stop.clone());
    TaskTracker::new().spawn(run);
    stop.drop_guard()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(SOON, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("in time: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_in_time_and_cuts_no_watch() {
    let manager = Manager::start().await;
    let worker = manager.worker("n2").await;
    // As if it had joined four weeks ago.
    let files = Files::of(worker.dir.path());
    let (request, key) = new_request().unwrap();
    let old = worker.tls.me();
    let subject = Subject { node: old.node.clone(), role: Role::Worker, addresses: Vec::new() };
    let validity = Validity { from: now() - 28 * 86_400_000, until: now() + 2 * 86_400_000 };
    let certificate = manager.authority.issue(&request, &subject, new_serial(), validity).unwrap();
    files.write(&NodeFiles { certificate, key, ..files.read().unwrap() }).unwrap();
    assert!(worker.tls.reload().unwrap());
    let aged = worker.tls.me();
    let follower = worker.follower().await;
    let mut watch = worker.store.watch("svc/", manager.store.status().await.unwrap().rev).await.unwrap();

    let _running = renewing(&worker, &follower, &manager);
    until("it has another certificate", || worker.tls.me().serial != aged.serial).await;
    let new = worker.tls.me();
    assert_eq!((&new.node, new.role, &new.cluster), (&old.node, Role::Worker, &old.cluster));
    assert!(new.validity.until > now() + 29 * 86_400_000);
    assert_eq!(Files::of(worker.dir.path()).me().unwrap(), new, "it is on disk");
    worker.store.status().await.unwrap();
    let mut txn = Txn::default();
    txn.put("svc/x", "{}");
    manager.store.txn(txn).await.unwrap();
    let seen = async {
        loop {
            let batch = watch.next().await.unwrap().expect("the watch goes on");
            if !batch.events.is_empty() {
                break;
            }
        }
    };
    tokio::time::timeout(SOON, seen).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_promoted_gets_what_managers_need_and_loses_it_again() {
    let manager = Manager::start().await;
    let worker = manager.worker("n2").await;
    let follower = worker.follower().await;
    let _running = renewing(&worker, &follower, &manager);
    let node = &worker.joined.node;
    let mut txn = Txn::default();
    txn.put("svc/x", "{}");
    assert!(worker.store.txn(txn.clone()).await.is_err());
    for role in [Role::Manager, Role::Worker] {
        let change = |world: &Snapshot, _| change::set_role(world, node, role);
        manager.follower.control.change(change).await.unwrap();
        until("its certificate says so", || worker.tls.me().role == role).await;
        let authority = Files::of(worker.dir.path()).authority().unwrap();
        assert_eq!(authority.is_some(), role == Role::Manager);
        // A connection that is open goes on with what it began with.
        let store = GatewayStore::with_certificate(vec![manager.addr.clone()], Arc::clone(&worker.tls));
        assert_eq!(store.txn(txn.clone()).await.is_ok(), role == Role::Manager);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_removed_is_out_at_once_and_for_good() {
    let manager = Manager::start().await;
    let (worker, other) = (manager.worker("n2").await, manager.worker("n3").await);
    worker.follower().await.enter("n2", "127.0.0.2").await;
    let mut watch = worker.store.watch("", manager.store.status().await.unwrap().rev).await.unwrap();
    let mut stays = other.store.watch("", manager.store.status().await.unwrap().rev).await.unwrap();
    manager.follower.control.change(|world, _| change::remove_node(world, "n2", true)).await.unwrap();
    let ended = async {
        loop {
            match watch.next().await {
                Some(Ok(_)) => {}
                Some(Err(WatchEnd::Lost(_))) | None => break,
                Some(Err(other)) => panic!("{other}"),
            }
        }
    };
    tokio::time::timeout(SOON, ended).await.expect("a watch that is open ends");
    let why = worker.store.status().await.unwrap_err().to_string();
    assert!(why.contains("was removed from the mesh") && why.contains("join again"), "{why}");
    let follower = &manager.follower;
    let (me, request) = (worker.tls.me(), mesh_agent::pki::RenewRequest { csr: new_request().unwrap().0 });
    let renewed = manager.admission.renew(&me, &request);
    assert!(renewed.await.err().unwrap().why.contains("it was removed"));
    assert_eq!(follower.control.world().denied.len(), 1);
    tokio::time::sleep(RECHECK * 3).await;
    assert!(tokio::time::timeout(SOON, stays.next()).await.unwrap().unwrap().is_ok(), "others stay");
    // It may come back as another.
    let again = manager.worker("n2").await;
    assert_ne!(again.joined.node, worker.joined.node);
    again.store.status().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_is_replaced_under_way() {
    let manager = Manager::start().await;
    let old = manager.worker("n2").await;
    let next = manager.authority.rotate(now()).unwrap();
    assert!(next.rotate(now()).unwrap_err().to_string().contains("being replaced already"));
    // The manager takes a certificate of the new authority; workers trust only the old one yet.
    let files = manager.tls.files();
    files
        .write(&NodeFiles {
            roots: next.roots_pem(),
            authority: Some(next.key_pem()),
            ..files.read().unwrap()
        })
        .unwrap();
    manager.tls.reload().unwrap();
    let reread = files.authority().unwrap().unwrap();
    assert_eq!((reread.pin(), reread.roots_pem()), (next.pin(), next.roots_pem()));
    let (csr, key) = new_request().unwrap();
    let issued = manager
        .admission
        .renew(&manager.tls.me(), &mesh_agent::pki::RenewRequest { csr })
        .await
        .ok()
        .unwrap();
    files
        .write(&NodeFiles {
            roots: issued.roots,
            certificate: issued.certificate,
            key,
            authority: issued.authority,
        })
        .unwrap();
    manager.tls.reload().unwrap();
    old.store.status().await.expect("old worker, new manager: the old authority vouches for the new one");
    // One that joins now trusts both, and one with an old token still joins.
    let token = mesh_core::token::JoinToken { pin: next.pin(), ..manager.worker_token().await };
    let new = Worker::join(&token, "n3").await;
    new.store.status().await.unwrap();
    Worker::join(&manager.worker_token().await, "n4").await.store.status().await.unwrap();
    // When it is over, only who has renewed is let in.
    let settled = files.authority().unwrap().unwrap().settle();
    assert_eq!(settled.roots_pem().matches("BEGIN").count(), 1);
    let own = files.read().unwrap();
    files
        .write(&NodeFiles { roots: settled.roots_pem(), authority: Some(settled.key_pem()), ..own })
        .unwrap();
    manager.tls.reload().unwrap();
    let fresh = |tls: &Arc<Tls>| GatewayStore::with_certificate(vec![manager.addr.clone()], Arc::clone(tls));
    fresh(&new.tls).status().await.unwrap();
    let why = fresh(&old.tls).status().await.unwrap_err().to_string();
    assert!(why.contains("does not trust the authority of this node's certificate"), "{why}");
}
