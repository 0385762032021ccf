//! **Fact.** Tables as Docker prints them: columns as wide as they must be, three spaces between them.

use comfy_table::Table;
use comfy_table::presets::NOTHING;

const GAP: u16 = 3;

/// An id's beginning, as tables show it.
pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The lines of a table.
pub(super) fn render(headers: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(headers.to_vec());
    for row in rows {
        // A cell is one line: what comes from outside may not break the table.
        table.add_row(row.iter().map(|cell| cell.replace(char::is_control, " ")).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["0abc".to_owned(), "web".to_owned(), "3/3".to_owned(), "*:8080->80/tcp".to_owned()],
            vec!["1".to_owned(), "a-longer-name".to_owned(), "0/0".to_owned(), String::new()],
            vec!["2".to_owned(), "bad\nline".to_owned(), "ü/1".to_owned(), "x".to_owned()],
        ];
        insta::assert_snapshot!(render(&["ID", "NAME", "REPLICAS", "PORTS"], &rows), @r"
        ID     NAME            REPLICAS   PORTS
        0abc   web             3/3        *:8080->80/tcp
        1      a-longer-name   0/0
        2      bad line        ü/1        x
        ");
    }
}
