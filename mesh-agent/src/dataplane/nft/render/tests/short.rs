//! A table in short, for golden files: nft's JSON without the brackets. What it does not know stays JSON.

use std::fmt::Write;

use serde_json::Value;

use crate::dataplane::nft::ruleset::Ruleset;
use crate::dataplane::nft::values::Words;

/// One object per line.
pub(super) fn table(ruleset: &Ruleset) -> String {
    let mut text = String::new();
    for (name, set) in &ruleset.sets {
        let kind = &set.kind;
        let value = kind.value.map(|value| format!(" : {value}")).unwrap_or_default();
        let interval = if kind.interval { " interval" } else { "" };
        let keyword = if kind.value.is_some() { "map" } else { "set" };
        writeln!(text, "{keyword} {name}: {}{value}{interval}", kind.key.join(" . ")).unwrap();
        for element in set.elements.values() {
            let value = element.value.as_ref().map(|value| format!(" : {}", Words(value)));
            writeln!(text, "    {}{}", Words(&element.key), value.unwrap_or_default()).unwrap();
        }
    }
    for (name, chain) in &ruleset.chains {
        let hook = chain.hook.map(|hook| format!(" {:?} {:?} {}", hook.kind, hook.hook, hook.priority));
        writeln!(text, "chain {name}:{}", hook.unwrap_or_default()).unwrap();
        for rule in &chain.rules {
            let says = rule.says.iter().map(|part| short(&serde_json::to_value(part).unwrap()));
            writeln!(text, "    {} # {}", says.collect::<Vec<_>>().join("; "), rule.comment).unwrap();
        }
    }
    text
}

fn short(value: &Value) -> String {
    let all = |values: &Value, between| {
        let values = values.as_array().unwrap().iter().map(short);
        values.collect::<Vec<_>>().join(between)
    };
    match value {
        Value::String(text) => return text.clone(),
        Value::Array(_) => return all(value, ","),
        _ => {}
    }
    let Some((kind, inner)) = value.as_object().and_then(|object| object.iter().next()) else {
        return value.to_string();
    };
    let part = |key: &str| inner.get(key).map(short).unwrap_or_default();
    let line = match kind.as_str() {
        "match" => format!("{} {} {}", part("left"), part("op"), part("right")),
        "payload" => format!("{} {}", part("protocol"), part("field")),
        "meta" | "ct" => format!("{kind} {}", part("key")),
        "fib" => format!("fib {} {}", part("flags"), part("result")),
        "numgen" => format!("numgen {} mod {}", part("mode"), part("mod")),
        "jhash" => format!("jhash {} mod {} seed {}", part("expr"), part("mod"), part("seed")),
        "jump" | "goto" => format!("{kind} {}", part("target")),
        "map" | "vmap" => format!("{} {kind} {}", part("key"), part("data")),
        "snat" | "dnat" => format!("{kind} {} to {} {}", part("family"), part("addr"), part("port")),
        "reject" => format!("reject with {} {}", part("type"), part("expr")),
        "prefix" => format!("{}/{}", part("addr"), part("len")),
        "concat" => all(inner, " . "),
        "set" => {
            let items = inner.as_array().unwrap().iter();
            let items = items.map(|item| if item.is_array() { all(item, " : ") } else { short(item) });
            format!("{{ {} }}", items.collect::<Vec<_>>().join(", "))
        }
        "range" => all(inner, "-"),
        _ if inner.is_null() => kind.clone(),
        _ => value.to_string(),
    };
    line.trim_end().to_owned()
}
