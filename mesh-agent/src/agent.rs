//! **Effect.** The daemon: puts the parts together, and takes them apart again in order.
//!
//! Stopping it stops nothing in the kernel: rules, routes and tasks stay as they are.

mod cleanup;
mod join;
pub mod live;
mod lock;
mod log;
mod names;
mod privileges;

pub(crate) use lock::{node_id, take as take_node};

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use mesh_core::dns::Zone;
use mesh_core::etcd::GATEWAY_PORT;
use mesh_core::kv::Rev;
use mesh_core::model::{NodeId, Role, Snapshot};
use mesh_core::plan;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::attempts::{self, Attempts};
use crate::checks;
use crate::cluster::{self, Cluster, ClusterFile, Identity, Way};
use crate::config::{self, Config, StoreMode};
use crate::control::{Control, now};
use crate::dataplane::Dataplane;
use crate::dns::{DnsConfig, DnsServer};
use crate::facts::devices;
use crate::facts::sync::{self, Caution, Plans, SyncOptions};
use crate::handed::{self, Handed};
use crate::liveness::{self, Bell, Messenger, Voice};
use crate::overlay::OverlayPlane;
use crate::pki::renewal::{self, Source};
use crate::pki::{Admission, Files, Tls};
use crate::reconcile::Reconciler;
use crate::replicas::Replicas;
use crate::status::{Status, StoreHealth};
use crate::store::Store;
use crate::store::etcd::{EtcdStore, Known};
use crate::store::gate::Gate;
use crate::store::gateway::{self, Access, GatewayStore, Secret, SeveralGateways};
use crate::store::local::LocalStore;
use crate::store::timed::{TimedStore, Times};
use crate::tasks::Tasks;

/// `mesh agent`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AgentArgs {
    /// The configuration file [default: /etc/mesh/mesh.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one configuration key, over file and environment
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Show the mesh to browsers at this address (web.listen) [such as 127.0.0.1:7306]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub web: Option<String>,
    /// Print the default configuration file, with every key explained
    #[arg(long)]
    pub print_config: bool,
    /// Take over what the store says now, even if much of what was known is gone
    #[arg(long)]
    pub accept_deletions: bool,
    /// Remove all that the agent made on this node: devices, routes, rules, sockets. Tasks lose their network
    #[arg(long)]
    pub cleanup: bool,
    /// With --cleanup: remove the mesh's records and the node's identity, too
    #[arg(long, requires = "cleanup")]
    pub purge: bool,
}

/// Runs the agent until a signal ends it.
pub fn main(args: &AgentArgs) -> anyhow::Result<()> {
    if args.print_config {
        print!("{}", config::DEFAULT_FILE);
        return Ok(());
    }
    let mut set = args.set.clone();
    set.extend(args.web.iter().map(|listen| format!("web.listen={listen}")));
    let config = configuration(args.config.as_deref(), &set)?;
    if !nix::unistd::geteuid().is_root() {
        bail!("the agent must run as root: it makes devices, routes and rules");
    }
    privileges::drop_others().context("cannot give up what root may do and the agent need not")?;
    let handed = if args.cleanup {
        Vec::new()
    } else {
        log::start(&config.log)?;
        handed::take()
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    if args.cleanup {
        return runtime.block_on(cleanup::run(&config, args.purge));
    }
    attempts::remember_panics();
    let result = runtime.block_on(run(config, args.accept_deletions, handed));
    if let Err(error) = &result {
        error!("{error:#}");
    }
    // A blocking call that hangs must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(2));
    match result? {
        End::Stopped => Ok(()),
        // In the same process, so that whoever watches over it sees none end.
        End::Again(sockets) => handed::become_again(&sockets).context("cannot start the agent anew"),
    }
}

/// Why an agent ended.
#[derive(Debug)]
enum End {
    /// It was told to.
    Stopped,
    /// The node is something else from now on. Its tasks go on with these.
    Again(Vec<Handed>),
}

/// What is configured: by a file, by the environment, by flags.
pub(crate) fn configuration(file: Option<&Path>, set: &[String]) -> anyhow::Result<Config> {
    let (path, needed) = match file {
        Some(path) => (path, true),
        None => (Path::new(config::DEFAULT_PATH), false),
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !needed => None,
        Err(error) => bail!("cannot read the configuration file {}: {error}", path.display()),
    };
    Ok(Config::load(text.as_deref().map(|text| (path, text)), std::env::vars(), set)?)
}

async fn run(config: Config, accept_deletions: bool, handed: Vec<Handed>) -> anyhow::Result<End> {
    let lock = take_node(&config.node.run_dir)?;
    let id = node_id(&config.node.state_dir)?;
    let name = join::name(&config)?;
    let address = join::address(&config).await?;
    info!(node = %name, %id, %address, "mesh agent {} starts", env!("CARGO_PKG_VERSION"));

    raise_file_limit();
    let stop = CancellationToken::new();
    let parts = Parts { tracker: TaskTracker::new(), stop: stop.clone() };
    let cache = config.node.state_dir.join("cache");
    cluster::forget_former(&config.node.state_dir)?;
    let zone = Arc::new(ArcSwap::from_pointee(Zone::default()));
    let dns =
        DnsServer::new(dns_config(&config), Arc::clone(&zone)).context("cannot start the name server")?;
    let dns = dns.going_on_with(handed);
    names::go_on(&dns, &zone, cache.clone(), &id).await;
    let member = cluster_file(&config)?;
    let known = known(&cache, accept_deletions);
    let tls = match &member {
        Some(_) => Some(Arc::new(Tls::open(Files::of(&config.node.state_dir))?)),
        None => None,
    };
    let (store, way) = open_store(&config, member.as_ref().zip(tls.as_ref()), known, address).await?;
    let times = Arc::new(Times::default());
    let store: Arc<dyn Store> = Arc::new(TimedStore::new(store, Arc::clone(&times)));
    let engine = match &way {
        Way::Alone(_) => config.store.mode.name(),
        Way::Manager(_) => "managed",
        Way::Worker(_) => "gateway",
    };
    let janitor = matches!(way, Way::Alone(_)) && config.store.mode == StoreMode::Local;

    let (world_tx, world) = watch::channel(Arc::new(Snapshot::default()));
    let (health_tx, health) =
        watch::channel(StoreHealth { engine: engine.to_owned(), ..StoreHealth::default() });
    let silent = liveness::remembered(&config.node.state_dir);
    let (masks_tx, masks) = watch::channel(liveness::first(&silent));
    let unplanned = Status { silent: Arc::clone(&masks.borrow()), ..Status::default() };
    let (status_tx, status) = watch::channel(Arc::new(unplanned));
    parts.spawn(liveness::remember(config.node.state_dir.clone(), silent, masks.clone(), stop.clone()));
    let (me_tx, me) = watch::channel(None);
    let attempts = Attempts::open(config.node.run_dir.join("attempt"));
    let (complaints, complained) = watch::channel(None);
    let options = SyncOptions { accept_deletions };
    let caution = Caution::new(attempts.clone(), complained, plans(id.clone()));
    parts.spawn(sync::ripen(cache.clone(), stop.clone()));
    let synced =
        sync::run(Arc::clone(&store), Some(cache), options, caution, world_tx, health_tx, stop.clone());
    parts.spawn(synced);

    let messenger = messenger(&id, address, &world);
    let control = Control::new(id.clone(), Arc::clone(&store), world.clone(), status);
    let bell = Bell::new().context("cannot make an eventfd")?;
    let (ttl, referrals) = (Duration::from_secs(config.dns.ttl.into()), dns.referrals());
    let tasks = Tasks::new(control.clone(), me.clone(), ttl, bell.clone());
    let (past, keep) = crate::events::record(id.clone(), control.worlds(), masks.clone());
    let life = Duration::from_secs(config.cluster.certificate_life);
    let admission = tls.clone().map(|tls| Admission::new(tls, control.clone(), GATEWAY_PORT, life));
    let admission = admission.filter(|_| matches!(way, Way::Manager(_)));
    if let (Some(tls), Some(file)) = (&tls, &member) {
        let managers = file.managers.iter().map(SocketAddr::to_string).collect();
        let source = admission.clone().map_or(Source::Managers(managers, GATEWAY_PORT), Source::Own);
        parts.spawn(renewal::run(Arc::clone(tls), source, world.clone(), stop.clone()));
    }
    serve_store(&config, admission, address, &store, &parts, &stop).await?;
    let state_dir = config.node.state_dir.clone();
    let terms = cluster::Terms {
        certificates: life,
        member_certificates: Duration::from_secs(config.cluster.member_certificate_life),
        quota: config.cluster.quota << 20,
    };
    let identity = Identity { name: name.clone(), address, state_dir, messenger: messenger.clone(), terms };
    let cluster = Cluster::new(control.clone(), identity, member, way);
    parts.spawn(cluster.clone().run(stop.clone()));
    let mut balance = Dataplane::open(&config.dataplane, &config.node.cgroup).map_err(|error| {
        anyhow::anyhow!("{}; with dataplane.mode = \"nft\" it is not needed", error.in_full())
    })?;
    let view = balance.view();
    let boot = join::boot(&config)?;
    let reflector = balance.reflector();
    let reflects = reflector.is_some();
    if let Some(reflector) = reflector {
        parts.spawn(liveness::reflect(reflector, boot.clone(), me.clone(), stop.clone()));
    }
    let signs = balance.signs();
    let heard = liveness::Heard::default();
    if let Some(reader) = balance.reader() {
        parts.spawn(reader.run(stop.clone()));
    }
    let key = messenger.as_ref().map_or_else(String::new, |messenger| messenger.key());
    parts.spawn(liveness::run(
        id.clone(),
        address,
        world.clone(),
        masks_tx,
        Voice { messenger: messenger.clone(), bell },
        Arc::clone(&heard),
        stop.clone(),
    ));
    let mut overlay = OverlayPlane::new().context("cannot talk to the kernel's network (rtnetlink)")?;
    if let Some(guard) = balance.guard() {
        overlay = overlay.guarded(guard);
    }
    let (devices_tx, devices) = watch::channel(());
    parts.spawn(devices::run(devices_tx, stop.clone()));
    if config.dns.upstreams.is_empty() {
        parts.spawn(crate::dns::follow(dns.clone(), Path::new("/etc/resolv.conf"), stop.clone()));
    }
    let reconciler = Reconciler {
        node: id.clone(),
        world,
        masks,
        store: health.clone(),
        devices,
        overlay,
        balance,
        zone,
        in_step: false,
        dns: dns.clone(),
        status: status_tx,
        attempts: attempts.clone(),
        complaints,
        good: Arc::default(),
        sweep: Duration::from_secs(config.dataplane.sweep.max(1)),
        repair: Default::default(),
    };
    parts.spawn(reconciler.run(stop.clone()));
    parts.spawn(tasks.clone().run(stop.clone()));
    parts.spawn(tasks.clone().count(stop.clone()));
    let told = tasks.told();
    let logs = config.node.state_dir.join("logs");
    let replicas = Replicas {
        control: control.clone(),
        tasks: tasks.clone(),
        socket: config.socket(),
        logs: logs.clone(),
        janitor,
    };
    parts.spawn(replicas.run(stop.clone()));
    let histories = crate::health::Histories::default();
    parts.spawn(crate::health::run(control.clone(), tasks.clone(), histories.clone(), stop.clone()));
    parts.spawn(crate::passive::run(signs, control.clone(), tasks.clone(), stop.clone()));

    let socket = crate::api::bind(
        &config.socket(),
        Some(config.api.group.as_str()).filter(|group| !group.is_empty()),
    )?;
    parts.spawn(keep);
    let names = dns.clone();
    let api = crate::api::ApiState {
        control: control.clone(),
        tasks,
        view,
        cluster: cluster.clone(),
        tls: tls.clone(),
        messenger,
        heard,
        past,
        histories,
        dns,
        times,
        logs,
        stage: crate::api::Stage::default(),
    };
    parts.spawn(api.stage.clone().run(api.clone(), stop.clone()));
    if !config.web.listen.is_empty() {
        let listener = listen("web.listen", &config.web.listen).await?;
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            warn!(%address, "web.listen is no loopback address: whoever reaches it can read the web page");
        }
        parts.spawn(crate::api::serve_web(listener, api.clone(), stop.clone()));
    }
    if !config.metrics.listen.is_empty() {
        let listener = listen("metrics.listen", &config.metrics.listen).await?;
        parts.spawn(crate::api::serve_metrics(listener, api.clone(), stop.clone()));
    }
    parts.spawn(crate::api::serve(socket, api, stop.clone()));

    if !config.checks.listen.is_empty() {
        let listener = listen("checks.listen", &config.checks.listen).await?;
        parts.spawn(checks::serve(listener, control.clone(), stop.clone()));
    }
    let place = join::Place { name, address, key, boot, reflects };
    let joined = join::run(config.clone(), place, control.clone(), health, me_tx, stop.clone());
    let mut joined = parts.spawn(joined);
    parts.spawn(live::run(control, store, me, (told, referrals), janitor, tls, stop.clone()));
    // Under a supervisor that waits for it: the API answers from now on. Nobody waiting is no error.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let ended = tokio::select! {
        signal = signalled() => signal.map(|name| {
            info!("{name}: the agent stops, the data plane goes on");
            End::Stopped
        }),
        () = changed(&cluster) => Ok(End::Again(Vec::new())),
        result = &mut joined => match result {
            Ok(joined) => joined.map(|()| End::Stopped),
            Err(_) => Err(Broke.into()),
        },
        () = stop.cancelled() => match tokio::time::timeout(REASON, &mut joined).await {
            // What ends first says that it ends before it says why.
            Ok(Ok(Err(why))) => Err(why),
            _ => Err(Broke.into()),
        },
    };
    match &ended {
        Err(error) if error.is::<Broke>() => attempts.broke(&attempts::last_panic()),
        _ => attempts.close(),
    }
    // One that starts anew does not stop: systemd would end it soon, and for good.
    if !matches!(ended, Ok(End::Again(_))) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    }
    stop.cancel();
    parts.tracker.close();
    if tokio::time::timeout(Duration::from_secs(5), parts.tracker.wait()).await.is_err() {
        error!("some parts did not stop in time");
    }
    let _ = std::fs::remove_file(config.socket());
    names.close().await;
    drop(lock);
    if cluster.changes() { Ok(End::Again(names.hand_on())) } else { ended }
}

/// Speaks for this node; without it others learn of what it wants by the store alone.
fn messenger(
    node: &NodeId,
    address: IpAddr,
    world: &watch::Receiver<Arc<Snapshot>>,
) -> Option<Arc<Messenger>> {
    let opened = Messenger::open(node.clone(), address, world.clone());
    opened.map(Arc::new).map_err(|error| warn!(%error, "cannot speak to other nodes by UDP port 7304")).ok()
}

/// A part of the agent ended that was to go on.
#[derive(Debug, thiserror::Error)]
#[error("a part of the agent broke; the data plane goes on")]
struct Broke;

/// Whether a plan of a node can be made of a world.
fn plans(node: NodeId) -> Plans {
    Arc::new(move |world| attempts::guarded(|| plan::desired(world, &node, now())).is_ok())
}

/// How long a part that broke may take to say why.
const REASON: Duration = Duration::from_millis(500);

/// What the agent is made of while it runs.
struct Parts {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Parts {
    /// Starts a part. None may end before the agent does: one that breaks takes the agent with it, whose
    /// supervisor starts it anew, instead of leaving one that looks alive.
    fn spawn<T: Send + 'static>(&self, part: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let end = self.stop.clone().drop_guard();
        self.tracker.spawn(async move {
            let _end = end;
            part.await
        })
    }
}

/// A task costs a few descriptors, and systemd's default for the soft limit is 1024.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it is refused, the old limit is as good as it gets.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// How long the answer to whoever changed what this node is may take to leave.
const ANSWER: Duration = Duration::from_millis(300);

/// Waits until this node is to be something else.
async fn changed(cluster: &Cluster) {
    cluster.again().await;
    info!("this node is something else from now on: the agent starts anew, the data plane goes on");
    tokio::time::sleep(ANSWER).await;
}

/// What is known of the mesh already.
fn known(cache: &Path, accept_deletions: bool) -> Known {
    let known = sync::known(cache);
    if accept_deletions { Known { rev: Rev(0), ..known } } else { known }
}

/// Which cluster the node belongs to; the configuration may say that the records are elsewhere.
fn cluster_file(config: &Config) -> anyhow::Result<Option<ClusterFile>> {
    let file = ClusterFile::load(&config.node.state_dir)?;
    if file.is_some() && config.store.mode != StoreMode::Local {
        bail!(
            "store.mode is \"{}\", but this node belongs to a cluster ({}): leave store.mode out, or run 'mesh cluster \
             leave' first",
            config.store.mode.name(),
            config.node.state_dir.join("cluster.json").display()
        );
    }
    Ok(file)
}

async fn open_store(
    config: &Config,
    member: Option<(&ClusterFile, &Arc<Tls>)>,
    known: Known,
    address: IpAddr,
) -> anyhow::Result<(Arc<dyn Store>, Way)> {
    let state_dir = &config.node.state_dir;
    if let Some((file, tls)) = member {
        return Ok(match file.role {
            Role::Manager => {
                cluster::ensure(state_dir).await?;
                let etcd = EtcdStore::new(cluster::etcd_options(state_dir, file, address, known)?);
                let etcd = Arc::new(etcd);
                (Arc::clone(&etcd) as _, Way::Manager(etcd))
            }
            Role::Worker => {
                let several = Arc::new(SeveralGateways::new(&file.managers, Arc::clone(tls)));
                (Arc::clone(&several) as _, Way::Worker(several))
            }
        });
    }
    Ok(match config.store.mode {
        StoreMode::Local => {
            let gate = Arc::new(Gate::new(Arc::new(LocalStore::open(state_dir.join("store.redb"))?)));
            (Arc::clone(&gate) as _, Way::Alone(Some(gate)))
        }
        StoreMode::External => (Arc::new(EtcdStore::new(config.store.etcd(known)?)), Way::Alone(None)),
        StoreMode::Gateway => {
            let address: SocketAddr = config.store.gateway.parse().context("store.gateway")?;
            let secret = Secret::read(&config.store.token_file)?;
            (Arc::new(GatewayStore::connect(address.to_string(), secret)), Way::Alone(None))
        }
    })
}

/// Serves the store to other nodes, where that is this node's to do.
async fn serve_store(
    config: &Config,
    manager: Option<Admission>,
    address: IpAddr,
    store: &Arc<dyn Store>,
    parts: &Parts,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let (listen, access) = match manager {
        Some(admission) => (SocketAddr::new(address, GATEWAY_PORT).to_string(), Access::from(admission)),
        None if config.store.listen.is_empty() || config.store.mode == StoreMode::Gateway => return Ok(()),
        None => (config.store.listen.clone(), Secret::read(&config.store.token_file)?.into()),
    };
    let listener =
        TcpListener::bind(&listen).await.with_context(|| format!("cannot serve the store at {listen}"))?;
    info!(address = listen, "serving the store to other nodes");
    parts.spawn(gateway::serve(Arc::clone(store), listener, access, stop.clone()));
    Ok(())
}

/// Listens where a key of the configuration says.
async fn listen(key: &str, at: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(at).await.with_context(|| format!("{key}: cannot listen on {at}"))
}

fn dns_config(config: &Config) -> DnsConfig {
    let parse = |text: &String| {
        text.parse::<SocketAddr>().ok().or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 53)))
    };
    DnsConfig {
        ttl: Duration::from_secs(config.dns.ttl.into()),
        cache: config.dns.cache as usize,
        upstreams: config.dns.upstreams.iter().filter_map(parse).collect(),
        ..DnsConfig::default()
    }
}

async fn signalled() -> anyhow::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    })
}
