//! **Decision.** What nodes say to each other without the store: the format, and what is old news.
//!
//! A message is one datagram of [`LEN`] bytes, a question as long as its answer: nobody can have a node send more than was
//! sent to it. The last 64 bytes are an Ed25519 signature (RFC 8032) of the rest. Each agent makes a key when it starts,
//! and its node's record says it: so nobody can speak for another, there is no secret to keep, and what was said to a
//! former agent is worth nothing. All numbers are big endian:
//!
//! | bytes | |
//! |---|---|
//! | 0–7 | `mesh/1` and two zeros |
//! | 8 | what it is: 1 ask, 2 heard, 3 leaving, 4 staying; of a task: 5 gone, 6 sick, 7 well |
//! | 9–15 | zeros |
//! | 16–23 | a number that grows with each message of a sender |
//! | 24–39 | whom it is about, as an IPv6 address; an IPv4 one is mapped (RFC 4291 §2.5.5.2); zeros: nobody |
//! | 40–103 | the signature |

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::liveness::Notice;
use crate::model::NodeId;

/// UDP.
pub const PORT: u16 = 7304;
/// What is signed, bytes.
pub const SIGNED: usize = 40;
/// A signature, bytes.
pub const SIGNATURE: usize = 64;
/// A message, bytes.
pub const LEN: usize = SIGNED + SIGNATURE;
/// A public key, bytes.
pub const KEY: usize = 32;

const MAGIC: [u8; 8] = *b"mesh/1\0\0";
/// Of one sender's, so many are looked at in a second: checking signatures costs, and anybody can send.
const PER_SECOND: u32 = 200;

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Do you hear the node with this address?
    Ask(IpAddr),
    /// I hear it.
    Heard(IpAddr),
    /// Send me nothing new: I leave, or am drained.
    Leaving,
    /// I said that I leave, and do not.
    Staying,
    /// Of my task with this address I know what its record does not say; none: that is over.
    Task(Option<Notice>, IpAddr),
}

/// A message before it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Grows with each message of a sender.
    pub number: u64,
    /// What is said.
    pub word: Word,
}

impl Message {
    /// What is to be signed.
    pub fn encode(&self) -> [u8; SIGNED] {
        let nobody = Ipv6Addr::UNSPECIFIED;
        let (kind, about) = match self.word {
            Word::Ask(about) => (1, mapped(about)),
            Word::Heard(about) => (2, mapped(about)),
            Word::Leaving => (3, nobody),
            Word::Staying => (4, nobody),
            Word::Task(Some(Notice::Gone), about) => (5, mapped(about)),
            Word::Task(Some(Notice::Sick), about) => (6, mapped(about)),
            Word::Task(None, about) => (7, mapped(about)),
        };
        let mut bytes = [0; SIGNED];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = kind;
        bytes[16..24].copy_from_slice(&self.number.to_be_bytes());
        bytes[24..].copy_from_slice(&about.octets());
        bytes
    }

    /// Reads what was signed; whatever is not exactly what a sender writes is nothing.
    pub fn decode(bytes: &[u8; SIGNED]) -> Option<Self> {
        let number = u64::from_be_bytes(*bytes.get(16..)?.first_chunk()?);
        let about = Ipv6Addr::from(*bytes.get(24..)?.first_chunk()?).to_canonical();
        let word = match bytes[8] {
            1 => Word::Ask(about),
            2 => Word::Heard(about),
            3 => Word::Leaving,
            4 => Word::Staying,
            5 => Word::Task(Some(Notice::Gone), about),
            6 => Word::Task(Some(Notice::Sick), about),
            7 => Word::Task(None, about),
            _ => return None,
        };
        let message = Self { number, word };
        (message.encode() == *bytes).then_some(message)
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// A public key as a record says it, in hexadecimal digits.
pub fn key(text: &str) -> Option<[u8; KEY]> {
    let mut key = [0; KEY];
    if text.len() != 2 * KEY || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (place, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(key)
}

/// What was last heard of each sender.
#[derive(Debug, Default)]
pub struct Ledger {
    senders: BTreeMap<NodeId, Sender>,
}

#[derive(Debug, Default)]
struct Sender {
    key: [u8; KEY],
    number: u64,
    second: u64,
    looked: u32,
}

impl Ledger {
    /// Whether a message is worth checking the signature of: it is newer than all before by the same key, and there were
    /// not too many in this second. `now` in milliseconds of a clock that never goes back.
    pub fn is_news(&mut self, from: &NodeId, key: &[u8; KEY], number: u64, now: u64) -> bool {
        let sender = self.senders.entry(from.clone()).or_default();
        let second = now / 1000;
        if sender.second != second {
            (sender.second, sender.looked) = (second, 0);
        }
        let news = sender.key != *key || number > sender.number;
        if news {
            sender.looked = sender.looked.saturating_add(1);
        }
        news && sender.looked <= PER_SECOND
    }

    /// Its signature is right: what comes now has to be newer.
    pub fn take(&mut self, from: &NodeId, key: [u8; KEY], number: u64) {
        let sender = self.senders.entry(from.clone()).or_default();
        (sender.key, sender.number) = (key, number);
    }

    /// Only these may still say something.
    pub fn keep(&mut self, known: impl Fn(&NodeId) -> bool) {
        self.senders.retain(|id, _| known(id));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word() -> impl Strategy<Value = Word> {
        prop_oneof![
            any::<IpAddr>().prop_map(|about| Word::Ask(about.to_canonical())),
            any::<IpAddr>().prop_map(|about| Word::Heard(about.to_canonical())),
            Just(Word::Leaving),
            Just(Word::Staying),
            (prop::sample::select(vec![None, Some(Notice::Gone), Some(Notice::Sick)]), any::<IpAddr>())
                .prop_map(|(notice, about)| Word::Task(notice, about.to_canonical())),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(number: u64, word in word()) {
            let message = Message { number, word };
            prop_assert_eq!(Message::decode(&message.encode()), Some(message));
        }

        /// There is one way to write a message, and whatever else comes is none.
        #[test]
        fn nothing_else_is_read(number: u64, word in word(), at in 0..SIGNED, bit in 0..8u8) {
            let message = Message { number, word };
            let mut bytes = message.encode();
            bytes[at] ^= 1 << bit;
            if let Some(other) = Message::decode(&bytes) {
                prop_assert_ne!(other, message);
                prop_assert_eq!(other.encode(), bytes);
            }
        }

        /// Whatever comes in whatever order: nothing is taken twice, and nothing older than what was taken.
        #[test]
        fn nothing_is_said_twice(numbers in prop::collection::vec(0..20u64, 0..100)) {
            let (mut ledger, from) = (Ledger::default(), NodeId::new("n1"));
            let mut taken: Vec<u64> = Vec::new();
            for (now, number) in (0..).zip(numbers) {
                if ledger.is_news(&from, &[1; KEY], number, now) {
                    ledger.take(&from, [1; KEY], number);
                    prop_assert!(taken.iter().all(|before| *before < number));
                    taken.push(number);
                }
            }
        }
    }

    #[test]
    fn a_later_agent_begins_anew() {
        let (mut ledger, from) = (Ledger::default(), NodeId::new("n1"));
        ledger.take(&from, [1; KEY], 70);
        assert!(!ledger.is_news(&from, &[1; KEY], 70, 0));
        assert!(ledger.is_news(&from, &[2; KEY], 1, 0));
        ledger.take(&from, [2; KEY], 1);
        assert!(ledger.is_news(&from, &[2; KEY], 2, 0));
        ledger.keep(|_| false);
        assert!(ledger.is_news(&from, &[2; KEY], 2, 0));
    }

    /// Who sends what cannot be right keeps nobody busy, and is heard again a second later.
    #[test]
    fn a_flood_is_not_looked_at() {
        let (mut ledger, from) = (Ledger::default(), NodeId::new("n1"));
        let looked = (1..10_000).filter(|number| ledger.is_news(&from, &[1; KEY], *number, 10)).count();
        assert_eq!(looked, PER_SECOND as usize);
        assert!(ledger.is_news(&NodeId::new("n2"), &[1; KEY], 1, 10), "others are heard");
        assert!(ledger.is_news(&from, &[1; KEY], 1, 1010));
    }

    #[test]
    fn a_key_is_64_digits() {
        assert_eq!(key(&"0a".repeat(32)), Some([10; KEY]));
        for wrong in ["", "0a", &"0a".repeat(33), &"zz".repeat(32), &"é".repeat(32), &"+1".repeat(32)] {
            assert_eq!(key(wrong), None, "{wrong}");
        }
    }
}
