//! **Decision.** The common question, answered in place: which addresses a name of ours has. No message is taken apart
//! and put together for it, and nothing is allocated.
//!
//! Whatever is any other way is left to [`reply`](super::reply), which says the same, byte for byte; but of more than 120 names
//! it writes the rest in full, and has less room then.

use std::net::IpAddr;

use super::reply::{HEADER, Manner, Outcome, SMALLEST_LIMIT};
use super::{Zone, shuffle};
use crate::model::NetworkId;

/// RFC 1035 §2.3.4: a name in wire format.
const LONGEST_NAME: usize = 255;
const A: u16 = 1;
const SOA: u16 = 6;
const AAAA: u16 = 28;
const OPT: u16 = 41;
const IN: u16 = 1;
/// The compressed name of all our records (RFC 1035 §4.1.4): it is where the question begins.
const NAME: u16 = 0xc000 | HEADER as u16;

/// Writes the answer to a datagram of an asker who is in these networks after what `out` holds. None: nothing was
/// written, and it is not the common question.
pub fn answer(
    packet: &[u8],
    manner: Manner,
    zone: &Zone,
    networks: &[NetworkId],
    seed: u64,
    out: &mut Vec<u8>,
) -> Option<Outcome> {
    let mut name = [0; LONGEST_NAME];
    let asked = Asked::read(packet, &mut name)?;
    let addresses = zone.addresses(networks, asked.name)?;
    let wanted = || addresses.iter().filter(|address| address.is_ipv4() == (asked.kind == A));
    let count = wanted().count();
    let record = if asked.kind == A { 16 } else { 28 };
    let rest = asked.question.len() + if asked.edns.is_some() { 11 } else { 0 };
    let offered = asked.edns.as_ref().map_or(SMALLEST_LIMIT, |edns| edns.payload);
    let limit = offered.min(manner.udp_limit).max(SMALLEST_LIMIT);
    if HEADER + rest + count * record > usize::from(limit) {
        return None;
    }
    let begin = out.len();
    asked.write_head(count as u16, out);
    for address in wanted() {
        put(out, [NAME, asked.kind, IN]);
        out.extend(manner.ttl.to_be_bytes());
        match address {
            IpAddr::V4(address) => {
                put(out, [4]);
                out.extend(address.octets());
            }
            IpAddr::V6(address) => {
                put(out, [16]);
                out.extend(address.octets());
            }
        }
    }
    let records = out.get_mut(begin + HEADER + asked.question.len()..)?;
    match asked.kind {
        A => shuffle(records.as_chunks_mut::<16>().0, seed),
        _ => shuffle(records.as_chunks_mut::<28>().0, seed),
    }
    if count == 0 {
        asked.write_denial(manner, out);
    }
    if let Some(edns) = &asked.edns {
        out.push(0);
        put(out, [OPT, manner.udp_limit, 0, edns.flags, 0]);
    }
    Some(if count == 0 { Outcome::NoData } else { Outcome::Addresses })
}

/// What is common to the questions that are answered here.
struct Asked<'a> {
    /// The packet's first four bytes: id and flags.
    head: [u8; 4],
    /// Name, type and class, as they came.
    question: &'a [u8],
    /// The name as text, in small letters.
    name: &'a str,
    kind: u16,
    edns: Option<Edns>,
}

/// RFC 6891 §6.1.
struct Edns {
    payload: u16,
    /// Only that of DNSSEC.
    flags: u16,
}

impl<'a> Asked<'a> {
    fn read(packet: &'a [u8], name: &'a mut [u8; LONGEST_NAME]) -> Option<Self> {
        let (header, rest) = packet.split_first_chunk::<HEADER>()?;
        let [id0, id1, flags, more, 0, 1, 0, 0, 0, 0, 0, additional @ (0 | 1)] = *header else {
            return None;
        };
        // A plain query. What may be set wants recursion, trusts signatures, or checks them itself.
        if flags & !0x01 != 0 || more & !0x30 != 0 {
            return None;
        }
        let (mut at, mut length) = (0, 0);
        while let size @ 1.. = usize::from(*rest.get(at)?) {
            // Longer ones are none, but say how what follows is compressed.
            let label = rest.get(at + 1..at + 1 + size).filter(|_| size < 64)?;
            if length > 0 {
                *name.get_mut(length)? = b'.';
                length += 1;
            }
            for (to, from) in name.get_mut(length..length + size)?.iter_mut().zip(label) {
                if !from.is_ascii_alphanumeric() && !matches!(from, b'-' | b'_') {
                    return None;
                }
                *to = from.to_ascii_lowercase();
            }
            at += 1 + size;
            length += size;
        }
        let (question, rest) = rest.split_at_checked(at + 5)?;
        let [.., kind0, kind1, class0, class1] = *question else { return None };
        let kind = u16::from_be_bytes([kind0, kind1]);
        let edns = match (additional, rest) {
            (0, []) => None,
            (1, [0, 0, 41, payload0, payload1, 0, 0, flags @ (0 | 0x80), 0, 0, 0]) => Some(Edns {
                payload: u16::from_be_bytes([*payload0, *payload1]),
                flags: u16::from_be_bytes([*flags, 0]),
            }),
            _ => return None,
        };
        if !matches!(kind, A | AAAA)
            || [class0, class1] != IN.to_be_bytes()
            || question.len() > LONGEST_NAME + 4
        {
            return None;
        }
        let name = str::from_utf8(name.get(..length)?).ok()?;
        Some(Self { head: [id0, id1, flags, more], question, name, kind, edns })
    }

    /// Header and question. We know, and would ask others for what we do not.
    fn write_head(&self, answers: u16, out: &mut Vec<u8>) {
        let [id0, id1, flags, more] = self.head;
        out.extend([id0, id1, 0x84 | flags & 0x01, 0x80 | more & 0x10]);
        let denials = u16::from(answers == 0);
        put(out, [1, answers, denials, u16::from(self.edns.is_some())]);
        out.extend(self.question);
    }

    /// The start of authority of the name's parent.
    fn write_denial(&self, manner: Manner, out: &mut Vec<u8>) {
        match self.name.split_once('.') {
            Some((label, _)) => put(out, [NAME + 1 + label.len() as u16]),
            None => out.push(0),
        }
        put(out, [SOA, IN]);
        out.extend(manner.ttl.to_be_bytes());
        // Two names that are the root, a number, and times.
        put(out, [22, 0]);
        for number in [1, manner.ttl, manner.ttl, manner.ttl, manner.ttl] {
            out.extend(number.to_be_bytes());
        }
    }
}

fn put<const N: usize>(out: &mut Vec<u8>, words: [u16; N]) {
    words.iter().for_each(|word| out.extend(word.to_be_bytes()));
}
