//! **Decision.** What a place of a table holds: how it is written, and what comes before what.

use std::cmp::Ordering;

use super::look::Mood;
use super::words::number;

/// What is not known.
const UNKNOWN: &str = "-";

/// A place of a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// A name, or words.
    Text(String),
    /// Words that are good or bad.
    State(String, Mood),
    /// So many in a second.
    Rate(Option<f64>),
    /// So many.
    Count(Option<u64>),
    /// So many of so many.
    Part(usize, usize),
}

impl Cell {
    /// For people.
    pub fn text(&self) -> String {
        match self {
            Self::Rate(Some(rate)) => number(*rate),
            Self::Count(Some(count)) => number(*count as f64),
            _ => self.exact(),
        }
    }

    /// For programs.
    pub fn exact(&self) -> String {
        match self {
            // What comes from outside may not break a line.
            Self::Text(text) | Self::State(text, _) if text.is_empty() => UNKNOWN.to_owned(),
            Self::Text(text) | Self::State(text, _) => text.replace(char::is_control, " "),
            Self::Rate(Some(rate)) => format!("{:.1}", rate),
            Self::Count(Some(count)) => count.to_string(),
            Self::Rate(None) | Self::Count(None) => UNKNOWN.to_owned(),
            Self::Part(some, all) => format!("{some}/{all}"),
        }
    }

    /// How good it is.
    pub fn mood(&self) -> Mood {
        match self {
            // Where nothing is said nothing is wrong.
            Self::State(text, mood) if !text.is_empty() => *mood,
            // Nothing that serves is worse than too few.
            Self::Part(0, 1..) => Mood::Bad,
            Self::Part(some, all) if some < all => Mood::Warn,
            _ => Mood::Good,
        }
    }

    /// What is not known comes last, whichever way the rest goes.
    pub(super) fn compare(&self, other: &Self, down: bool) -> Ordering {
        let way = |order: Ordering| if down { order.reverse() } else { order };
        match (self.key(), other.key()) {
            (Key::Nothing, Key::Nothing) => Ordering::Equal,
            (Key::Nothing, _) => Ordering::Greater,
            (_, Key::Nothing) => Ordering::Less,
            (Key::Number(a), Key::Number(b)) => way(a.total_cmp(&b)),
            (Key::Words(a), Key::Words(b)) => way(natural(a, b)),
            // Columns have cells of one kind.
            (Key::Number(_), Key::Words(_)) => Ordering::Less,
            (Key::Words(_), Key::Number(_)) => Ordering::Greater,
        }
    }

    fn key(&self) -> Key<'_> {
        match self {
            Self::Rate(Some(rate)) => Key::Number(*rate),
            Self::Count(Some(count)) => Key::Number(*count as f64),
            Self::Rate(None) | Self::Count(None) => Key::Nothing,
            Self::Part(some, _) => Key::Number(*some as f64),
            Self::Text(text) if text.is_empty() => Key::Nothing,
            Self::Text(text) | Self::State(text, _) => Key::Words(text),
        }
    }
}

enum Key<'a> {
    Nothing,
    Number(f64),
    Words(&'a str),
}

/// `web.2` comes before `web.10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (head, tail) = (
        |text: &str| text.trim_end_matches(|c: char| c.is_ascii_digit()).len(),
        |text: &str, at: usize| text[at..].parse::<u64>().ok(),
    );
    let (one, other) = (head(a), head(b));
    (&a[..one], tail(a, one), a).cmp(&(&b[..other], tail(b, other), b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_a_dash() {
        for cell in [Cell::Rate(None), Cell::Count(None), Cell::Text(String::new())] {
            assert_eq!((cell.text(), cell.exact()), ("-".to_owned(), "-".to_owned()));
        }
        assert_eq!(Cell::Rate(Some(0.0)).text(), "0");
        assert_eq!(
            (Cell::Rate(Some(1_234.56)).text(), Cell::Rate(Some(1_234.56)).exact()),
            ("1.2k".into(), "1234.6".into())
        );
        assert_eq!(Cell::Text("a\nb\u{1b}[31m".to_owned()).text(), "a b [31m");
    }

    #[test]
    fn names_with_numbers_are_in_their_order() {
        let mut names =
            ["web.10", "web", "db.1", "web.2", "n2", "n10", "ä"].map(|name| Cell::Text(name.to_owned()));
        names.sort_by(|a, b| a.compare(b, false));
        let names: Vec<_> = names.iter().map(Cell::text).collect();
        assert_eq!(names, ["db.1", "n2", "n10", "web", "web.2", "web.10", "ä"]);
    }

    #[test]
    fn the_unknown_is_last_both_ways() {
        let unknown = Cell::Rate(None);
        for down in [true, false] {
            assert_eq!(unknown.compare(&Cell::Rate(Some(0.0)), down), Ordering::Greater);
        }
        assert_eq!(Cell::Rate(Some(2.0)).compare(&Cell::Rate(Some(1.0)), true), Ordering::Less);
    }

    #[test]
    fn too_few_are_not_good() {
        let moods = [(0, 0), (0, 2), (1, 2), (2, 2)].map(|(some, all)| Cell::Part(some, all).mood());
        assert_eq!(moods, [Mood::Good, Mood::Bad, Mood::Warn, Mood::Good]);
    }
}
