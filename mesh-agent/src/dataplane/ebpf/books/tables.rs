//! **Decision.** Tables of slots. Frontends that lead to the same backends share one. Pure.
//!
//! A table is rewritten where it is if all frontends that lead to it are to lead to its new content. Otherwise whoever
//! wants another content gets another table, and the former one stays until the last has left it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::maglev::{self, Weighted};
use mesh_core::model::Vni;
use mesh_ebpf::abi::{SLOT_LINE, SlotLine};

use super::super::runs::Runs;
use super::{Backends, Step};

/// What a table is made of: backends, their shares and their places, sorted. Never empty.
pub(super) type Content = Arc<[(Weighted, (Vni, IpAddr))]>;

/// A run of slots.
#[derive(Debug)]
struct Table {
    order: u32,
    /// How many frontends lead here.
    users: u32,
    /// None: it was found, and nobody knows yet what is to be in it.
    content: Option<Content>,
}

/// Where those who lead to a table are to lead.
#[derive(Debug)]
struct Move {
    users: u32,
    /// None: they part.
    to: Option<Content>,
}

/// All tables.
#[derive(Debug)]
pub(super) struct Tables {
    runs: Runs,
    /// By where they begin.
    tables: BTreeMap<u32, Table>,
    places: BTreeMap<Content, u32>,
    /// Of this round, by table.
    moves: BTreeMap<u32, Move>,
    /// Runs that a program may still look into.
    limbo: Vec<(u32, u32)>,
}

impl Tables {
    /// None, with `2^order` slots for them.
    pub(super) fn new(order: u32) -> Self {
        Self {
            runs: Runs::new(order),
            tables: BTreeMap::new(),
            places: BTreeMap::new(),
            moves: BTreeMap::new(),
            limbo: Vec::new(),
        }
    }

    /// A frontend was found that leads to a table; false: it cannot be one.
    pub(super) fn find(&mut self, start: u32, order: u32) -> bool {
        if let Some(table) = self.tables.get_mut(&start) {
            let same = table.order == order;
            table.users += u32::from(same);
            return same;
        }
        let there = self.runs.take_at(start, order);
        if there {
            self.tables.insert(start, Table { order, users: 1, content: None });
        }
        there
    }

    /// A round begins.
    pub(super) fn begin(&mut self) {
        self.moves.clear();
        for (start, order) in self.limbo.drain(..) {
            self.runs.give_back(start, order);
        }
    }

    /// In this round one of those who lead to a table is to lead to `content`.
    pub(super) fn announce(&mut self, from: u32, content: &Content) {
        let to = self.moves.entry(from).or_insert_with(|| Move { users: 0, to: Some(Arc::clone(content)) });
        to.users += 1;
        to.to.take_if(|to| to != content);
    }

    /// The table with a content, for a frontend that leads to `own` until now; none: there is no room. If it is
    /// another one, the frontend still has to leave its own.
    pub(super) fn join(
        &mut self,
        own: Option<u32>,
        content: &Content,
        backends: &mut Backends,
        steps: &mut Vec<Step>,
    ) -> Option<u32> {
        let order = order_of(content);
        let start = match self.places.get(content) {
            Some(start) => *start,
            None => {
                let start = match own.filter(|own| self.all_move(*own, order, content)) {
                    Some(own) => own,
                    None => self.runs.take(order)?,
                };
                self.write(start, content, backends, steps);
                start
            }
        };
        if own != Some(start) {
            self.tables.get_mut(&start)?.users += 1;
        }
        Some(start)
    }

    /// One less leads to a table.
    pub(super) fn leave(&mut self, start: u32, backends: &mut Backends) {
        let Some(table) = self.tables.get_mut(&start) else { return };
        table.users -= 1;
        if table.users > 0 {
            return;
        }
        self.limbo.push((start, table.order));
        if let Some(Table { content: Some(content), .. }) = self.tables.remove(&start) {
            self.forget(&content, backends);
        }
    }

    /// Whether all who lead to a table are to lead to a content of its size.
    fn all_move(&self, from: u32, order: u32, content: &Content) -> bool {
        let (Some(table), Some(all)) = (self.tables.get(&from), self.moves.get(&from)) else { return false };
        table.order == order && table.users == all.users && all.to.as_ref() == Some(content)
    }

    fn write(&mut self, start: u32, content: &Content, backends: &mut Backends, steps: &mut Vec<Step>) {
        for (_, key) in content.iter() {
            backends.hold(*key, steps);
        }
        let order = order_of(content);
        steps.push(Step::Slots(start, Slots(Arc::clone(content))));
        let table = self.tables.entry(start).or_insert(Table { order, users: 0, content: None });
        let old = table.content.replace(Arc::clone(content));
        self.places.insert(Arc::clone(content), start);
        if let Some(old) = old {
            self.forget(&old, backends);
        }
    }

    fn forget(&mut self, content: &Content, backends: &mut Backends) {
        self.places.remove(content);
        for (_, key) in content.iter() {
            backends.release(*key);
        }
    }
}

/// The logarithm of a table's size: whole lines.
pub(super) fn order_of(content: &Content) -> u32 {
    maglev::size(content.len()).max(SLOT_LINE).trailing_zeros()
}

/// What is to be in a table, worked out when it is written: all tables of a first round are many megabytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Slots(Content);

impl Slots {
    /// Whole lines.
    pub(in super::super) fn lines(&self) -> Vec<SlotLine> {
        let weighted: Vec<Weighted> = self.0.iter().map(|(weighted, _)| *weighted).collect();
        let mut slots = vec![0; 1 << order_of(&self.0)];
        maglev::fill(&weighted, &mut slots);
        slots.chunks_exact(SLOT_LINE as usize).filter_map(|line| line.try_into().ok()).collect()
    }
}
