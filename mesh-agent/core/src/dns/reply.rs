//! **Decision.** What one packet deserves: silence, a reply, or a question to the world. Reads and writes the wire
//! format; the [`Zone`] decides what the names mean.

use std::net::IpAddr;

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::{Answer, Question, Target, Zone};
use crate::model::NetworkId;

/// RFC 1035 §4.2.1: what everybody can receive over UDP.
pub(super) const SMALLEST_LIMIT: u16 = 512;
/// RFC 1035 §4.1.1.
pub(super) const HEADER: usize = 12;
/// What passes every path unfragmented (<https://www.dnsflagday.net/2020/>); our own answers stay inside the task.
const UPSTREAM_LIMIT: u16 = 1232;
/// An address record with a compressed name; no record of ours is shorter.
const SMALLEST_RECORD: usize = 16;

/// How to answer, whoever asks.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Seconds for which clients may keep our own answers, also the negative ones.
    pub ttl: u32,
    /// The longest answer over UDP, whatever the client offers.
    pub udp_limit: u16,
}

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Addresses of ours.
    Addresses,
    /// A name of ours (PTR).
    Names,
    /// Ports of tasks (SRV).
    Targets,
    /// Ours, without such a record.
    NoData,
    /// Ours to deny.
    NxDomain,
    /// Refused: not a question that we take.
    Refused,
    /// Not readable as DNS.
    Malformed,
}

/// A question that was understood.
#[derive(Debug)]
pub struct Asked {
    query: Message,
    tcp: bool,
    manner: Manner,
}

/// What to do with a packet.
#[derive(Debug)]
pub enum Verdict {
    /// Not a question, so no reply: two servers must never bounce replies between them.
    Ignore,
    /// This, counted as that.
    Reply(Vec<u8>, Outcome),
    /// The world knows.
    Forward(Box<Asked>),
}

/// Decides about a packet of an asker who is in these networks.
pub fn decide(
    packet: &[u8],
    tcp: bool,
    manner: Manner,
    zone: &Zone,
    networks: &[NetworkId],
    seed: u64,
) -> Verdict {
    let Some([id0, id1, flags, _, questions @ .., _, _, _, _, _, _]) = packet.first_chunk::<HEADER>() else {
        return Verdict::Ignore;
    };
    if flags & 0x80 != 0 {
        return Verdict::Ignore;
    }
    let bare = |code, outcome| {
        let op_code = OpCode::from_u8(flags >> 3 & 0xf);
        let mut reply = Message::error_msg(u16::from_be_bytes([*id0, *id1]), op_code, code);
        reply.metadata.recursion_desired = flags & 1 != 0;
        reply.to_vec().map_or(Verdict::Ignore, |bytes| Verdict::Reply(bytes, outcome))
    };
    if flags >> 3 & 0xf != 0 {
        return bare(ResponseCode::NotImp, Outcome::Refused);
    }
    // Checked before decoding, which makes room for as many as the header promises.
    if *questions != [0, 1] {
        return bare(ResponseCode::FormErr, Outcome::Malformed);
    }
    let asked = match Message::from_vec(packet) {
        Ok(query) if query.queries.len() == 1 => Box::new(Asked { query, tcp, manner }),
        _ => return bare(ResponseCode::FormErr, Outcome::Malformed),
    };
    asked.decide(zone, networks, seed)
}

impl Asked {
    /// The name that is asked for.
    pub fn name(&self) -> String {
        self.query.queries.first().map(|question| question.name().to_ascii()).unwrap_or_default()
    }

    /// Whether it came over TCP, where everything fits.
    pub fn tcp(&self) -> bool {
        self.tcp
    }

    fn decide(self: Box<Self>, zone: &Zone, networks: &[NetworkId], seed: u64) -> Verdict {
        let question = &self.query.queries[0];
        if self.query.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return self.refuse(ResponseCode::BADVERS);
        }
        if question.query_class() != DNSClass::IN {
            return self.refuse(ResponseCode::Refused);
        }
        let kind = match question.query_type() {
            RecordType::A => Question::A,
            RecordType::AAAA => Question::Aaaa,
            RecordType::PTR => Question::Ptr,
            RecordType::SRV => Question::Srv,
            RecordType::AXFR | RecordType::IXFR => return self.refuse(ResponseCode::Refused),
            // RFC 6895 §3.1: 128 to 255 are no data but ways to ask; OPT belongs elsewhere.
            other if matches!(u16::from(other), 0 | 41 | 128..=255) => {
                return self.refuse(ResponseCode::NotImp);
            }
            _ => Question::Other,
        };
        let Some(name) = plain(question.name()) else {
            return Verdict::Forward(self);
        };
        let (reply, outcome) = match zone.answer(networks, &name, kind, seed) {
            Answer::Forward => return Verdict::Forward(self),
            Answer::Addresses(addresses) => (self.addresses(&addresses), Outcome::Addresses),
            Answer::Name(name) => match name_of(&name) {
                Ok(name) => (self.answer(vec![RData::PTR(PTR(name))]), Outcome::Names),
                Err(_) => return self.refuse(ResponseCode::ServFail),
            },
            Answer::Targets(port, targets) => match self.targets(port, targets) {
                Ok(reply) => (reply, Outcome::Targets),
                Err(_) => return self.refuse(ResponseCode::ServFail),
            },
            Answer::NoData => (self.denial(ResponseCode::NoError), Outcome::NoData),
            Answer::NxDomain => (self.denial(ResponseCode::NXDomain), Outcome::NxDomain),
        };
        self.encode(reply).map_or(Verdict::Ignore, |bytes| Verdict::Reply(bytes, outcome))
    }

    fn refuse(&self, code: ResponseCode) -> Verdict {
        self.error(code).map_or(Verdict::Ignore, |bytes| Verdict::Reply(bytes, Outcome::Refused))
    }

    /// A reply without records.
    pub fn error(&self, code: ResponseCode) -> Option<Vec<u8>> {
        self.encode(self.reply(code))
    }

    /// The longest reply that the asker takes.
    pub fn limit(&self) -> usize {
        if self.tcp {
            return usize::from(u16::MAX);
        }
        let offered = self.query.edns.as_ref().map_or(SMALLEST_LIMIT, Edns::max_payload);
        usize::from(offered.min(self.manner.udp_limit).max(SMALLEST_LIMIT))
    }

    /// What to ask the world, with the id 0. Made anew and not passed on, so that nothing but the question
    /// leaves; EDNS is between neighbours (RFC 6891 §6.1.1) and says what this asker, or TCP, can take.
    pub fn upstream(&self) -> Option<Vec<u8>> {
        let mut message = Message::new(0, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.query.metadata.recursion_desired;
        message.metadata.checking_disabled = self.query.metadata.checking_disabled;
        message.metadata.authentic_data = self.query.metadata.authentic_data;
        message.queries.clone_from(&self.query.queries);
        message.edns = self.query.edns.as_ref().map(|theirs| {
            let mut edns = Edns::new();
            let limit = if self.tcp { UPSTREAM_LIMIT } else { (self.limit() as u16).min(UPSTREAM_LIMIT) };
            edns.set_max_payload(limit).set_dnssec_ok(theirs.flags().dnssec_ok);
            edns
        });
        message.to_vec().ok()
    }

    /// An upstream's answer as it is, under the asker's id; cut to nothing where it does not fit.
    pub fn passed_on(&self, answer: &[u8]) -> Option<Vec<u8>> {
        if answer.len() > self.limit() {
            let mut reply = self.reply(ResponseCode::NoError);
            reply.metadata.truncation = true;
            return self.encode(reply);
        }
        let mut answer = answer.to_vec();
        answer.get_mut(..2)?.copy_from_slice(&self.query.metadata.id.to_be_bytes());
        Some(answer)
    }

    fn reply(&self, code: ResponseCode) -> Message {
        let asked = &self.query.metadata;
        let mut reply = Message::response(asked.id, asked.op_code);
        reply.metadata.recursion_desired = asked.recursion_desired;
        reply.metadata.checking_disabled = asked.checking_disabled;
        reply.metadata.recursion_available = true;
        reply.metadata.response_code = code;
        reply.queries.clone_from(&self.query.queries);
        reply.edns = self.query.edns.as_ref().map(|theirs| {
            let mut edns = Edns::new();
            edns.set_max_payload(self.manner.udp_limit).set_dnssec_ok(theirs.flags().dnssec_ok);
            edns
        });
        reply
    }

    fn answer(&self, data: Vec<RData>) -> Message {
        let name = self.query.queries[0].name();
        let mut reply = self.reply(ResponseCode::NoError);
        reply.metadata.authoritative = true;
        reply.answers =
            data.into_iter().map(|data| Record::from_rdata(name.clone(), self.manner.ttl, data)).collect();
        reply
    }

    fn addresses(&self, addresses: &[IpAddr]) -> Message {
        self.answer(addresses.iter().copied().map(address_data).collect())
    }

    fn targets(&self, port: u16, targets: Vec<Target>) -> Result<Message, ProtoError> {
        let mut data = Vec::new();
        let mut additionals = Vec::new();
        for target in targets {
            let name = name_of(&target.name)?;
            let records = target.addresses.into_iter().map(address_data);
            additionals.extend(records.map(|data| Record::from_rdata(name.clone(), self.manner.ttl, data)));
            data.push(RData::SRV(SRV::new(0, target.weight, port, name)));
        }
        let mut reply = self.answer(data);
        reply.additionals = additionals;
        Ok(reply)
    }

    /// RFC 2308: without a start of authority nobody may remember that there is nothing. Its owner is the name's
    /// parent, for a denied name cannot be a zone.
    fn denial(&self, code: ResponseCode) -> Message {
        let ttl = self.manner.ttl;
        let seconds = i32::try_from(ttl).unwrap_or(i32::MAX);
        let mut reply = self.reply(code);
        reply.metadata.authoritative = true;
        let soa = SOA::new(Name::root(), Name::root(), 1, seconds, seconds, seconds, ttl);
        let zone = self.query.queries[0].name().base_name();
        reply.authorities = vec![Record::from_rdata(zone, ttl, RData::SOA(soa))];
        reply
    }

    /// Writes a reply so that it fits: first without what only saves the asker time, then with as many records
    /// as there is room for and the mark that there are more. The records are shuffled, so over time even
    /// those who overlook the mark get to all of them.
    fn encode(&self, mut reply: Message) -> Option<Vec<u8>> {
        let limit = self.limit();
        if reply.answers.len() > limit / SMALLEST_RECORD {
            reply.answers.truncate(limit / SMALLEST_RECORD);
            reply.additionals.clear();
            reply.metadata.truncation = true;
        }
        let mut bytes = reply.to_vec().ok()?;
        // What would be longer than a message can be (RFC 1035 §4.2.2) is cut while it is written.
        let cut = is_truncated(&bytes) && !reply.metadata.truncation;
        if cut || bytes.len() > limit {
            reply.additionals.clear();
            bytes = reply.to_vec().ok()?;
        }
        while bytes.len() > limit {
            let keep = (reply.answers.len() * limit / bytes.len()).min(reply.answers.len().checked_sub(1)?);
            reply.answers.truncate(keep);
            reply.metadata.truncation = true;
            bytes = reply.to_vec().ok()?;
        }
        Some(bytes)
    }
}

/// Whether a reply says that it was cut.
pub fn is_truncated(reply: &[u8]) -> bool {
    reply.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// A name as text, if it can be one of ours: a dot or a backslash inside a label would look like another name.
fn plain(name: &Name) -> Option<String> {
    let mut text = String::new();
    for label in name.iter() {
        if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().copied().map(char::from));
    }
    Some(text)
}

fn name_of(text: &str) -> Result<Name, ProtoError> {
    Name::from_labels(text.split('.').map(str::as_bytes))
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

#[cfg(test)]
mod tests;
