//! **Effect.** Messages between nodes, signed: out to others, in from the socket. Their format is in
//! `mesh_core::message`.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use mesh_core::message::{KEY, LEN, Message, PORT, SIGNED, Word};
use mesh_core::model::{NodeId, Snapshot};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use tokio::sync::watch;

/// A datagram of ours: what was signed, and the signature.
pub(super) type Datagram = [u8; LEN];

/// Speaks for this node. Its key lives as long as the agent, and is written down nowhere.
#[derive(Debug)]
pub struct Messenger {
    node: NodeId,
    socket: UdpSocket,
    pair: Ed25519KeyPair,
    number: AtomicU64,
    leaving: AtomicUsize,
    world: watch::Receiver<Arc<Snapshot>>,
}

impl Messenger {
    /// At a node's own address.
    pub fn open(node: NodeId, own: IpAddr, world: watch::Receiver<Arc<Snapshot>>) -> io::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed)
            .map_err(|_| io::Error::other("a random seed makes no key"))?;
        let socket = UdpSocket::bind((own, PORT))?;
        socket.set_nonblocking(true)?;
        let (number, leaving) = (AtomicU64::new(1), AtomicUsize::new(0));
        Ok(Self { node, socket, pair, number, leaving, world })
    }

    /// The public key, in hexadecimal digits: for the node's record.
    pub fn key(&self) -> String {
        self.pair.public_key().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Tells all others that this node leaves, at once and again until what is returned is dropped. Then it stays after
    /// all, unless the records say otherwise.
    pub fn leave(self: &Arc<Self>) -> Leaving {
        self.leaving.fetch_add(1, Ordering::Relaxed);
        self.tell_all(Word::Leaving);
        Leaving(Arc::clone(self))
    }

    /// Whether somebody of this node's wants it to leave.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) > 0
    }

    /// Says something to all others.
    pub(super) fn tell_all(&self, word: Word) {
        let datagram = self.sign(word);
        let world = Arc::clone(&self.world.borrow());
        for other in world.nodes.values().filter(|other| other.id != self.node) {
            self.send(&datagram, other.address);
        }
    }

    /// Says something to one.
    pub(super) fn tell(&self, to: IpAddr, word: Word) {
        self.send(&self.sign(word), to);
    }

    /// The next datagram that is as long as a message, and from where it seems to come.
    pub(super) fn receive(&self) -> Option<(IpAddr, Datagram)> {
        let mut buffer = [0; LEN + 1];
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((LEN, from)) if from.port() == PORT => {
                    return Some((from.ip(), *buffer.first_chunk()?));
                }
                // Cut off, or nobody's.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    /// What to wait for.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn sign(&self, word: Word) -> Datagram {
        let message = Message { number: self.number.fetch_add(1, Ordering::Relaxed), word };
        let mut datagram = [0; LEN];
        let (signed, signature) = datagram.split_at_mut(SIGNED);
        signed.copy_from_slice(&message.encode());
        signature.copy_from_slice(self.pair.sign(signed).as_ref());
        datagram
    }

    /// What does not leave is not heard: whoever waits for it asks again, or learns of it by the store.
    fn send(&self, datagram: &Datagram, to: IpAddr) {
        let _ = self.socket.send_to(datagram, SocketAddr::new(to, PORT));
    }
}

/// Whether a datagram was signed with the secret half of a key.
pub(super) fn is_signed(datagram: &Datagram, key: &[u8; KEY]) -> bool {
    let (signed, signature) = datagram.split_at(SIGNED);
    UnparsedPublicKey::new(&ED25519, key).verify(signed, signature).is_ok()
}

/// As long as this lives, the node says that it leaves.
#[derive(Debug)]
pub struct Leaving(Arc<Messenger>);

impl Leaving {
    /// It leaves, and nothing will change that.
    pub fn for_good(self) {
        std::mem::forget(self);
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.leaving.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_signed_or_what_was_changed_is_not_ours() {
        let open = |last| {
            let world = watch::channel(Arc::new(Snapshot::default())).1;
            Messenger::open(NodeId::new("n1"), [127, 73, 4, last].into(), world).unwrap()
        };
        let (one, other) = (open(1), open(2));
        let key = |messenger: &Messenger| mesh_core::message::key(&messenger.key()).unwrap();
        one.tell([127, 73, 4, 2].into(), Word::Leaving);
        let (from, datagram) = std::iter::repeat_with(|| other.receive()).flatten().next().unwrap();
        assert_eq!(from, IpAddr::from([127, 73, 4, 1]));
        assert!(is_signed(&datagram, &key(&one)));
        assert!(!is_signed(&datagram, &key(&other)));
        for place in 0..LEN {
            let mut changed = datagram;
            changed[place] ^= 1;
            assert!(!is_signed(&changed, &key(&one)), "byte {place}");
        }
    }
}
