//! **Decision.** A table as keyed objects: chains by name, sets and maps by name, their elements by key. Pure.
//!
//! Keys are what makes deltas and repairs possible: two tables differ in *these* chains and *those* elements,
//! and nothing else is touched. It prints as what `nft -f` reads, so what a person sees in a golden file is
//! what the kernel gets.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use mesh_core::diff::diff;

/// Family and name of the one table that we own; nothing outside of it is ever read or touched.
pub const TABLE: &str = "inet mesh";

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
    /// Type and flags, in nft's words.
    pub header: String,
    /// Whether it is a map.
    pub map: bool,
    /// Value by key; in a set all values are empty.
    pub elements: BTreeMap<String, String>,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel enters it; none: only other chains do.
    pub hook: Option<String>,
    /// Rules in order, each with its comment.
    pub rules: Vec<String>,
}

impl Chain {
    /// Appends a rule and says in words what it is for.
    pub fn rule(&mut self, what: impl fmt::Display, comment: &str) {
        let mut end = comment.len().min(MAX_COMMENT);
        while !comment.is_char_boundary(end) {
            end -= 1;
        }
        let comment = comment[..end].replace(['"', '\n'], " ");
        self.rules.push(format!("{what} comment \"{comment}\""));
    }
}

impl Set {
    fn keyword(&self) -> &'static str {
        if self.map { "map" } else { "set" }
    }
}

/// Written as nft reads it.
struct Element<'a>(&'a str, &'a str);

impl fmt::Display for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(key, value) = self;
        if value.is_empty() {
            f.write_str(key)
        } else {
            write!(f, "{key} : {value}")
        }
    }
}

/// The table as one block of `nft -f`.
impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {TABLE} {{")?;
        for (name, set) in &self.sets {
            writeln!(f, "\t{} {name} {{\n\t\t{}", set.keyword(), set.header)?;
            if !set.elements.is_empty() {
                writeln!(f, "\t\telements = {{")?;
                for (key, value) in &set.elements {
                    writeln!(f, "\t\t\t{},", Element(key, value))?;
                }
                writeln!(f, "\t\t}}")?;
            }
            writeln!(f, "\t}}")?;
        }
        for (name, chain) in &self.chains {
            writeln!(f, "\tchain {name} {{")?;
            for line in chain.hook.iter().chain(&chain.rules) {
                writeln!(f, "\t\t{line}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

/// One transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// For `nft -f`; empty: nothing to do.
    pub script: String,
    /// How many chains and elements it adds, changes or removes.
    pub objects: usize,
    /// Chains that it writes.
    pub written: Vec<String>,
}

impl Ruleset {
    /// How many objects it has.
    pub fn objects(&self) -> usize {
        self.chains.len() + self.sets.values().map(|set| set.elements.len()).sum::<usize>()
    }

    /// The script that puts this in the place of whatever is in our table, at once: the kernel commits the
    /// removal and the new table as one generation. `add` makes the `delete` good on a node without one.
    pub fn replacement(&self) -> String {
        format!("add table {TABLE}\ndelete table {TABLE}\n{self}")
    }

    /// What turns `self` into `want`. None: only replacing the whole table does, because a hook or a type
    /// cannot be changed in place.
    pub fn change_to(&self, want: &Self) -> Option<Change> {
        let chains = diff(&self.chains, &want.chains);
        if chains
            .changed
            .iter()
            .any(|(name, chain)| self.chains[name].hook != chain.hook)
        {
            return None;
        }
        let sets = diff(&self.sets, &want.sets);
        for (name, set) in &sets.changed {
            let there = &self.sets[name];
            if there.header != set.header || there.map != set.map {
                return None;
            }
        }
        let mut change = Change::default();
        let Change {
            script,
            objects,
            written,
        } = &mut change;
        // References must never dangle: what is referred to comes before, and goes after, what refers to it.
        for (name, chain) in &chains.added {
            match &chain.hook {
                None => say(script, format_args!("add chain {TABLE} {name}")),
                Some(hook) => say(script, format_args!("add chain {TABLE} {name} {{ {hook} }}")),
            }
        }
        for (name, set) in &sets.added {
            say(
                script,
                format_args!("add {} {TABLE} {name} {{ {} }}", set.keyword(), set.header),
            );
        }
        let none = BTreeMap::new();
        let mut additions = String::new();
        for (name, set) in sets.added.iter().chain(&sets.changed) {
            let there = self.sets.get(name).map_or(&none, |set| &set.elements);
            let elements = diff(there, &set.elements);
            let gone: Vec<&str> = elements
                .removed
                .keys()
                .chain(elements.changed.keys())
                .map(String::as_str)
                .collect();
            let new: Vec<String> = (elements.added.iter().chain(&elements.changed))
                .map(|(key, value)| Element(key, value).to_string())
                .collect();
            if !gone.is_empty() {
                say(
                    script,
                    format_args!("delete element {TABLE} {name} {{ {} }}", gone.join(", ")),
                );
            }
            if !new.is_empty() {
                say(
                    &mut additions,
                    format_args!("add element {TABLE} {name} {{ {} }}", new.join(", ")),
                );
            }
            *objects += elements.len();
        }
        for name in chains.changed.keys().chain(chains.removed.keys()) {
            say(script, format_args!("flush chain {TABLE} {name}"));
        }
        for (name, chain) in chains.added.iter().chain(&chains.changed) {
            for rule in &chain.rules {
                say(script, format_args!("add rule {TABLE} {name} {rule}"));
            }
            written.push(name.clone());
        }
        script.push_str(&additions);
        for name in sets.removed.keys() {
            say(
                script,
                format_args!("delete {} {TABLE} {name}", sets.removed[name].keyword()),
            );
        }
        for name in chains.removed.keys() {
            say(script, format_args!("delete chain {TABLE} {name}"));
        }
        *objects += chains.len() + sets.removed.len();
        Some(change)
    }
}

fn say(script: &mut String, line: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(script, "{line}");
}
