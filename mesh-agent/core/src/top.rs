//! **Decision.** What `mesh top` shows: of two looks at the mesh, what was pressed, and how long ago somebody answered.
//!
//! Reading order: [`Look`] is what an agent tells, [`Rates`] what follows from two of them, [`rows()`] what each view
//! shows, [`Top`] what changes it.

mod cell;
mod column;
mod filter;
mod fit;
mod keys;
mod look;
mod notice;
mod rate;
mod row;
mod table;
mod words;

use std::time::Duration;

pub use cell::Cell;
pub use column::{Column, View};
pub use filter::Filter;
pub use fit::{Wish, fit};
pub use keys::{Key, Then};
pub use look::{Condition, Counted, Counts, Look, Mood, Node, Service, Task, Teller};
pub use notice::{Notice, notices};
pub use rate::{Rate, Rates};
pub use row::{Row, rows};
pub use table::{Order, Page};
pub use words::{count, number, span};

use table::Table;

/// All that is seen and was chosen.
#[derive(Debug, Clone)]
pub struct Top {
    /// Which table is shown.
    view: View,
    /// From which one a row led there.
    came_from: Option<View>,
    /// What was chosen in each, in the order of [`View::ALL`].
    tables: [Table; 3],
    filter: Filter,
    /// What is typed goes into the filter.
    typing: bool,
    /// The keys are explained.
    help: bool,
    look: Option<Look>,
    rates: Rates,
    silence: Silence,
}

/// How long nobody has answered.
#[derive(Debug, Clone)]
struct Silence {
    /// When an answer last came; at first when it began.
    heard: Duration,
    /// An answer that takes longer is none.
    patience: Duration,
    /// Why there is none.
    why: Option<String>,
}

impl Top {
    /// At a moment. Who does not answer for `patience` is silent.
    pub fn new(view: View, now: Duration, patience: Duration) -> Self {
        Self {
            view,
            came_from: None,
            tables: View::ALL.map(Table::new),
            filter: Filter::default(),
            typing: false,
            help: false,
            look: None,
            rates: Rates::default(),
            silence: Silence { heard: now, patience, why: None },
        }
    }

    /// Somebody answered.
    pub fn looked(&mut self, look: Look, now: Duration) {
        self.rates = Rates::between(self.look.as_ref(), &look);
        self.look = Some(look);
        self.silence.heard = now;
        self.silence.why = None;
        self.settle();
    }

    /// Nobody did. What was seen before stays.
    pub fn missed(&mut self, why: String) {
        self.silence.why = Some(why);
    }

    /// How long nobody has answered, and why, where that is so.
    pub fn silent(&self, now: Duration) -> Option<(Duration, &str)> {
        let since = now.saturating_sub(self.silence.heard);
        let why = self.silence.why.as_deref();
        (why.is_some() || since > self.silence.patience).then(|| (since, why.unwrap_or_default()))
    }

    /// The last look.
    pub fn look(&self) -> Option<&Look> {
        self.look.as_ref()
    }

    /// What all tasks together get.
    pub fn total(&self) -> Rate {
        self.look.iter().flat_map(|look| &look.tasks).map(|task| self.rates.of(&task.id)).sum()
    }

    /// Which table is shown.
    pub fn view(&self) -> View {
        self.view
    }

    /// By which column it is sorted.
    pub fn order(&self) -> Order {
        self.tables[self.view.place()].order
    }

    /// Sorts a view by a column, as it is sorted unless told otherwise.
    pub fn sort(&mut self, view: View, column: usize) {
        self.tables[view.place()].order = Order::of(view, column);
    }

    /// What is looked for, and whether it is being typed.
    pub fn filter(&self) -> (&str, bool) {
        (self.filter.text(), self.typing)
    }

    /// Whether the keys are explained.
    pub fn help(&self) -> bool {
        self.help
    }

    /// The rows of the view, as they are shown.
    pub fn rows(&self) -> Vec<Row> {
        let Some(look) = &self.look else { return Vec::new() };
        let mut rows = rows(look, &self.rates, self.view, &self.filter);
        self.order().sort(&mut rows);
        rows
    }

    /// The part of them that there is room for.
    pub fn page(&mut self, height: usize) -> Page {
        let rows = self.rows();
        self.tables[self.view.place()].page(rows, height)
    }

    /// Rows have come, gone or moved: who was chosen stays chosen.
    fn settle(&mut self) {
        let rows = self.rows();
        self.tables[self.view.place()].settle(&rows);
    }
}

#[cfg(test)]
mod tests;
