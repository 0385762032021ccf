//! **Decision.** What is in the kernel's table, compared with what was put there. Pure.
//!
//! The kernel gives rules back in nft's own normal form, which differs from how they were written. So the
//! form of a chain is learned right after it was written, and a sweep compares with that. Elements need no
//! learning: their printed form is the one that we write.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::ruleset::{Chain, Ruleset, Set};

/// Stands for rules, a hook or a type that somebody else wrote: it equals nothing of ours.
const FOREIGN: &str = "changed by somebody else";

/// A table as `nft -j list` prints it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Listing {
    /// The table's own properties.
    table: Value,
    chains: BTreeMap<String, ListedChain>,
    sets: BTreeMap<String, ListedSet>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct ListedChain {
    properties: Value,
    rules: Vec<Value>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct ListedSet {
    map: bool,
    properties: Value,
    elements: BTreeMap<String, String>,
}

/// nft printed something that is no listing.
#[derive(Debug, thiserror::Error)]
#[error("cannot read what `nft -j list` printed: {0}; is it a version of nft newer than this mesh knows?")]
pub(super) struct Unreadable(String);

impl Listing {
    /// Reads the output of `nft -j list table` or `nft -j list chain`.
    pub(super) fn parse(json: &str) -> Result<Self, Unreadable> {
        let mut document: Value =
            serde_json::from_str(json).map_err(|error| Unreadable(error.to_string()))?;
        let Some(Value::Array(objects)) = document.get_mut("nftables").map(Value::take) else {
            return Err(Unreadable("no list named nftables".to_owned()));
        };
        let mut listing = Self::default();
        for object in objects {
            let Value::Object(object) = object else { continue };
            for (kind, mut properties) in object {
                // Handles are numbers that the kernel gives out; they say nothing.
                remove(&mut properties, "handle");
                listing.add(&kind, properties);
            }
        }
        Ok(listing)
    }

    fn add(&mut self, kind: &str, mut properties: Value) {
        let key = if kind == "rule" { "chain" } else { "name" };
        let name = properties
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        match kind {
            "table" => self.table = properties,
            "chain" => self.chains.entry(name).or_default().properties = properties,
            "rule" => self.chains.entry(name).or_default().rules.push(properties),
            "set" | "map" => {
                let elements = match remove(&mut properties, "elem") {
                    Some(Value::Array(elements)) => elements.iter().map(element).collect(),
                    _ => BTreeMap::new(),
                };
                self.sets.insert(
                    name,
                    ListedSet {
                        map: kind == "map",
                        properties,
                        elements,
                    },
                );
            }
            _ => {}
        }
    }

    /// Takes over what another listing says of a chain.
    pub(super) fn learn(&mut self, name: &str, other: &Self) {
        match other.chains.get(name) {
            Some(chain) => self.chains.insert(name.to_owned(), chain.clone()),
            None => self.chains.remove(name),
        };
    }

    /// What is in the kernel now (`self`), in the words of what was `written` and printed as `learned` then.
    /// None: the table itself was changed.
    pub(super) fn in_words_of(self, written: &Ruleset, learned: &Self) -> Option<Ruleset> {
        if self.table != learned.table {
            return None;
        }
        let mut ruleset = Ruleset::default();
        for (name, now) in self.chains {
            let (known, then) = (written.chains.get(&name), learned.chains.get(&name));
            let same_hook = then.is_some_and(|then| then.properties == now.properties);
            let same_rules = then.is_some_and(|then| then.rules == now.rules);
            let foreign = || FOREIGN.to_owned();
            let chain = match known {
                Some(known) => Chain {
                    hook: if same_hook {
                        known.hook.clone()
                    } else {
                        Some(foreign())
                    },
                    rules: if same_rules {
                        known.rules.clone()
                    } else {
                        vec![foreign()]
                    },
                },
                None => Chain {
                    hook: None,
                    rules: vec![foreign()],
                },
            };
            ruleset.chains.insert(name, chain);
        }
        for (name, now) in self.sets {
            let (known, then) = (written.sets.get(&name), learned.sets.get(&name));
            let header = match (known, then) {
                (Some(known), Some(then)) if then.properties == now.properties => known.header.clone(),
                _ => FOREIGN.to_owned(),
            };
            ruleset.sets.insert(
                name,
                Set {
                    header,
                    map: now.map,
                    elements: now.elements,
                },
            );
        }
        Some(ruleset)
    }
}

fn remove(value: &mut Value, key: &str) -> Option<Value> {
    value.as_object_mut()?.remove(key)
}

/// An element's key and value, as we write them.
fn element(value: &Value) -> (String, String) {
    match value {
        Value::Array(pair) => match pair.as_slice() {
            [key, value] => (words(key), words(value)),
            _ => (value.to_string(), String::new()),
        },
        _ => (words(value), String::new()),
    }
}

/// A value as we write it; what we never write comes out as its JSON, which then differs from ours.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => match text.parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => text.clone(),
        },
        Value::Object(object) => {
            let Some((kind, inner)) = object.iter().next() else {
                return String::new();
            };
            match (kind.as_str(), inner) {
                ("concat", Value::Array(parts)) => parts.iter().map(words).collect::<Vec<_>>().join(" . "),
                ("prefix", inner) => format!("{}/{}", words(&inner["addr"]), inner["len"]),
                ("goto", inner) => format!("goto {}", words(&inner["target"])),
                _ => value.to_string(),
            }
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "mesh", "handle": 2}},
        {"map": {"family": "inet", "name": "vips6", "table": "mesh", "handle": 4, "map": "verdict",
            "elem": [["FD00:0::1", {"goto": {"target": "vip_fd00__1"}}]]}},
        {"set": {"family": "inet", "name": "members4", "table": "mesh", "handle": 5,
            "elem": [{"concat": [4096, {"prefix": {"addr": "10.0.0.0", "len": 16}}]}]}},
        {"chain": {"family": "inet", "table": "mesh", "name": "vip_fd00__1", "handle": 6}},
        {"rule": {"family": "inet", "table": "mesh", "chain": "vip_fd00__1", "handle": 7, "expr": [1]}}]}"#;

    fn written() -> Ruleset {
        let set = |header: &str, map, key: &str, value: &str| Set {
            header: header.to_owned(),
            map,
            elements: BTreeMap::from([(key.to_owned(), value.to_owned())]),
        };
        let chain = Chain {
            hook: None,
            rules: vec!["ours".to_owned()],
        };
        Ruleset {
            sets: BTreeMap::from([
                (
                    "vips6".to_owned(),
                    set("type a", true, "fd00::1", "goto vip_fd00__1"),
                ),
                (
                    "members4".to_owned(),
                    set("type b", false, "4096 . 10.0.0.0/16", ""),
                ),
            ]),
            chains: BTreeMap::from([("vip_fd00__1".to_owned(), chain)]),
        }
    }

    #[test]
    fn what_is_as_written_reads_as_written_whatever_the_handles() {
        let learned = Listing::parse(TABLE).unwrap();
        let now = Listing::parse(&TABLE.replace("\"handle\": 7", "\"handle\": 70")).unwrap();
        assert_eq!(now.in_words_of(&written(), &learned), Some(written()));
    }

    #[test]
    fn every_kind_of_drift_shows() {
        let learned = Listing::parse(TABLE).unwrap();
        let drifts = [
            ("[1]", "[2]"),
            ("FD00:0::1", "fd00::2"),
            ("\"len\": 16", "\"len\": 17"),
            ("\"target\": \"vip_fd00__1\"", "\"target\": \"x\""),
            ("\"map\": \"verdict\"", "\"map\": \"mark\""),
            ("\"handle\": 6", "\"hook\": \"input\""),
        ];
        for (ours, theirs) in drifts {
            assert!(TABLE.contains(ours), "{ours}");
            let now = Listing::parse(&TABLE.replace(ours, theirs))
                .unwrap()
                .in_words_of(&written(), &learned);
            assert_ne!(now, Some(written()), "{ours} became {theirs}");
        }
        let dormant = TABLE.replace("\"handle\": 2", "\"flags\": \"dormant\"");
        assert_eq!(
            Listing::parse(&dormant)
                .unwrap()
                .in_words_of(&written(), &learned),
            None
        );
        assert!(Listing::parse("{}").is_err() && Listing::parse("").is_err());
    }
}
