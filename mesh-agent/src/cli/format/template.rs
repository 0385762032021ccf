//! **Decision.** The part of Go's templates that people use with `--format` and in files: fields, `json`, `range`, `if`.
//!
//! What is not understood is an error that says so. So is a field that there is not: a template that
//! prints nothing for a misspelt name is how scripts go wrong in silence.

mod parse;
mod shape;

use std::str::FromStr;

use anyhow::bail;
use serde_json::Value;

pub(in crate::cli) use shape::Shape;

/// A template.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct Template {
    parts: Vec<Part>,
    /// Whether a field without a value is an error.
    strict: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Field { path: Vec<String>, json: bool },
    Range { from: From, body: Vec<Part>, otherwise: Vec<Part> },
    If { from: From, body: Vec<Part>, otherwise: Vec<Part> },
}

/// Where a value is found.
#[derive(Debug, Clone, PartialEq)]
struct From {
    /// In the whole, which functions look into; else in what is ranged over.
    root: bool,
    path: Vec<String>,
}

impl From {
    fn get<'a>(&self, root: &'a Value, value: &'a Value) -> &'a Value {
        get(if self.root { root } else { value }, &self.path).unwrap_or(&Value::Null)
    }

    fn check(&self, root: &Shape, shape: &Shape) -> anyhow::Result<Shape> {
        if self.root { root } else { shape }.at(&self.path)
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Shells pass \t and \n on as they are; Docker reads them so.
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        Ok(Self { parts: parse::parse(&text, &[])?, strict: false })
    }
}

impl Template {
    /// The template in a file, in which these functions look something up in the whole: `service "web"` is
    /// `.service.web` there. A field without a value is an error.
    pub(in crate::cli) fn file(text: &str, functions: &[&str]) -> Result<Self, String> {
        Ok(Self { parts: parse::parse(text, functions)?, strict: true })
    }

    /// Refuses fields that things of this shape do not have.
    pub(in crate::cli) fn check(&self, shape: &Shape) -> anyhow::Result<()> {
        check(&self.parts, shape, shape)
    }

    /// Fills it in.
    pub(in crate::cli) fn render(&self, value: &Value) -> anyhow::Result<String> {
        let mut text = String::new();
        self.fill(&self.parts, value, value, &mut text)?;
        Ok(text)
    }

    fn fill(&self, parts: &[Part], root: &Value, value: &Value, text: &mut String) -> anyhow::Result<()> {
        for part in parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Field { path, json: true } => {
                    text.push_str(&get(value, path).unwrap_or(&Value::Null).to_string())
                }
                Part::Field { path, json: false } => match get(value, path) {
                    None | Some(Value::Null) if self.strict => {
                        bail!("template: .{} has no value", path.join("."))
                    }
                    // A field that is left out of the JSON is empty.
                    None | Some(Value::Null) => {}
                    Some(Value::String(plain)) => text.push_str(plain),
                    Some(other) => text.push_str(&other.to_string()),
                },
                Part::Range { from, body, otherwise } => {
                    let items: Vec<_> = match from.get(root, value) {
                        Value::Null => Vec::new(),
                        Value::Array(items) => items.iter().collect(),
                        Value::Object(fields) => fields.values().collect(),
                        _ => bail!("template: cannot range over .{}", from.path.join(".")),
                    };
                    if items.is_empty() {
                        self.fill(otherwise, root, value, text)?;
                    }
                    items.into_iter().try_for_each(|item| self.fill(body, root, item, text))?;
                }
                Part::If { from, body, otherwise } => {
                    let parts = if is_true(from.get(root, value)) { body } else { otherwise };
                    self.fill(parts, root, value, text)?;
                }
            }
        }
        Ok(())
    }
}

fn check(parts: &[Part], root: &Shape, shape: &Shape) -> anyhow::Result<()> {
    for part in parts {
        match part {
            Part::Text(_) => {}
            Part::Field { path, .. } => drop(shape.at(path)?),
            Part::Range { from, body, otherwise } => {
                check(body, root, &from.check(root, shape)?.item())?;
                check(otherwise, root, shape)?;
            }
            Part::If { from, body, otherwise } => {
                from.check(root, shape)?;
                check(body, root, shape)?;
                check(otherwise, root, shape)?;
            }
        }
    }
    Ok(())
}

/// As Go has it: neither nothing, nor empty, nor zero.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
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

#[cfg(test)]
mod tests;
