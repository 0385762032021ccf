//! **Decision.** What upstreams answered is kept as long as they allow, and told with the time that is left of it
//! (RFC 1035 §7.3); what there is not, as long as its start of authority says (RFC 2308 §5). Cut answers, failures
//! and denials without a start of authority are not kept.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::reply::HEADER;

/// However long an answer would be good, it is asked for again after this time.
const LONGEST: u32 = 3600;
/// The same for what there is not: a new name is seen soon.
const LONGEST_DENIAL: u32 = 300;
/// Longer answers are rare, and not kept: a full cache has a bound in bytes, too.
const LARGEST: usize = 4096;
const SOA: u16 = 6;
const OPT: u16 = 41;

/// Answers by question, both in wire format with the id 0. The question's letters may be small or capital.
#[derive(Debug)]
pub struct Cache {
    room: usize,
    entries: HashMap<Vec<u8>, Entry>,
}

#[derive(Debug)]
struct Entry {
    answer: Vec<u8>,
    kept: Instant,
    until: Instant,
}

impl Cache {
    /// A cache for so many answers; zero: it keeps none.
    pub fn new(room: usize) -> Self {
        Self { room, entries: HashMap::new() }
    }

    /// How many answers there are, also those whose time is up.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// What is known, with the question's letters as they are in this one.
    pub fn get(&self, question: &[u8], now: Instant) -> Option<Vec<u8>> {
        let entry = self.entries.get(&key(question)?).filter(|entry| now < entry.until)?;
        let mut answer = entry.answer.clone();
        let age = now.duration_since(entry.kept).as_secs() as u32;
        for record in records(&entry.answer)?.iter().filter(|record| record.kind != OPT) {
            let left = record.ttl.saturating_sub(age);
            answer.get_mut(record.ttl_at..record.ttl_at + 4)?.copy_from_slice(&left.to_be_bytes());
        }
        let end = name_end(question, HEADER)?;
        answer.get_mut(HEADER..end)?.copy_from_slice(question.get(HEADER..end)?);
        Some(answer)
    }

    /// Keeps an answer to a question, if it may be kept.
    pub fn keep(&mut self, question: &[u8], answer: &[u8], now: Instant) {
        let Some((key, life)) = key(question).zip(life(answer)) else { return };
        // Some servers leave the question out; then there is nowhere to write its letters.
        let repeated =
            answer.get(4..6) == Some(&[0, 1]) && name_end(answer, HEADER) == name_end(question, HEADER);
        if self.room == 0 || answer.len() > LARGEST || !repeated {
            return;
        }
        if self.entries.len() >= self.room && !self.entries.contains_key(&key) {
            self.make_room(now);
        }
        let until = now + Duration::from_secs(life.into());
        self.entries.insert(key, Entry { answer: answer.to_vec(), kept: now, until });
    }

    /// What is out of date goes; where there is none of that, what will be next.
    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now < entry.until);
        if self.entries.len() >= self.room {
            let next = self.entries.iter().min_by_key(|(_, entry)| entry.until).map(|(key, _)| key.clone());
            next.and_then(|key| self.entries.remove(&key));
        }
    }
}

/// A question with small letters in its name, and nowhere else: 65 and 97 are types.
fn key(question: &[u8]) -> Option<Vec<u8>> {
    let mut key = question.to_vec();
    let end = name_end(question, HEADER)?;
    key.get_mut(HEADER..end)?.make_ascii_lowercase();
    Some(key)
}

/// How many seconds an answer is good for; none: it must not be kept.
fn life(answer: &[u8]) -> Option<u32> {
    let code = answer.get(3)? & 0xf;
    if answer.get(2)? & 0x02 != 0 || !matches!(code, 0 | 3) {
        return None;
    }
    let denies = code == 3 || answer.get(6..8)? == [0, 0];
    let (mut life, mut authority) = (if denies { LONGEST_DENIAL } else { LONGEST }, false);
    for record in records(answer)?.iter().filter(|record| record.kind != OPT) {
        life = life.min(record.ttl);
        if record.kind == SOA && record.in_authority {
            authority = true;
            life = life.min(u32::from_be_bytes(*answer.get(..record.end)?.last_chunk()?));
        }
    }
    Some(life).filter(|life| *life > 0 && (authority || !denies))
}

/// A resource record (RFC 1035 §4.1.3), as far as it matters here.
struct Record {
    kind: u16,
    in_authority: bool,
    ttl: u32,
    ttl_at: usize,
    end: usize,
}

/// All records of a message; none: it cannot be read to its end.
fn records(message: &[u8]) -> Option<Vec<Record>> {
    let count = |at: usize| Some(usize::from(u16::from_be_bytes(*message.get(at..)?.first_chunk()?)));
    let (questions, answers, authorities) = (count(4)?, count(6)?, count(8)?);
    let all = answers + authorities + count(10)?;
    let mut at = HEADER;
    for _ in 0..questions {
        at = name_end(message, at)? + 4;
    }
    let mut records = Vec::new();
    for place in 0..all {
        let head = name_end(message, at)?;
        let [kind0, kind1, _, _, ttl @ .., length0, length1] = *message.get(head..)?.first_chunk::<10>()?;
        let end = head + 10 + usize::from(u16::from_be_bytes([length0, length1]));
        message.get(..end)?;
        records.push(Record {
            kind: u16::from_be_bytes([kind0, kind1]),
            in_authority: (answers..answers + authorities).contains(&place),
            ttl: u32::from_be_bytes(ttl),
            ttl_at: head + 4,
            end,
        });
        at = end;
    }
    Some(records)
}

/// Where what follows a name begins. A compressed one ends with the pointer (RFC 1035 §4.1.4).
pub fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            size @ 1..64 => at += 1 + usize::from(size),
            192.. => return Some(at + 2),
            64..192 => return None,
        }
    }
}
