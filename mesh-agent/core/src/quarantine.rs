//! **Decision.** Which records an agent breaks by, and what one does that finds that those before it broke.
//!
//! What cannot be read, or makes no sense, is set aside before anything is made of it (`replica`). What remains are
//! faults of our own: a decision that panics, a part of the agent that ends, a round that never does. Whichever records
//! those come from, the rest goes on. A decision can be tried again with fewer records, so those are found
//! ([`culprits`]). Of what ends the agent only what was new can be told, by what is on disk when the next one starts
//! ([`Attempt`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kv::{KeyValue, Rev};
use crate::model::Snapshot;
use crate::records;
use crate::replica::Replica;

/// Records by key, each in the form of a revision.
pub type Forms = BTreeMap<Arc<str>, Rev>;

/// What is new or changed in a world. Signs of life are planned by nobody.
pub fn news(old: &Snapshot, new: &Snapshot) -> Forms {
    let changes = old.revs.changes(&new.revs);
    let there = changes.filter_map(|(key, _, rev)| Some((Arc::clone(key), *rev?)));
    there.filter(|(key, _)| records::matters(key)).collect()
}

/// Bars those of the suspects by which no plan can be made: as few as can be found, and none where it is not by them. `good`
/// is a world of which one could be made, and whose forms of the records stay in force. Tells which are barred.
pub fn isolate(
    replica: &mut Replica,
    good: &Snapshot,
    suspects: &Forms,
    why: &str,
    plans: impl Fn(&Snapshot) -> bool,
) -> Vec<Arc<str>> {
    let suspects: Vec<_> =
        suspects.iter().filter(|(key, rev)| replica.world().rev_of(key) == **rev).collect();
    let mut base = replica.clone();
    for (key, rev) in &suspects {
        base.bar(key, **rev, why, former(good, key));
    }
    let mut barred = Vec::new();
    if plans(base.world()) {
        admit(&mut base, &suspects, &plans, &mut barred);
        *replica = base;
    }
    barred
}

/// Lets in again whom a plan can be made with.
fn admit(
    base: &mut Replica,
    suspects: &[(&Arc<str>, &Rev)],
    plans: &impl Fn(&Snapshot) -> bool,
    barred: &mut Vec<Arc<str>>,
) {
    let mut trial = base.clone();
    suspects.iter().for_each(|(key, _)| trial.admit(key));
    if plans(trial.world()) {
        *base = trial;
    } else if let [(key, _)] = suspects {
        barred.push(Arc::clone(key));
    } else {
        let (first, rest) = suspects.split_at(suspects.len() / 2);
        admit(base, first, plans, barred);
        admit(base, rest, plans, barred);
    }
}

/// The form of a record that is in force in a world.
pub fn former(world: &Snapshot, key: &str) -> Option<KeyValue> {
    let (value, rev) = (records::in_force(world, key)?, world.rev_of(key));
    Some(KeyValue { key: key.into(), value: value.into(), created: rev, modified: rev, lease: None })
}

/// So many agents in a row may break before the next one leaves something out.
pub const PATIENCE: u32 = 3;
/// Of more suspects it is not worth to say that it is by them.
pub const MOST_SUSPECTS: usize = 1000;

/// What an agent is about to do with the records: on disk while it does, and still there if that was its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// How many agents in a row ended so.
    pub failures: u32,
    /// The newest revision of the records.
    pub rev: Rev,
    /// What was new shortly before; empty: too much to tell, or nothing.
    pub suspects: Forms,
    /// What is known of why.
    pub why: String,
}

/// How an agent begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// With all that it knows.
    AsUsual,
    /// Without these.
    Without(Forms),
    /// With a copy that was good for long, and nothing newer for now.
    Held,
}

impl Attempt {
    /// An agent finds what the one before it left, if that did not come to an end of its own.
    pub fn found(left: Option<Self>) -> Option<Self> {
        left.map(|left| Self { failures: left.failures.saturating_add(1), ..left })
    }

    /// How the agent begins that finds this.
    pub fn begin(&self) -> Begin {
        match self.failures {
            0..PATIENCE => Begin::AsUsual,
            failures if failures < 2 * PATIENCE && !self.suspects.is_empty() => {
                Begin::Without(self.suspects.clone())
            }
            _ => Begin::Held,
        }
    }

    /// What this agent is about to do now. What was suspect before it began is still, while it has not done well
    /// for a while.
    pub fn next(found: Option<&Self>, rev: Rev, news: &Forms, why: &str) -> Self {
        let found = found.cloned().unwrap_or_default();
        let mut suspects = found.suspects;
        if suspects.is_empty() || news.len() + suspects.len() <= MOST_SUSPECTS {
            suspects.extend(news.iter().map(|(key, rev)| (Arc::clone(key), *rev)));
        }
        if suspects.len() > MOST_SUSPECTS {
            suspects.clear();
        }
        let why = if why.is_empty() { found.why } else { why.to_owned() };
        Self { failures: found.failures, rev, suspects, why }
    }

    /// Why what is left out is, for people.
    pub fn reason(&self) -> String {
        let why = if self.why.is_empty() { String::new() } else { format!(" ({})", self.why) };
        format!("the agent broke {} times in a row when it was new{why}", self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Listing;
    use crate::model::NodeId;

    fn kv(n: usize, word: &str, rev: u64) -> KeyValue {
        let value = format!(r#"{{"availability":"{word}"}}"#);
        KeyValue {
            key: key(n),
            value: value.as_str().into(),
            created: Rev(1),
            modified: Rev(rev),
            lease: None,
        }
    }

    fn key(n: usize) -> Arc<str> {
        format!("nodespec/n{n:03}").into()
    }

    fn listing(rev: u64, kvs: Vec<KeyValue>) -> Listing {
        Listing { cluster: "c".to_owned(), rev: Rev(rev), kvs }
    }

    fn word(replica: &Replica, n: usize) -> &'static str {
        replica.world().availability(&NodeId::new(format!("n{n:03}"))).as_str()
    }

    /// A hundred records change at once, and no plan can be made by three of them.
    #[test]
    fn the_culprits_are_found_and_nobody_else_is_barred() {
        let mut replica = Replica::default();
        replica.resync(listing(1, (0..100).map(|n| kv(n, "pause", 1)).collect()), false).unwrap();
        let good = replica.world().clone();
        replica.resync(listing(9, (0..110).map(|n| kv(n, "drain", 9)).collect()), false).unwrap();
        let suspects = news(&good, replica.world());
        assert_eq!(suspects.len(), 110);
        let culprits = [3, 50, 105];
        let tries = std::cell::Cell::new(0);
        let plans = |world: &Snapshot| {
            tries.set(tries.get() + 1);
            culprits.iter().all(|n| {
                let id = NodeId::new(format!("n{n:03}"));
                world.availability(&id).as_str() != "drain"
            })
        };
        let barred = isolate(&mut replica, &good, &suspects, "it panicked", plans);
        assert_eq!(barred, culprits.map(key));
        assert!(tries.get() < 60, "{} tries", tries.get());
        for n in 0..110 {
            let expected = match n {
                105 => "active",
                n if culprits.contains(&n) => "pause",
                _ => "drain",
            };
            assert_eq!(word(&replica, n), expected, "{n}");
        }
        assert_eq!(replica.world().poison.len(), 3);
        assert_eq!(replica.world().poison[&*key(3)], "it panicked");
    }

    #[test]
    fn where_it_is_by_none_of_them_nobody_is_barred() {
        let mut replica = Replica::default();
        replica.resync(listing(1, vec![kv(1, "pause", 1)]), false).unwrap();
        let good = replica.world().clone();
        replica.resync(listing(2, vec![kv(1, "drain", 2)]), false).unwrap();
        let suspects = news(&good, replica.world());
        assert!(isolate(&mut replica, &good, &suspects, "", |_| false).is_empty());
        assert!(replica.world().poison.is_empty() && word(&replica, 1) == "drain");
        // Since then it was written anew: it is another form.
        let late: Forms = [(key(1), Rev(1))].into();
        assert!(isolate(&mut replica, &good, &late, "", |_| false).is_empty());
    }

    #[test]
    fn an_agent_that_breaks_again_and_again_leaves_out_what_is_new_and_then_all_of_it() {
        let suspects: Forms = [(key(1), Rev(7))].into();
        let mut left = None;
        let mut begun = Vec::new();
        for n in 0..8 {
            let found = Attempt::found(left);
            begun.push(found.as_ref().map_or(Begin::AsUsual, Attempt::begin));
            // It was new to the first one alone.
            let news = if n == 0 { suspects.clone() } else { Forms::new() };
            left =
                Some(Attempt::next(found.as_ref(), Rev(7), &news, if n == 0 { "it panicked" } else { "" }));
        }
        let without = Begin::Without(suspects);
        let usual = [Begin::AsUsual, Begin::AsUsual, Begin::AsUsual];
        let expected =
            [&usual[..], &[without.clone(), without.clone(), without, Begin::Held, Begin::Held]].concat();
        assert_eq!(begun, expected);
        let reason = Attempt::found(left).unwrap().reason();
        assert!(reason.contains("8 times") && reason.contains("it panicked"), "{reason}");
    }

    #[test]
    fn without_suspects_it_is_held_sooner() {
        let broken = |failures| Attempt { failures, ..Attempt::default() };
        assert_eq!(broken(2).begin(), Begin::AsUsual);
        assert_eq!(broken(3).begin(), Begin::Held);
        // Where all is new nothing in particular is suspect.
        let many: Forms = (0..=MOST_SUSPECTS).map(|n| (key(n), Rev(1))).collect();
        assert!(Attempt::next(None, Rev(1), &many, "").suspects.is_empty());
    }
}
