//! Packets in, packets out, without a kernel.

use std::sync::Arc;

use crate::model::{Attachment, EndpointMode, Network, NodeId, Service, ServiceId, Snapshot, Vip, Vni};
use hickory_proto::op::Query;
use proptest::prelude::*;

use super::*;

const MANNER: Manner = Manner { ttl: 5, udp_limit: 1232 };

/// One network, `app`, with the VIP service `web`.
fn zone() -> Zone {
    let id = NetworkId::new("app");
    let network = Network {
        id: id.clone(),
        name: "app".parse().unwrap(),
        v4: "10.1.0.0/16".parse().unwrap(),
        v6: None,
        vni: Vni(4096),
        mtu: None,
        internal: false,
        encrypted: false,
        labels: Default::default(),
        created: 0,
    };
    let service = Service {
        id: ServiceId::new("web"),
        name: "web".parse().unwrap(),
        mode: EndpointMode::Vip,
        networks: vec![Attachment {
            network: id.clone(),
            vip: Some(Vip { v4: "10.1.0.1".parse().unwrap(), v6: None }),
            aliases: vec![],
        }],
        ports: vec![],
        balancing: crate::model::Balancing::Random,
        affinity: Default::default(),
        locality: crate::model::Locality::Spread,
        drain_timeout: Default::default(),
        return_path: Default::default(),
        idle_timeout: None,
        discovery: Default::default(),
        slow_start: Default::default(),
        passive_health: true,
        health: Default::default(),
        program: Default::default(),
        labels: Default::default(),
        version: 1,
        created: 0,
        updated: 0,
    };
    let mut world = Snapshot::default();
    world.networks.insert(id, Arc::new(network));
    world.services.insert(service.id.clone(), Arc::new(service));
    Zone::build(&world, &NodeId::new("n1"))
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn ask(packet: &[u8], tcp: bool) -> Verdict {
    decide(packet, tcp, MANNER, &zone(), &[NetworkId::new("app")], 1)
}

/// The reply in words: its code, flags, and records.
fn said(message: &Message) -> String {
    match ask(&message.to_vec().unwrap(), false) {
        Verdict::Ignore => "ignored".into(),
        Verdict::Forward(_) => "forwarded".into(),
        Verdict::Reply(bytes, outcome) => {
            let reply = Message::from_vec(&bytes).unwrap();
            assert_eq!(reply.metadata.id, message.metadata.id);
            let records: Vec<_> = reply.answers.iter().map(|record| record.data.to_string()).collect();
            let soa = if reply.authorities.is_empty() { "" } else { " soa" };
            format!(
                "{:?} {}{soa} {} {outcome:?}",
                reply.metadata.response_code,
                reply.metadata.flags(),
                records.join(",")
            )
        }
    }
}

#[test]
fn questions_are_sorted_by_what_they_ask() {
    let of = |name: &str, kind| said(&query(name, kind));
    assert_eq!(of("web.", RecordType::A), "NoError RD,AA,RA 10.1.0.1 Addresses");
    assert_eq!(of("WEB.", RecordType::A), "NoError RD,AA,RA 10.1.0.1 Addresses");
    assert_eq!(of("web.", RecordType::AAAA), "NoError RD,AA,RA soa  NoData");
    assert_eq!(of("web.", RecordType::MX), "NoError RD,AA,RA soa  NoData");
    assert_eq!(of("web.", RecordType::HTTPS), "NoError RD,AA,RA soa  NoData");
    assert_eq!(of("web.1.", RecordType::A), "NXDomain RD,AA,RA soa  NxDomain");
    assert_eq!(of("1.0.1.10.in-addr.arpa.", RecordType::PTR), "NoError RD,AA,RA web.app. Names");
    assert_eq!(of("web.", RecordType::ANY), "NotImp RD,RA  Refused");
    assert_eq!(of("example.com.", RecordType::ANY), "NotImp RD,RA  Refused");
    assert_eq!(of("web.", RecordType::AXFR), "Refused RD,RA  Refused");
    assert_eq!(of("web.", RecordType::IXFR), "Refused RD,RA  Refused");
    assert_eq!(of(".", RecordType::NS), "forwarded");
    assert_eq!(of("example.com.", RecordType::A), "forwarded");
    // A dot inside a label is not the dot between two.
    assert_eq!(of("web\\.app.", RecordType::A), "forwarded");

    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(said(&chaos), "Refused RD,RA  Refused");
    let mut new_edns = query("web.", RecordType::A);
    new_edns.edns = Some(Edns::new());
    new_edns.edns.as_mut().unwrap().set_version(1);
    assert_eq!(said(&new_edns), "BADSIG RD,RA  Refused", "16: BADVERS, which shares its number");
    let mut update = query("web.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(said(&update), "NotImp RD  Refused");
    let mut reply = query("web.", RecordType::A);
    reply.metadata.message_type = MessageType::Response;
    assert_eq!(said(&reply), "ignored");
    let mut two = query("web.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(said(&two), "FormErr RD  Malformed");
}

#[test]
fn what_goes_out_is_the_question_and_nothing_else() {
    let mut message = query("ExaMple.com.", RecordType::A);
    message.add_additional(Record::from_rdata(Name::root(), 0, RData::A(A([192, 0, 2, 1].into()))));
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(true);
    edns.options_mut().insert(hickory_proto::rr::rdata::opt::EdnsOption::Unknown(10, vec![1; 8]));
    message.edns = Some(edns);
    let Verdict::Forward(asked) = ask(&message.to_vec().unwrap(), false) else { panic!("not forwarded") };
    let sent = Message::from_vec(&asked.upstream().unwrap()).unwrap();
    assert_eq!(sent.metadata.id, 0);
    assert!(sent.metadata.recursion_desired);
    assert_eq!(sent.queries[0].name().to_ascii(), "ExaMple.com.");
    assert!(sent.additionals.is_empty());
    let edns = sent.edns.unwrap();
    assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (1232, true));
    assert!(edns.options().as_ref().is_empty());
    let Verdict::Forward(plain) = ask(&query("a.b.", RecordType::A).to_vec().unwrap(), true) else {
        panic!()
    };
    assert!(Message::from_vec(&plain.upstream().unwrap()).unwrap().edns.is_none());
}

#[test]
fn an_answer_that_is_passed_on_keeps_all_but_the_id() {
    let Verdict::Forward(asked) = ask(&query("a.b.", RecordType::A).to_vec().unwrap(), false) else {
        panic!()
    };
    let mut answer = vec![0u8; 512];
    answer[2] = 0x81;
    let passed = asked.passed_on(&answer).unwrap();
    assert_eq!((&passed[..2], &passed[2..]), (&[0, 7][..], &answer[2..]));
    let cut = asked.passed_on(&vec![0; 513]).unwrap();
    assert!(is_truncated(&cut) && cut.len() < 64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// No packet is answered with more than the limit, or with anything that is not a reply to it.
    #[test]
    fn no_packet_breaks_it(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        of_ours: bool,
        tcp: bool,
    ) {
        let mut packet = noise;
        if of_ours {
            let mut message = query("tasks.web.app.", RecordType::A);
            message.edns = Some(Edns::new());
            packet = message.to_vec().unwrap();
            for (at, byte) in flips {
                let at = at.index(packet.len());
                packet[at] = byte;
            }
        }
        if let Verdict::Reply(bytes, _) = ask(&packet, tcp) {
            prop_assert!(tcp || bytes.len() <= 1232);
            prop_assert_eq!(&bytes[..2], &packet[..2]);
            prop_assert!(bytes[2] & 0x80 != 0 && packet[2] & 0x80 == 0);
            prop_assert!(Message::from_vec(&bytes).is_ok());
        }
    }
}
