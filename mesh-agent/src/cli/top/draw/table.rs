//! **Effect.** A table: as many columns as there is room for.

use mesh_core::top::{Cell, Column, Look, Order, Page, Row, Top, View, Wish, fit};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::super::style::{CHOSEN, FAINT, HEAD, Palette};
use super::text::{plain, short, width};

/// Between two columns.
const GAP: usize = 2;
/// Words of fewer letters than that say nothing.
const WORD: usize = 11;
/// As important is the column by which the table is sorted.
const SORTED: u8 = 95;

/// Draws it, and says why the selected one is not as it should be.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    top: &mut Top,
    palette: Palette,
    old: bool,
) -> Option<Line<'static>> {
    let page = top.page(usize::from(area.height.saturating_sub(1)));
    if page.rows.is_empty() {
        super::line(frame, area, 1, Line::raw(nothing(top)));
        return None;
    }
    let (columns, order) = (top.view().columns(), top.order());
    let titles: Vec<_> = columns.iter().enumerate().map(|(at, column)| title(at, column, order)).collect();
    let widths = widths(columns, &titles, order, &page.rows, area.width.into());
    let cell = |text: &str, at: usize| place(text, widths[at], columns[at].number);
    let shown = || (0..columns.len()).filter(|at| widths[*at] > 0);
    let gap = || Span::raw(" ".repeat(GAP));

    let mut head = Vec::new();
    for at in shown() {
        head.extend([Span::raw(cell(&titles[at], at)), gap()]);
    }
    head.push(Span::raw(" ".repeat(area.width.into())));
    frame.buffer_mut().set_line(area.x, area.y, &Line::from(head).style(HEAD), area.width);

    for (y, row) in page.seen().iter().enumerate() {
        let chosen = page.selected == Some(page.above + y);
        let mut spans = Vec::new();
        for at in shown() {
            // Colours would be backgrounds where somebody is chosen, and say that all is new where it is old.
            let mood = if old || chosen { Style::new() } else { palette.mood(row.cells[at].mood()) };
            spans.extend([Span::styled(cell(&row.cells[at].text(), at), mood), gap()]);
        }
        let style = match (chosen, old) {
            (true, _) => CHOSEN,
            (false, true) => FAINT,
            (false, false) => Style::new(),
        };
        spans.push(Span::raw(" ".repeat(area.width.into())));
        let y = area.y + 1 + y as u16;
        frame.buffer_mut().set_line(area.x, y, &Line::from(spans).style(style), area.width);
    }
    noted(&page)
}

/// `FLOWS/S↓`, where it is sorted by that.
fn title(at: usize, column: &Column, order: Order) -> String {
    let mark = match order.column == at {
        true if order.down => "↓",
        true => "↑",
        false => "",
    };
    format!("{}{mark}", column.title)
}

fn widths(columns: &[Column], titles: &[String], order: Order, rows: &[Row], room: usize) -> Vec<usize> {
    let wish = |(at, column): (usize, &Column)| {
        let cells =
            rows.iter().map(|row: &Row| row.cells.get(at).map_or(0, |cell: &Cell| width(&cell.text())));
        let most = width(&titles[at]).max(cells.max().unwrap_or_default());
        let least = if column.number { most } else { width(&titles[at]).max(most.min(WORD)) };
        let importance = if order.column == at { column.importance.max(SORTED) } else { column.importance };
        Wish { importance, least, most }
    };
    fit(&columns.iter().enumerate().map(wish).collect::<Vec<_>>(), GAP, room)
}

/// A text in so many places, numbers at the right.
fn place(text: &str, room: usize, right: bool) -> String {
    let text = short(&plain(text), room);
    let blank = " ".repeat(room.saturating_sub(width(&text)));
    if right { blank + &text } else { text + &blank }
}

/// Which rows are seen where not all are, or what is to be said of the selected one.
fn noted(page: &Page) -> Option<Line<'static>> {
    let chosen = page.selected.and_then(|at| page.rows.get(at)).filter(|row| !row.note.is_empty());
    if let Some(Row { name, note, .. }) = chosen {
        return Some(Line::raw(plain(&format!("{name}: {note}"))));
    }
    let (seen, all) = (page.seen().len(), page.rows.len());
    let text = format!("{}-{} of {all}  {}", page.above + 1, page.above + seen, super::help::SHORT);
    (seen < all).then(|| Line::styled(text, FAINT))
}

fn nothing(top: &Top) -> &'static str {
    match top.look() {
        None => "",
        Some(_) if !top.filter().0.is_empty() => "nothing matches the filter",
        Some(Look { nodes, .. }) if nodes.is_empty() => "this agent is in no mesh yet: see mesh status",
        Some(_) if top.view() == View::Services => "no service yet: mesh service create makes one",
        Some(_) => "no task yet: mesh task run starts one",
    }
}
