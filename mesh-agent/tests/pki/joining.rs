//! A token becomes a node's files, or one clear error and nothing.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use mesh_agent::control::now;
use mesh_agent::pki::{
    self, Files, JoinError, Peer, Subject, Tls, create_ca, new_request, new_serial, node_of,
};
use mesh_agent::store::Store;
use mesh_core::certificate::{LIFE, Validity};
use mesh_core::change::TokenTerms;
use mesh_core::model::{NodeId, Role};
use mesh_core::token::{JoinToken, TokenSecret};
use proptest::prelude::*;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::kit::{Manager, Worker, terms};

#[tokio::test]
async fn a_node_becomes_what_its_token_says() {
    let manager = Manager::start().await;
    let worker = manager.worker("n2").await;
    let me = worker.tls.me();
    assert_eq!((me.role, &me.node), (Role::Worker, &worker.joined.node));
    assert_eq!(me.cluster, manager.authority.cluster());
    assert_eq!(worker.joined.managers, [manager.addr.as_str(), "127.0.0.1:7300"]);
    assert_eq!(me.node.as_str().len(), 25);
    let mode = |name: &str| {
        let path = worker.dir.path().join("pki").join(name);
        std::fs::metadata(path).map(|meta| meta.permissions().mode() & 0o7777).ok()
    };
    assert_eq!(
        (mode(""), mode("node.key"), mode("node.pem"), mode("ca.pem")),
        (Some(0o700), Some(0o600), Some(0o644), Some(0o644))
    );
    assert_eq!((mode("ca.key"), mode("join.key"), mode("node.pem.new")), (None, None, None));

    let second = Worker::join(&manager.token(terms(Role::Manager)).await, "m2").await;
    assert_eq!(second.joined.role, Role::Manager);
    let files = Files::of(second.dir.path());
    assert_eq!(files.authority().unwrap().unwrap().pin(), manager.authority.pin(), "it can sign, too");
    assert!(Files::of(worker.dir.path()).authority().unwrap().is_none());
}

/// Joins with a token that is wrong; the error, after it is sure that nothing was changed.
async fn refused(manager: &Manager, token: &JoinToken, name: &str) -> JoinError {
    let before = manager.store.status().await.unwrap().rev;
    let dir = tempfile::tempdir().unwrap();
    let files = Files::of(dir.path());
    let error = pki::join(token, &name.parse().unwrap(), &files).await.unwrap_err();
    let left = std::fs::read_dir(files.dir()).map(|dir| dir.count()).unwrap_or(0);
    assert_eq!(left, 0, "no files are left: {error}");
    assert_eq!(manager.store.status().await.unwrap().rev, before, "no record is changed: {error}");
    let text = error.to_string();
    assert!(!text.contains(&token.secret.expose()), "{text}");
    error
}

#[tokio::test]
async fn what_is_wrong_is_told_and_nothing_is_changed() {
    let manager = Manager::start().await;
    let good = manager.worker_token().await;
    let told = |error: JoinError, expected: &[&str]| {
        let text = error.to_string();
        for expected in expected {
            assert!(text.contains(expected), "{text}\n  lacks\n{expected}");
        }
    };
    let wrong = JoinToken { secret: TokenSecret::from_random([3; 16]), ..good.clone() };
    told(
        refused(&manager, &wrong, "n2").await,
        &["refuses: the join token is not known here", "'mesh cluster token'"],
    );

    let once = manager.token(TokenTerms { uses: Some(1), ..terms(Role::Worker) }).await;
    Worker::join(&once, "n3").await;
    told(
        refused(&manager, &once, "n4").await,
        &["as many nodes as the join token is for have joined with it"],
    );

    let short = manager.token(TokenTerms { life: Some(Duration::from_secs(1)), ..terms(Role::Worker) }).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    told(refused(&manager, &short, "n4").await, &["the join token expired"]);

    told(refused(&manager, &good, "m1").await, &["a node named m1 is in the mesh already", "'mesh node rm'"]);

    let other = Manager::start().await;
    let misled = JoinToken { at: Some(other.addr.clone()), ..good.clone() };
    told(refused(&manager, &misled, "n2").await, &["not of the mesh that the join token is for"]);

    told(refused(&manager, &JoinToken { at: None, ..good.clone() }, "n2").await, &["HOST:PORT"]);
    let nobody = JoinToken { at: Some("127.0.0.1:1".to_owned()), ..good.clone() };
    told(refused(&manager, &nobody, "n2").await, &["127.0.0.1:1 cannot be asked", "refused"]);
}

#[tokio::test]
async fn a_node_joins_once() {
    let manager = Manager::start().await;
    let worker = manager.worker("n2").await;
    let files = Files::of(worker.dir.path());
    let again = pki::join(&manager.worker_token().await, &"n2".parse().unwrap(), &files).await.unwrap_err();
    assert!(
        again.to_string().contains("already part of a mesh") && again.to_string().contains("leave"),
        "{again}"
    );
    assert_eq!(Tls::open(files).unwrap().me(), worker.tls.me());
}

#[tokio::test]
async fn a_clock_that_is_far_off_is_told() {
    // The manager's clock is two days ahead when it makes the authority.
    let manager = Manager::since(now() + 2 * 86_400_000).await;
    let token = manager.worker_token().await;
    let error = refused(&manager, &token, "n2").await.to_string();
    assert!(error.contains("the mesh's authority begins 1 day from now by this machine's clock"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Whatever is sent as a certificate or a request: an answer, never a panic.
    #[test]
    fn what_is_damaged_is_read_or_refused(at in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..8), cut: usize) {
        let (request, _) = new_request().unwrap();
        let authority = create_ca("mesh1", now()).unwrap();
        let subject = Subject { node: NodeId::new("n1"), role: Role::Worker, addresses: Vec::new() };
        let validity = Validity::begin(now(), LIFE);
        let pem = authority.issue(&request, &subject, new_serial(), validity).unwrap();
        let mut der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
        for (place, byte) in &at {
            let place = place % der.len();
            der[place] = *byte;
        }
        let _ = Peer::read(&der);
        prop_assert!(Peer::read(&der[..cut % der.len()]).is_err(), "half a certificate is none");
        let mut text = request.into_bytes();
        for (place, byte) in &at {
            let place = place % text.len();
            text[place] = *byte;
        }
        let _ = node_of(&String::from_utf8_lossy(&text));
    }
}

#[test]
fn what_is_no_certificate_is_no_peer() {
    for der in [&b""[..], b"garbage", &[0x30, 0x82, 0xff, 0xff]] {
        assert!(Peer::read(der).is_err());
    }
}
