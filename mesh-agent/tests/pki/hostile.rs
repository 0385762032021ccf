//! Whoever comes with something else than a good certificate, and whatever they send.

use std::sync::Arc;
use std::time::Duration;

use mesh_agent::control::now;
use mesh_agent::pki::{Admission, Files, NodeFiles, PORT, Subject, Tls, create_ca, new_request, new_serial};
use mesh_agent::store::gateway::{GatewayStore, Secret, serve};
use mesh_agent::store::{Store, StoreError};
use mesh_core::certificate::{LIFE, Validity};
use mesh_core::model::{NodeId, Role};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::kit::{Manager, SOON, Worker, listen};

/// Files of a node that a manager never heard of, with a certificate as it is told.
fn forged(manager: &Manager, role: Role, validity: Validity) -> (Arc<Tls>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::of(dir.path());
    let (request, key) = new_request().unwrap();
    let subject = Subject { node: NodeId::new("forged1"), role, addresses: Vec::new() };
    let certificate = manager.authority.issue(&request, &subject, new_serial(), validity).unwrap();
    files
        .write(&NodeFiles { roots: manager.authority.roots_pem(), certificate, key, authority: None })
        .unwrap();
    (Arc::new(Tls::open(files).unwrap()), dir)
}

/// A client that trusts everybody and shows nothing.
async fn anonymous(addr: &str) -> impl AsyncRead + AsyncWrite + Unpin {
    #[derive(Debug)]
    struct Trusting(Arc<rustls::crypto::CryptoProvider>);
    impl rustls::client::danger::ServerCertVerifier for Trusting {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting(provider)))
        .with_no_client_auth();
    let stream = TcpStream::connect(addr).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("any").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// Sends a request as it is, and reads all of the answer.
async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    body: &str,
) -> String {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an answer, or the end");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_certificate_there_is_only_the_authority_and_joining() {
    let manager = Manager::start().await;
    let before = manager.store.status().await.unwrap().rev;
    for (method, path) in [
        ("GET", "/store/v1/list?prefix="),
        ("GET", "/store/v1/watch?prefix=&after=0"),
        ("GET", "/store/v1/status"),
        ("POST", "/store/v1/txn"),
        ("POST", "/store/v1/lease"),
    ] {
        let answer = ask(anonymous(&manager.addr).await, method, path, "{}").await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
        assert!(answer.contains("only nodes with a certificate of this mesh"), "{answer}");
    }
    let answer = ask(anonymous(&manager.addr).await, "POST", "/cluster/v1/renew", "{}").await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("join with a token"), "{answer}");
    let answer = ask(anonymous(&manager.addr).await, "GET", "/cluster/v1/ca", "").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("BEGIN CERTIFICATE"), "{answer}");
    assert!(!answer.contains("PRIVATE"), "{answer}");
    assert_eq!(manager.store.status().await.unwrap().rev, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_to_join_with_changes_nothing() {
    let manager = Manager::start().await;
    let secret = manager.worker_token().await.secret.expose();
    let before = manager.store.status().await.unwrap().rev;
    let (csr, _) = new_request().unwrap();
    let rsa = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
    // What is signed is not the key that the request says.
    let mut broken = csr.clone().into_bytes();
    let place = broken.len() - 60;
    broken[place] = if broken[place] == b'A' { b'B' } else { b'A' };
    let broken = String::from_utf8(broken).unwrap();
    for (body, expected) in [
        (
            json!({"secret": secret, "name": "n2", "csr": "x".repeat(9 << 10)}).to_string(),
            "longer than 8 KiB",
        ),
        (json!({"secret": secret, "name": "n2", "csr": "x".repeat(20 << 10)}).to_string(), "413"),
        (json!({"secret": secret, "name": "n2", "csr": rsa}).to_string(), "the signing request"),
        (json!({"secret": secret, "name": "n2", "csr": broken}).to_string(), "the signing request"),
        (json!({"secret": secret, "name": "N 2", "csr": csr}).to_string(), "invalid name"),
        (json!({"secret": "short", "name": "n2", "csr": csr}).to_string(), "secret is damaged"),
        ("{}".to_owned(), "422"),
        ("garbage".to_owned(), "422"),
    ] {
        let answer = ask(anonymous(&manager.addr).await, "POST", "/cluster/v1/join", &body).await;
        assert!(answer.contains(expected), "{answer}\n  lacks\n{expected}");
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(manager.store.status().await.unwrap().rev, before, "nothing was changed");
}

/// What a client is told whose certificate the server does not take.
async fn refusal(store: &GatewayStore) -> String {
    let error = tokio::time::timeout(SOON, store.status()).await.unwrap().unwrap_err();
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_mesh_is_none() {
    let (manager, other) = (Manager::start().await, Manager::start().await);
    let worker = other.worker("n2").await;
    let store = GatewayStore::with_certificate(vec![manager.addr.clone()], Arc::clone(&worker.tls));
    let why = refusal(&store).await;
    assert!(why.contains("it has a certificate of another authority than this node trusts"), "{why}");
    // One that trusts this mesh and yet has a certificate of the other one gets no further.
    let dir = tempfile::tempdir().unwrap();
    let files = Files::of(dir.path());
    let mut mixed = Files::of(worker.dir.path()).read().unwrap();
    mixed.roots = manager.authority.roots_pem();
    // Made up to be of this mesh, by an authority that has the same name for it.
    let forger = create_ca(manager.authority.cluster(), now()).unwrap();
    let (request, key) = new_request().unwrap();
    let subject = Subject { node: NodeId::new("manager1"), role: Role::Manager, addresses: Vec::new() };
    mixed.certificate = forger.issue(&request, &subject, new_serial(), Validity::begin(now(), LIFE)).unwrap();
    mixed.key = key;
    files.write(&mixed).unwrap();
    let tls = Arc::new(Tls::open(files).unwrap());
    let store = GatewayStore::with_certificate(vec![manager.addr.clone()], tls);
    let why = refusal(&store).await;
    assert!(why.contains("it does not trust the authority of this node's certificate"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_have_ended_or_not_begun_are_none() {
    let manager = Manager::start().await;
    let day = 86_400_000;
    for (validity, expected) in [
        (
            Validity { from: now() - 40 * day, until: now() - 10 * day },
            "the certificate of this node ended 10 days ago",
        ),
        (
            Validity { from: now() + 2 * day, until: now() + 30 * day },
            "the certificate of this node begins 1 day from now",
        ),
    ] {
        let (tls, _dir) = forged(&manager, Role::Worker, validity);
        let store = GatewayStore::with_certificate(vec![manager.addr.clone()], Arc::clone(&tls));
        let why = refusal(&store).await;
        assert!(why.contains(expected), "{why}");
        // And a manager with it convinces nobody.
        let (tls, _dir) = forged(&manager, Role::Manager, validity);
        let admission = Admission::new(tls, manager.follower.control.clone(), PORT, LIFE);
        let (addr, _stop) = listen(Arc::clone(&manager.store) as _, admission).await;
        let worker = manager.worker(if validity.from < now() { "n2" } else { "n3" }).await;
        let why = refusal(&GatewayStore::with_certificate(vec![addr], worker.tls)).await;
        assert!(why.contains("of node forged1") && why.contains("by this machine's clock"), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_poses_as_a_manager_is_seen_through() {
    let manager = Manager::start().await;
    let (bad, good) = (manager.worker("bad").await, manager.worker("good").await);
    let admission = Admission::new(Arc::clone(&bad.tls), manager.follower.control.clone(), PORT, LIFE);
    let (addr, _stop) = listen(Arc::clone(&manager.store) as _, admission).await;
    let store = GatewayStore::with_certificate(vec![addr.clone()], Arc::clone(&good.tls));
    let why = refusal(&store).await;
    assert!(why.contains("is a worker, no manager"), "{why}");
    // Who joins there tells it no secret.
    let mut token = manager.worker_token().await;
    token.at = Some(addr);
    let dir = tempfile::tempdir().unwrap();
    let files = Files::of(dir.path());
    let why = mesh_agent::pki::join(&token, &"n9".parse().unwrap(), &files).await.unwrap_err().to_string();
    assert!(why.contains("is a worker, no manager"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_text_and_garbage_get_no_answer_and_harm_nobody() {
    let manager = Manager::start().await;
    let worker = manager.worker("n2").await;
    for bytes in [
        &b"GET /store/v1/list?prefix= HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0x16, 3, 1, 0xff, 0xff, 1],
        &[0; 4096],
    ] {
        let mut stream = TcpStream::connect(&manager.addr).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ =
            tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the connection ends");
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
    }
    // Who says nothing holds up nobody.
    let _silent: Vec<_> =
        futures_util::future::join_all((0..20).map(|_| TcpStream::connect(&manager.addr))).await;
    tokio::time::timeout(Duration::from_secs(5), worker.store.status()).await.unwrap().unwrap();
    // The other way round: a node with certificates at a gateway without.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let plain = serve(Arc::clone(&manager.store) as _, listener, Secret::new("t").unwrap(), stop.clone());
    TaskTracker::new().spawn(plain);
    let why = refusal(&GatewayStore::with_certificate(vec![addr], worker.tls)).await;
    assert!(why.contains("it does not speak TLS"), "{why}");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_do_not_fit_together_are_told() {
    let manager = Manager::start().await;
    let (one, two) = (manager.worker("n2").await, manager.worker("n3").await);
    let dir = one.dir.path().join("pki");
    let key = std::fs::read(two.dir.path().join("pki/node.key")).unwrap();
    std::fs::write(dir.join("node.key"), key).unwrap();
    let why = Tls::open(Files::of(one.dir.path())).unwrap_err().to_string();
    assert!(why.contains("node.key is not the key of this certificate"), "{why}");
    assert!(one.tls.reload().is_err());
    one.store.status().await.expect("what was taken up before goes on");
    for (name, expected) in
        [("ca.pem", "holds no certificate"), ("node.pem", "there is no certificate in it")]
    {
        let worker = Worker::join(&manager.worker_token().await, &format!("x{}", name.len())).await;
        std::fs::write(worker.dir.path().join("pki").join(name), "").unwrap();
        let why = Tls::open(Files::of(worker.dir.path())).unwrap_err().to_string();
        assert!(why.contains(expected), "{why}");
    }
    use std::os::unix::fs::PermissionsExt;
    let exposed = two.dir.path().join("pki/node.key");
    std::fs::set_permissions(&exposed, PermissionsExt::from_mode(0o644)).unwrap();
    let why = Tls::open(Files::of(two.dir.path())).unwrap_err().to_string();
    assert!(why.contains("chmod 0600"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_node_with_a_good_certificate_is_what_it_says() {
    let manager = Manager::start().await;
    let (tls, _dir) = forged(&manager, Role::Worker, Validity::begin(now(), LIFE));
    let store = GatewayStore::with_certificate(vec![manager.addr.clone()], tls);
    store.status().await.unwrap();
    let mut txn = mesh_core::kv::Txn::default();
    txn.put("svc/x", "{}");
    let refused = store.txn(txn).await.unwrap_err();
    assert!(matches!(refused, StoreError::Denied { .. }), "{refused}");
}
