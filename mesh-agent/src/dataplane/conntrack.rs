//! **Effect.** The kernel's table of flows, by netlink: flows are listed and single ones forgotten.
//!
//! The tools of others are slow here (one process per entry, the whole table in memory); this asks the kernel
//! once, keeps what is to go only, and deletes by exact key, so that no flow of anybody else's is ever touched.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mesh_core::model;
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Status, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla,
};
use rtnetlink::sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_NETFILTER};

/// The kernel answers within microseconds; longer means that the answer was lost.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes; the kernel's dumps come in pieces of at most 32 KiB.
const RECEIVE_BUFFER: usize = 1 << 16;
/// `enum ctattr_type` in `linux/netfilter/nfnetlink_conntrack.h`: what the kernel needs, besides the tuple, to
/// find exactly the entry that was listed.
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;

/// A flow of TCP or UDP as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Which of them.
    pub protocol: model::Protocol,
    /// Who sent the first packet.
    pub client: IpAddr,
    /// Where the client sent it to.
    pub to: SocketAddr,
    /// Who got it, and so whom answers come from.
    pub answers: SocketAddr,
    /// Whether anything has come back.
    pub answered: bool,
    family: NetfilterProtoFamily,
    key: Vec<ConntrackAttribute>,
}

/// The kernel's flows could not be listed or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// No way to talk to the kernel.
    #[error(
        "cannot talk to the kernel about flows: {0}; it needs CAP_NET_ADMIN and the module nf_conntrack_netlink"
    )]
    Socket(#[from] io::Error),
    /// The kernel refused.
    #[error("the kernel could not {action}: {source}; until it can, clients stay with backends that left")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// The blocking thread died.
    #[error("the thread that lists flows ended early: {0}; please report it as a bug")]
    Thread(#[from] tokio::task::JoinError),
}

/// Forgets the flows that `stale` names; how many there were.
///
/// The socket belongs to the network namespace of the calling thread.
pub async fn forget(stale: impl Fn(&Flow) -> bool + Send + 'static) -> Result<usize, ConntrackError> {
    let mut conntrack = Conntrack::open()?;
    // Listing a full table takes long enough to hold up other tasks.
    let work = move || {
        let mut gone = 0;
        for flow in conntrack.flows(stale)? {
            gone += usize::from(conntrack.forget(flow)?);
        }
        Ok(gone)
    };
    tokio::task::spawn_blocking(work).await?
}

impl Flow {
    /// For tests of decisions: a flow without the kernel's key.
    #[cfg(test)]
    pub(crate) fn new(
        protocol: model::Protocol,
        client: IpAddr,
        to: SocketAddr,
        answers: SocketAddr,
        answered: bool,
    ) -> Self {
        let (family, key) = (NetfilterProtoFamily::Unspec, Vec::new());
        Self { protocol, client, to, answers, answered, family, key }
    }

    /// None: neither TCP nor UDP.
    fn read(family: NetfilterProtoFamily, attributes: Vec<ConntrackAttribute>) -> Option<Self> {
        let (mut original, mut reply, mut answered, mut key) = (None, None, false, Vec::new());
        for attribute in attributes {
            match &attribute {
                ConntrackAttribute::CtaTupleOrig(tuple) => {
                    original = Some(ends(tuple)?);
                    key.push(attribute);
                }
                ConntrackAttribute::CtaTupleReply(tuple) => reply = Some(ends(tuple)?),
                ConntrackAttribute::CtaStatus(status) => answered = status.contains(Status::SeenReply),
                ConntrackAttribute::Other(other) if matches!(other.kind(), CTA_ID | CTA_ZONE) => {
                    key.push(attribute)
                }
                _ => {}
            }
        }
        let ((protocol, client, to), (_, answers, _)) = (original?, reply?);
        Some(Self { protocol, client: client.ip(), to, answers, answered, family, key })
    }
}

/// Protocol, source and destination of a tuple.
fn ends(tuple: &[Tuple]) -> Option<(model::Protocol, SocketAddr, SocketAddr)> {
    let (mut addresses, mut ports, mut protocol) = ((None, None), (None, None), None);
    for part in tuple {
        match part {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(address) => addresses.0 = Some(*address),
                        IPTuple::DestinationAddress(address) => addresses.1 = Some(*address),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(Protocol::Tcp) => protocol = Some(model::Protocol::Tcp),
                        ProtoTuple::Protocol(Protocol::Udp) => protocol = Some(model::Protocol::Udp),
                        ProtoTuple::SourcePort(port) => ports.0 = Some(*port),
                        ProtoTuple::DestinationPort(port) => ports.1 = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let source = SocketAddr::new(addresses.0?, ports.0?);
    let destination = SocketAddr::new(addresses.1?, ports.1?);
    Some((protocol?, source, destination))
}

struct Conntrack {
    socket: Socket,
    sequence: u32,
}

impl Conntrack {
    fn open() -> Result<Self, io::Error> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddress::new(0, 0))?;
        let seconds = i64::try_from(TIMEOUT.as_secs()).unwrap_or(i64::MAX);
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(seconds, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Those that are wanted.
    fn flows(&mut self, wanted: impl Fn(&Flow) -> bool) -> Result<Vec<Flow>, ConntrackError> {
        self.send(NetfilterProtoFamily::Unspec, ConntrackMessage::Get(Vec::new()), NLM_F_DUMP)?;
        let mut flows = Vec::new();
        self.receive("list its flows", |message| {
            if let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message.inner {
                flows.extend(Flow::read(message.header.family, attributes).filter(&wanted));
            }
        })?;
        Ok(flows)
    }

    /// False: it ended by itself in the meantime.
    fn forget(&mut self, flow: Flow) -> Result<bool, ConntrackError> {
        self.send(flow.family, ConntrackMessage::Delete(flow.key), NLM_F_ACK)?;
        match self.receive("forget a flow", |_| {}) {
            Err(ConntrackError::Refused { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(false)
            }
            result => result.map(|()| true),
        }
    }

    fn send(
        &mut self,
        family: NetfilterProtoFamily,
        body: ConntrackMessage,
        flags: u16,
    ) -> Result<(), io::Error> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let body = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), body);
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(body));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Until the kernel says that its answer is complete.
    fn receive(
        &mut self,
        action: &'static str,
        mut each: impl FnMut(NetfilterMessage),
    ) -> Result<(), ConntrackError> {
        let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            let mut rest = buffer.as_slice();
            // A message begins with its length (netlink(7)).
            while let Some(Ok(length)) =
                rest.first_chunk().map(|bytes| usize::try_from(u32::from_ne_bytes(*bytes)))
            {
                if length < NETLINK_HEADER || length > rest.len() {
                    break;
                }
                let (bytes, next) = rest.split_at(length);
                rest = next.get(length.next_multiple_of(4) - length..).unwrap_or_default();
                // A flow of a kind that the parser does not know is none of ours.
                let Ok(message) = NetlinkMessage::<NetfilterMessage>::deserialize(bytes) else {
                    continue;
                };
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return Err(ConntrackError::Refused { action, source: error.to_io() });
                    }
                    NetlinkPayload::InnerMessage(message) => each(message),
                    _ => {}
                }
            }
        }
    }
}

/// Bytes of `struct nlmsghdr`.
const NETLINK_HEADER: usize = 16;
