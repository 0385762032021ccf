//! **Fact.** `--format`: a table, JSON, or a template.

pub(super) mod template;

use std::str::FromStr;

use clap::Args;
use serde_json::{Map, Value};

use super::output::Out;
use super::table;
use template::{Shape, Template};

/// `--format` of what lists or shows.
#[derive(Debug, Clone, Args)]
pub(super) struct FormatArg {
    /// 'table', 'table TEMPLATE', 'json', or a Go template such as '{{.Name}}: {{json .}}'
    #[arg(long, value_name = "FORMAT", help_heading = None)]
    pub(super) format: Option<Format>,
}

/// How to print.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Format {
    /// For people.
    Table,
    /// One JSON document per thing.
    Json,
    /// A line per thing.
    Template(Template),
    /// A line per thing under a header.
    TableTemplate(Template),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ if text.starts_with("table ") => Ok(Self::TableTemplate(text["table ".len()..].parse()?)),
            _ if text.contains("{{") => Ok(Self::Template(text.parse()?)),
            _ => Err(format!("'{text}' is neither 'table', 'json' nor a template such as '{{{{.Name}}}}'")),
        }
    }
}

/// A column: its field in templates and JSON, and its header.
pub(super) type Column = (&'static str, &'static str);

/// Prints a list: its rows have a value for every column.
pub(super) fn list(
    out: &Out,
    format: Option<&Format>,
    columns: &[Column],
    rows: Vec<Vec<String>>,
) -> anyhow::Result<()> {
    let object = |row: &Vec<String>| {
        let fields = columns
            .iter()
            .zip(row)
            .map(|((field, _), value)| ((*field).to_owned(), Value::from(value.as_str())));
        Value::Object(fields.collect::<Map<_, _>>())
    };
    match format.unwrap_or(&Format::Table) {
        Format::Table => {
            let headers: Vec<_> = columns.iter().map(|(_, header)| *header).collect();
            out.bytes(table::render(&headers, &rows).as_bytes());
        }
        Format::Json => rows.iter().for_each(|row| out.line(object(row).to_string())),
        Format::Template(template) => {
            // A wrong field is an error even where there is nothing to show it of.
            template.check(&Shape::columns(columns))?;
            for row in &rows {
                out.line(template.render(&object(row))?);
            }
        }
        Format::TableTemplate(template) => {
            template.check(&Shape::columns(columns))?;
            let headers: Map<_, _> =
                columns.iter().map(|(field, header)| ((*field).to_owned(), Value::from(*header))).collect();
            let split = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
            let head = split(template.render(&Value::Object(headers))?);
            let body = rows.iter().map(|row| Ok(split(template.render(&object(row))?)));
            let body: Vec<_> = body.collect::<anyhow::Result<_>>()?;
            let head: Vec<_> = head.iter().map(String::as_str).collect();
            out.bytes(table::render(&head, &body).as_bytes());
        }
    }
    Ok(())
}

/// Prints whole records: a JSON array unless asked otherwise. `schema` names what they are in the API.
pub(super) fn records(
    out: &Out,
    format: Option<&Format>,
    schema: &'static str,
    records: &[Value],
) -> anyhow::Result<()> {
    match format {
        None | Some(Format::Table) => out.line(format!("{:#}", Value::Array(records.to_vec()))),
        Some(Format::Json) => records.iter().for_each(|record| out.line(record.to_string())),
        Some(Format::Template(template) | Format::TableTemplate(template)) => {
            template.check(&Shape::schema(schema))?;
            for record in records {
                out.line(template.render(record)?);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_apart() {
        assert_eq!("table".parse(), Ok(Format::Table));
        assert_eq!("json".parse(), Ok(Format::Json));
        assert!(matches!("{{.Name}}".parse(), Ok(Format::Template(_))));
        assert!(matches!(r"table {{.Name}}\t{{.ID}}".parse(), Ok(Format::TableTemplate(_))));
        assert!("yaml".parse::<Format>().unwrap_err().contains("'yaml' is neither"));
    }
}
