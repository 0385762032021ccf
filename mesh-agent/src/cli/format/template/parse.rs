//! **Decision.** Templates as text.

use std::mem::take;

use super::{From, Part};

/// A `range` or `if` that has not come to its end.
struct Open {
    from: From,
    repeats: bool,
    /// What is around it.
    outer: Vec<Part>,
    /// What is done, once there was an `else`.
    then: Option<Vec<Part>>,
}

/// Reads a template, in which these functions may be called with a name, such as `service "web"`.
pub(super) fn parse(text: &str, functions: &[&str]) -> Result<Vec<Part>, String> {
    let (mut open, mut parts): (Vec<Open>, Vec<Part>) = (Vec::new(), Vec::new());
    let (mut rest, mut trim) = (text, false);
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}").ok_or("template: '{{' without '}}'")?;
        let (trim_before, action) =
            action.strip_prefix("- ").map_or((false, action), |action| (true, action));
        literal(before, trim, trim_before, &mut parts);
        (trim, rest) = (action.ends_with(" -"), after);
        let action = action.strip_suffix(" -").unwrap_or(action).trim();
        let words: Vec<_> = action.split_whitespace().collect();
        match words[..] {
            ["json", field] => parts.push(Part::Field { path: path(field)?, json: true }),
            ["range" | "if", ..] => {
                let from =
                    from(&words[1..], functions).ok_or_else(|| not_understood(action, functions))??;
                open.push(Open { from, repeats: words[0] == "range", outer: take(&mut parts), then: None });
            }
            ["else"] => {
                let last = open.last_mut().filter(|open| open.then.is_none());
                last.ok_or("template: 'else' without 'range' or 'if'")?.then = Some(take(&mut parts));
            }
            ["end"] => {
                let Open { from, repeats, outer, then } =
                    open.pop().ok_or("template: 'end' without 'range' or 'if'")?;
                let last = std::mem::replace(&mut parts, outer);
                let (body, otherwise) = match then {
                    Some(body) => (body, last),
                    None => (last, Vec::new()),
                };
                parts.push(if repeats {
                    Part::Range { from, body, otherwise }
                } else {
                    Part::If { from, body, otherwise }
                });
            }
            [field] if field.starts_with('.') => parts.push(Part::Field { path: path(field)?, json: false }),
            _ if action.starts_with("/*") && action.ends_with("*/") => {}
            _ => return Err(not_understood(action, functions)),
        }
    }
    if let Some(open) = open.last() {
        return Err(format!("template: '{}' without 'end'", if open.repeats { "range" } else { "if" }));
    }
    literal(rest, trim, false, &mut parts);
    Ok(parts)
}

fn literal(text: &str, trim_start: bool, trim_end: bool, parts: &mut Vec<Part>) {
    let text = if trim_start { text.trim_start() } else { text };
    let text = if trim_end { text.trim_end() } else { text };
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

/// What a `range` or `if` is about: a field, or what a function gives.
fn from(words: &[&str], functions: &[&str]) -> Option<Result<From, String>> {
    let (root, path) = match *words {
        [field] if field.starts_with('.') => (false, path(field)),
        [function] if functions.contains(&function) => (true, Ok(vec![function.to_owned()])),
        [function, argument] if functions.contains(&function) => {
            let argument = argument.strip_prefix('"')?.strip_suffix('"')?;
            (true, Ok(vec![function.to_owned(), argument.to_owned()]))
        }
        _ => return None,
    };
    Some(path.map(|path| From { root, path }))
}

fn not_understood(action: &str, functions: &[&str]) -> String {
    let called: String = functions.iter().map(|name| format!(", {{{{range {name} …}}}}")).collect();
    format!(
        "template: '{{{{{action}}}}}' is not understood; there are {{{{.Field}}}}, {{{{json .Field}}}}, \
         {{{{range .Field}}}}…{{{{end}}}} and {{{{if .Field}}}}…{{{{else}}}}…{{{{end}}}}{called}"
    )
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
