//! What is kept of upstreams' answers, for how long, and how it comes back.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use mesh_core::dns::cache::Cache;
use proptest::prelude::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn question(text: &str) -> Message {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name(text), RecordType::A));
    message.edns = Some(Edns::new());
    message
}

fn answer(to: &Message, code: ResponseCode, ttls: &[u32], soa: Option<(u32, u32)>) -> Vec<u8> {
    let mut reply = Message::response(0, OpCode::Query);
    reply.metadata.response_code = code;
    reply.queries.clone_from(&to.queries);
    let owner = to.queries[0].name();
    let record = |(last, ttl): (usize, &u32)| {
        Record::from_rdata(owner.clone(), *ttl, RData::A(A([192, 0, 2, last as u8].into())))
    };
    reply.answers = ttls.iter().enumerate().map(record).collect();
    if let Some((ttl, minimum)) = soa {
        let data = RData::SOA(SOA::new(name("ns."), name("root."), 1, 2, 3, 4, minimum));
        reply.authorities = vec![Record::from_rdata(owner.base_name(), ttl, data)];
    }
    reply.edns = Some(Edns::new());
    reply.to_vec().unwrap()
}

fn after(seconds: u64) -> Instant {
    static BEGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    *BEGIN + Duration::from_secs(seconds)
}

/// For how many seconds an answer to `a.example` is told.
fn kept(code: ResponseCode, ttls: &[u32], soa: Option<(u32, u32)>) -> u64 {
    let asked = question("a.example.");
    life(&asked, &answer(&asked, code, ttls, soa))
}

fn life(asked: &Message, answer: &[u8]) -> u64 {
    let (mut cache, asked_bytes) = (Cache::new(9), asked.to_vec().unwrap());
    cache.keep(&asked_bytes, answer, after(0));
    (0..5000).find(|second| cache.get(&asked_bytes, after(*second)).is_none()).unwrap()
}

#[test]
fn answers_are_kept_as_long_as_they_say() {
    use ResponseCode::{NXDomain, NoError, ServFail};
    for (code, ttls, soa, seconds) in [
        (NoError, &[30][..], None, 30),
        (NoError, &[30, 20], None, 20),
        (NoError, &[30], Some((10, 60)), 10),
        (NoError, &[30], Some((60, 7)), 7),
        (NoError, &[0], None, 0),
        (NoError, &[90_000], None, 3600),
        (NoError, &[], Some((60, 15)), 15),
        (NXDomain, &[], Some((15, 60)), 15),
        (NXDomain, &[], Some((9000, 9000)), 300),
        (NXDomain, &[], None, 0),
        (NoError, &[], None, 0),
        (ServFail, &[30], None, 0),
    ] {
        assert_eq!(kept(code, ttls, soa), seconds, "{code} {ttls:?} {soa:?}");
    }
}

#[test]
fn time_is_counted_down_and_letters_are_the_askers() {
    let mut cache = Cache::new(9);
    let asked = question("a.example.");
    let bytes = answer(&asked, ResponseCode::NoError, &[30, 40], None);
    cache.keep(&asked.to_vec().unwrap(), &bytes, after(0));
    let told = cache.get(&question("A.exAmple.").to_vec().unwrap(), after(12)).unwrap();
    assert_eq!(told.len(), bytes.len());
    let told = Message::from_vec(&told).unwrap();
    assert_eq!(told.queries[0].name().to_ascii(), "A.exAmple.");
    assert_eq!(told.answers.iter().map(|record| record.ttl).collect::<Vec<_>>(), [18, 28]);
    assert!(cache.get(&question("b.example.").to_vec().unwrap(), after(0)).is_none());
    let mut bare = question("a.example.");
    bare.edns = None;
    assert!(cache.get(&bare.to_vec().unwrap(), after(0)).is_none(), "who has no EDNS must not be told any");
    cache.clear();
    assert!(cache.is_empty());
}

#[test]
fn an_alias_of_nothing_is_kept_as_a_denial_says() {
    let asked = question("a.example.");
    let mut reply = Message::from_vec(&answer(&asked, ResponseCode::NoError, &[], Some((60, 5)))).unwrap();
    reply.answers = vec![Record::from_rdata(name("a.example."), 90, RData::CNAME(CNAME(name("b.example."))))];
    assert_eq!(life(&asked, &reply.to_vec().unwrap()), 5);
    reply.metadata.truncation = true;
    assert_eq!(life(&asked, &reply.to_vec().unwrap()), 0);
}

#[test]
fn a_full_cache_forgets_what_ends_first() {
    let mut cache = Cache::new(3);
    let ask = |n: u32| question(&format!("n{n}.example."));
    for (n, ttl) in [(1, 50), (2, 40), (3, 60), (4, 70)] {
        let bytes = answer(&ask(n), ResponseCode::NoError, &[ttl], None);
        cache.keep(&ask(n).to_vec().unwrap(), &bytes, after(0));
    }
    let known = |cache: &Cache, at| -> Vec<u32> {
        (1..6).filter(|n| cache.get(&ask(*n).to_vec().unwrap(), after(at)).is_some()).collect()
    };
    assert_eq!((cache.len(), known(&cache, 0)), (3, vec![1, 3, 4]));
    let bytes = answer(&ask(5), ResponseCode::NoError, &[5], None);
    cache.keep(&ask(5).to_vec().unwrap(), &bytes, after(65));
    assert_eq!((cache.len(), known(&cache, 66)), (2, vec![4, 5]));
    let mut none = Cache::new(0);
    none.keep(&ask(5).to_vec().unwrap(), &bytes, after(0));
    assert!(none.is_empty());
}

proptest! {
    /// Whatever an upstream says is kept or not, and what comes back is as long as it was.
    #[test]
    fn no_answer_breaks_it(
        noise in prop::collection::vec(any::<u8>(), 0..300),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        of_ours: bool,
    ) {
        let asked = question("a.example.");
        let mut bytes = noise;
        if of_ours {
            bytes = answer(&asked, ResponseCode::NoError, &[30, 40, 50], Some((60, 70)));
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let mut cache = Cache::new(2);
        let asked = asked.to_vec().unwrap();
        cache.keep(&asked, &bytes, after(0));
        if let Some(told) = cache.get(&asked, after(0)) {
            prop_assert_eq!(told.len(), bytes.len());
        }
        cache.keep(&bytes, &bytes, after(0));
        let _ = cache.get(&bytes, after(1));
    }
}
