//! What DNS answers, as a table, and what must hold for any name and any asker.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

#[path = "dns/packets.rs"]
mod packets;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::dns::{Answer, Question, Zone};
use mesh_core::model::*;
use proptest::prelude::*;

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaa";

fn task_id(last: char) -> TaskId {
    TaskId::new(format!("{ID}{last}"))
}

fn network(id: &str, v4: &str, v6: Option<&str>, vni: u32) -> Network {
    Network {
        id: NetworkId::new(id),
        name: id.parse().unwrap(),
        v4: v4.parse().unwrap(),
        v6: v6.map(|net| net.parse().unwrap()),
        vni: Vni(vni),
        mtu: None,
        internal: false,
        encrypted: false,
        labels: Default::default(),
        created: 0,
    }
}

fn service(name: &str, mode: EndpointMode, networks: &[(&str, Option<Vip>, &[&str])]) -> Service {
    Service {
        id: ServiceId::new(format!("id{name}")),
        name: name.parse().unwrap(),
        mode,
        networks: networks
            .iter()
            .map(|(network, vip, aliases)| Attachment {
                network: NetworkId::new(*network),
                vip: *vip,
                aliases: aliases.iter().map(|alias| alias.parse().unwrap()).collect(),
            })
            .collect(),
        ports: vec![],
        balancing: Balancing::Random,
        affinity: Affinity::None,
        locality: Locality::Spread,
        drain_timeout: Duration::ZERO,
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
    }
}

fn task(id: TaskId, service: Option<&str>, slot: u32, addresses: &[(&str, &str, Option<&str>)]) -> Task {
    Task {
        id,
        service: service.map(|name| ServiceId::new(format!("id{name}"))),
        slot,
        name: None,
        node: NodeId::new("n1"),
        epoch: 1,
        addresses: addresses
            .iter()
            .map(|(network, v4, v6)| {
                let v6 = v6.map(|a| a.parse().unwrap());
                (NetworkId::new(*network), TaskAddress { v4: v4.parse().unwrap(), v6 })
            })
            .collect(),
        state: TaskState::Running,
        health: Health::None,
        weight: 100,
        draining: false,
        message: String::new(),
        origin: Origin::Process { pid: 1, start: 1, supervised: false },
        checked: false,
        dns: vec![],
        packets_only: false,
        program: None,
        ejected: None,
        ready_since: 0,
        created: 0,
        updated: 0,
    }
}

fn vip(v4: &str, v6: Option<&str>) -> Option<Vip> {
    Some(Vip { v4: v4.parse().unwrap(), v6: v6.map(|a| a.parse().unwrap()) })
}

/// Networks `app` (dual stack), `db` and `dev`; `web` (VIP, three tasks of which one is unhealthy), `cache`
/// (dnsrr, two), `zero` (VIP, no task), `none` (dnsrr, no task), `secret` (in `db` only), `box` (a task alone).
fn world() -> Snapshot {
    let mut world = Snapshot::default();
    for network in [
        network("app", "10.1.0.0/16", Some("fd01::/64"), 4096),
        network("db", "10.2.0.0/16", None, 4097),
        network("dev", "10.3.0.0/16", None, 4098),
    ] {
        world.networks.insert(network.id.clone(), Arc::new(network));
    }
    for service in [
        service(
            "web",
            EndpointMode::Vip,
            &[
                ("app", vip("10.1.0.1", Some("fd01::1")), &["www", "cache"]),
                ("db", vip("10.2.0.1", None), &[]),
            ],
        ),
        service("cache", EndpointMode::Dnsrr, &[("app", None, &[])]),
        service("zero", EndpointMode::Vip, &[("app", vip("10.1.0.2", None), &[])]),
        service("none", EndpointMode::Dnsrr, &[("app", None, &[])]),
        service("secret", EndpointMode::Vip, &[("db", vip("10.2.0.9", None), &["hidden"])]),
    ] {
        world.services.insert(service.id.clone(), Arc::new(service));
    }
    let mut unhealthy = task(task_id('3'), Some("web"), 3, &[("app", "10.1.16.4", Some("fd01::4"))]);
    unhealthy.health = Health::Unhealthy;
    let mut gone = task(task_id('0'), Some("web"), 1, &[("app", "10.1.16.99", None)]);
    gone.state = TaskState::Shutdown;
    let mut leaving = task(task_id('a'), Some("web"), 1, &[("app", "10.1.16.98", None)]);
    leaving.draining = true;
    let mut alone = task(task_id('b'), None, 0, &[("dev", "10.3.16.2", None)]);
    alone.name = Some("box".parse().unwrap());
    for task in [
        task(
            task_id('1'),
            Some("web"),
            1,
            &[("app", "10.1.16.2", Some("fd01::2")), ("db", "10.2.16.2", None)],
        ),
        task(task_id('2'), Some("web"), 2, &[("app", "10.1.16.3", Some("fd01::3"))]),
        unhealthy,
        gone,
        leaving,
        alone,
        task(task_id('8'), Some("cache"), 1, &[("app", "10.1.17.2", None)]),
        task(task_id('9'), Some("cache"), 2, &[("app", "10.1.17.3", None)]),
        task(task_id('s'), Some("secret"), 1, &[("db", "10.2.16.9", None)]),
    ] {
        world.tasks.insert(task.id.clone(), Arc::new(task));
    }
    let node = Node {
        id: NodeId::new("n1"),
        name: "n1".parse().unwrap(),
        address: "192.0.2.1".parse().unwrap(),
        vxlan_port: 4789,
        epoch: 1,
        boot: String::new(),
        key: String::new(),
        reflects: false,
        left: false,
        uplink_mtu: 1500,
        listeners: Default::default(),
        routes: Default::default(),
        version: String::new(),
        started: 0,
    };
    world.nodes.insert(node.id.clone(), Arc::new(node));
    world
}

fn asker(networks: &str) -> Vec<NetworkId> {
    networks.split_whitespace().map(NetworkId::new).collect()
}

/// An answer in words, with its addresses sorted.
fn ask(zone: &Zone, networks: &str, name: &str, question: Question) -> String {
    match zone.answer(&asker(networks), name, question, 1) {
        Answer::Addresses(mut addresses) => {
            addresses.sort();
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        }
        Answer::Name(name) => name,
        Answer::Targets(port, mut targets) => {
            targets.sort_by(|a, b| a.name.cmp(&b.name));
            let each = targets.iter().map(|t| format!("{}:{port}*{} {:?}", t.name, t.weight, t.addresses));
            each.collect::<Vec<_>>().join(" ")
        }
        Answer::NoData => "nodata".into(),
        Answer::NxDomain => "nxdomain".into(),
        Answer::Forward => "forward".into(),
    }
}

#[test]
fn names_answer_as_documented() {
    use Question::{A, Aaaa, Other, Ptr, Srv};
    let zone = Zone::build(&world(), &NodeId::new("n1"));
    let id1 = task_id('1').to_string();
    let table: &[(&str, &str, Question, &str)] = &[
        // A VIP: one address of each family.
        ("app", "web", A, "10.1.0.1"),
        ("app", "web", Aaaa, "fd01::1"),
        ("app", "web", Other, "nodata"),
        ("app", "web", Srv, "nodata"),
        ("app", "web", Ptr, "nodata"),
        ("app", "web.", A, "10.1.0.1"),
        ("app", "WeB", A, "10.1.0.1"),
        ("app", "www", A, "10.1.0.1"),
        // The network's name may follow, and chooses.
        ("app db", "web.app", A, "10.1.0.1"),
        ("app db", "web.db", A, "10.2.0.1"),
        ("db app", "web", A, "10.2.0.1"),
        ("app", "web.db", A, "nxdomain"),
        ("app db", "web.db", Aaaa, "nodata"),
        // All ready tasks; the unhealthy, the leaving and the ended one are not.
        ("app", "tasks.web", A, "10.1.16.2 10.1.16.3"),
        ("app", "TASKS.web", Aaaa, "fd01::2 fd01::3"),
        ("app", "tasks.www", A, "10.1.16.2 10.1.16.3"),
        ("app db", "tasks.web.db", A, "10.2.16.2"),
        ("db app", "tasks.web.app", A, "10.1.16.2 10.1.16.3"),
        // A service's own name wins over another's alias.
        ("app", "cache", A, "10.1.17.2 10.1.17.3"),
        ("app", "cache", Aaaa, "nodata"),
        ("app", "tasks.cache", A, "10.1.17.2 10.1.17.3"),
        // One task: by slot the one that serves, by id also one that does not.
        ("app", "web.1", A, "10.1.16.2"),
        ("app", "web.3", A, "10.1.16.4"),
        ("app", "web.1.app", A, "10.1.16.2"),
        ("app", &format!("web.1.{id1}"), A, "10.1.16.2"),
        ("app", &format!("web.1.{id1}.app"), A, "10.1.16.2"),
        ("app", &format!("web.1.{}", task_id('a')), A, "10.1.16.98"),
        ("app", &format!("web.1.{}", task_id('0')), A, "nxdomain"),
        ("app", "web.9", A, "nxdomain"),
        ("app", "web.9.app", A, "nxdomain"),
        // Known names with no task are ours all the same.
        ("app", "zero", A, "10.1.0.2"),
        ("app", "tasks.zero", A, "nodata"),
        ("app", "none", A, "nodata"),
        ("app", "none.1", A, "nxdomain"),
        // Of other networks: denied, never forwarded, also when the asker is in none.
        ("app", "secret", A, "nxdomain"),
        ("app", "hidden", A, "nxdomain"),
        ("app", "tasks.secret", A, "nxdomain"),
        ("app", "secret.1", A, "nxdomain"),
        ("app", "secret.db", A, "nxdomain"),
        ("app", "tasks.secret.db", A, "nxdomain"),
        ("app", "secret.app", A, "nxdomain"),
        ("app", "secret", Other, "nxdomain"),
        ("app", "secret", Ptr, "nxdomain"),
        ("", "web", A, "nxdomain"),
        ("gone", "web", A, "nxdomain"),
        // A task alone has its own name, in its networks.
        ("dev", "box", A, "10.3.16.2"),
        ("dev", "box.dev", A, "10.3.16.2"),
        ("dev", &format!("box.{}", task_id('b')), A, "10.3.16.2"),
        ("app", "box", A, "nxdomain"),
        ("app", &format!("box.{}", task_id('b')), A, "nxdomain"),
        // Addresses have names.
        ("app", "2.16.1.10.in-addr.arpa", Ptr, "web.1.app"),
        ("app", "1.0.1.10.in-addr.arpa.", Ptr, "web.app"),
        ("app", "2.16.1.10.in-addr.arpa", A, "nodata"),
        ("dev", "2.16.3.10.IN-ADDR.ARPA", Ptr, "box.dev"),
        ("app", "9.16.2.10.in-addr.arpa", Ptr, "nxdomain"),
        ("app", "77.16.1.10.in-addr.arpa", Ptr, "nxdomain"),
        ("app", "8.8.8.8.in-addr.arpa", Ptr, "forward"),
        ("app", "16.1.10.in-addr.arpa", Ptr, "forward"),
        ("app", "+2.16.1.10.in-addr.arpa", Ptr, "forward"),
        ("app", "256.1.1.1.in-addr.arpa", Ptr, "forward"),
        ("app", "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.d.f.ip6.arpa", Ptr, "web.1.app"),
        ("db", "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.d.f.ip6.arpa", Ptr, "nxdomain"),
        ("app", "1.0.ip6.arpa", Ptr, "forward"),
        // Ports.
        ("app", "_80._tcp.web", A, "nodata"),
        ("app", "_80._tcp.zero", Srv, "nodata"),
        ("app", "_80._tcp.secret", Srv, "nxdomain"),
        ("app", "_http._tcp.web", Srv, "nxdomain"),
        ("app", "_0._tcp.web", Srv, "nxdomain"),
        ("app", "_80._sctp.web", Srv, "nxdomain"),
        ("app", "_http._tcp.nearest.web", Srv, "nxdomain"),
        ("app", "_http._tcp.web.1", Srv, "nxdomain"),
        ("app", "_http._tcp.example.com", Srv, "forward"),
        ("app", "_sip._tcp.example.com", Srv, "forward"),
        // The world's, also where it looks like ours: `dev` is a network and a top-level domain.
        ("app", "example.com", A, "forward"),
        ("dev", "go.dev", A, "forward"),
        ("dev", "www.go.dev", A, "forward"),
        ("app", "web.1.com", A, "forward"),
        ("app", "web.example.com", A, "forward"),
        ("app", "nosuch", A, "forward"),
        ("app", "app", A, "forward"),
        ("app", "tasks", A, "forward"),
        ("app", "", A, "forward"),
        ("app", ".", A, "forward"),
    ];
    for (networks, name, question, wanted) in table {
        assert_eq!(ask(&zone, networks, name, *question), *wanted, "[{networks}] {name} {question:?}");
    }
    assert_eq!(
        ask(&zone, "app", "_8080._TCP.web", Srv),
        format!(
            "web.1.{}.app:8080*25600 [10.1.16.2, fd01::2] web.2.{}.app:8080*25600 [10.1.16.3, fd01::3]",
            task_id('1'),
            task_id('2')
        )
    );
    assert_eq!(ask(&zone, "app", "_53._udp.cache.app", Srv).matches(":53*25600").count(), 2);
}

/// What a service's or node's state takes out of the balance leaves `tasks.` and dnsrr, never the name.
#[test]
fn drained_nodes_and_stopped_tasks_leave_the_answers() {
    let mut stopped = world();
    stopped.stops.insert(task_id('8'), Default::default());
    assert_eq!(ask(&Zone::build(&stopped, &NodeId::new("n1")), "app", "cache", Question::A), "10.1.17.3");
    let mut drained = world();
    let spec = NodeSpec { availability: Availability::Drain, ..NodeSpec::default() };
    drained.specs.insert(NodeId::new("n1"), spec);
    let zone = Zone::build(&drained, &NodeId::new("n1"));
    assert_eq!(ask(&zone, "app", "cache", Question::A), "nodata");
    assert_eq!(ask(&zone, "app", "web", Question::A), "10.1.0.1");
    assert_eq!(ask(&zone, "app", "cache.1", Question::A), "10.1.17.2");
}

/// A task asks for what is near it: on its own node as long as there is one.
#[test]
fn the_nearest_tasks_are_those_of_the_own_node() {
    let mut world = world();
    let elsewhere = Task { node: NodeId::new("n2"), ..Task::clone(&world.tasks[&task_id('2')]) };
    world.tasks.insert(elsewhere.id.clone(), Arc::new(elsewhere));
    let node = Node {
        id: NodeId::new("n2"),
        name: "n2".parse().unwrap(),
        ..(*world.nodes[&NodeId::new("n1")]).clone()
    };
    world.nodes.insert(node.id.clone(), Arc::new(node));
    for (here, name, answer) in [
        ("n1", "nearest.web", "10.1.16.2"),
        ("n1", "nearest.www.app", "10.1.16.2"),
        ("n2", "nearest.web", "10.1.16.3"),
        ("n2", "nearest.cache", "10.1.17.2 10.1.17.3"),
        ("n3", "nearest.web", "10.1.16.2 10.1.16.3"),
        ("n1", "nearest.zero", "nodata"),
        ("n1", "nearest.secret", "nxdomain"),
        ("n1", "nearest.example", "forward"),
    ] {
        let zone = Zone::build(&world, &NodeId::new(here));
        assert_eq!(ask(&zone, "app", name, Question::A), answer, "{name} on {here}");
    }
}

/// While a slot changes hands and none of its tasks is ready, the newer one has the name.
#[test]
fn a_slot_that_changes_hands_names_the_newer_task() {
    let mut world = world();
    let mut newer = task(task_id('z'), Some("web"), 3, &[("app", "10.1.16.77", None)]);
    newer.state = TaskState::Starting;
    newer.created = 5;
    world.tasks.insert(newer.id.clone(), Arc::new(newer));
    assert_eq!(ask(&Zone::build(&world, &NodeId::new("n1")), "app", "web.3", Question::A), "10.1.16.77");
}

#[test]
fn every_order_of_the_addresses_occurs() {
    let zone = Zone::build(&world(), &NodeId::new("n1"));
    let mut orders = BTreeSet::new();
    let mut first = 0;
    for seed in 0..1000 {
        let Answer::Addresses(all) = zone.answer(&asker("app"), "tasks.web", Question::A, seed) else {
            panic!()
        };
        first += usize::from(all[0].to_string() == "10.1.16.2");
        orders.insert(all);
    }
    assert_eq!(orders.len(), 2);
    assert!((400..600).contains(&first), "{first} of 1000 begin with one of two addresses");
}

fn any_name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("web".to_owned()),
        Just("www".to_owned()),
        Just("cache".to_owned()),
        Just("secret".to_owned()),
        Just("box".to_owned()),
        Just("tasks".to_owned()),
        Just("app".to_owned()),
        Just("db".to_owned()),
        Just("_80".to_owned()),
        Just("_tcp".to_owned()),
        Just("in-addr".to_owned()),
        Just("ip6".to_owned()),
        Just("arpa".to_owned()),
        Just(task_id('1').to_string()),
        Just(task_id('s').to_string()),
        (0u32..300).prop_map(|n| n.to_string()),
        "[a-f0-9]",
        ".{0,8}",
    ];
    prop_oneof![
        9 => prop::collection::vec(part, 0..6).prop_map(|labels| labels.join(".")),
        1 => ".{0,300}",
        1 => any::<[u8; 4]>().prop_map(|[a, b, _, _]| format!("{a}.{}.{}.10.in-addr.arpa", 16 + b % 2, 1 + b % 3)),
    ]
}

fn any_question() -> impl Strategy<Value = Question> {
    prop::sample::select(vec![Question::A, Question::Aaaa, Question::Ptr, Question::Srv, Question::Other])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Whatever is asked, by whoever: no panic, the same for the same seed, and nothing of a network that the
    /// asker is not in.
    #[test]
    fn answers_stay_in_the_askers_networks(
        name in any_name(),
        question in any_question(),
        seed: u64,
        networks in prop::sample::subsequence(vec!["app", "db", "dev"], 0..=3),
    ) {
        let world = world();
        let zone = Zone::build(&world, &NodeId::new("n1"));
        let asker: Vec<_> = networks.iter().map(|id| NetworkId::new(*id)).collect();
        let answer = zone.answer(&asker, &name, question, seed);
        prop_assert_eq!(&answer, &zone.answer(&asker, &name.to_ascii_uppercase(), question, seed));
        let mine = |address: &IpAddr| {
            asker.iter().any(|id| world.networks[id].subnets().any(|net| net.contains(address)))
        };
        match answer {
            Answer::Addresses(addresses) => {
                prop_assert!(!addresses.is_empty() && addresses.iter().all(mine));
                let v4 = question == Question::A;
                prop_assert!(addresses.iter().all(|address| address.is_ipv4() == v4));
            }
            Answer::Targets(_, targets) => {
                prop_assert!(targets.iter().flat_map(|target| &target.addresses).all(mine));
                for target in targets {
                    let again = zone.answer(&asker, &target.name, Question::A, seed);
                    prop_assert!(matches!(again, Answer::Addresses(_)), "{} has no address", target.name);
                }
            }
            Answer::Name(name) => {
                let network = name.rsplit_once('.').map(|(_, network)| network);
                prop_assert!(network.is_some_and(|network| networks.contains(&network)), "{}", name);
                let again = zone.answer(&asker, &name, Question::A, seed);
                prop_assert!(matches!(again, Answer::Addresses(_)), "{} does not resolve", name);
            }
            Answer::NoData | Answer::NxDomain | Answer::Forward => {}
        }
    }

    /// The shuffle loses and doubles nothing.
    #[test]
    fn answers_are_a_permutation(count in 0u8..40, seed: u64) {
        let mut world = world();
        for n in 0..count {
            let id = TaskId::new(format!("{:025}", n));
            let address = format!("10.1.20.{}", n + 2);
            let task = task(id.clone(), Some("none"), u32::from(n) + 1, &[("app", &address, None)]);
            world.tasks.insert(id, Arc::new(task));
        }
        let answer = Zone::build(&world, &NodeId::new("n1")).answer(&asker("app"), "tasks.none", Question::A, seed);
        let wanted: BTreeSet<IpAddr> = (0..count).map(|n| IpAddr::from([10, 1, 20, n + 2])).collect();
        match answer {
            Answer::NoData => prop_assert_eq!(count, 0),
            Answer::Addresses(addresses) => {
                prop_assert_eq!(addresses.len(), usize::from(count));
                prop_assert_eq!(addresses.into_iter().collect::<BTreeSet<_>>(), wanted);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

/// The world after a change of a service.
fn changed(name: &str, change: impl FnOnce(&mut Service)) -> Zone {
    let mut world = world();
    let id = ServiceId::new(format!("id{name}"));
    let mut service = world.services[&id].as_ref().clone();
    change(&mut service);
    world.services.insert(id, Arc::new(service));
    Zone::build(&world, &NodeId::new("n1"))
}

#[test]
fn ports_have_names() {
    let named = |name: &str, port, protocol| PortName { name: name.parse().unwrap(), port, protocol };
    let zone = changed("cache", |cache| {
        cache.discovery.port_names = vec![
            named("http", 8080, Protocol::Tcp),
            named("dns", 53, Protocol::Udp),
            named("dns", 5353, Protocol::Tcp),
        ];
    });
    let both = |port: u16| {
        let [one, two] = ['8', '9'].map(task_id);
        format!("cache.1.{one}.app:{port}*25600 [10.1.17.2] cache.2.{two}.app:{port}*25600 [10.1.17.3]")
    };
    let srv = |name: &str| ask(&zone, "app", name, Question::Srv);
    assert_eq!(srv("_http._tcp.cache"), both(8080));
    assert_eq!(srv("_HTTP._TCP.cache.app"), both(8080));
    assert_eq!(srv("_dns._udp.cache"), both(53));
    assert_eq!(srv("_dns._tcp.cache"), both(5353));
    assert_eq!(srv("_7._tcp.cache"), both(7));
    for name in ["_http._udp.cache", "_https._tcp.cache", "_http._tcp.zero", "_http._tcp.secret"] {
        assert_eq!(srv(name), "nxdomain", "{name}");
    }
    assert_eq!(ask(&zone, "app", "_http._tcp.cache", Question::A), "nodata");
}

#[test]
fn those_that_are_not_ready_are_told_where_that_is_wanted() {
    let zone = changed("web", |web| web.discovery.publish_not_ready = true);
    // Not the one that has ended, nor the one that leaves.
    for name in ["tasks.web", "nearest.www"] {
        assert_eq!(ask(&zone, "app", name, Question::A), "10.1.16.2 10.1.16.3 10.1.16.4");
    }
    assert_eq!(ask(&zone, "app", "web", Question::A), "10.1.0.1");
    assert_eq!(ask(&zone, "app", "_80._tcp.web", Question::Srv).matches(":80*").count(), 3);
}
