//! A node without a kernel: the real API on a real socket, over a store in memory. Every change is applied at
//! once, as far as the node's status tells.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mesh_agent::api::client::{Client, ClientError, Host};
use mesh_agent::api::types::{Changed, ErrorKind, Origin};
use mesh_agent::api::{self, ApiState};
use mesh_agent::cluster::{Cluster, Identity, Way};
use mesh_agent::control::Control;
use mesh_agent::dns::{DnsConfig, DnsServer};
use mesh_agent::status::{Status, StoreHealth};
use mesh_agent::store::{Batches, Store, StoreError, StoreStatus};
use mesh_agent::tasks::Tasks;
use mesh_core::change::{self, Me, NodeFacts, TaskRequest};
use mesh_core::kv::{KvState, LeaseId, Listing, Rev, Txn, TxnOutcome};
use mesh_core::model::{Live, NodeId, Snapshot, TaskState};
use mesh_core::records;
use mesh_core::replica::Replica;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The store, and the node's copy of it.
pub(crate) struct MemStore {
    parts: Mutex<(KvState, Replica)>,
    world: watch::Sender<Arc<Snapshot>>,
    status: watch::Sender<Arc<Status>>,
    /// Whether the store cannot be asked.
    pub(crate) away: AtomicBool,
}

impl MemStore {
    fn new() -> (Arc<Self>, watch::Receiver<Arc<Snapshot>>, watch::Receiver<Arc<Status>>) {
        let mut replica = Replica::default();
        let empty = Listing { cluster: "test".to_owned(), rev: Rev(0), kvs: Vec::new() };
        replica.resync(empty, false).unwrap();
        let (world, worlds) = watch::channel(Arc::new(Snapshot::default()));
        let (status, statuses) = watch::channel(Arc::new(Status::default()));
        let parts = Mutex::new((KvState::default(), replica));
        (Arc::new(Self { parts, world, status, away: AtomicBool::new(false) }), worlds, statuses)
    }

    /// Changes what the node says of itself.
    pub(crate) fn say(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(|status| change(Arc::make_mut(status)));
    }
}

#[async_trait]
impl Store for MemStore {
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let parts = self.parts.lock().unwrap();
        let kvs = parts.0.range(prefix).cloned().collect();
        Ok(Listing { cluster: "test".to_owned(), rev: parts.0.rev(), kvs })
    }

    async fn watch(&self, _prefix: &str, _after: Rev) -> Result<Batches, StoreError> {
        Ok(Box::pin(futures_util::stream::pending()))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable { at: "memory".to_owned(), why: "it is away".to_owned() });
        }
        let mut parts = self.parts.lock().unwrap();
        let (state, replica) = &mut *parts;
        let batch = match state.prepare(&txn)? {
            Ok(batch) => batch,
            Err(found) => return Ok(TxnOutcome::Conflict { rev: state.rev(), found }),
        };
        let rev = batch.rev;
        state.install(batch.clone());
        replica.apply(batch);
        let world = Arc::new(replica.world().clone());
        self.say(|status| {
            status.store = StoreHealth {
                connected: true,
                engine: "memory".to_owned(),
                cluster: "test".to_owned(),
                rev,
                problem: None,
            };
            (status.planned, status.applied) = (rev, world.changed);
        });
        self.world.send_replace(world);
        Ok(TxnOutcome::Committed { rev })
    }

    async fn lease(&self, _ttl: Duration) -> Result<LeaseId, StoreError> {
        Ok(LeaseId(1))
    }

    async fn keep_alive(&self, _lease: LeaseId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let rev = self.parts.lock().unwrap().0.rev();
        Ok(StoreStatus {
            cluster: "test".to_owned(),
            rev,
            engine: "memory".to_owned(),
            size: 0,
            problem: None,
        })
    }
}

/// One node, its API, and what is needed to look at both.
pub(crate) struct Mesh {
    pub(crate) client: Client,
    pub(crate) control: Control,
    pub(crate) store: Arc<MemStore>,
    pub(crate) socket: PathBuf,
    /// Where the web page is.
    pub(crate) web: std::net::SocketAddr,
    /// What the command line is told to talk to.
    pub(crate) host: String,
    directory: TempDir,
    _stop: DropGuard,
}

impl Mesh {
    /// A mesh of one node, n1.
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("mesh.sock");
        let (store, world, status) = MemStore::new();
        let id = NodeId::new("node0000000000000000000n1");
        let control = Control::new(id.clone(), Arc::clone(&store) as Arc<dyn Store>, world, status);
        let (_, me) = watch::channel(Some(Me { id: id.clone(), epoch: 1 }));
        let tasks = Tasks::new(
            control.clone(),
            me,
            Duration::from_secs(5),
            mesh_agent::liveness::Bell::new().unwrap(),
        );
        let stop = CancellationToken::new();
        let listener = api::bind(&socket, None).unwrap();
        let identity = Identity {
            name: "n1".parse().unwrap(),
            address: [192, 0, 2, 1].into(),
            state_dir: directory.path().join("state"),
            messenger: None,
            terms: mesh_agent::cluster::Terms {
                certificates: Duration::from_hours(24),
                member_certificates: Duration::from_hours(24),
                quota: 1 << 30,
            },
        };
        let cluster = Cluster::new(control.clone(), identity, None, Way::Alone(None));
        let (_, masks) = watch::channel(Default::default());
        let (past, keep) = mesh_agent::events::record(id.clone(), control.worlds(), masks);
        let state = ApiState {
            control: control.clone(),
            tasks,
            view: None,
            cluster,
            tls: None,
            messenger: None,
            heard: Default::default(),
            past,
            histories: Default::default(),
            dns: DnsServer::new(DnsConfig::default(), Arc::default()).unwrap(),
            times: Arc::default(),
            logs: directory.path().join("logs"),
            stage: api::Stage::default(),
        };
        TaskTracker::new().spawn(state.stage.clone().run(state.clone(), stop.clone()));
        TaskTracker::new().spawn(keep);
        let page = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let web = page.local_addr().unwrap();
        TaskTracker::new().spawn(api::serve_web(page, state.clone(), stop.clone()));
        TaskTracker::new().spawn(api::serve(listener, state, stop.clone()));
        let host = format!("unix://{}", socket.display());
        let client = Client::new(host.parse::<Host>().unwrap());
        let mesh = Self { client, control, store, socket, web, host, directory, _stop: stop.drop_guard() };
        mesh.join(id.as_str(), "n1", "192.0.2.1").await;
        mesh.live(id.as_str(), 0, &[]).await;
        mesh
    }

    /// With network `app` (10.7.0.0/16) and service `web`, published on 8080.
    pub(crate) async fn with_web() -> Self {
        let mesh = Self::start().await;
        mesh.post("/v1/networks", json!({"Name": "app", "IPAM": {"Config": [{"Subnet": "10.7.0.0/16"}]}}))
            .await;
        let ports = json!([{"TargetPort": 80, "PublishedPort": 8080}]);
        let web = json!({"Name": "web", "Networks": [{"Target": "app"}], "EndpointSpec": {"Ports": ports}});
        mesh.post("/v1/services", web).await;
        mesh
    }

    pub(crate) async fn join(&self, id: &str, name: &str, address: &str) {
        let facts = NodeFacts {
            name: name.parse().unwrap(),
            address: address.parse().unwrap(),
            vxlan_port: 4789,
            boot: "boot".to_owned(),
            key: String::new(),
            reflects: false,
            uplink_mtu: 1500,
            listeners: Default::default(),
            routes: Default::default(),
            version: "0.0.0".to_owned(),
        };
        let id = NodeId::new(id);
        self.control.change(|world, fresh| change::join(world, &id, facts.clone(), fresh)).await.unwrap();
    }

    /// A node's sign of life.
    pub(crate) async fn live(&self, id: &str, applied: u64, problems: &[&str]) {
        let problems = problems.iter().map(|problem| (*problem).to_owned()).collect();
        let live = Live { epoch: 1, applied: Rev(applied), problems, ..Live::default() };
        let mut txn = Txn::default();
        txn.put(records::live(&NodeId::new(id)), records::to_json(&live));
        self.store.txn(txn).await.unwrap();
    }

    /// A running task of `web`, as its record alone: a namespace of its own would need root.
    pub(crate) async fn task(&self) -> Changed {
        self.task_in(origin()).await
    }

    /// One that lives elsewhere.
    pub(crate) async fn task_in(&self, origin: Value) -> Changed {
        let me = Me { id: self.control.node().clone(), epoch: 1 };
        let origin: Origin = serde_json::from_value(origin).unwrap();
        let request = TaskRequest {
            dns: Vec::new(),
            packets_only: false,
            service: Some("web".to_owned()),
            name: None,
            networks: Vec::new(),
            origin: origin.try_into().unwrap(),
            weight: 1,
            state: TaskState::Running,
            slot: None,
            program: None,
        };
        let made =
            self.control.change(|world, fresh| change::add_task(world, &me, request.clone(), fresh)).await;
        let made = made.unwrap();
        let name = self.control.world().task_name(&made.result);
        Changed { id: made.result.id.to_string(), name, revision: made.rev.0 }
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.client.get(path).await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Changed {
        self.client.post(path, &body).await.unwrap()
    }

    /// The command line's answer.
    pub(crate) async fn mesh(&self, args: &[&str]) -> Output {
        mesh(&self.host, args).await
    }

    /// What a command that succeeds prints.
    pub(crate) async fn stdout(&self, args: &[&str]) -> String {
        let output = self.mesh(args).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command that is refused says, and its exit code.
    pub(crate) async fn refused(&self, args: &[&str]) -> (String, i32) {
        let output = self.mesh(args).await;
        assert!(!output.status.success(), "{args:?}: {output:?}");
        (String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
    }
}

/// Runs the real program.
pub(crate) async fn mesh(host: &str, args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mesh"));
    command.args(args).env("MESH_HOST", host).stdin(std::process::Stdio::null()).output().await.unwrap()
}

/// Where this process lives.
pub(crate) fn origin() -> Value {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    json!({"Pid": std::process::id(), "StartTime": start})
}

/// What a refusal says, and what kind it is.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (String, ErrorKind) {
    match result {
        Err(ClientError::Refused { message, kind }) => (message, kind),
        other => panic!("not refused: {other:?}"),
    }
}
