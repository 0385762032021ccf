//! **Effect.** The node takes its place in the mesh, and tells what it sees of itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, bail};
use mesh_core::change::{self, Me, NodeFacts};
use mesh_core::model::{Name, Snapshot};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::control::{Control, ControlError};
use crate::facts::links;
use crate::status::StoreHealth;

/// How often the node looks at its own ports and routes.
const LOOK: Duration = Duration::from_secs(5);

/// The node's name: as configured, else the host's.
pub(super) fn name(config: &Config) -> anyhow::Result<Name> {
    if !config.node.name.is_empty() {
        return config.node.name.parse().context("node.name");
    }
    let host = nix::unistd::gethostname().context("cannot read the host's name")?;
    let host = host.to_string_lossy().to_ascii_lowercase();
    let short = host.split('.').next().unwrap_or_default();
    short.parse().context("the host's name is no node name; set node.name")
}

/// Which boot of the machine this is (proc(5) boot_id).
pub(super) fn boot(config: &Config) -> anyhow::Result<String> {
    let path = &config.node.boot_id;
    let text = std::fs::read_to_string(path).with_context(|| format!("node.boot_id: {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// The underlay address: as configured, else where the default route would send from.
pub(super) async fn address(config: &Config) -> anyhow::Result<IpAddr> {
    let address = match config.node.address.as_str() {
        "auto" => default_source().context(
            "node.address is \"auto\", but there is no default route to take it from: set the address",
        )?,
        text => text.parse().context("node.address")?,
    };
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        bail!("node.address {address} cannot be reached by other nodes");
    }
    links::uplink_mtu(address).await?;
    Ok(address)
}

/// Connecting a UDP socket sends nothing; the kernel only picks the source. The addresses are documentation
/// ones (RFC 5737, RFC 3849), which only a default route leads to.
fn default_source() -> Option<IpAddr> {
    let pick = |local: IpAddr, remote: IpAddr| {
        let socket = UdpSocket::bind((local, 0)).ok()?;
        socket.connect((remote, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    pick(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
        .or_else(|| pick(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()))
}

/// The node as it shows itself to others.
pub(super) struct Place {
    /// How it is called.
    pub(super) name: Name,
    /// Where it is.
    pub(super) address: IpAddr,
    /// By what its messages are known.
    pub(super) key: String,
    /// Which boot of the machine this is.
    pub(super) boot: String,
    /// Whether its kernel answers probes.
    pub(super) reflects: bool,
}

/// Joins as soon as the store answers, then keeps the node's record and blocks up to date. Ends with an error
/// when the node cannot join, or when a later agent takes over.
pub(super) async fn run(
    config: Config,
    place: Place,
    control: Control,
    mut store: watch::Receiver<StoreHealth>,
    me: watch::Sender<Option<Me>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let work = async {
        if store.wait_for(|store| store.connected).await.is_err() {
            return Ok(());
        }
        let id = control.node().clone();
        let own = loop {
            match look(&config, &place).await {
                Ok(facts) => {
                    match control.change(|world, fresh| change::join(world, &id, facts.clone(), fresh)).await
                    {
                        Ok(done) => break Me { id, epoch: done.result.epoch },
                        Err(ControlError::Refused(refusal)) => bail!("cannot join the mesh: {refusal}"),
                        Err(error) => warn!("cannot join yet: {error}"),
                    }
                }
                Err(error) => warn!("cannot join yet: {error:#}"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        info!(epoch = own.epoch, "joined the mesh");
        me.send_replace(Some(own.clone()));
        keep(&config, &place, &control, &own).await
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        result = work => result,
    }
}

async fn keep(config: &Config, place: &Place, control: &Control, me: &Me) -> anyhow::Result<()> {
    let mut worlds = control.worlds();
    let mut timer = tokio::time::interval(LOOK);
    let mut told = Vec::new();
    let mut known = false;
    loop {
        let looked = tokio::select! {
            changed = worlds.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                None
            }
            _ = timer.tick() => Some(look(config, place).await),
        };
        let world = control.world();
        match world.nodes.get(&me.id) {
            Some(node) if node.epoch > me.epoch => {
                bail!("a later agent has taken this node over; this one ends")
            }
            None if known => {
                bail!("this node was removed from the mesh; start the agent again to rejoin")
            }
            Some(_) => known = true,
            None => {}
        }
        // An address that is gone for a moment is no reason to end: what was told stays true until it is back.
        if let Some(Err(error)) = &looked {
            warn!("cannot look at this node: {error:#}");
        }
        if let Some(Ok(facts)) = looked
            && let Err(error) = control.change(|world, _| change::refresh(world, me, &facts)).await
        {
            debug!("cannot tell what this node sees: {error}");
        }
        match control.change(|world, _| change::claim_blocks(world, me)).await {
            Ok(done) => {
                for refusal in done.result.iter().filter(|refusal| !told.contains(*refusal)) {
                    warn!("{refusal}");
                }
                told = done.result;
            }
            Err(error) => debug!("cannot claim blocks: {error}"),
        }
        if !world.poison.is_empty()
            && let Err(error) = control.change(|world, _| change::reassert(world, me)).await
        {
            debug!("cannot write anew what is this node's own: {error}");
        }
        reattach(&world, control, me).await;
    }
}

/// Tasks follow their service into networks and out of them.
async fn reattach(world: &Snapshot, control: &Control, me: &Me) {
    for task in world.tasks.on(&me.id) {
        let networks =
            task.service.as_ref().and_then(|id| world.services.get(id)).map(|service| &service.networks);
        let settled = networks.is_none_or(|networks| {
            networks.len() == task.addresses.len()
                && networks.iter().all(|a| task.addresses.contains_key(&a.network))
        });
        if settled {
            continue;
        }
        let change = |world: &Snapshot, fresh| change::reattach_task(world, me, &task.id, fresh);
        if let Err(error) = control.change(change).await {
            warn!(task = %world.task_name(task), "cannot follow its service into a network: {error}");
        }
    }
}

async fn look(config: &Config, place: &Place) -> anyhow::Result<NodeFacts> {
    let Place { name, address, key, boot, reflects } = place;
    // Ports that the kernel hands out by itself come and go; nobody publishes there by accident.
    let ephemeral = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first: u16 = ephemeral.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(32768);
    Ok(NodeFacts {
        name: name.clone(),
        address: *address,
        vxlan_port: config.overlay.port,
        boot: boot.clone(),
        uplink_mtu: links::uplink_mtu(*address).await?,
        listeners: links::listeners().await.into_iter().filter(|listener| listener.port < first).collect(),
        routes: links::foreign_routes().await.into_iter().collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        key: key.clone(),
        reflects: *reflects,
    })
}
