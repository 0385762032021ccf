//! **Decision.** Texts in so many places of a terminal: some letters take two, some none.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// Without what moves the cursor.
pub(super) fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// How many places a text takes.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// A text that takes so many places at most; `…` says that there is more.
pub(super) fn short(text: &str, most: usize) -> String {
    if width(text) <= most { text.to_owned() } else { begin(text, most) }
}

/// The beginning of a text that goes on.
fn begin(text: &str, most: usize) -> String {
    let mut kept = String::new();
    let mut room = most.saturating_sub(1);
    for grapheme in Span::raw(text).styled_graphemes(Style::new()) {
        let wide = width(grapheme.symbol);
        if wide > room {
            break;
        }
        room -= wide;
        kept.push_str(grapheme.symbol);
    }
    if most > 0 {
        kept.push('…');
    }
    kept
}

/// The same, of the end of a text.
pub(super) fn end_of(text: &str, most: usize) -> String {
    let mut kept = text;
    while width(kept) + usize::from(kept.len() < text.len()) > most {
        let mut letters = kept.chars();
        letters.next();
        kept = letters.as_str();
    }
    if kept.len() < text.len() { format!("…{kept}") } else { kept.to_owned() }
}

/// A line that takes so many places at most.
pub(super) fn cut(line: Line<'_>, most: usize) -> Line<'_> {
    let mut room = most;
    if line.width() <= most {
        return line;
    }
    let mut kept = Vec::new();
    for span in line.spans {
        let wide = span.width();
        if wide < room {
            room -= wide;
            kept.push(span);
        } else {
            kept.push(Span::styled(begin(&span.content, room), span.style));
            break;
        }
    }
    Line::from(kept).style(line.style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_between_letters() {
        for (text, most, expected) in [
            ("web", 3, "web"),
            ("web.10", 5, "web.…"),
            ("数据库", 6, "数据库"),
            ("数据库", 5, "数据…"),
            ("数据库", 4, "数…"),
            ("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…"),
            ("web", 1, "…"),
            ("web", 0, ""),
        ] {
            assert_eq!(short(text, most), expected);
            assert!(width(&short(text, most)) <= most);
        }
        assert_eq!(end_of("unix:///run/mesh/mesh.sock", 10), "…mesh.sock");
        assert_eq!(end_of("数据库", 4), "…库");
        assert_eq!(end_of("web", 3), "web");
        let line = Line::from(vec![Span::raw("one "), Span::raw("two")]);
        assert_eq!(cut(line.clone(), 6).to_string(), "one t…");
        assert_eq!(cut(line.clone(), 4).to_string(), "one…");
        assert_eq!(cut(line, 7).to_string(), "one two");
        assert_eq!(plain("a\nb\u{1b}[0m"), "a b [0m");
    }
}
