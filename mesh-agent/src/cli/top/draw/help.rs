//! **Effect.** What keys do.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::super::style::STRONG;

/// In a line.
pub(super) const SHORT: &str = "? help  / filter  Tab view  s sort  r reverse  q quit";

const KEYS: &[(&str, &str)] = &[
    ("1 2 3, Tab", "services, tasks, nodes"),
    ("arrows, j k", "choose a row; Enter: its tasks, Esc: back"),
    ("s >, <", "sort by the next column, the one before"),
    ("r", "turn the order round"),
    ("/", "filter: words, is:draining, node:n1, service:web"),
    ("q, Ctrl-C", "quit; Esc: no filter any more, then quit"),
    ("rates", "what this node sends; -: not known"),
];

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect) {
    for (y, (keys, what)) in (0..).zip(KEYS) {
        let line = Line::from(vec![Span::styled(format!("{keys:<13}"), STRONG), Span::raw(*what)]);
        super::line(frame, area, y, line);
    }
    super::line(frame, area, area.height - 1, Line::raw("any key: back"));
}
