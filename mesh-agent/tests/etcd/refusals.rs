//! **Effect.** What is behind the endpoints is not what it should be: one clear error, and nothing is changed.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{AlarmAction, AlarmType};
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{HeaderMap, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_agent::store::conformance::{commit, end_of, put};
use mesh_agent::store::etcd::{EtcdOptions, EtcdStore, Known, TlsFiles};
use mesh_agent::store::{Store, StoreError, WatchEnd};
use mesh_core::kv::Rev;
use mesh_tests::{Etcd, EtcdTls};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::subject::{InEtcd, options, store};

/// What all ways to use a store say, which must be the same: that it is refused, and why.
async fn denied(store: &EtcdStore, why: &str) {
    let told = [
        store.status().await.map(drop).unwrap_err(),
        store.list("").await.map(drop).unwrap_err(),
        store.txn(put("k", "1")).await.map(drop).unwrap_err(),
        store.watch("", Rev(0)).await.map(drop).unwrap_err(),
        store.lease(Duration::from_secs(5)).await.map(drop).unwrap_err(),
    ];
    for error in told {
        assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
        assert!(error.to_string().contains(why), "{error}\n  lacks\n{why}");
    }
}

/// What etcd holds, as etcdctl shows it.
fn content(etcd: &Etcd) -> String {
    etcd.ctl(["get", "", "--prefix"]).unwrap()
}

#[tokio::test]
async fn what_is_no_mesh_is_left_alone() {
    let etcd = Etcd::on_loopback(1).unwrap();
    etcd.ctl(["put", "/mesh/foo", "someone's"]).unwrap();
    let before = content(&etcd);
    denied(&store(&etcd), "1 keys begin with /mesh/").await;
    assert_eq!(content(&etcd), before);
    etcd.ctl(["put", "/mesh/meta/cluster", "gibberish"]).unwrap();
    denied(&store(&etcd), "/mesh/meta/cluster does not say which mesh this is").await;
    let newer = r#"{"format":9,"mesh":"m","etcd":"e"}"#;
    etcd.ctl(["put", "/mesh/meta/cluster", newer]).unwrap();
    denied(&store(&etcd), "written by a newer version (format 9); upgrade this agent").await;
    let beside = EtcdStore::new(EtcdOptions { prefix: "/other/".to_owned(), ..options(&etcd.urls()) });
    commit(&beside, put("k", "1")).await;
    assert_eq!(beside.list("").await.unwrap().kvs.len(), 1, "another prefix is another mesh");
}

/// The etcd was thrown away and made anew behind the same address.
#[tokio::test]
async fn an_empty_etcd_is_not_the_mesh_that_a_node_belongs_to() {
    let mut subject = InEtcd::fresh();
    commit(&*subject.store, put("k", "1")).await;
    let mesh = subject.store.status().await.unwrap().cluster;
    subject.etcd.kill().unwrap();
    subject.etcd.wipe().unwrap();
    subject.etcd.start().unwrap();
    let why = format!("this node belongs to the mesh {mesh}");
    denied(&subject.store, &why).await;
    let known = Known { cluster: Some(mesh), rev: Rev(2), ..Known::default() };
    denied(&EtcdStore::new(EtcdOptions { known, ..options(&subject.etcd.urls()) }), &why).await;
    assert_eq!(content(&subject.etcd), "");
}

/// Another mesh is behind the address: whoever lists sees it, and nothing is written there.
#[tokio::test]
async fn another_mesh_is_not_written_to() {
    let mut subject = InEtcd::fresh();
    commit(&*subject.store, put("k", "1")).await;
    let ours = subject.store.status().await.unwrap().cluster;
    subject.etcd.kill().unwrap();
    subject.etcd.wipe().unwrap();
    subject.etcd.start().unwrap();
    let other = store(&subject.etcd);
    commit(&other, put("k", "theirs")).await;
    let before = content(&subject.etcd);

    let store = &subject.store;
    let status = store.status().await.unwrap();
    assert_ne!(status.cluster, ours);
    assert_eq!(store.list("").await.unwrap().cluster, status.cluster);
    assert_eq!(end_of(&mut store.watch("", Rev(0)).await.unwrap()).await, WatchEnd::WrongCluster);
    let refused = store.txn(put("k", "ours")).await.unwrap_err();
    let why =
        format!("it holds the mesh {}, and this node belongs to {ours}; nothing was done", status.cluster);
    assert!(matches!(&refused, StoreError::Denied { why: told, .. } if *told == why), "{refused}");
    assert!(store.lease(Duration::from_secs(5)).await.is_err());
    assert_eq!(content(&subject.etcd), before);
}

/// An old backup was restored: it is seen, and nothing is written until somebody says that it is meant.
#[tokio::test]
async fn a_restored_backup_is_not_gone_on_with() {
    let mut subject = InEtcd::fresh();
    let old = commit(&*subject.store, put("k", "1")).await;
    let backup = subject.etcd.members()[0].data().with_extension("backup");
    let backup = backup.to_str().unwrap();
    subject.etcd.ctl(["snapshot", "save", backup]).unwrap();
    for n in 2..10 {
        commit(&*subject.store, put("k", &n.to_string())).await;
    }
    let seen = subject.store.status().await.unwrap();
    let known = Known { cluster: Some(seen.cluster.clone()), rev: seen.rev, ..Known::default() };

    subject.etcd.restore(backup, false).unwrap();
    let before = content(&subject.etcd);
    let fresh = EtcdStore::new(EtcdOptions { known: known.clone(), ..options(&subject.etcd.urls()) });
    for store in [&*subject.store, &fresh] {
        let status = store.status().await.unwrap();
        assert_eq!((status.rev, &status.cluster), (old, &seen.cluster), "whoever looks sees it");
        assert_eq!(end_of(&mut store.watch("", seen.rev).await.unwrap()).await, WatchEnd::WentBack(old));
        let refused = store.txn(put("k", "new")).await.unwrap_err().to_string();
        let why = format!("its history went back from revision {} to {old}", seen.rev);
        assert!(refused.contains(&why) && refused.contains("--accept-deletions"), "{refused}");
    }
    assert_eq!(content(&subject.etcd), before);
    let meant = Known { rev: Rev(0), ..known.clone() };
    commit(&EtcdStore::new(EtcdOptions { known: meant, ..options(&subject.etcd.urls()) }), put("k", "new"))
        .await;

    // Into another cluster: a copy, of which there may be two.
    subject.etcd.restore(backup, true).unwrap();
    let before = content(&subject.etcd);
    let meant = Known { rev: Rev(0), ..known };
    let store = EtcdStore::new(EtcdOptions { known: meant, ..options(&subject.etcd.urls()) });
    denied(&store, "are a copy: they were written into etcd cluster").await;
    assert_eq!(content(&subject.etcd), before);
    // What the error says to do, when that is meant.
    let told = store.status().await.unwrap_err().to_string();
    let command = told.split("etcdctl put ").nth(1).unwrap().trim_end_matches(')');
    let (key, value) = command.split_once(" '").unwrap();
    subject.etcd.ctl(["put", key, value.trim_end_matches('\'')]).unwrap();
    commit(&store, put("k", "new")).await;
}

/// Users of etcd: who may not, is told what to do.
#[tokio::test]
async fn users_are_told_what_they_lack() {
    let etcd = Etcd::on_loopback(1).unwrap();
    for command in [
        "role add mesh",
        "role grant-permission mesh --prefix=true readwrite /mesh/",
        "user add root:secret",
        "user add mesh:secret",
        "user add other:secret",
        "user grant-role root root",
        "user grant-role mesh mesh",
        "auth enable",
    ] {
        etcd.ctl(command.split(' ')).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let as_user = |user: &str, password: &str| {
        let file = dir.path().join(format!("{user}-{password}"));
        private(&file, password);
        EtcdStore::new(EtcdOptions { user: Some((user.to_owned(), file)), ..options(&etcd.urls()) })
    };
    denied(&store(&etcd), "store.user").await;
    denied(&as_user("mesh", "wrong"), "user or password is wrong").await;
    denied(&as_user("other", "secret"), "grant its role readwrite on store.prefix").await;
    let store = as_user("mesh", "secret");
    let rev = commit(&store, put("k", "1")).await;
    let mut watch = store.watch("", Rev(rev.0 - 1)).await.unwrap();
    assert_eq!(mesh_agent::store::conformance::next_events(&mut watch).await.rev, rev);
    let open = dir.path().join("open");
    std::fs::write(&open, "secret").unwrap();
    let exposed = EtcdOptions { user: Some(("mesh".to_owned(), open)), ..options(&etcd.urls()) };
    denied(&EtcdStore::new(exposed), "chmod 0600").await;
}

/// A full etcd takes no more, and everybody is told what to do.
#[tokio::test]
async fn a_full_etcd_says_so() {
    let subject = InEtcd::fresh();
    let rev = commit(&*subject.store, put("k", "1")).await;
    let mut client = etcd_client::Client::connect(subject.etcd.urls(), None).await.unwrap();
    client.alarm(AlarmAction::Activate, AlarmType::Nospace, None).await.unwrap();
    let full = |text: &str| assert!(text.contains("NOSPACE") && text.contains("alarm disarm"), "{text}");
    full(&subject.store.txn(put("k", "2")).await.unwrap_err().to_string());
    full(&store(&subject.etcd).txn(put("k", "2")).await.unwrap_err().to_string());
    full(&subject.store.status().await.unwrap().problem.unwrap());
    assert_eq!(subject.store.list("").await.unwrap().rev, rev, "it can be read");
    subject.etcd.ctl(["alarm", "disarm"]).unwrap();
    assert_eq!(subject.store.status().await.unwrap().problem, None);
    commit(&*subject.store, put("k", "3")).await;
}

/// A file that only its owner may read.
fn private(path: &Path, content: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

/// An authority and a certificate that it signed, for any address of loopback that tests use; as files of a name.
fn certificates(dir: &Path, name: &str, addresses: &[&str]) -> (TlsFiles, EtcdTls) {
    let file = |kind: &str| dir.join(format!("{name}.{kind}"));
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    private(&file("ca"), &ca.self_signed(&ca_key).unwrap().pem());
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    private(&file("cert"), &certificate.pem());
    private(&file("key"), &key.serialize_pem());
    let tls = EtcdTls { ca: file("ca"), cert: file("cert"), key: file("key") };
    (TlsFiles { ca: file("ca"), own: Some((file("cert"), file("key"))) }, tls)
}

#[tokio::test]
async fn tls_shows_who_is_who_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let (_, other) = certificates(dir.path(), "other", &["localhost"]);
    let address = Etcd::next_loopback().to_string();
    let (files, tls) = certificates(dir.path(), "ours", &[&address]);
    let etcd = Etcd::on_loopback_with(address.parse().unwrap(), tls).unwrap();
    let with = |tls: TlsFiles| EtcdStore::new(EtcdOptions { tls: Some(tls), ..options(&etcd.urls()) });
    let ours = with(files.clone());
    let rev = commit(&ours, put("k", "1")).await;
    assert_eq!(ours.list("").await.unwrap().rev, rev);

    let stranger = with(TlsFiles { ca: other.ca.clone(), ..files.clone() }).status().await.unwrap_err();
    assert!(stranger.to_string().contains("certificate"), "{stranger}");
    let nobody = with(TlsFiles { own: None, ..files.clone() }).status().await.unwrap_err();
    assert!(matches!(nobody, StoreError::Unavailable { .. }), "{nobody}");
    let missing = with(TlsFiles { ca: dir.path().join("none"), ..files.clone() }).status().await.unwrap_err();
    assert!(missing.to_string().contains("cannot read") && missing.to_string().contains("none"), "{missing}");
    std::fs::write(dir.path().join("garbage"), "garbage").unwrap();
    let garbage = with(TlsFiles { ca: dir.path().join("garbage"), ..files }).status().await.unwrap_err();
    assert!(matches!(garbage, StoreError::Denied { .. } | StoreError::Unavailable { .. }), "{garbage}");
    let plain = options(&[etcd.urls()[0].replace("https", "http")]);
    let plain = EtcdStore::new(plain).status().await.unwrap_err();
    assert!(matches!(plain, StoreError::Unavailable { .. }), "{plain}");
}

/// A server of gRPC that answers every question as a member of etcd of some version answers `Status`.
async fn pretender(version: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    TaskTracker::new().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer =
                service_fn(move |_| async move { Ok::<_, std::convert::Infallible>(status(version)) });
            let connection = http2::Builder::new(TokioExecutor::new());
            TaskTracker::new().spawn(connection.serve_connection(TokioIo::new(stream), answer));
        }
    });
    address
}

type Frames = stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, std::convert::Infallible>>>;

fn status(version: &str) -> Response<StreamBody<Frames>> {
    // Field 2, a string: the version. Before it gRPC's frame: not compressed, so many bytes.
    let mut message = vec![0, 0, 0, 0, version.len() as u8 + 2, 0x12, version.len() as u8];
    message.extend(version.as_bytes());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let frames = vec![Ok(Frame::data(Bytes::from(message))), Ok(Frame::trailers(trailers))];
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(StreamBody::new(stream::iter(frames))).unwrap()
}

#[tokio::test]
async fn other_versions_are_refused() {
    for (version, why) in [
        ("3.3.27", "etcd 3.3.27 is too old: upgrade it to 3.4 or later"),
        ("3.5.1", "etcd 3.5.1 may lose data when it crashes: upgrade it to 3.5.3 or later"),
        ("4.0.0", "etcd 4.0.0 is newer than this agent knows"),
        ("", "which etcd never was"),
    ] {
        let url = format!("http://{}", pretender(version).await);
        denied(&EtcdStore::new(options(&[url])), why).await;
    }
}

/// A member that is no good does not stand in the way of the others.
#[tokio::test]
async fn one_bad_endpoint_does_no_harm() {
    let etcd = Etcd::on_loopback(1).unwrap();
    let old = format!("http://{}", pretender("3.3.27").await);
    let nobody = "http://127.0.0.1:9".to_owned();
    let store = EtcdStore::new(options(&[old, nobody, etcd.urls()[0].clone()]));
    commit(&store, put("k", "1")).await;
    assert_eq!(store.member().await.as_deref(), Some(&*etcd.urls()[0]));
}

/// Something else answers there.
#[tokio::test]
async fn what_is_no_etcd_is_said_to_be_none() {
    use tokio::io::AsyncWriteExt;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    TaskTracker::new().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    let error = EtcdStore::new(options(std::slice::from_ref(&url))).status().await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable { at, .. } if *at == url), "{error}");
}
