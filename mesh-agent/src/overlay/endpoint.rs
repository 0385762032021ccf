//! **Effect.** A task's veth as the host sees it.
//!
//! Its other end is made inside the task's namespace at once, so nothing of the node's ever shows a task's end.

use std::os::fd::AsRawFd;

use mesh_core::plan::{Endpoint, Mac};
use nix::errno::Errno;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};

use super::Guard;
use super::device::{self, Device};
use super::inside;
use super::kernel::{Kernel, KernelError};
use super::sysctl;
use crate::netns::{Netns, NetnsError};
use crate::plane::Applied;

/// Why a task is not connected.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndpointError {
    #[error("task {task}: {error}")]
    Netns { task: String, error: NetnsError },
    #[error("task {task} lives in the node's own network namespace; a task needs one of its own")]
    OwnNetns { task: String },
    #[error("a device {name} that is not the mesh's is already there; rename or remove it")]
    Taken { name: String },
    #[error(
        "task {task} already has a device {inside} of its own; rename it, or give the task a network namespace without one"
    )]
    InsideTaken { task: String, inside: String },
    #[error("task {task}: its device stays down: {error}")]
    Unguarded { task: String, error: String },
    #[error("task {task}: {error}")]
    Kernel { task: String, error: KernelError },
}

/// A veth of which both ends are there.
pub(super) struct Attached {
    pub(super) host: u32,
    pub(super) changed: bool,
    pub(super) netns: Netns,
    /// Speaks from inside.
    pub(super) inside: Kernel,
    pub(super) end: Device,
}

/// Makes the veth and its host's end as wanted; one that leads into another namespace is made anew.
pub(super) async fn attach(
    node: &Netns,
    kernel: &Kernel,
    name: &str,
    want: &Endpoint,
    found: Option<Device>,
    guard: &Guard,
    applied: &mut Applied,
) -> Result<Attached, EndpointError> {
    let task = || want.task.to_string();
    let failed = |error| EndpointError::Kernel { task: task(), error };
    let lost = |error| EndpointError::Netns { task: task(), error };
    let netns = Netns::of_origin(&want.origin).map_err(lost)?;
    if netns.is(node) {
        return Err(EndpointError::OwnNetns { task: task() });
    }
    let drift = kernel.drift().map(|drift| drift.within(&format!("task {}", want.task)));
    let inside = Kernel::open(&netns, drift).map_err(lost)?;
    let mut whole = None;
    if let Some(host) = found {
        if !host.is_endpoint() {
            return Err(EndpointError::Taken { name: name.to_owned() });
        }
        match inside.device(&want.inside).await.map_err(failed)? {
            Some(end) if inside::is_end_of(&end, &host) => whole = Some((host, end)),
            _ => kernel.remove_device(name, host.index).await.map_err(failed)?,
        }
    }
    let created = whole.is_none();
    let (host, end) = match whole {
        Some(whole) => whole,
        None => create(kernel, &inside, &netns, name, want).await?,
    };
    let settings = sysctl::of_device(name, want.addresses.v6.is_some());
    for (object, result) in sysctl::apply(node, &settings, kernel.drift()) {
        applied.record(object, result);
    }
    if !host.up && kernel.drift().is_none() {
        guard(host.index, name).map_err(|error| EndpointError::Unguarded { task: task(), error })?;
    }
    let adjusted = adjust(kernel, &host, want).await.map_err(failed)?;
    Ok(Attached { host: host.index, changed: created || adjusted, netns, inside, end })
}

async fn create(
    kernel: &Kernel,
    inside: &Kernel,
    netns: &Netns,
    name: &str,
    want: &Endpoint,
) -> Result<(Device, Device), EndpointError> {
    let task = || want.task.to_string();
    let failed = |error| EndpointError::Kernel { task: task(), error };
    match kernel.create_device(name, message(netns, name, want)).await {
        Err(error) if error.is(&[Errno::EEXIST]) => {
            return Err(match inside.device(&want.inside).await {
                Ok(Some(_)) => EndpointError::InsideTaken { task: task(), inside: want.inside.clone() },
                _ => failed(error),
            });
        }
        other => other.map_err(failed)?,
    }
    let host = kernel.device(name).await.map_err(failed)?;
    let end = inside.device(&want.inside).await.map_err(failed)?;
    // Whoever removed it in between, the next round makes it again.
    host.zip(end).ok_or_else(|| {
        let what = format!("find device {name} after its creation");
        failed(KernelError::Refused { what, errno: Errno::ENODEV, words: String::new() })
    })
}

/// Both ends. The host's is not up yet, for its settings come first.
fn message(netns: &Netns, name: &str, want: &Endpoint) -> LinkMessage {
    let mut end = device::create(&want.inside, want.mac, want.mtu);
    end.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    let mut host = device::create(name, Mac::HOST_END, want.mtu);
    host.attributes.push(LinkAttribute::Group(want.vni.0));
    let info = vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end)))];
    host.attributes.push(LinkAttribute::LinkInfo(info));
    host
}

async fn adjust(kernel: &Kernel, host: &Device, want: &Endpoint) -> Result<bool, KernelError> {
    let mut message = device::change(host.index);
    if host.group != want.vni.0 {
        message.attributes.push(LinkAttribute::Group(want.vni.0));
    }
    if host.mtu != want.mtu {
        message.attributes.push(LinkAttribute::Mtu(want.mtu));
    }
    if !host.up {
        device::up(&mut message);
    }
    if message == device::change(host.index) {
        return Ok(false);
    }
    kernel.change_device(&host.name, message).await?;
    Ok(true)
}
