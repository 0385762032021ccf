//! What follows from what was measured.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::certificate::{LIFE, Validity};
use mesh_core::doctor::{
    Busy, Chain, Facts, Finding, Hook, Matches, Offload, Outcome, Packet, Peer, Room, Rule, Severity, Tunnel,
    Verdict, findings, judge,
};
use mesh_core::model::{Listener, Protocol};

const NOW: u64 = 1_800_000_000_000;
const DAY: u64 = 86_400_000;

fn peer() -> Peer {
    Peer {
        name: "n2".to_owned(),
        address: [192, 0, 2, 2].into(),
        version: "1".to_owned(),
        answers: true,
        largest: Some(1500),
        probe: Some(true),
        gateway: Some(Ok(())),
        tunnel: Some(Tunnel { mtu: 1450, answers: true, largest: Some(1450) }),
        ahead: Some(3),
    }
}

/// A node with nothing wrong.
fn sound() -> Facts {
    let sysctls = [
        ("ipv4/ip_forward", "1"),
        ("netfilter/nf_conntrack_count", "5"),
        ("netfilter/nf_conntrack_max", "100"),
    ];
    Facts {
        root: true,
        version: "1".to_owned(),
        missing: Some(BTreeMap::new()),
        uplink_mtu: Some(1500),
        peers: vec![peer()],
        sysctls: sysctls.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        device: "eth0".to_owned(),
        firewall: Some(Ok(Vec::new())),
        offload: Offload { device: "eth0".to_owned(), wrong: (3, 1_000), ..Offload::default() },
        disk: Some(("/var/lib/mesh".to_owned(), Room { free: 50 << 30, size: 100 << 30 })),
        tunnel_port: 4789,
        gateway: true,
        certificate: Some(Ok(Validity::begin(NOW, LIFE))),
        now: NOW + 20 * DAY,
        ..Facts::default()
    }
}

/// What is not well.
fn told(facts: &Facts) -> Vec<Finding> {
    findings(facts).into_iter().filter(|finding| finding.severity > Severity::Skipped).collect()
}

#[test]
fn nothing_is_wrong_where_nothing_is() {
    assert_eq!(told(&sound()), []);
    let checks: BTreeSet<_> = findings(&sound()).iter().map(|finding| finding.check).collect();
    assert_eq!(checks.len(), 14);
}

/// One damage at a time, and what is said of it.
#[test]
fn each_damage_is_one_finding() {
    type Damage = (&'static str, fn(&mut Facts), Severity, &'static str, &'static str);
    fn set(facts: &mut Facts, name: &str, value: &str) {
        facts.sysctls.insert(name.to_owned(), value.to_owned());
    }
    let (error, warning) = (Severity::Error, Severity::Warning);
    let damages: [Damage; 26] = [
        ("agent", |f| f.problems.push("network app: is full".to_owned()), error, "is full", "mesh status"),
        (
            "certificate",
            |f| f.certificate = Some(Ok(Validity::begin(f.now - 28 * DAY, LIFE))),
            warning,
            "ends in 2 days and could not be renewed yet",
            "TCP port 7300",
        ),
        (
            "certificate",
            |f| f.certificate = Some(Ok(Validity::begin(f.now - 31 * DAY, LIFE))),
            error,
            "ended 1 day ago",
            "join again",
        ),
        (
            "certificate",
            |f| f.certificate = Some(Ok(Validity::begin(f.now + DAY, LIFE))),
            error,
            "begins 23 hours from now",
            "set the clock",
        ),
        (
            "certificate",
            |f| f.certificate = Some(Err("node.pem makes no sense".to_owned())),
            error,
            "node.pem makes no sense",
            "join again",
        ),
        (
            "kernel",
            |f| _ = f.missing.as_mut().unwrap().insert("tcx".to_owned(), "filters".to_owned()),
            warning,
            "tcx is missing: filters",
            "newer kernel",
        ),
        (
            "underlay",
            |f| {
                f.peers[0].answers = false;
                f.peers[0].probe = None;
                f.peers[0].tunnel = None;
            },
            error,
            "n2 (192.0.2.2) does not answer",
            "firewalls",
        ),
        (
            "underlay",
            |f| f.peers[0].probe = Some(false),
            error,
            "not on UDP port 7304",
            "let UDP port 7304 pass",
        ),
        (
            "underlay",
            |f| f.peers[0].gateway = Some(Err("timed out".to_owned())),
            error,
            "TCP port 7300: timed out",
            "TCP port 7300",
        ),
        (
            "mtu",
            |f| f.peers[0].largest = Some(1400),
            error,
            "packets of 1500 bytes do not come to n2 and back, those of 1400 do",
            "ip link set eth0 mtu 1400",
        ),
        (
            "tunnel",
            |f| f.peers[0].tunnel = Some(Tunnel { mtu: 1450, answers: false, largest: None }),
            error,
            "not through the tunnel",
            "UDP port 4789",
        ),
        (
            "tunnel",
            |f| f.peers[0].tunnel = Some(Tunnel { mtu: 1450, answers: true, largest: Some(1350) }),
            error,
            "those of 1450 bytes are lost, those of 1350 come",
            "smaller MTU",
        ),
        (
            "offload",
            |f| f.offload.wrong = (500, 1_000_000),
            warning,
            "500 of 1000000 packets",
            "ethtool -K eth0",
        ),
        (
            "offload",
            |f| {
                f.offload.driver = "vmxnet3".to_owned();
                f.offload.features = Some([("tx-udp_tnl-segmentation".to_owned(), true)].into());
            },
            warning,
            "known to spoil",
            "tx-udp_tnl-segmentation off",
        ),
        ("clock", |f| f.peers[0].ahead = Some(-45_000), error, "n2 is 45.0 s behind", "time server"),
        ("clock", |f| f.peers[0].ahead = Some(2_500), warning, "n2 is 2.5 s ahead of", "time server"),
        (
            "sysctl",
            |f| set(f, "ipv4/ip_forward", "0"),
            error,
            "net.ipv4.ip_forward is 0",
            "sysctl -w net.ipv4.ip_forward=1",
        ),
        (
            "sysctl",
            |f| set(f, "ipv4/conf/eth0/rp_filter", "1"),
            warning,
            "eth0.rp_filter is 1",
            "rp_filter=2",
        ),
        (
            "conntrack",
            |f| set(f, "netfilter/nf_conntrack_count", "95"),
            error,
            "95 of 100",
            "nf_conntrack_max=200",
        ),
        (
            "conntrack",
            |f| set(f, "netfilter/nf_conntrack_count", "75"),
            warning,
            "75 of 100",
            "nf_conntrack_max=200",
        ),
        (
            "ports",
            |f| {
                f.busy.push((
                    "service web".to_owned(),
                    Busy {
                        listener: Listener {
                            protocol: Protocol::Tcp,
                            port: 8080,
                            address: [0, 0, 0, 0].into(),
                        },
                        program: Some("nginx".to_owned()),
                    },
                ))
            },
            error,
            "tcp port 8080 (service web) is in use by 'nginx' on 0.0.0.0",
            "listen elsewhere",
        ),
        ("ports", |f| f.dns.push("dns: DNS of task web.1: address in use".to_owned()), error, "web.1", "53"),
        (
            "disk",
            |f| f.disk = Some(("/x".to_owned(), Room { free: 50 << 20, size: 100 << 30 })),
            error,
            "50 MiB (0 %)",
            "make room",
        ),
        (
            "disk",
            |f| f.disk = Some(("/x".to_owned(), Room { free: 600 << 20, size: 100 << 30 })),
            warning,
            "600 MiB",
            "make room",
        ),
        (
            "versions",
            |f| f.peers[0].version = "2".to_owned(),
            warning,
            "n2 run mesh 2, this node 1",
            "one version",
        ),
        (
            "firewall",
            |f| f.firewall = Some(Ok(vec![chain(Hook::Input, true, &[])])),
            error,
            "the policy of chain c of table inet t drops",
            "accept",
        ),
    ];
    for (check, damage, severity, detail, cure) in damages {
        let mut facts = sound();
        damage(&mut facts);
        let told = told(&facts);
        let first = told.first().unwrap_or_else(|| panic!("{check}: nothing is told of {detail}"));
        assert!(told.iter().all(|other| other.check == check), "{told:#?}");
        assert_eq!(first.severity, severity, "{first:?}");
        assert!(
            first.detail.contains(detail) && first.cure.contains(cure),
            "{first:#?} lacks {detail} or {cure}"
        );
    }
}

/// What cannot be measured is no fault, and is not said to be well.
#[test]
fn what_is_not_known_is_skipped() {
    let alone = Facts { no_agent: Some("no such file".to_owned()), ..Facts::default() };
    let found = findings(&alone);
    let of = |check: &str| found.iter().find(|finding| finding.check == check).unwrap().severity;
    assert_eq!(of("agent"), Severity::Error);
    for check in ["kernel", "underlay", "mtu", "tunnel", "clock", "conntrack", "firewall", "disk", "versions"]
    {
        assert_eq!(of(check), Severity::Skipped, "{check}");
    }
    let people = Facts { root: false, ..sound() };
    assert_eq!(told(&people), [], "what only root may see");
    assert!(
        findings(&people)
            .iter()
            .any(|finding| finding.check == "mtu" && finding.severity == Severity::Skipped)
    );
    let old = sound();
    let loose = Facts {
        sysctls: [("ipv4/conf/all/rp_filter", "2"), ("ipv4/conf/eth0/rp_filter", "1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..old
    };
    assert_eq!(told(&loose), [], "the larger counts");
}

fn chain(hook: Hook, drops: bool, rules: &[(Matches, Verdict)]) -> Chain {
    let rules = rules.iter().cloned().map(|(matches, verdict)| Rule { matches, verdict }).collect();
    Chain { table: "inet t".to_owned(), name: "c".to_owned(), hook: Some(hook), drops, rules }
}

fn udp(port: u16) -> Packet {
    Packet {
        hook: Hook::Input,
        protocol: Some(Protocol::Udp),
        port: Some(port),
        peer: [192, 0, 2, 2].into(),
        device: "eth0".to_owned(),
    }
}

fn to(port: u16) -> Matches {
    Matches { protocols: Some([Protocol::Udp].into()), ports: Some(vec![port..=port]), ..Matches::default() }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let dropped = Outcome::Dropped("chain c of table inet t".to_owned());
    let policy = Outcome::Dropped("the policy of chain c of table inet t".to_owned());
    let unknown = || Matches { unknown: true, ..Matches::default() };
    let one = |rules: &[(Matches, Verdict)]| judge(&[chain(Hook::Input, true, rules)], &udp(4789));
    assert_eq!(one(&[(to(4789), Verdict::Accept)]), Outcome::Passes);
    assert_eq!(one(&[(to(7304), Verdict::Accept)]), policy);
    assert_eq!(one(&[(to(4789), Verdict::Drop), (to(4789), Verdict::Accept)]), dropped);
    assert_eq!(
        one(&[(unknown(), Verdict::Drop), (to(4789), Verdict::Accept)]),
        Outcome::Perhaps("chain c of table inet t".to_owned())
    );
    assert_eq!(
        one(&[(unknown(), Verdict::Accept)]),
        Outcome::Perhaps("the policy of chain c of table inet t".to_owned())
    );
    let known = Matches { established: true, ..Matches::default() };
    assert_eq!(one(&[(known, Verdict::Accept)]), policy, "the first of a flow is not known yet");
    // A chain that accepts does not keep another one of the same hook from dropping.
    let both = [chain(Hook::Input, false, &[(to(4789), Verdict::Accept)]), chain(Hook::Input, true, &[])];
    assert_eq!(judge(&both, &udp(4789)), policy);
    assert_eq!(judge(&[chain(Hook::Output, true, &[])], &udp(4789)), Outcome::Passes, "elsewhere");
    let near = Matches { sources: Some(vec!["192.0.2.0/24".parse().unwrap()]), ..Matches::default() };
    let far = Matches { sources: Some(vec!["198.51.100.0/24".parse().unwrap()]), ..Matches::default() };
    assert_eq!(one(&[(far, Verdict::Accept)]), policy);
    assert_eq!(one(&[(near, Verdict::Accept)]), Outcome::Passes);
    let by = |name: &str| Matches { devices: Some([name.to_owned()].into()), ..Matches::default() };
    assert_eq!(one(&[(by("eth*"), Verdict::Accept)]), Outcome::Passes);
    assert_eq!(one(&[(by("lo"), Verdict::Accept)]), policy);
    // A chain that calls itself comes to an end.
    assert_eq!(one(&[(Matches::default(), Verdict::Jump("c".to_owned()))]), policy);
}
