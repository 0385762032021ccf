//! **Decision.** The filters in front of the frontends: words by which programs know at once that a packet is for none. Pure.
//!
//! A connection goes on when its frontend has gone, for as long as its task runs. A packet that no filter lets by is not looked
//! for among the flows, so its port stays in the filter, that of a VIP's, too. What is new finds no frontend there, and meets
//! the node's own stack as at any port.

use std::collections::{BTreeMap, BTreeSet};

use mesh_ebpf::abi::{Addr16, FrontendKey, NetPort, Published, TCP, VIP_WORDS};
use mesh_ebpf::hash;

use super::{Found, Step};

/// A word of a filter. Ports come first: what is kept by them is there before a VIP goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Port(u32),
    Vip(u32),
}

/// Both filters.
#[derive(Debug, Default)]
pub(super) struct Filters {
    /// How many frontends have a port, on all addresses or on some: it may be published on several, and for both
    /// families.
    published: BTreeMap<(NetPort, u8, u64), u32>,
    ports: BTreeMap<u32, u64>,
    vips: VipBits,
    /// Ports by which connections go on though no frontend has them.
    kept: BTreeSet<NetPort>,
    /// Whose frontends have gone: they are written when it is known which connections go on.
    left: BTreeSet<Word>,
    /// What was found, until that is mended.
    found: Option<BTreeMap<Word, u64>>,
}

/// How many VIPs need each bit of the filter.
#[derive(Debug, Default)]
struct VipBits(BTreeMap<u32, u32>);

impl Filters {
    pub(super) fn open(found: &Found) -> Self {
        Self { found: Some(found_words(found).collect()), ..Self::default() }
    }

    /// A frontend comes. What is to be written for it.
    pub(super) fn add(&mut self, key: &FrontendKey) -> Vec<Step> {
        self.note(key, true);
        words(key).into_iter().map(|word| self.step(word)).collect()
    }

    /// A frontend goes.
    pub(super) fn remove(&mut self, key: &FrontendKey) {
        self.note(key, false);
        self.left.extend(words(key));
    }

    /// Whether some frontends have gone since it was said which connections go on.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.left.is_empty()
    }

    /// What was found and is not as it should be; once.
    pub(super) fn mend(&mut self) -> Vec<Step> {
        let Some(found) = self.found.take() else { return Vec::new() };
        let ours = self.ports.keys().map(|index| Word::Port(*index));
        let ours = ours.chain(self.vips.0.keys().map(|bit| Word::Vip(bit / 64)));
        let ours = ours.chain(self.kept.iter().map(|port| port_word(TCP, *port)));
        let all: BTreeSet<Word> = ours.chain(found.keys().copied()).collect();
        let is_other = |word: &Word| found.get(word).copied().unwrap_or_default() != self.value(*word);
        all.into_iter().filter(is_other).map(|word| self.step(word)).collect()
    }

    /// By which ports alone connections go on from now on.
    pub(super) fn keep(&mut self, ports: BTreeSet<NetPort>) -> Vec<Step> {
        let changed = self.kept.symmetric_difference(&ports).map(|port| port_word(TCP, *port));
        let mut words = std::mem::take(&mut self.left);
        words.extend(changed);
        self.kept = ports;
        words.into_iter().map(|word| self.step(word)).collect()
    }

    fn note(&mut self, key: &FrontendKey, set: bool) {
        if key.port == NetPort::ANY {
            return self.vips.note(&key.addr, set);
        }
        let bit = bits_of(key).0;
        let frontends = self.published.entry((key.port, key.proto, bit)).or_default();
        *frontends = if set { *frontends + 1 } else { frontends.saturating_sub(1) };
        let is_published = *frontends > 0;
        let (index, shift) = Published::place(key.proto, key.port);
        let word = self.ports.entry(index).or_default();
        *word = if is_published { *word | bit << shift } else { *word & !(bit << shift) };
    }

    fn value(&self, word: Word) -> u64 {
        match word {
            Word::Port(index) => {
                let kept = self.kept.iter().map(|port| Published::place(TCP, *port));
                let kept = kept.filter(|(place, _)| *place == index);
                let kept = kept.fold(0, |word, (_, shift)| word | Published::EVERYWHERE.0 << shift);
                self.ports.get(&index).copied().unwrap_or_default() | kept
            }
            Word::Vip(index) => self.vips.word(index),
        }
    }

    fn step(&self, word: Word) -> Step {
        match word {
            Word::Port(index) => Step::PortWord(index, self.value(word)),
            Word::Vip(index) => Step::VipWord(index, self.value(word)),
        }
    }
}

/// Whether filters let more by than the frontends need that are beside them: for the sake of connections, as far as one can
/// tell.
pub(super) fn lets_more_by(found: &Found) -> bool {
    let mut filters = Filters::default();
    found.frontends.iter().for_each(|(key, _)| filters.note(key, true));
    found_words(found).any(|(word, value)| value & !filters.value(word) != 0)
}

fn found_words(found: &Found) -> impl Iterator<Item = (Word, u64)> {
    let ports = found.ports.iter().map(|(index, word)| (Word::Port(*index), *word));
    ports.chain(found.vips.iter().map(|(index, word)| (Word::Vip(*index), *word)))
}

/// The words that a frontend has bits in.
fn words(key: &FrontendKey) -> BTreeSet<Word> {
    if key.port == NetPort::ANY {
        return VipBits::of(&key.addr).map(|bit| Word::Vip(bit / 64)).into();
    }
    [port_word(key.proto, key.port)].into()
}

fn port_word(proto: u8, port: NetPort) -> Word {
    Word::Port(Published::place(proto, port).0)
}

/// What a published port's frontend adds to what is known of the port.
fn bits_of(key: &FrontendKey) -> Published {
    let everywhere = [Addr16::ANY_V4, Addr16::ANY_V6].contains(&key.addr);
    if everywhere { Published::EVERYWHERE } else { Published::SOMEWHERE }
}

impl VipBits {
    /// The bits of an address.
    fn of(addr: &Addr16) -> [u32; 2] {
        let (a, b) = hash::bloom(addr);
        [a, b].map(|hash| hash % (VIP_WORDS * 64))
    }

    fn note(&mut self, addr: &Addr16, set: bool) {
        for bit in Self::of(addr) {
            let count = self.0.entry(bit).or_default();
            *count = if set { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.0.remove(&bit);
            }
        }
    }

    fn word(&self, index: u32) -> u64 {
        self.0.range(index * 64..(index + 1) * 64).fold(0, |word, (bit, _)| word | 1 << (bit % 64))
    }
}
