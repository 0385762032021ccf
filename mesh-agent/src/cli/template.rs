//! **Decision.** The part of Go's templates that people use with `--format`: fields, `json`, `range`.
//!
//! What is not understood is an error that says so. So is a field that the API does not have: a template that
//! prints nothing for a misspelt name is how scripts go wrong in silence.

use std::str::FromStr;

use anyhow::bail;
use serde_json::Value;

use super::format::Column;
use crate::api::document;

/// A template.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Field { path: Vec<String>, json: bool },
    Range { path: Vec<String>, body: Vec<Part> },
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Shells pass \t and \n on as they are; Docker reads them so.
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut open: Vec<(Vec<String>, Vec<Part>)> = Vec::new();
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("{{") {
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let (action, after) = after.split_once("}}").ok_or("template: '{{' without '}}'")?;
            rest = after;
            let words: Vec<_> = action.split_whitespace().collect();
            match words[..] {
                ["json", field] => parts.push(Part::Field { path: path(field)?, json: true }),
                ["range", field] => open.push((path(field)?, std::mem::take(&mut parts))),
                ["end"] => {
                    let (path, outer) = open.pop().ok_or("template: 'end' without 'range'")?;
                    let body = std::mem::replace(&mut parts, outer);
                    parts.push(Part::Range { path, body });
                }
                [field] if field.starts_with('.') => {
                    parts.push(Part::Field { path: path(field)?, json: false })
                }
                _ => {
                    return Err(format!(
                        "template: '{{{{{action}}}}}' is not understood; there are {{{{.Field}}}}, \
                         {{{{json .Field}}}} and {{{{range .Field}}}}…{{{{end}}}}"
                    ));
                }
            }
        }
        if !open.is_empty() {
            return Err("template: 'range' without 'end'".to_owned());
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }
}

fn path(field: &str) -> Result<Vec<String>, String> {
    let names =
        field.strip_prefix('.').ok_or_else(|| format!("template: '{field}' is no field: it needs a '.'"))?;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let sound =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    match names.split('.').find(|name| !sound(name)) {
        Some(_) => Err(format!("template: '{field}' is no field")),
        None => Ok(names.split('.').map(str::to_owned).collect()),
    }
}

impl Template {
    /// Refuses fields that things of this shape do not have.
    pub(super) fn check(&self, shape: &Shape) -> anyhow::Result<()> {
        check(&self.0, shape)
    }

    /// Fills it in.
    pub(super) fn render(&self, value: &Value) -> anyhow::Result<String> {
        let mut text = String::new();
        render(&self.0, value, &mut text)?;
        Ok(text)
    }
}

fn check(parts: &[Part], shape: &Shape) -> anyhow::Result<()> {
    for part in parts {
        match part {
            Part::Text(_) => {}
            Part::Field { path, .. } => drop(shape.at(path)?),
            Part::Range { path, body } => check(body, &shape.at(path)?.item())?,
        }
    }
    Ok(())
}

fn render(parts: &[Part], value: &Value, text: &mut String) -> anyhow::Result<()> {
    for part in parts {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Field { path, json: true } => {
                text.push_str(&get(value, path).unwrap_or(&Value::Null).to_string())
            }
            Part::Field { path, json: false } => match get(value, path) {
                // A field that is left out of the JSON is empty.
                None | Some(Value::Null) => {}
                Some(Value::String(plain)) => text.push_str(plain),
                Some(other) => text.push_str(&other.to_string()),
            },
            Part::Range { path, body } => match get(value, path) {
                None | Some(Value::Null) => {}
                Some(Value::Array(items)) => items.iter().try_for_each(|item| render(body, item, text))?,
                Some(Value::Object(fields)) => {
                    fields.values().try_for_each(|item| render(body, item, text))?
                }
                Some(_) => bail!("template: cannot range over .{}", path.join(".")),
            },
        }
    }
    Ok(())
}

fn get<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| {
        let fields = value.as_object()?;
        // Docker writes both ID and Id.
        fields
            .get(name)
            .or_else(|| fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v))
    })
}

/// Which fields things have: an OpenAPI schema, and the document that its references lead into.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    document: Value,
    schema: Value,
}

impl Shape {
    /// Rows of a table.
    pub(super) fn columns(columns: &[Column]) -> Self {
        let fields =
            columns.iter().map(|(field, _)| ((*field).to_owned(), Value::Object(Default::default())));
        let properties: serde_json::Map<_, _> = fields.collect();
        Self { document: Value::Null, schema: serde_json::json!({ "properties": properties }) }
    }

    /// What the API calls so.
    pub(super) fn schema(name: &str) -> Self {
        let document = document::openapi();
        let schema = document.pointer(&format!("/components/schemas/{name}")).cloned().unwrap_or_default();
        Self { document, schema }
    }

    fn at(&self, path: &[String]) -> anyhow::Result<Self> {
        path.iter().enumerate().try_fold(self.clone(), |shape, (depth, name)| {
            let schema = shape.resolved();
            if let Some(fields) = schema.get("properties").and_then(Value::as_object) {
                let found = fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
                if let Some((_, field)) = found {
                    return Ok(Self { document: shape.document.clone(), schema: field.clone() });
                }
                let known: Vec<_> = fields.keys().map(|field| format!(".{field}")).collect();
                let before = path[..depth].join(".");
                let of = if before.is_empty() { String::new() } else { format!(" of .{before}") };
                bail!("template: there is no field .{name}{of}; there are {}", known.join(", "));
            }
            match schema.get("additionalProperties") {
                Some(item) => Ok(Self { document: shape.document.clone(), schema: item.clone() }),
                None => bail!("template: .{} has no fields", path[..depth].join(".")),
            }
        })
    }

    /// What a list or map is made of.
    fn item(&self) -> Self {
        let schema = self.resolved();
        let item =
            schema.get("items").or_else(|| schema.get("additionalProperties")).cloned().unwrap_or_default();
        Self { document: self.document.clone(), schema: item }
    }

    /// Behind references and what may be null.
    fn resolved(&self) -> Value {
        let mut schema = self.schema.clone();
        loop {
            let choice = schema.get("oneOf").or_else(|| schema.get("allOf")).and_then(Value::as_array);
            let inner =
                choice.and_then(|all| all.iter().find(|one| one.get("type").is_none_or(|t| t != "null")));
            if let Some(inner) = inner.cloned() {
                schema = inner;
                continue;
            }
            let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { return schema };
            schema = self.document.pointer(reference.trim_start_matches('#')).cloned().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests;
