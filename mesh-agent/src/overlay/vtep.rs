//! **Effect.** The tunnel device.

use mesh_core::plan::{VTEP_DEVICE, Vtep};
use nix::errno::Errno;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};

use super::device::{self, Device, Kind};
use super::kernel::{Kernel, KernelError};
use super::settle::Outcomes;

/// Why there is no tunnel device.
#[derive(Debug, thiserror::Error)]
pub(super) enum VtepError {
    #[error("a device {VTEP_DEVICE} that is not the mesh's is already there; rename or remove it")]
    Taken,
    #[error(
        "{error}; another program uses UDP port {port}, or another VXLAN device does: give the mesh another port"
    )]
    Port { error: KernelError, port: u16 },
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// A tunnel device that is as wanted.
pub(super) struct Done {
    pub(super) index: u32,
    pub(super) changed: bool,
    /// What became of its settings.
    pub(super) settings: Outcomes,
}

/// Makes the device as wanted; `prepare` makes its settings, and is told whether it is new.
pub(super) async fn apply(
    kernel: &Kernel,
    want: &Vtep,
    prepare: impl Fn(bool) -> Outcomes,
) -> Result<Done, VtepError> {
    let found = match kernel.device(VTEP_DEVICE).await? {
        Some(found) if !found.is_vtep() => return Err(VtepError::Taken),
        // Neither can be changed while it lives.
        Some(found) if found.kind != (Kind::Vxlan { port: want.port, external: true }) => {
            kernel.remove_device(VTEP_DEVICE, found.index).await?;
            None
        }
        found => found,
    };
    let (found, created) = match found {
        Some(found) => (found, false),
        None => (create(kernel, want).await?, true),
    };
    let settings = prepare(created);
    let mut message = device::change(found.index);
    if found.mac != Some(want.mac) {
        message.attributes.push(LinkAttribute::Address(want.mac.0.to_vec()));
    }
    if found.mtu != want.mtu {
        message.attributes.push(LinkAttribute::Mtu(want.mtu));
    }
    if !found.up {
        device::up(&mut message);
    }
    if message == device::change(found.index) {
        return Ok(Done { index: found.index, changed: created, settings });
    }
    kernel.change_device(VTEP_DEVICE, message).await.map_err(|error| port_in_use(error, want.port))?;
    Ok(Done { index: found.index, changed: true, settings })
}

/// Made without being up, for its settings come first.
async fn create(kernel: &Kernel, want: &Vtep) -> Result<Device, VtepError> {
    let created = kernel.create_device(VTEP_DEVICE, message(want)).await;
    match created {
        // Two rounds at once: the other's is as good.
        Err(error) if error.is(&[Errno::EEXIST]) => match kernel.device(VTEP_DEVICE).await? {
            Some(found) if found.is_vtep() => return Ok(found),
            Some(_) => return Err(VtepError::Taken),
            None => return Err(port_in_use(error, want.port)),
        },
        other => other.map_err(|error| port_in_use(error, want.port))?,
    }
    let gone = || KernelError::Refused {
        what: format!("find device {VTEP_DEVICE} after its creation"),
        errno: Errno::ENODEV,
        words: String::new(),
    };
    Ok(kernel.device(VTEP_DEVICE).await?.ok_or_else(gone)?)
}

fn message(want: &Vtep) -> LinkMessage {
    let options = vec![
        InfoVxlan::CollectMetadata(true),
        InfoVxlan::Port(want.port),
        // Neighbours are permanent; there is nothing to learn.
        InfoVxlan::Learning(false),
        // Outer IPv6 packets may come without a checksum (RFC 6935): data planes save it.
        InfoVxlan::UDPZeroCsumRX(true),
    ];
    let mut message = device::create(VTEP_DEVICE, want.mac, want.mtu);
    let info = vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(options))];
    message.attributes.push(LinkAttribute::LinkInfo(info));
    message
}

fn port_in_use(error: KernelError, port: u16) -> VtepError {
    if error.is(&[Errno::EADDRINUSE, Errno::EEXIST]) {
        VtepError::Port { error, port }
    } else {
        VtepError::Kernel(error)
    }
}
