//! **Effect.** The picture: what there is, what must be known, the table, and what keys do.

mod help;
mod table;
mod text;

use std::time::Duration;

use mesh_core::top::{Look, Mood, Rate, Teller, Top, View, count, notices, number, span};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::style::{CHOSEN, FAINT, Palette, STRONG};
use text::{end_of, short};

/// Smaller windows show nothing of use.
const LEAST: (u16, u16) = (40, 8);
/// So much of the agent's address is shown.
const HOST: usize = 32;

/// What a picture depends on beside what is seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    /// Whom we ask.
    pub(super) host: &'a str,
    pub(super) now: Duration,
    pub(super) palette: Palette,
}

pub(super) fn draw(frame: &mut Frame<'_>, top: &mut Top, scene: &Scene<'_>) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text =
            format!("too small: {}×{}, mesh top needs {}×{}", area.width, area.height, LEAST.0, LEAST.1);
        return line(frame, area, 0, Line::raw(text));
    }
    if top.help() {
        return help::draw(frame, area);
    }
    let silent = top.silent(scene.now);
    let told = silent.map(|(since, _)| silence(top, scene.host, since));
    let why = silent.map(|(_, why)| text::plain(why)).filter(|why| !why.is_empty());
    let old = told.is_some();
    line(frame, area, 0, title(top.look()));
    line(frame, area, 1, rates(top.look(), top.total()).style(if old { FAINT } else { Style::new() }));
    line(frame, area, 2, tabs(top));
    let mut next = 3;
    if let Some((mood, text)) = told.or_else(|| first_notice(top.look())) {
        line(frame, area, next, Line::styled(text, scene.palette.mood(mood)));
        next += 1;
    }
    let rest = Rect { y: area.y + next, height: area.height - next - 1, ..area };
    let noted = table::draw(frame, rest, top, scene.palette, old);
    let last = why.map(Line::raw).or(noted).unwrap_or_else(|| Line::styled(help::SHORT, FAINT));
    line(frame, area, area.height - 1, last);
}

/// Writes a line; what has no room is cut.
fn line(frame: &mut Frame<'_>, area: Rect, y: u16, line: Line<'_>) {
    if y < area.height {
        let width = usize::from(area.width);
        let spans = text::cut(line, width);
        frame.buffer_mut().set_line(area.x, area.y + y, &spans, area.width);
    }
}

/// `n1 · 3 nodes · 2 services · 40 tasks · mesh 0.1.0`
fn title(look: Option<&Look>) -> Line<'static> {
    let Some(Look { teller: Teller { name, version, left_out, .. }, services, tasks, nodes, .. }) = look
    else {
        return Line::styled("mesh top", STRONG);
    };
    let name = if name.is_empty() { "(not in the mesh yet)" } else { name };
    let parts =
        [count(nodes.len(), "node"), count(services.len(), "service"), count(tasks.len() + left_out, "task")];
    let rest = format!(" · {} · mesh {version}", parts.join(" · "));
    Line::from(vec![Span::styled(text::plain(name), STRONG), Span::raw(text::plain(&rest))])
}

/// `sends 12 flows/s · 3.4 MB/s · 5k packets/s · 67 active`
fn rates(look: Option<&Look>, total: Rate) -> Line<'static> {
    let Some(Look { teller, counted, .. }) = look else { return Line::raw("") };
    let name = if teller.name.is_empty() { "this node" } else { &teller.name };
    if !teller.counts {
        return Line::raw(text::plain(&format!(
            "the data plane of {name} counts no flows: rates are not known"
        )));
    }
    if counted.is_none() {
        return Line::raw(text::plain(&format!(
            "the counters of {name} cannot be read: rates are not known"
        )));
    }
    let Rate { flows, bytes, packets, active } = total;
    let known = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
    let (flows, bytes, packets) = (known(flows), known(bytes), known(packets));
    let active = known(active.map(|active| active as f64));
    let name = end_of(&text::plain(name), 16);
    Line::raw(format!(
        "{name} sends {flows} new flows/s · {bytes} bytes/s · {packets} packets/s · {active} active"
    ))
}

/// The views, the order, and what is looked for.
fn tabs(top: &Top) -> Line<'static> {
    let mut spans = Vec::new();
    for (place, view) in View::ALL.into_iter().enumerate() {
        let style = if view == top.view() { CHOSEN } else { Style::new() };
        spans.push(Span::styled(format!(" {} {} ", place + 1, view.title()), style));
    }
    let (filter, typing) = top.filter();
    if typing || !filter.is_empty() {
        spans.push(Span::raw("  /"));
        spans.push(Span::styled(text::plain(filter), STRONG));
    }
    if typing {
        spans.push(Span::styled(" ", CHOSEN));
    }
    Line::from(spans)
}

fn silence(top: &Top, host: &str, since: Duration) -> (Mood, String) {
    let what = if top.look().is_some() { "what is shown is old" } else { "trying again" };
    let text = format!("no answer from {} since {}: {what}", end_of(host, HOST), span(since));
    (Mood::Bad, text::plain(&text))
}

fn first_notice(look: Option<&Look>) -> Option<(Mood, String)> {
    let all = notices(look?);
    let first = all.first()?;
    let more = if all.len() > 1 { format!(" (+{})", all.len() - 1) } else { String::new() };
    Some((first.mood, text::plain(&format!("{}{more}", short(&first.text, 200)))))
}

#[cfg(test)]
mod tests;
