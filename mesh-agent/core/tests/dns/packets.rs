//! What is said byte by byte: the quick way as the other, whole or marked as cut, and never more than the asker takes.

use std::collections::BTreeSet;
use std::sync::Arc;

use hickory_proto::op::Message;
use mesh_core::dns::reply::{Manner, Outcome, Verdict};
use mesh_core::dns::{Zone, quick, reply};
use mesh_core::model::*;
use proptest::prelude::*;

use super::{service, task, world};

/// The question in wire format.
fn packet(name: &str, kind: u16, flags: [u8; 2], edns: Option<(u16, bool)>) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.bytes());
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend([0, 1]);
    if let Some((payload, dnssec)) = edns {
        packet.extend([0, 0, 41]);
        packet.extend(payload.to_be_bytes());
        packet.extend([0, 0, u8::from(dnssec) << 7, 0, 0, 0]);
    }
    packet
}

fn zone() -> Zone {
    Zone::build(&world(), &NodeId::new("n1"))
}

/// What an agent may be told that answers over UDP have at most; the last is what it has by itself.
fn limits() -> impl Strategy<Value = u16> {
    prop_oneof![512..=8192u16, Just(1232), Just(8192)]
}

/// The quick answer, after having been compared with the other.
fn quick_answer(packet: &[u8], udp_limit: u16, networks: &[NetworkId], seed: u64) -> Option<Outcome> {
    let manner = Manner { ttl: 5, udp_limit };
    let mut out = b"before".to_vec();
    let zone = zone();
    let outcome = quick::answer(packet, manner, &zone, networks, seed, &mut out);
    match (outcome, reply::decide(packet, false, manner, &zone, networks, seed)) {
        (Some(outcome), Verdict::Reply(bytes, other)) => {
            assert_eq!((&out[6..], outcome), (&bytes[..], other));
        }
        (Some(outcome), other) => panic!("{outcome:?}, and not {other:?}"),
        (None, _) => assert_eq!(out, b"before"),
    }
    outcome
}

#[test]
fn the_common_question_is_answered_quickly() {
    let app = [NetworkId::new("app")];
    let ask = |name, kind, edns| quick_answer(&packet(name, kind, [1, 0], edns), 8192, &app, 7);
    for (name, kind, outcome) in [
        ("web", 1, Some(Outcome::Addresses)),
        ("WEB.app", 28, Some(Outcome::Addresses)),
        ("tasks.web", 1, Some(Outcome::Addresses)),
        ("zero", 28, Some(Outcome::NoData)),
        ("none.App", 1, Some(Outcome::NoData)),
        ("secret", 1, None),
        ("example.com", 1, None),
        ("web", 33, None),
    ] {
        assert_eq!(ask(name, kind, None), outcome, "{name}");
        assert_eq!(ask(name, kind, Some((1232, true))), outcome, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// Whatever is answered quickly is answered as it would have been otherwise.
    #[test]
    fn quick_answers_are_the_same(
        name in "(tasks\\.|nearest\\.|[1-3]\\.)?(web|WEB|cache|zero|none|secret|box|Www|x)(\\.app|\\.db|\\.1)?",
        kind in prop::sample::select(vec![1u16, 28, 1, 28, 33, 12, 15, 255]),
        flags in any::<[u8; 2]>(),
        plain: bool,
        edns in prop::option::of((any::<u16>(), any::<bool>())),
        networks in prop::sample::subsequence(vec!["app", "db", "dev"], 0..=3),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        udp_limit in limits(),
        seed: u64,
    ) {
        let flags = if plain { [flags[0] & 1, flags[1] & 0x30] } else { flags };
        let mut packet = packet(&name, kind, flags, edns);
        for (at, byte) in flips.into_iter().filter(|_| !plain) {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        let networks: Vec<_> = networks.into_iter().map(NetworkId::new).collect();
        quick_answer(&packet, udp_limit, &networks, seed);
    }
}

/// How many names of a message hickory-proto compresses.
const COMPRESSED: u16 = 120;

/// Network `app` with so many tasks of a dnsrr service `many`.
fn crowd(tasks: u16) -> Zone {
    let mut world = world();
    let many = service("many", EndpointMode::Dnsrr, &[("app", None, &[])]);
    world.services.insert(many.id.clone(), Arc::new(many));
    for slot in 1..=tasks {
        let id = TaskId::new(format!("{slot:a>25}"));
        let [high, low] = slot.to_be_bytes();
        let (v4, v6) = (format!("10.1.{}.{low}", 64 + high), format!("fd01::1:{slot:x}"));
        let task = task(id.clone(), Some("many"), slot.into(), &[("app", &v4, Some(&v6))]);
        world.tasks.insert(id, Arc::new(task));
    }
    Zone::build(&world, &NodeId::new("n1"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever there is to tell fits, can be read, and is whole or says that it is not; over TCP it is whole.
    #[test]
    fn answers_fit_and_can_be_read(
        tasks in 1..800u16,
        kind in prop::sample::select(vec![(1u16, "tasks.many"), (28, "many.app"), (33, "_80._tcp.many")]),
        edns in prop::option::of((any::<u16>(), any::<bool>())),
        udp_limit in limits(),
        seed: u64,
    ) {
        let (zone, (kind, name)) = (crowd(tasks), kind);
        let (app, manner) = ([NetworkId::new("app")], Manner { ttl: 5, udp_limit });
        let packet = packet(name, kind, [1, 0], edns);
        let ask = |tcp| match reply::decide(&packet, tcp, manner, &zone, &app, seed) {
            Verdict::Reply(bytes, _) => bytes,
            other => panic!("{other:?}"),
        };
        let (udp, tcp) = (ask(false), ask(true));
        let limit = edns.map_or(512, |(offered, _)| offered.clamp(512, udp_limit));
        prop_assert!(udp.len() <= usize::from(limit));
        let [cut, whole] = [&udp, &tcp].map(|bytes| Message::from_vec(bytes).unwrap());
        prop_assert_eq!((whole.answers.len(), reply::is_truncated(&tcp)), (usize::from(tasks), false));
        prop_assert_eq!(reply::is_truncated(&udp), cut.answers.len() < usize::from(tasks));
        prop_assert!(!cut.answers.is_empty(), "those who overlook the mark have something");
        let all: BTreeSet<_> = whole.answers.iter().map(|record| record.data.to_string()).collect();
        prop_assert_eq!(all.len(), usize::from(tasks));
        prop_assert!(cut.answers.iter().all(|record| all.contains(&record.data.to_string())));
        let mut out = Vec::new();
        if quick::answer(&packet, manner, &zone, &app, seed, &mut out).is_some() {
            // Beyond that many names, the question's among them, the other way writes names in full, and has less room.
            if tasks < COMPRESSED {
                prop_assert_eq!(&out, &udp);
            }
            prop_assert!(out.len() <= usize::from(limit) && !reply::is_truncated(&out));
            let quick = Message::from_vec(&out).unwrap();
            prop_assert_eq!(&quick.queries, &cut.queries);
            let told: BTreeSet<_> = quick.answers.iter().map(|record| record.data.to_string()).collect();
            prop_assert_eq!(told, all);
        }
    }
}

/// Who is told where tasks are goes past the VIP, and a service's own name tells of the VIP.
#[test]
fn whose_tasks_a_question_is_about() {
    let zone = zone();
    let (app, db) = ([NetworkId::new("app")], [NetworkId::new("db")]);
    let asked = |name: &str, networks| {
        let packet = packet(name, 1, [1, 0], None);
        mesh_core::dns::whose::tasks_of(&packet, &zone, networks).map(ToString::to_string)
    };
    for name in [
        "tasks.web",
        "Nearest.WEB.app",
        "_http._tcp.web",
        "_80._tcp.www.app",
        "web.1",
        "web.1.app",
        "tasks.www",
    ] {
        assert_eq!(asked(name, &app).as_deref(), Some("idweb"), "{name}");
    }
    let id = world().tasks.values().find(|task| task.service.is_some()).unwrap().id.clone();
    assert!(
        asked(&format!("web.1.{id}"), &app).is_some() && asked(&format!("web.1.{id}.app"), &app).is_some()
    );
    for name in
        ["web", "web.app", "tasks.nobody", "web.one", "1.web", "tasks", "www.1", "_http.web", "a.b.c.d.e.f.g"]
    {
        assert_eq!(asked(name, &app), None, "{name}");
    }
    assert_eq!(asked("tasks.secret", &app), None, "it is of another network");
    assert_eq!(asked("tasks.secret", &db).as_deref(), Some("idsecret"));
    for cut in 0..20 {
        let packet = packet("tasks.web", 1, [1, 0], None);
        assert_eq!(mesh_core::dns::whose::tasks_of(&packet[..cut], &zone, &app), None);
    }
}
