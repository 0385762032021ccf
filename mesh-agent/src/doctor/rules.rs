//! **Fact.** The rules of others, as `nft --json list ruleset` and `iptables-save` have them, in words that
//! [`mesh_core::doctor::judge`] knows.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::process::Command;

use ipnet::IpNet;
use mesh_core::doctor::{Chain, Hook, Matches, Rule, Verdict};
use mesh_core::model::Protocol;
use serde_json::Value;

/// All chains but the mesh's own. `Err`: they cannot be read, and why.
pub(super) fn read() -> Result<Vec<Chain>, String> {
    let text = run("nft", &["--json", "list", "ruleset"])?;
    let ruleset: Value = serde_json::from_str(&text).map_err(|error| format!("nft: {error}"))?;
    let mut chains = of_nft(&ruleset);
    // Rules that were made the old way are not seen by nft.
    for (family, program) in [("ip", "iptables-legacy-save"), ("ip6", "ip6tables-legacy-save")] {
        let names = std::fs::read_to_string(format!("/proc/thread-self/net/{family}_tables_names"));
        if names.is_ok_and(|names| !names.trim().is_empty()) {
            chains.extend(of_iptables(family, &run(program, &[])?));
        }
    }
    Ok(chains)
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn of_nft(ruleset: &Value) -> Vec<Chain> {
    let objects = || ruleset["nftables"].as_array().into_iter().flatten();
    let mut chains = Vec::new();
    for chain in objects().filter_map(|object| object.get("chain")) {
        let hook = match chain["hook"].as_str() {
            Some("input") => Some(Hook::Input),
            Some("output") => Some(Hook::Output),
            Some("forward") => Some(Hook::Forward),
            _ => None,
        };
        let (table, name) = (table_of(chain), word(&chain["name"]));
        if table == "inet mesh" {
            continue;
        }
        let of_this = |rule: &&Value| table_of(rule) == table && rule["chain"] == name.as_str();
        let rules = objects().filter_map(|object| object.get("rule")).filter(of_this).filter_map(rule);
        chains.push(Chain { drops: chain["policy"] == "drop", rules: rules.collect(), hook, name, table });
    }
    chains
}

fn table_of(object: &Value) -> String {
    format!("{} {}", word(&object["family"]), word(&object["table"]))
}

/// A rule that decides something.
fn rule(rule: &Value) -> Option<Rule> {
    let mut matches = Matches::default();
    let mut verdict = None;
    for expression in rule["expr"].as_array()? {
        let (kind, body) = expression.as_object()?.iter().next()?;
        match kind.as_str() {
            "match" => note(&mut matches, body),
            "accept" => verdict = Some(Verdict::Accept),
            "drop" | "reject" => verdict = Some(Verdict::Drop),
            "return" => verdict = Some(Verdict::Return),
            "jump" => verdict = Some(Verdict::Jump(word(&body["target"]))),
            "goto" => verdict = Some(Verdict::Goto(word(&body["target"]))),
            // They look at nothing.
            "counter" | "log" | "mangle" | "comment" => {}
            // What iptables has that nft does not; a set of verdicts; a limit.
            _ => matches.unknown = true,
        }
    }
    // Matches of iptables that nft does not know come with its targets.
    Some(Rule { verdict: verdict?, matches })
}

fn note(matches: &mut Matches, body: &Value) {
    let (left, right) = (&body["left"], &body["right"]);
    let values = members(right);
    let payload = (left["payload"]["protocol"].as_str(), left["payload"]["field"].as_str());
    let meta = left["meta"]["key"].as_str();
    if !matches!(body["op"].as_str(), Some("==" | "in")) {
        matches.unknown = true;
        return;
    }
    match (payload, meta) {
        ((Some(protocol @ ("tcp" | "udp")), Some("dport")), _) => {
            matches.protocols = Some(protocols(&[Value::from(protocol)]).0);
            matches.ports = Some(values.iter().filter_map(ports).collect());
        }
        ((Some("ip" | "ip6"), Some("saddr")), _) => {
            let nets: Vec<_> = values.iter().filter_map(net).collect();
            matches.unknown |= nets.len() < values.len();
            matches.sources = Some(nets);
        }
        ((Some("ip"), Some("protocol")), _) | (_, Some("l4proto")) => {
            let (known, others) = protocols(&values);
            matches.other_protocol |= known.is_empty() && others;
            if !known.is_empty() {
                matches.protocols = Some(known);
            }
        }
        ((Some("icmp" | "icmpv6"), _), _) => matches.other_protocol = true,
        (_, Some("iifname" | "oifname" | "iif" | "oif")) => {
            matches.devices = Some(values.iter().map(word).collect());
        }
        _ if left["ct"]["key"] == "state" => {
            matches.established |=
                !values.iter().any(|state| matches!(state.as_str(), Some("new" | "untracked")));
        }
        _ => matches.unknown = true,
    }
}

/// One value or many.
fn members(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(all) => all.clone(),
        Value::Object(object) if object.contains_key("set") => members(&object["set"]),
        other => vec![other.clone()],
    }
}

/// Those that are balanced, and whether there are others.
fn protocols(values: &[Value]) -> (BTreeSet<Protocol>, bool) {
    let known = values.iter().filter_map(|value| match (value.as_str(), value.as_u64()) {
        (Some("tcp"), _) | (_, Some(6)) => Some(Protocol::Tcp),
        (Some("udp"), _) | (_, Some(17)) => Some(Protocol::Udp),
        _ => None,
    });
    let known: BTreeSet<_> = known.collect();
    let others = known.len() < values.len();
    (known, others)
}

fn ports(value: &Value) -> Option<RangeInclusive<u16>> {
    let number = |value: &Value| u16::try_from(value.as_u64()?).ok();
    match value["range"].as_array().map(Vec::as_slice) {
        Some([from, to]) => Some(number(from)?..=number(to)?),
        _ => number(value).map(|port| port..=port),
    }
}

fn net(value: &Value) -> Option<IpNet> {
    if let Some(address) = value.as_str() {
        return address.parse::<std::net::IpAddr>().map(IpNet::from).ok();
    }
    let prefix = &value["prefix"];
    format!("{}/{}", prefix["addr"].as_str()?, prefix["len"].as_u64()?).parse().ok()
}

/// The table `filter` of `iptables-save`: the one that drops.
fn of_iptables(family: &str, text: &str) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    let mut table = String::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some(name) if name.starts_with('*') => table = format!("{family} {}", &name[1..]),
            Some(name) if name.starts_with(':') => {
                let hook = match (&name[1..], table.ends_with(" filter")) {
                    ("INPUT", true) => Some(Hook::Input),
                    ("OUTPUT", true) => Some(Hook::Output),
                    ("FORWARD", true) => Some(Hook::Forward),
                    _ => None,
                };
                let (drops, rules) = (words.next() == Some("DROP"), Vec::new());
                chains.push(Chain { table: table.clone(), name: name[1..].to_owned(), hook, drops, rules });
            }
            Some("-A") => {
                let name = words.next().unwrap_or_default();
                let rest: Vec<_> = words.collect();
                if let Some(chain) =
                    chains.iter_mut().find(|chain| chain.table == table && chain.name == name)
                    && let Some(rule) = of_words(&rest)
                {
                    chain.rules.push(rule);
                }
            }
            _ => {}
        }
    }
    chains
}

fn of_words(words: &[&str]) -> Option<Rule> {
    let mut matches = Matches::default();
    let mut verdict = None;
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        match word {
            "-p" => {
                let (known, _) = protocols(&[Value::from(words.next()?)]);
                matches.other_protocol |= known.is_empty();
                matches.protocols = Some(known).filter(|known| !known.is_empty());
            }
            "--dport" | "--dports" => {
                let range = |text: &str| {
                    let (from, to) = text.split_once(':').unwrap_or((text, text));
                    Some(from.parse::<u16>().ok()?..=to.parse::<u16>().ok()?)
                };
                matches.ports = Some(words.next()?.split(',').filter_map(range).collect());
            }
            "-s" => matches.sources = Some(words.next()?.parse::<IpNet>().into_iter().collect()),
            "-i" | "-o" => _ = matches.devices.insert([words.next()?.replace('+', "*")].into()),
            "--ctstate" | "--state" => {
                matches.established |=
                    !words.next()?.split(',').any(|state| matches!(state, "NEW" | "UNTRACKED"));
            }
            // The names of modules, whose options follow.
            "-m" => _ = words.next(),
            "-j" | "-g" => {
                let target = words.next()?;
                verdict = Some(match target {
                    "ACCEPT" => Verdict::Accept,
                    "DROP" | "REJECT" => Verdict::Drop,
                    "RETURN" => Verdict::Return,
                    name if word == "-g" => Verdict::Goto(name.to_owned()),
                    name => Verdict::Jump(name.to_owned()),
                });
                break;
            }
            _ => matches.unknown = true,
        }
    }
    Some(Rule { matches, verdict: verdict? })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use mesh_core::doctor::{Outcome, Packet, judge};

    use super::*;

    fn packet(hook: Hook, protocol: Protocol, port: u16) -> Packet {
        let peer: IpAddr = [192, 0, 2, 2].into();
        Packet { hook, protocol: Some(protocol), port: Some(port), peer, device: "eth0".to_owned() }
    }

    /// What `nft --json list ruleset` of nft 1.0.6 printed.
    #[test]
    fn rules_of_nft_are_understood() {
        let ruleset = serde_json::json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "inet", "name": "fw", "handle": 1}},
            {"chain": {"family": "inet", "table": "fw", "name": "in", "handle": 1, "type": "filter", "hook": "input",
                "prio": 0, "policy": "drop"}},
            {"rule": {"family": "inet", "table": "fw", "chain": "in", "handle": 2, "expr": [
                {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}},
                {"accept": null}]}},
            {"rule": {"family": "inet", "table": "fw", "chain": "in", "handle": 3, "expr": [
                {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}},
                    "right": {"set": [4789, {"range": [7304, 7305]}]}}},
                {"counter": {"packets": 0, "bytes": 0}}, {"accept": null}]}},
            {"rule": {"family": "inet", "table": "fw", "chain": "in", "handle": 4, "expr": [
                {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                    "right": {"prefix": {"addr": "192.0.2.0", "len": 24}}}},
                {"jump": {"target": "near"}}]}},
            {"chain": {"family": "inet", "table": "fw", "name": "near", "handle": 5}},
            {"rule": {"family": "inet", "table": "fw", "chain": "near", "handle": 6, "expr": [
                {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 7300}},
                {"limit": {"rate": 5, "per": "second"}}, {"accept": null}]}},
        ]});
        let chains = of_nft(&ruleset);
        let is = |port, protocol| judge(&chains, &packet(Hook::Input, protocol, port));
        assert_eq!(is(4789, Protocol::Udp), Outcome::Passes);
        assert_eq!(is(7304, Protocol::Udp), Outcome::Passes);
        let policy = "the policy of chain in of table inet fw".to_owned();
        assert_eq!(is(4790, Protocol::Udp), Outcome::Dropped(policy.clone()));
        assert_eq!(is(7300, Protocol::Tcp), Outcome::Perhaps(policy), "as long as there are few");
        assert_eq!(judge(&chains, &packet(Hook::Output, Protocol::Udp, 4789)), Outcome::Passes);
    }

    #[test]
    fn rules_of_iptables_are_understood() {
        let text = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n:OURS - [0:0]\n\
            -A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -j OURS\n\
            -A OURS -i lo -j ACCEPT\n-A OURS -p udp -m udp --dport 7300:7310 -j REJECT --reject-with icmp-port-unreachable\n\
            -A OURS -s 198.51.100.0/24 -j DROP\n-A OURS -m recent --name x -j DROP\nCOMMIT\n";
        let chains = of_iptables("ip", text);
        let is = |port, protocol| judge(&chains, &packet(Hook::Input, protocol, port));
        assert_eq!(is(7304, Protocol::Udp), Outcome::Dropped("chain OURS of table ip filter".to_owned()));
        assert_eq!(is(4789, Protocol::Udp), Outcome::Perhaps("chain OURS of table ip filter".to_owned()));
        let forward = judge(&chains, &packet(Hook::Forward, Protocol::Tcp, 80));
        assert_eq!(forward, Outcome::Dropped("the policy of chain FORWARD of table ip filter".to_owned()));
    }
}
