//! **Decision.** What nodes say of their own tasks before the records do: at once, and also while the store has no
//! majority.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Millis;
use super::hints::{Announcer, HINT_LIFE};
use crate::message::Word;
use crate::model::{Health, NodeId, Snapshot, Task, TaskId};

/// What a task's node knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// It has ended.
    Gone,
    /// Its health check fails.
    Sick,
}

impl Notice {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Gone => "has ended",
            Self::Sick => "fails its health check",
        }
    }

    /// A task's record as it will be.
    pub fn of(self, task: &Task) -> Task {
        let draining = task.draining || self == Self::Gone;
        Task { health: Health::Unhealthy, draining, ..task.clone() }
    }
}

/// Whether there is something to say: its record has it serve.
fn is_news(task: &Task) -> bool {
    task.ready()
}

/// So many datagrams are sent in a row at most, however many others there are: what is left is said with the next tick, and
/// most of it the records will have said by then.
const DATAGRAMS: usize = 3000;

/// What a node says of its tasks, and how often.
#[derive(Debug, Default)]
pub struct Bulletin {
    said: BTreeMap<TaskId, (Notice, Announcer)>,
}

impl Bulletin {
    /// Ten times a second, and when there is news: what to say now to all others.
    ///
    /// Once the record says it nothing more is said until the task is well again: others learn of both by the store, and
    /// who has the notice still forgets it in time.
    pub fn tick(&mut self, world: &Snapshot, known: &BTreeMap<TaskId, Notice>) -> Vec<Word> {
        for (id, notice) in known {
            let said = self.said.get(id).is_some_and(|(said, _)| said == notice);
            if !said && world.tasks.get(id).is_some_and(|task| is_news(task)) {
                self.said.insert(id.clone(), (*notice, Announcer::default()));
            }
        }
        let room = DATAGRAMS / world.nodes.len().max(1);
        let mut words = Vec::new();
        self.said.retain(|id, (notice, announcer)| {
            // Whoever is not in the records is in nobody's balance.
            let Some(task) = world.tasks.get(id) else { return false };
            let Some(about) = address(task) else { return false };
            let stands = known.contains_key(id);
            if words.len() >= room.max(1) || stands && !is_news(task) {
                return true;
            }
            match announcer.tick(stands) {
                Some(true) => words.push(Word::Task(Some(*notice), about)),
                Some(false) => words.push(Word::Task(None, about)),
                None => {}
            }
            stands || !announcer.is_silent()
        });
        words
    }
}

/// What was heard of others' tasks.
#[derive(Debug, Default)]
pub struct Notices {
    heard: BTreeMap<TaskId, (Notice, Millis)>,
}

impl Notices {
    /// A node says of the task of its own that has an address what it knows; none: all is well. Of others' tasks it has
    /// nothing to say.
    pub fn told(
        &mut self,
        world: &Snapshot,
        by: &NodeId,
        notice: Option<Notice>,
        about: IpAddr,
        now: Millis,
    ) {
        let mut own = world.tasks.on(by).iter();
        let Some(task) = own.find(|task| address(task) == Some(about)) else { return };
        match notice {
            Some(notice) => _ = self.heard.insert(task.id.clone(), (notice, now + HINT_LIFE)),
            None => _ = self.heard.remove(&task.id),
        }
    }

    /// Time goes by, and only these tasks are there.
    pub fn expire(&mut self, world: &Snapshot, now: Millis) {
        self.heard.retain(|id, (_, until)| now < *until && world.tasks.contains_key(id));
    }

    /// What matters of it, and of what this node knows of its own.
    pub fn in_force(&self, world: &Snapshot, known: &BTreeMap<TaskId, Notice>) -> BTreeMap<TaskId, Notice> {
        let heard = self.heard.iter().map(|(id, (notice, _))| (id, notice));
        let all = heard.chain(known).filter(|(id, _)| world.tasks.get(*id).is_some_and(|task| is_news(task)));
        all.map(|(id, notice)| (id.clone(), *notice)).collect()
    }
}

/// By which a task is spoken of: no two have the same.
fn address(task: &Task) -> Option<IpAddr> {
    task.addresses.values().next().map(|address| address.v4.into())
}
