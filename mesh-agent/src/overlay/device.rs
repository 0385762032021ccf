//! **Effect.** Devices as the kernel has them, and which of them are ours.

use mesh_core::plan::{DEVICE_PREFIX, Mac, VTEP_DEVICE};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

/// The length of an endpoint's device name: the prefix and eleven hexadecimal digits.
const ENDPOINT_NAME: usize = 15;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    /// What rules know it by.
    pub(super) group: u32,
    pub(super) up: bool,
    /// Index of the other end of a veth, in that end's namespace.
    pub(super) peer: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Veth,
    Vxlan {
        port: u16,
        /// Takes the tunnel's key from routes.
        external: bool,
    },
    Other,
}

impl Device {
    pub(super) fn of(message: LinkMessage) -> Option<Self> {
        let mut device = Self {
            index: message.header.index,
            name: String::new(),
            kind: Kind::Other,
            mac: None,
            mtu: 0,
            group: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            peer: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name = name,
                LinkAttribute::Address(bytes) => device.mac = bytes.as_slice().try_into().ok().map(Mac),
                LinkAttribute::Mtu(mtu) => device.mtu = mtu,
                LinkAttribute::Group(group) => device.group = group,
                LinkAttribute::Link(index) => device.peer = Some(index),
                LinkAttribute::LinkInfo(info) => device.kind = kind_of(&info),
                _ => {}
            }
        }
        (!device.name.is_empty()).then_some(device)
    }

    /// The tunnel device, ours by name and kind.
    pub(super) fn is_vtep(&self) -> bool {
        self.name == VTEP_DEVICE && matches!(self.kind, Kind::Vxlan { .. })
    }

    /// The host's end of a task's veth, ours by name, kind and MAC. Any one of them alone may be a user's.
    pub(super) fn is_endpoint(&self) -> bool {
        let digits = self.name.strip_prefix(DEVICE_PREFIX).unwrap_or_default();
        self.name.len() == ENDPOINT_NAME
            && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
            && self.kind == Kind::Veth
            && self.mac == Some(Mac::HOST_END)
    }
}

fn kind_of(info: &[LinkInfo]) -> Kind {
    let kind = info.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    match kind {
        Some(InfoKind::Veth) => Kind::Veth,
        Some(InfoKind::Vxlan) => {
            let options = info.iter().find_map(|info| match info {
                LinkInfo::Data(InfoData::Vxlan(options)) => Some(options.as_slice()),
                _ => None,
            });
            let options = options.unwrap_or_default();
            let port = options.iter().find_map(|option| match option {
                InfoVxlan::Port(port) => Some(*port),
                _ => None,
            });
            Kind::Vxlan {
                port: port.unwrap_or_default(),
                external: options.contains(&InfoVxlan::CollectMetadata(true)),
            }
        }
        _ => Kind::Other,
    }
}

/// The message that changes a device.
pub(super) fn change(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// Has the device be up.
pub(super) fn up(message: &mut LinkMessage) {
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
}

/// The message that makes a device.
pub(super) fn create(name: &str, mac: Mac, mtu: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.0.to_vec()),
        LinkAttribute::Mtu(mtu),
    ];
    message
}
