//! **Decision.** What was chosen in a table: its order, who is selected, and which part of it is seen.

use super::column::View;
use super::row::Row;

/// By which column a table is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Which one.
    pub column: usize,
    /// The most, or the last letter, first.
    pub down: bool,
}

/// What is seen of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// All of its rows.
    pub rows: Vec<Row>,
    /// Which of them is selected.
    pub selected: Option<usize>,
    /// How many are above what is seen.
    pub above: usize,
    /// For how many there is room.
    pub height: usize,
}

impl Page {
    /// The rows that there is room for.
    pub fn seen(&self) -> &[Row] {
        let from = self.above.min(self.rows.len());
        &self.rows[from..(from + self.height).min(self.rows.len())]
    }
}

#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) order: Order,
    /// Whose row is selected. Nobody's until somebody moves, so that a table which moves shows its top.
    selected: Option<String>,
    /// Where that row was last.
    place: usize,
    above: usize,
    /// How many rows were last seen at once.
    height: usize,
}

impl Order {
    /// Names from the first, numbers from the most.
    pub(super) fn of(view: View, column: usize) -> Self {
        Self { column, down: view.columns().get(column).is_some_and(|column| column.number) }
    }

    /// Rows that are alike stay as the agent orders them.
    pub(super) fn sort(self, rows: &mut [Row]) {
        rows.sort_by(|a, b| match (a.cells.get(self.column), b.cells.get(self.column)) {
            (Some(a), Some(b)) => a.compare(b, self.down),
            _ => std::cmp::Ordering::Equal,
        });
    }
}

impl Table {
    /// Sorted by names: rows that stand still can be read.
    pub(super) fn new(view: View) -> Self {
        Self { order: Order::of(view, 0), selected: None, place: 0, above: 0, height: 10 }
    }

    /// Sorts by the column that is so many further on.
    pub(super) fn next(&mut self, view: View, by: usize) {
        self.order = Order::of(view, (self.order.column + by) % view.columns().len());
    }

    pub(super) fn select_none(&mut self) {
        *self = Self { selected: None, place: 0, above: 0, ..self.clone() };
    }

    pub(super) fn is_selected(&self) -> bool {
        self.selected.is_some()
    }

    /// Whose row is selected, where it is there.
    pub(super) fn selected<'a>(&self, rows: &'a [Row]) -> Option<&'a Row> {
        self.find(rows).map(|at| &rows[at])
    }

    fn find(&self, rows: &[Row]) -> Option<usize> {
        let id = self.selected.as_ref()?;
        rows.iter().position(|row| row.id == *id)
    }

    /// Rows have changed: the selected one is where it is now, or, if it has gone, the one in its place.
    pub(super) fn settle(&mut self, rows: &[Row]) {
        if self.selected.is_some() {
            self.go(rows, self.find(rows).unwrap_or(self.place));
        }
    }

    /// Selects the row at a place, or the last one.
    pub(super) fn go(&mut self, rows: &[Row], place: usize) {
        if rows.is_empty() {
            // Who was selected may come back.
            return;
        }
        self.place = place.min(rows.len() - 1);
        self.selected = Some(rows[self.place].id.clone());
    }

    /// Moves by so many rows; from nowhere to the first.
    pub(super) fn step(&mut self, rows: &[Row], by: isize) {
        match self.find(rows) {
            Some(at) => self.go(rows, at.saturating_add_signed(by)),
            None => self.go(rows, 0),
        }
    }

    /// By how many rows a page is turned.
    pub(super) fn turn(&self) -> isize {
        isize::try_from(self.height.saturating_sub(1).max(1)).unwrap_or(1)
    }

    /// The part with the selected row, as near to what was seen before as can be.
    pub(super) fn page(&mut self, rows: Vec<Row>, height: usize) -> Page {
        self.height = height;
        let selected = self.find(&rows);
        if let Some(at) = selected {
            self.above = self.above.min(at).max((at + 1).saturating_sub(height));
        }
        self.above = self.above.min(rows.len().saturating_sub(height));
        Page { rows, selected, above: self.above, height }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cell::Cell;
    use super::*;

    fn rows(of: &[(&str, u64)]) -> Vec<Row> {
        let row = |(id, n): &(&str, u64)| Row {
            id: (*id).to_owned(),
            name: (*id).to_owned(),
            cells: vec![Cell::Text((*id).to_owned()), Cell::Count(Some(*n))],
            note: String::new(),
        };
        of.iter().map(row).collect()
    }

    fn ids(rows: &[Row]) -> String {
        rows.iter().map(|row| &*row.id).collect()
    }

    #[test]
    fn rows_that_are_alike_keep_their_order() {
        let mut some = rows(&[("c", 1), ("a", 2), ("b", 1)]);
        Order { column: 1, down: true }.sort(&mut some);
        assert_eq!(ids(&some), "acb");
        Order { column: 1, down: false }.sort(&mut some);
        assert_eq!(ids(&some), "cba");
        Order { column: 0, down: false }.sort(&mut some);
        assert_eq!(ids(&some), "abc");
    }

    #[test]
    fn who_is_selected_stays_so_where_rows_move() {
        let mut table = Table::new(View::Tasks);
        let some = rows(&[("a", 0), ("b", 0), ("c", 0), ("d", 0)]);
        assert_eq!(table.page(some.clone(), 2).selected, None);
        table.step(&some, 1);
        table.step(&some, 1);
        assert_eq!(table.selected(&some).unwrap().id, "b");
        let moved = rows(&[("d", 0), ("c", 0), ("b", 0), ("a", 0)]);
        table.settle(&moved);
        let page = table.page(moved.clone(), 2);
        assert_eq!((ids(page.seen()), page.selected, page.above), ("cb".to_owned(), Some(2), 1));
        // The one that comes to its place when it goes, and the last one if there is none.
        let fewer = rows(&[("d", 0), ("c", 0), ("a", 0)]);
        table.settle(&fewer);
        assert_eq!(table.selected(&fewer).unwrap().id, "a");
        let fewer = rows(&[("d", 0)]);
        table.settle(&fewer);
        assert_eq!(table.selected(&fewer).unwrap().id, "d");
        table.settle(&[]);
        assert_eq!(table.page(Vec::new(), 2), Page { rows: Vec::new(), selected: None, above: 0, height: 2 });
        table.settle(&fewer);
        assert_eq!(table.selected(&fewer).unwrap().id, "d");
    }

    #[test]
    fn what_is_seen_follows_who_is_selected() {
        let mut table = Table::new(View::Tasks);
        let some = rows(&[("a", 0), ("b", 0), ("c", 0), ("d", 0), ("e", 0)]);
        table.go(&some, usize::MAX);
        assert_eq!(ids(table.page(some.clone(), 3).seen()), "cde");
        table.step(&some, -1);
        assert_eq!((ids(table.page(some.clone(), 3).seen()), table.turn()), ("cde".to_owned(), 2));
        table.step(&some, -2);
        assert_eq!(ids(table.page(some.clone(), 3).seen()), "bcd");
        table.step(&some, -9);
        let page = table.page(some.clone(), 3);
        assert_eq!((ids(page.seen()), page.selected), ("abc".to_owned(), Some(0)));
        // A window that grows shows what there is.
        table.go(&some, 4);
        table.page(some.clone(), 2);
        assert_eq!(ids(table.page(some.clone(), 9).seen()), "abcde");
        assert_eq!(table.page(some.clone(), 0).seen(), []);
    }
}
