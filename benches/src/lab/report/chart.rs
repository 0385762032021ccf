//! Bars, as SVG: what several targets have of one metric.

use std::fmt::Write as _;

use super::Row;

/// Of a bar with the space around it, pixels.
const LINE: usize = 22;
const BAR: usize = 16;
/// Where bars begin, and how long the longest is.
const LEFT: usize = 190;
const LONGEST: usize = 400;
const WIDTH: usize = LEFT + LONGEST + 110;

/// In both of the colours that a page may have.
const STYLE: &str = "text{font:13px sans-serif;fill:#24292f}rect{fill:#8c959f}.ours{fill:#0969da}\
    line{stroke:#24292f}@media(prefers-color-scheme:dark){text{fill:#e6edf3}line{stroke:#e6edf3}}";

/// The chart of these rows, which are of one metric: by entry a bar for each target, with the quartiles' distance as a
/// line around its end.
pub(super) fn svg(metric: &str, rows: &[&Row]) -> String {
    let most = rows.iter().map(|row| row.median + row.spread / 2.0).fold(f64::MIN_POSITIVE, f64::max);
    let height = LINE * (rows.len() + 2);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
         aria-label=\"{metric}\">\n<style>{STYLE}</style>\n<text x=\"0\" y=\"16\">{metric}</text>\n"
    );
    for (index, row) in rows.iter().enumerate() {
        let y = LINE * (index + 1) + LINE / 2;
        let length = |value: f64| (value / most * LONGEST as f64).max(0.0);
        let (end, half) = (length(row.median), length(row.spread / 2.0));
        let class = if row.target.starts_with("mesh") { " class=\"ours\"" } else { "" };
        let (middle, base) = (y + BAR / 2, y + BAR - 3);
        let (from, to) = (LEFT as f64 + (end - half).max(0.0), LEFT as f64 + end + half);
        let digits = if row.median < 100.0 { 2 } else { 0 };
        let _ = write!(
            text,
            "<text x=\"0\" y=\"{base}\">{} {}</text>\n\
             <rect{class} x=\"{LEFT}\" y=\"{y}\" width=\"{end:.1}\" height=\"{BAR}\"/>\n\
             <line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>\n\
             <text x=\"{:.1}\" y=\"{base}\">{:.digits$}</text>\n",
            row.entry,
            row.target,
            to + 6.0,
            row.median
        );
    }
    text.push_str("</svg>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_ends_where_there_is_room_for_its_number() {
        let row = |target, median, spread| Row {
            target,
            metric: "gbps",
            entry: "remote",
            median,
            spread,
            ratio_to_direct: 1.0,
        };
        let rows = [row("direct", 8.0, 4.0), row("mesh-ebpf", 5.0, 0.0)];
        let chart = svg("gbps", &rows.iter().collect::<Vec<_>>());
        // 8 of 10 and 5 of 10 of 400 pixels.
        assert!(chart.contains("width=\"320.0\"") && chart.contains("x2=\"590.0\""), "{chart}");
        assert!(chart.contains("<rect class=\"ours\"") && chart.contains("width=\"200.0\""), "{chart}");
    }
}
