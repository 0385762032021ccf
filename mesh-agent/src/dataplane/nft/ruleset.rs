//! **Decision.** A table as keyed objects: chains by name, sets and maps by name, their elements by key. Pure.
//!
//! Keys are what makes deltas and repairs possible: two tables differ in *these* chains and *those* elements,
//! and nothing else is touched.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::diff::{Changes, diff};
use mesh_core::plan::Family;
use nftables::types::{NfChainType, NfHook};

use super::script::Script;
use super::values::{Expr, Words};
use super::words::Stmt;
use crate::plane::{DIFFERS, Drift, MISSING, UNPLANNED};

/// The longest comment that nft takes, bytes (`NFTNL_UDATA_COMMENT_MAXLEN`).
const MAX_COMMENT: usize = 127;

/// A whole table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Sets and maps, by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains, by name.
    pub chains: BTreeMap<String, Chain>,
}

/// A set, or a map if its elements have values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What it is.
    pub kind: Kind,
    /// Elements by their keys' words.
    pub elements: BTreeMap<String, Element>,
}

/// What a set or map holds; it cannot be changed in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// The types of a key's parts, as nft names them.
    pub key: Vec<&'static str>,
    /// The type of values; none: a set.
    pub value: Option<&'static str>,
    /// Whether keys may be prefixes.
    pub interval: bool,
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// What is looked up.
    pub key: Expr,
    /// What it leads to; none in a set.
    pub value: Option<Expr>,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel enters it; none: only other chains do.
    pub hook: Option<Hook>,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

/// Where the kernel enters a chain; what passes it is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// What the chain may do.
    pub kind: NfChainType,
    /// When packets meet it.
    pub hook: NfHook,
    /// Its place among others at the same hook.
    pub priority: i32,
}

/// A rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Conditions, then what is done.
    pub says: Vec<Stmt>,
    /// What it is for.
    pub comment: String,
}

impl Chain {
    /// A chain that the kernel enters.
    pub fn at(kind: NfChainType, hook: NfHook, priority: i32) -> Self {
        Self { hook: Some(Hook { kind, hook, priority }), rules: Vec::new() }
    }

    /// Appends a rule and says in words what it is for.
    #[must_use]
    pub fn rule(mut self, comment: &str, says: impl Into<Vec<Stmt>>) -> Self {
        let mut end = comment.len().min(MAX_COMMENT);
        while !comment.is_char_boundary(end) {
            end -= 1;
        }
        let comment = comment[..end].replace(['"', '\n'], " ");
        self.rules.push(Rule { says: says.into(), comment });
        self
    }

    /// Appends a rule once for each family.
    #[must_use]
    pub fn each<S: Into<Vec<Stmt>>>(self, comment: &str, says: impl Fn(Family) -> S) -> Self {
        Family::ALL.into_iter().fold(self, |chain, family| chain.rule(comment, says(family)))
    }
}

impl Set {
    /// Puts an element in.
    pub fn add(&mut self, key: Expr, value: Option<Expr>) {
        self.elements.insert(Words(&key).to_string(), Element { key, value });
    }

    /// Elements that another set has not, or not with this value.
    fn not_in<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Element> {
        let elements = self.elements.iter();
        elements
            .filter(|(key, element)| other.elements.get(*key) != Some(*element))
            .map(|(_, element)| element)
    }
}

/// One transaction.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change<'a> {
    /// What nft gets.
    pub script: Script<'a>,
    /// How many chains and elements it adds, changes or removes.
    pub objects: usize,
    /// Chains that it writes.
    pub written: Vec<&'a str>,
}

impl Ruleset {
    /// How many objects it has.
    pub fn objects(&self) -> usize {
        self.chains.len() + self.sets.values().map(|set| set.elements.len()).sum::<usize>()
    }

    /// The script that puts this in the place of whatever is in our table, at once: the kernel commits the
    /// removal and the new table as one generation.
    pub fn replacement(&self) -> Script<'_> {
        let mut script = Script::fresh_table();
        // What is referred to comes before what refers to it.
        for (name, set) in &self.sets {
            script.declare(name, &set.kind);
        }
        for (name, chain) in &self.chains {
            script.add_chain(name, chain.hook);
        }
        for (name, set) in &self.sets {
            script.add_elements(name, set.elements.values());
        }
        for (name, chain) in &self.chains {
            script.add_rules(name, &chain.rules);
        }
        script
    }

    /// What of `want` is not as it is here, by object.
    pub fn drift(&self, want: &Self, drift: &Drift) {
        let note = |object: String, is: bool, planned: bool| {
            drift.note(
                object,
                match (is, planned) {
                    (true, true) => DIFFERS,
                    (false, _) => MISSING,
                    (true, false) => UNPLANNED,
                },
            );
        };
        let Changes { added, changed, removed, unchanged: _ } = diff(&self.chains, &want.chains);
        added.keys().for_each(|name| note(format!("chain {name}"), false, true));
        changed.keys().for_each(|name| note(format!("chain {name}"), true, true));
        removed.keys().for_each(|name| note(format!("chain {name}"), true, false));
        for (name, set) in &want.sets {
            let empty = Set { kind: set.kind.clone(), elements: BTreeMap::new() };
            let there = self.sets.get(name).unwrap_or(&empty);
            let keys: BTreeSet<_> = there.elements.keys().chain(set.elements.keys()).collect();
            for key in keys.into_iter().filter(|key| there.elements.get(*key) != set.elements.get(*key)) {
                let has = |set: &Set| set.elements.contains_key(key);
                note(format!("element {key} of {name}"), has(there), has(set));
            }
        }
    }

    /// What turns `self` into `want`. None: only replacing the whole table does, because a hook or a type
    /// cannot be changed in place, and sets and maps are always the same ones.
    pub fn change_to<'a>(&'a self, want: &'a Self) -> Option<Change<'a>> {
        let kinds = |ruleset: &'a Self| ruleset.sets.iter().map(|(name, set)| (name, &set.kind));
        if !kinds(self).eq(kinds(want)) {
            return None;
        }
        let mut change = Change::default();
        let Change { script, objects, written } = &mut change;
        // References must never dangle: what is referred to comes before, and goes after, what refers to it.
        for (name, chain) in &want.chains {
            match self.chains.get(name) {
                Some(there) if there == chain => continue,
                Some(there) if there.hook != chain.hook => return None,
                Some(_) => script.flush_chain(name),
                None => script.add_chain(name, chain.hook),
            }
            written.push(name);
        }
        let removed: Vec<&str> =
            self.chains.keys().filter(|name| !want.chains.contains_key(*name)).map(String::as_str).collect();
        for name in &removed {
            script.flush_chain(name);
        }
        let sets = || want.sets.iter().map(|(name, set)| (name, &self.sets[name], set));
        for (name, there, set) in sets() {
            script.delete_elements(name, there.not_in(set));
            *objects += there.elements.keys().filter(|key| !set.elements.contains_key(*key)).count();
        }
        for name in written.iter() {
            script.add_rules(name, &want.chains[*name].rules);
        }
        for (name, there, set) in sets() {
            script.add_elements(name, set.not_in(there));
            *objects += set.not_in(there).count();
        }
        for name in &removed {
            script.delete_chain(name);
        }
        *objects += written.len() + removed.len();
        Some(change)
    }
}
