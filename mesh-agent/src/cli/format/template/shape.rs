//! **Fact.** Which fields things have, so that a misspelt one is an error and not an empty line.

use anyhow::bail;
use serde_json::Value;

use super::super::Column;
use crate::api::document;

/// Which fields things have: an OpenAPI schema, and the document that its references lead into.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Shape {
    document: Value,
    schema: Value,
}

impl Shape {
    /// As this schema says, which refers to nothing.
    pub(in crate::cli) fn of(schema: Value) -> Self {
        Self { document: Value::Null, schema }
    }

    /// Rows of a table.
    pub(in crate::cli) fn columns(columns: &[Column]) -> Self {
        let fields =
            columns.iter().map(|(field, _)| ((*field).to_owned(), Value::Object(Default::default())));
        let properties: serde_json::Map<_, _> = fields.collect();
        Self::of(serde_json::json!({ "properties": properties }))
    }

    /// What the API calls so.
    pub(in crate::cli) fn schema(name: &str) -> Self {
        let document = document::openapi();
        let schema = document.pointer(&format!("/components/schemas/{name}")).cloned().unwrap_or_default();
        Self { document, schema }
    }

    pub(super) fn at(&self, path: &[String]) -> anyhow::Result<Self> {
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
    pub(super) fn item(&self) -> Self {
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
