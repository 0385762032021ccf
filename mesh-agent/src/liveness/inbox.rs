//! **Effect.** What other nodes say: who it is from, and whether it may be believed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mesh_core::liveness::Millis;
use mesh_core::message::{self, KEY, Ledger, Message, Word};
use mesh_core::model::{NodeId, Snapshot};

use super::messenger::{Datagram, is_signed};

/// Knows who may say something.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    senders: BTreeMap<IpAddr, (NodeId, [u8; KEY])>,
    ledger: Ledger,
}

impl Inbox {
    /// These nodes may, each from its own address.
    pub(super) fn set_senders(&mut self, world: &Snapshot, own: &NodeId) {
        let others = world.nodes.values().filter(|node| node.id != *own);
        let known =
            others.filter_map(|node| Some((node.address, (node.id.clone(), message::key(&node.key)?))));
        self.senders = known.collect();
        self.ledger.keep(|id| world.nodes.contains_key(id));
    }

    /// Reads what came in: who says what. Whatever is not signed by who it comes from, or is no news, is nothing.
    pub(super) fn read(&mut self, from: IpAddr, datagram: &Datagram, now: Millis) -> Option<(NodeId, Word)> {
        let (id, key) = self.senders.get(&from)?;
        let Message { number, word } = Message::decode(datagram.first_chunk()?)?;
        if !self.ledger.is_news(id, key, number, now) || !is_signed(datagram, key) {
            return None;
        }
        self.ledger.take(id, *key, number);
        Some((id.clone(), word))
    }
}
