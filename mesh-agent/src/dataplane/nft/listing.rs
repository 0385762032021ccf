//! **Decision.** What is in the kernel's table, compared with what was put there. Pure.
//!
//! The kernel gives rules back in nft's own normal form, which differs from how they were written. So the
//! form of a chain is learned right after it was written, and a sweep compares with that. Elements need no
//! learning: their printed form is the one that we write.
//!
//! Elements are read into the `nftables` crate's types. All else is compared as nft prints it: the crate
//! drops properties that it does not know (a table's flags are among them), and drift could hide there.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use nftables::expr::{Expression, NamedExpression};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::Value;

use super::ruleset::{Chain, Rule, Ruleset, Set};
use super::values::{Expr, Word};

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
    /// As text: it is learned for as long as the chain is there, and takes a fraction of a [`Value`]'s memory.
    rules: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct ListedSet {
    properties: Value,
    /// Keys and values; none of them: the crate cannot read one.
    elements: Option<Vec<(Expr, Option<Expr>)>>,
}

/// nft printed something that is no listing.
#[derive(Debug, thiserror::Error)]
#[error("cannot read what `nft -j list` printed: {0}; is it a version of nft newer than this mesh knows?")]
pub(super) struct Unreadable(String);

#[derive(serde::Deserialize)]
struct Document {
    nftables: Listing,
}

/// Objects are taken in one by one: all of them as [`Value`]s would be many times the size of the listing.
impl<'de> Deserialize<'de> for Listing {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(Self::default())
    }
}

impl<'de> Visitor<'de> for Listing {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut objects: A) -> Result<Self, A::Error> {
        while let Some(object) = objects.next_element::<BTreeMap<String, Value>>()? {
            for (kind, mut properties) in object {
                // Handles are numbers that the kernel gives out; they say nothing.
                remove(&mut properties, "handle");
                self.add(&kind, properties);
            }
        }
        Ok(self)
    }
}

impl Listing {
    /// Reads the output of `nft -j list table` or `nft -j list chain`.
    pub(super) fn parse(json: &str) -> Result<Self, Unreadable> {
        let document: Document = serde_json::from_str(json).map_err(|error| Unreadable(error.to_string()))?;
        Ok(document.nftables)
    }

    fn add(&mut self, kind: &str, mut properties: Value) {
        let key = if kind == "rule" { "chain" } else { "name" };
        let name = properties.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        match kind {
            "table" => self.table = properties,
            "chain" => self.chains.entry(name).or_default().properties = properties,
            "rule" => self.chains.entry(name).or_default().rules.push(properties.to_string()),
            "set" | "map" => {
                let elements = match remove(&mut properties, "elem") {
                    Some(Value::Array(elements)) => elements.into_iter().map(element).collect(),
                    _ => Some(Vec::new()),
                };
                self.sets.insert(name, ListedSet { properties, elements });
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
    /// None: something was changed that cannot be repaired in place.
    pub(super) fn in_words_of(self, written: &Ruleset, learned: &Self) -> Option<Ruleset> {
        if self.table != learned.table || self.sets.len() != written.sets.len() {
            return None;
        }
        let mut ruleset = Ruleset::default();
        for (name, now) in self.chains {
            let mut chain = Chain::default();
            if let (Some(known), Some(then)) = (written.chains.get(&name), learned.chains.get(&name)) {
                if then.properties != now.properties {
                    return None;
                }
                chain.hook = known.hook;
                // Whoever took rules away before they were learned must not be believed.
                if then.rules == now.rules && now.rules.len() == known.rules.len() {
                    chain.rules.clone_from(&known.rules);
                } else {
                    // Somebody else's: they equal nothing of ours.
                    chain.rules.push(Rule::default());
                }
            }
            ruleset.chains.insert(name, chain);
        }
        for (name, now) in self.sets {
            let (known, then) = (written.sets.get(&name)?, learned.sets.get(&name)?);
            if then.properties != now.properties {
                return None;
            }
            let mut set = Set { kind: known.kind.clone(), elements: BTreeMap::new() };
            for (key, value) in now.elements? {
                set.add(key, value);
            }
            ruleset.sets.insert(name, set);
        }
        Some(ruleset)
    }
}

fn remove(value: &mut Value, key: &str) -> Option<Value> {
    value.as_object_mut()?.remove(key)
}

/// An element's key and value.
fn element(printed: Value) -> Option<(Expr, Option<Expr>)> {
    match serde_json::from_value(printed).ok()? {
        Expression::List(pair) => {
            let [key, value]: [Expr; 2] = pair.try_into().ok()?;
            Some((as_written(key), Some(as_written(value))))
        }
        key => Some((as_written(key), None)),
    }
}

/// nft may shorten an IPv6 address in another way than we do.
fn as_written(printed: Expr) -> Expr {
    match printed {
        Expression::String(text) => match text.parse::<IpAddr>() {
            Ok(address) => address.word(),
            Err(_) => Expression::String(text),
        },
        Expression::Named(NamedExpression::Concat(parts)) => {
            Expression::Named(NamedExpression::Concat(parts.into_iter().map(as_written).collect()))
        }
        Expression::Named(NamedExpression::Prefix(mut prefix)) => {
            prefix.addr = Box::new(as_written(*prefix.addr));
            Expression::Named(NamedExpression::Prefix(prefix))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;
    use crate::dataplane::nft::ruleset::Kind;
    use crate::dataplane::nft::words::{accept, concat, to_chain};

    const TABLE: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "mesh", "handle": 2}},
        {"map": {"family": "inet", "name": "vips6", "table": "mesh", "handle": 4, "map": "verdict",
            "elem": [["FD00:0::1", {"goto": {"target": "vip_fd00__1"}}]]}},
        {"set": {"family": "inet", "name": "members4", "table": "mesh", "handle": 5,
            "elem": [{"concat": [4096, {"prefix": {"addr": "10.0.0.0", "len": 16}}]}]}},
        {"chain": {"family": "inet", "table": "mesh", "name": "vip_fd00__1", "handle": 6}},
        {"rule": {"family": "inet", "table": "mesh", "chain": "vip_fd00__1", "handle": 7, "expr": [1]}}]}"#;

    fn written() -> Ruleset {
        let set = |key, value: Option<Expr>| {
            let kind = Kind { key: vec!["any"], value: value.as_ref().map(|_| "verdict"), interval: false };
            let mut set = Set { kind, elements: BTreeMap::new() };
            set.add(key, value);
            set
        };
        let subnet: IpNet = "10.0.0.0/16".parse().unwrap();
        let chain = Chain::default().rule("ours", [accept()]);
        Ruleset {
            sets: BTreeMap::from([
                ("vips6".to_owned(), set("fd00::1".word(), Some(to_chain("vip_fd00__1".to_owned())))),
                ("members4".to_owned(), set(concat([4096.word(), subnet.word()]), None)),
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

    /// What somebody takes away between our writing and our first look is not how nft prints ours.
    #[test]
    fn a_chain_that_lost_rules_before_it_was_learned_is_written_again() {
        let flushed: String = TABLE.lines().filter(|line| !line.contains("\"rule\"")).collect();
        let flushed = flushed.trim_end().trim_end_matches(',').to_owned() + "]}";
        let (learned, now) = (Listing::parse(&flushed).unwrap(), Listing::parse(&flushed).unwrap());
        assert_ne!(now.in_words_of(&written(), &learned), Some(written()));
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
            let now = Listing::parse(&TABLE.replace(ours, theirs)).unwrap().in_words_of(&written(), &learned);
            assert_ne!(now, Some(written()), "{ours} became {theirs}");
        }
        let dormant = TABLE.replace("\"handle\": 2", "\"flags\": \"dormant\"");
        assert_eq!(Listing::parse(&dormant).unwrap().in_words_of(&written(), &learned), None);
        assert!(Listing::parse("{}").is_err() && Listing::parse("").is_err());
    }
}
