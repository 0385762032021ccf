//! **Decision.** What is wrong on a node, and what cures it: of what was measured there.
//!
//! Whoever measures decides nothing: it fills in [`Facts`]. What could not be measured is said so, and is no fault.

mod firewall;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub use firewall::{Chain, Hook, Matches, Outcome, Packet, Rule, Verdict, judge};

use crate::certificate::{Validity, span};
use crate::etcd::GATEWAY_PORT;
use crate::model::{Listener, Protocol, Timestamp};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It could not be found out.
    Skipped,
    /// It works, and may not for long, or not as well as it could.
    Warning,
    /// Something does not work.
    Error,
}

impl Severity {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was checked.
    pub check: &'static str,
    /// How it is.
    pub severity: Severity,
    /// What was seen.
    pub detail: String,
    /// What to do; empty: nothing.
    pub cure: String,
}

/// Another node, and what came back from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: IpAddr,
    /// The version of its agent.
    pub version: String,
    /// Whether the answer to a small packet came.
    pub answers: bool,
    /// The largest packet that came there and back unsplit, up to what the uplink takes; bytes, with all headers.
    pub largest: Option<u32>,
    /// Whether its programs answered on UDP port 7304; none: it has no such programs.
    pub probe: Option<bool>,
    /// What came of a connection to TCP port 7300; none: nothing listens there.
    pub gateway: Option<Result<(), String>>,
    /// The same through the tunnel; none: no network has both.
    pub tunnel: Option<Tunnel>,
    /// How far its clock is ahead of this one's, ms; none: it does not say.
    pub ahead: Option<i64>,
}

/// What came through the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// What networks give their tasks; bytes.
    pub mtu: u32,
    /// Whether the answer to a small packet came.
    pub answers: bool,
    /// The largest packet that came there and back; bytes.
    pub largest: Option<u32>,
}

/// A port that should be the mesh's, or nobody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// Who listens where.
    pub listener: Listener,
    /// The program, if it is known.
    pub program: Option<String>,
}

/// What a device does for packets that the mesh sends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offload {
    /// The device.
    pub device: String,
    /// Its driver; empty: it has none.
    pub driver: String,
    /// By name, as `ethtool -k` has them; none: they cannot be read.
    pub features: Option<BTreeMap<String, bool>>,
    /// How many datagrams and segments came with a wrong checksum, of how many.
    pub wrong: (u64, u64),
}

/// How much room a file system has, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// For those who are not root's.
    pub free: u64,
    /// In all.
    pub size: u64,
}

/// All that was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Who asks is root.
    pub root: bool,
    /// Why there is no agent to ask; none: it answers.
    pub no_agent: Option<String>,
    /// What the agent says is wrong.
    pub problems: Vec<String>,
    /// From when to when the node's certificate is good, or why it cannot be read; none: it has none.
    pub certificate: Option<Result<Validity, String>>,
    /// By this machine's clock.
    pub now: Timestamp,
    /// Features of the kernel that are missing, and what is done instead.
    pub missing: Option<BTreeMap<String, String>>,
    /// This version.
    pub version: String,
    /// The largest packet that the uplink takes, bytes; none: no record of this node was found.
    pub uplink_mtu: Option<u32>,
    /// All other nodes.
    pub peers: Vec<Peer>,
    /// Kernel settings under `/proc/sys/net`, by name.
    pub sysctls: BTreeMap<String, String>,
    /// The device with the node's address.
    pub device: String,
    /// Rules of others; or why they cannot be read.
    pub firewall: Option<Result<Vec<Chain>, String>>,
    /// Who else has UDP 7304, the tunnel's port, and published ports.
    pub busy: Vec<(String, Busy)>,
    /// Where tasks have no DNS, and why.
    pub dns: Vec<String>,
    /// What the device does.
    pub offload: Offload,
    /// Of the directory with the mesh's state, and its path.
    pub disk: Option<(String, Room)>,
    /// UDP port of the tunnel.
    pub tunnel_port: u16,
    /// Whether other nodes come here for records, by TCP port 7300.
    pub gateway: bool,
}

/// What is left of an underlay's packets for those of tasks: VXLAN (RFC 7348 §5) takes the rest.
pub fn inner_mtu(uplink: u32, address: IpAddr) -> u32 {
    uplink.saturating_sub(if address.is_ipv6() { 70 } else { 50 })
}

impl Finding {
    fn new(
        check: &'static str,
        severity: Severity,
        detail: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self { check, severity, detail: detail.into(), cure: cure.into() }
    }
}

/// What follows: at least one finding for each check, in the order in which they are best read.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let checks: [fn(&Facts) -> Vec<Finding>; 13] = [
        agent,
        certificate,
        features,
        underlay,
        mtu,
        tunnel,
        offload,
        clock,
        sysctls,
        conntrack,
        firewall_of_others,
        ports,
        disk,
    ];
    let mut all: Vec<_> = checks.iter().flat_map(|check| check(facts)).collect();
    all.extend(versions(facts));
    all
}

/// All is well, unless something is not.
fn or_well(found: Vec<Finding>, check: &'static str, well: impl Into<String>) -> Vec<Finding> {
    if found.is_empty() { vec![Finding::new(check, Severity::Ok, well, "")] } else { found }
}

fn skipped(check: &'static str, why: &str) -> Vec<Finding> {
    vec![Finding::new(check, Severity::Skipped, why, "")]
}

const ROOT: &str = "only root may look; try sudo";

fn certificate(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "certificate";
    let validity = match &facts.certificate {
        _ if !facts.root => return skipped(CHECK, ROOT),
        None => return vec![Finding::new(CHECK, Severity::Ok, "this node needs none", "")],
        Some(Err(why)) => {
            let cure = "put the files back from a copy, or let the node leave the cluster and join again";
            return vec![Finding::new(CHECK, Severity::Error, why, cure)];
        }
        Some(Ok(validity)) => validity,
    };
    let renews = format!(
        "managers renew it at TCP port {GATEWAY_PORT}: see that this node reaches one of them, and what its agent logs as \
         'cannot renew'"
    );
    let finding = match (validity.check(facts.now, "this node"), validity.warning(facts.now)) {
        (Err(why), _) => {
            // It names the cure.
            let (detail, cure) = why.split_once(": ").unwrap_or((&why, ""));
            Finding::new(CHECK, Severity::Error, detail, cure)
        }
        (Ok(()), Some(warning)) => Finding::new(CHECK, Severity::Warning, warning, renews),
        (Ok(()), None) => {
            let left = span(validity.until.saturating_sub(facts.now));
            Finding::new(CHECK, Severity::Ok, format!("it ends in {left}, and is renewed before"), "")
        }
    };
    vec![finding]
}
const NOWHERE: &str =
    "this node is in no mesh yet, or its records are elsewhere: give the agent's file by --config";

fn agent(facts: &Facts) -> Vec<Finding> {
    if let Some(why) = &facts.no_agent {
        let cure = "start it ('mesh agent'); what is below was found without it";
        return vec![Finding::new("agent", Severity::Error, why, cure)];
    }
    let problem = |problem: &String| Finding::new("agent", Severity::Error, problem, "see 'mesh status'");
    let found = facts.problems.iter().map(problem).collect();
    or_well(found, "agent", format!("it runs, and all is applied (mesh {})", facts.version))
}

fn features(facts: &Facts) -> Vec<Finding> {
    let Some(missing) = &facts.missing else { return skipped("kernel", "no agent to ask") };
    let lacks = |(name, instead): (&String, &String)| {
        let cure = "a newer kernel may have it, or its configuration";
        Finding::new("kernel", Severity::Warning, format!("{name} is missing: {instead}"), cure)
    };
    or_well(missing.iter().map(lacks).collect(), "kernel", "it has all that is used")
}

fn nobody(facts: &Facts) -> Option<&'static str> {
    match (facts.uplink_mtu, facts.root) {
        (None, _) => Some(NOWHERE),
        (_, false) => Some(ROOT),
        _ if facts.peers.is_empty() => Some("there are no other nodes"),
        _ => None,
    }
}

fn underlay(facts: &Facts) -> Vec<Finding> {
    if let Some(why) = nobody(facts) {
        return skipped("underlay", why);
    }
    let mut found = Vec::new();
    for Peer { name, address, answers, probe, gateway, .. } in &facts.peers {
        let mut bad = |detail: String, cure: &str| {
            found.push(Finding::new("underlay", Severity::Error, detail, cure));
        };
        match (answers, probe) {
            (false, Some(true)) => {}
            (false, _) => bad(
                format!("{name} ({address}) does not answer"),
                "look whether it runs, and at the network and firewalls between both nodes",
            ),
            (true, Some(false)) => bad(
                format!("{name} ({address}) answers ICMP, and not on UDP port 7304"),
                "let UDP port 7304 pass between all nodes: by it they find out who is dead",
            ),
            (true, _) => {}
        }
        if let Some(Err(why)) = gateway {
            bad(
                format!("{name} ({address}) takes no connection to TCP port 7300: {why}"),
                "let TCP port 7300 pass to managers, and see there whether the agent runs",
            );
        }
    }
    or_well(found, "underlay", format!("{} other nodes answer", facts.peers.len()))
}

fn mtu(facts: &Facts) -> Vec<Finding> {
    if let Some(why) = nobody(facts) {
        return skipped("mtu", why);
    }
    let uplink = facts.uplink_mtu.unwrap_or_default();
    let answering: Vec<_> = facts.peers.iter().filter(|peer| peer.answers).collect();
    if answering.is_empty() {
        return skipped("mtu", "no other node answers ICMP");
    }
    let short = answering.iter().filter_map(|peer| {
        let Peer { name, largest, .. } = peer;
        let largest = largest.unwrap_or_default();
        let detail = format!("packets of {uplink} bytes do not come to {name} and back, those of {largest} do");
        let cure = format!(
            "set the MTU of {} to {largest} (ip link set {} mtu {largest}) and start the agent anew, or have the network \
             between both nodes take {uplink} bytes",
            facts.device, facts.device
        );
        (largest < uplink).then(|| Finding::new("mtu", Severity::Error, detail, cure))
    });
    or_well(short.collect(), "mtu", format!("packets of {uplink} bytes pass unsplit"))
}

fn tunnel(facts: &Facts) -> Vec<Finding> {
    if let Some(why) = nobody(facts) {
        return skipped("tunnel", why);
    }
    let tunnels: Vec<_> = facts.peers.iter().filter_map(|peer| Some((peer, peer.tunnel?))).collect();
    if tunnels.is_empty() {
        return skipped("tunnel", "no network has addresses of this node and another one");
    }
    let port = facts.tunnel_port;
    let mut found = Vec::new();
    for (Peer { name, answers, .. }, Tunnel { mtu, answers: through, largest }) in &tunnels {
        let largest = largest.unwrap_or_default();
        if !through && *answers {
            let detail = format!("{name} answers, and not through the tunnel");
            let cure = format!("let UDP port {port} pass between both nodes, both ways");
            found.push(Finding::new("tunnel", Severity::Error, detail, cure));
        } else if *through && largest < *mtu {
            let detail = format!(
                "of packets of tasks to {name} those of {mtu} bytes are lost, those of {largest} come"
            );
            let cure =
                "see 'mtu'; or make networks with a smaller MTU (--opt com.docker.network.driver.mtu=…)";
            found.push(Finding::new("tunnel", Severity::Error, detail, cure));
        }
    }
    let mtu = tunnels.iter().map(|(_, tunnel)| tunnel.mtu).min().unwrap_or_default();
    or_well(found, "tunnel", format!("packets of {mtu} bytes pass to {} nodes", tunnels.len()))
}

/// Drivers that spoil what they send in tunnels, as their users tell.
const SPOILING: [(&str, &str); 1] = [("vmxnet3", "tx-udp_tnl-segmentation")];

fn offload(facts: &Facts) -> Vec<Finding> {
    let Offload { device, driver, features, wrong: (wrong, all) } = &facts.offload;
    let mut found = Vec::new();
    // One in ten thousand is no chance.
    if *wrong > 10 && wrong * 10_000 > *all {
        let detail = format!("{wrong} of {all} packets came with a wrong checksum");
        let cure =
            format!("on the nodes that send here: ethtool -K {device} tx-udp_tnl-segmentation off tx off");
        found.push(Finding::new("offload", Severity::Warning, detail, cure));
    }
    for (bad, feature) in SPOILING {
        let on = features.as_ref().is_some_and(|features| features.get(feature) == Some(&true));
        if driver == bad && on {
            let detail = format!("{device} ({driver}) cuts packets in tunnels, which it is known to spoil");
            let cure = format!("ethtool -K {device} {feature} off tx-udp_tnl-csum-segmentation off");
            found.push(Finding::new("offload", Severity::Warning, detail, cure));
        }
    }
    match (found.is_empty(), features) {
        (true, _) if device.is_empty() => skipped("offload", nobody(facts).unwrap_or_default()),
        (true, None) if SPOILING.iter().any(|(bad, _)| driver == bad) => {
            skipped("offload", "ethtool is not installed")
        }
        _ => or_well(
            found,
            "offload",
            format!("{device}: no wrong checksums, and no driver known to spoil any"),
        ),
    }
}

/// Certificates and times in records bear this much.
const SKEW: [(i64, Severity); 2] = [(30_000, Severity::Error), (2_000, Severity::Warning)];

fn clock(facts: &Facts) -> Vec<Finding> {
    if let Some(why) = nobody(facts) {
        return skipped("clock", why);
    }
    let known: Vec<_> = facts.peers.iter().filter_map(|peer| Some((&peer.name, peer.ahead?))).collect();
    if known.is_empty() {
        return skipped("clock", "no other node tells its time (ICMP timestamps)");
    }
    let off = known.iter().filter_map(|(name, ahead)| {
        let (_, severity) = SKEW.into_iter().find(|(least, _)| ahead.abs() >= *least)?;
        let word = if *ahead > 0 { "ahead of" } else { "behind" };
        let detail =
            format!("the clock of {name} is {:.1} s {word} this node's", ahead.abs() as f64 / 1000.0);
        Some(Finding::new(
            "clock",
            severity,
            detail,
            "have both follow a time server (chrony, systemd-timesyncd)",
        ))
    });
    let most = known.iter().map(|(_, ahead)| ahead.abs()).max().unwrap_or_default();
    or_well(off.collect(), "clock", format!("{} nodes are within {most} ms", known.len()))
}

fn sysctls(facts: &Facts) -> Vec<Finding> {
    let value = |name: &str| facts.sysctls.get(name).map(String::as_str);
    let mut found = Vec::new();
    let mut wrong = |severity, name: &str, is: &str, why: &str, wanted: &str| {
        let key = format!("net.{}", name.replace('/', "."));
        let cure = format!("sysctl -w {key}={wanted}");
        found.push(Finding::new("sysctl", severity, format!("{key} is {is}: {why}"), cure));
    };
    if let Some(is @ "0") = value("ipv4/ip_forward") {
        wrong(Severity::Error, "ipv4/ip_forward", is, "nothing comes from or to tasks", "1");
    }
    if let Some(is @ "0") = value("ipv6/conf/all/forwarding") {
        wrong(Severity::Warning, "ipv6/conf/all/forwarding", is, "no IPv6 comes from or to tasks", "1");
    }
    // The larger of both counts (kernel Documentation/networking/ip-sysctl.rst).
    let strict = |device: &str| value(&format!("ipv4/conf/{device}/rp_filter")) == Some("1");
    let loose = value("ipv4/conf/all/rp_filter") == Some("2");
    if !loose && (strict("all") || strict(&facts.device)) {
        let name = if strict("all") { "all" } else { &facts.device };
        let why = "what comes by another way than the answer would take is dropped";
        wrong(Severity::Warning, &format!("ipv4/conf/{name}/rp_filter"), "1", why, "2");
    }
    or_well(found, "sysctl", "forwarding is on, and nothing filters by the way back")
}

fn conntrack(facts: &Facts) -> Vec<Finding> {
    let number = |name: &str| facts.sysctls.get(name)?.parse::<u64>().ok();
    let both = number("netfilter/nf_conntrack_count").zip(number("netfilter/nf_conntrack_max"));
    let Some((count, max)) = both else {
        return skipped("conntrack", "the kernel tracks no connections here");
    };
    let severity = match count.saturating_mul(100) / max.max(1) {
        90.. => Severity::Error,
        70.. => Severity::Warning,
        _ => Severity::Ok,
    };
    let cure = format!("sysctl -w net.netfilter.nf_conntrack_max={}", max.max(1) * 2);
    let cure = if severity == Severity::Ok { String::new() } else { cure };
    vec![Finding::new("conntrack", severity, format!("{count} of {max} entries are in use"), cure)]
}

fn firewall_of_others(facts: &Facts) -> Vec<Finding> {
    let chains = match &facts.firewall {
        None => return skipped("firewall", ROOT),
        Some(Err(why)) => return skipped("firewall", why),
        Some(Ok(chains)) => chains,
    };
    let udp = |port| (Some(Protocol::Udp), Some(port));
    let mut wanted = vec![
        ("tunnels", Hook::Input, udp(facts.tunnel_port)),
        ("tunnels", Hook::Output, udp(facts.tunnel_port)),
        ("probes", Hook::Input, udp(7304)),
        ("probes", Hook::Output, udp(7304)),
        ("flows from and to tasks", Hook::Forward, (None, None)),
    ];
    if facts.gateway {
        wanted.push(("other nodes' requests for records", Hook::Input, (Some(Protocol::Tcp), Some(7300))));
    }
    let mut found: BTreeMap<String, Finding> = BTreeMap::new();
    for (what, hook, (protocol, port)) in wanted {
        let peers: BTreeSet<_> = facts.peers.iter().map(|peer| peer.address).collect();
        for peer in peers {
            let packet = Packet { hook, protocol, port, peer, device: facts.device.clone() };
            let (severity, word, rule) = match judge(chains, &packet) {
                Outcome::Passes => continue,
                Outcome::Dropped(rule) => (Severity::Error, "drops", rule),
                Outcome::Perhaps(rule) => (Severity::Warning, "may drop", rule),
            };
            let port = match (protocol, port) {
                (Some(protocol), Some(port)) => format!("{protocol} port {port}"),
                _ => "what comes from or goes to devices named mesh*".to_owned(),
            };
            let detail = format!("{rule} {word} {what} ({port})");
            let cure = format!("accept {port} there, before it is dropped");
            found.entry(detail.clone()).or_insert(Finding::new("firewall", severity, detail, cure));
        }
    }
    let well = match chains.len() {
        0 => "there are no rules of others".to_owned(),
        count => format!("{count} chains of others let the mesh's packets pass"),
    };
    or_well(found.into_values().collect(), "firewall", well)
}

fn ports(facts: &Facts) -> Vec<Finding> {
    let taken = facts.busy.iter().map(|(whose, busy)| {
        let Busy { listener: Listener { protocol, port, address }, program } = busy;
        let by = program.as_ref().map_or_else(|| "another program".to_owned(), |name| format!("'{name}'"));
        let detail = format!("{protocol} port {port} ({whose}) is in use by {by} on {address}");
        Finding::new("ports", Severity::Error, detail, "end it, or have it listen elsewhere")
    });
    let dns = facts.dns.iter().map(|why| {
        let cure = "have the task's program listen on another port than 53, or not on 127.0.0.11";
        Finding::new("ports", Severity::Error, why, cure)
    });
    or_well(
        taken.chain(dns).collect(),
        "ports",
        "those of the mesh and those that are published are nobody else's",
    )
}

fn disk(facts: &Facts) -> Vec<Finding> {
    let Some((path, Room { free, size })) = &facts.disk else {
        return skipped("disk", "there is no directory with the mesh's state");
    };
    let percent = free.saturating_mul(100) / size.max(&1);
    let mib = free >> 20;
    let severity = match (percent, mib) {
        (_, ..100) => Severity::Error,
        (..5, ..1024) => Severity::Warning,
        _ => Severity::Ok,
    };
    let cure = if severity == Severity::Ok { "" } else { "make room: without it no change is kept" };
    vec![Finding::new("disk", severity, format!("{mib} MiB ({percent} %) are free in {path}"), cure)]
}

fn versions(facts: &Facts) -> Vec<Finding> {
    if facts.peers.is_empty() {
        return skipped("versions", "there are no other nodes");
    }
    let mut others: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for peer in facts.peers.iter().filter(|peer| peer.version != facts.version) {
        others.entry(&peer.version).or_default().push(&peer.name);
    }
    let differs = others.into_iter().map(|(version, names)| {
        let detail = format!("{} run mesh {version}, this node {}", names.join(", "), facts.version);
        Finding::new("versions", Severity::Warning, detail, "bring all nodes to one version")
    });
    or_well(differs.collect(), "versions", format!("all nodes run mesh {}", facts.version))
}
