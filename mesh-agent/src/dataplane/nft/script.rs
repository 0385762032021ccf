//! **Decision.** One transaction in the JSON of `nft -j -f -`, made of the `nftables` crate's commands. Pure.

use nftables::schema::{self, FlushObject, NfCmd, NfListObject};
use nftables::stmt::Statement;
use nftables::types::{NfChainPolicy, NfFamily};
use serde::Serialize;
use serde_json::{Value, json};

use super::ruleset::{Element, Hook, Kind, Rule};
use super::values::Expr;
use super::words::Stmt;

/// Family and name of the one table that we own; nothing outside of it is ever read or touched.
pub const TABLE: &str = "inet mesh";
const FAMILY: NfFamily = NfFamily::INet;
const NAME: &str = "mesh";

/// One transaction: all of it happens, or nothing.
///
/// The crate's `Batch` and `Nftables` would be this, but neither can carry a [`Command::Ours`].
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Script<'a> {
    #[serde(rename = "nftables")]
    commands: Vec<Command<'a>>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Command<'a> {
    Typed(NfCmd<'a>),
    /// JSON of our own: the crate's `SetType` has neither `devgroup` nor `verdict`, and its `notrack` is a word where
    /// nft wants an object.
    Ours(Value),
}

impl<'a> Script<'a> {
    /// Begins with an empty table in the place of whatever is there: the first `add` makes the `delete` good
    /// on a node without one.
    pub fn fresh_table() -> Self {
        Self {
            commands: [NfCmd::Add, NfCmd::Delete, NfCmd::Add]
                .map(|what| Command::Typed(what(table())))
                .into(),
        }
    }

    /// Deletes our table.
    pub fn no_table() -> Self {
        Self { commands: vec![Command::Typed(NfCmd::Delete(table()))] }
    }

    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    fn push(&mut self, command: NfCmd<'a>) {
        self.commands.push(Command::Typed(command));
    }

    /// Adds an empty set or map.
    pub fn declare(&mut self, name: &str, kind: &Kind) {
        let Kind { key, value, interval } = kind;
        let key = match key.as_slice() {
            [one] => json!(one),
            parts => json!(parts),
        };
        let mut set = json!({ "family": FAMILY, "table": NAME, "name": name, "type": key });
        if *interval {
            set["flags"] = json!(["interval"]);
        }
        let add = match value {
            None => json!({ "set": set }),
            Some(value) => {
                set["map"] = json!(value);
                json!({ "map": set })
            }
        };
        self.commands.push(Command::Ours(json!({ "add": add })));
    }

    /// Adds an empty chain.
    pub fn add_chain(&mut self, name: &'a str, hook: Option<Hook>) {
        let mut chain = chain(name);
        if let Some(Hook { kind, hook, priority }) = hook {
            chain._type = Some(kind);
            chain.hook = Some(hook);
            chain.prio = Some(priority);
            chain.policy = Some(NfChainPolicy::Accept);
        }
        self.push(NfCmd::Add(NfListObject::Chain(chain)));
    }

    /// Takes a chain's rules away.
    pub fn flush_chain(&mut self, name: &'a str) {
        self.push(NfCmd::Flush(FlushObject::Chain(chain(name))));
    }

    /// Deletes an empty chain.
    pub fn delete_chain(&mut self, name: &'a str) {
        self.push(NfCmd::Delete(NfListObject::Chain(chain(name))));
    }

    /// Appends rules to a chain.
    pub fn add_rules(&mut self, chain: &str, rules: &[Rule]) {
        for Rule { says, comment } in rules {
            let rule = json!({
                "family": FAMILY,
                "table": NAME,
                "chain": chain,
                "expr": says.iter().map(spelled).collect::<Vec<_>>(),
                "comment": comment,
            });
            self.commands.push(Command::Ours(json!({ "add": { "rule": rule } })));
        }
    }

    /// Puts elements into a set or map; none: not even a command.
    pub fn add_elements<'e>(&mut self, set: &'a str, elements: impl Iterator<Item = &'e Element>) {
        let pairs = elements.map(|Element { key, value }| match value {
            None => key.clone(),
            Some(value) => Expr::List(vec![key.clone(), value.clone()]),
        });
        self.push_elements(NfCmd::Add, set, pairs.collect());
    }

    /// Takes elements out.
    pub fn delete_elements<'e>(&mut self, set: &'a str, elements: impl Iterator<Item = &'e Element>) {
        let keys = elements.map(|element| element.key.clone());
        self.push_elements(NfCmd::Delete, set, keys.collect());
    }

    fn push_elements(&mut self, what: fn(NfListObject<'a>) -> NfCmd<'a>, set: &'a str, elements: Vec<Expr>) {
        if !elements.is_empty() {
            let elem = elements.into();
            let element = schema::Element { family: FAMILY, table: NAME.into(), name: set.into(), elem };
            self.push(what(NfListObject::Element(element)));
        }
    }
}

fn spelled(statement: &Stmt) -> Value {
    match statement {
        Statement::Notrack => json!({ "notrack": null }),
        other => json!(other),
    }
}

fn table<'a>() -> NfListObject<'a> {
    NfListObject::Table(schema::Table { family: FAMILY, name: NAME.into(), handle: None })
}

fn chain(name: &str) -> schema::Chain<'_> {
    schema::Chain { family: FAMILY, table: NAME.into(), name: name.into(), ..schema::Chain::default() }
}
