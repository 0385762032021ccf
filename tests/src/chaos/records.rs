//! **Decision.** Whether nothing was given twice, and whether what was acknowledged is there.

use std::collections::BTreeMap;

use serde_json::Value;

/// One change of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which.
    pub key: String,
    /// What it holds from now on; nothing: it is gone.
    pub value: Option<Value>,
}

/// What exists once and was given to two at the same time, in the history of all records.
pub fn given_twice(history: &[Event]) -> Vec<String> {
    let mut holders: BTreeMap<String, String> = BTreeMap::new();
    let mut twice = Vec::new();
    for Event { key, value } in history {
        holders.retain(|_, holder| holder != key);
        for thing in value.as_ref().map(|value| held(key, value)).unwrap_or_default() {
            if let Some(other) = holders.insert(thing.clone(), key.clone()) {
                twice.push(format!("{thing} is given to {key} and to {other}"));
            }
        }
    }
    twice
}

/// What a record holds that nobody else may hold.
fn held(key: &str, value: &Value) -> Vec<String> {
    let mut held = Vec::new();
    if key.starts_with("svc/") {
        for network in value["networks"].as_array().into_iter().flatten() {
            for family in ["v4", "v6"] {
                if let Some(address) = network["vip"][family].as_str() {
                    held.push(format!("address {address} of network {}", network["network"]));
                }
            }
        }
        for port in value["ports"].as_array().into_iter().flatten() {
            held.push(format!("port {}/{}", port["published"], port["protocol"].as_str().unwrap_or("tcp")));
        }
    } else if key.starts_with("task/") {
        for (network, addresses) in value["addresses"].as_object().into_iter().flatten() {
            for family in ["v4", "v6"] {
                if let Some(address) = addresses[family].as_str() {
                    held.push(format!("address {address} of network \"{network}\""));
                }
            }
        }
    }
    held
}

/// What was asked for and what was said to that.
#[derive(Clone, Debug, Default)]
pub struct Ledger(BTreeMap<String, Expected>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    There,
    Gone,
    Either,
}

impl Ledger {
    /// It was asked for a thing to be there, or gone, and that was acknowledged or not.
    pub fn note(&mut self, thing: &str, there: bool, acknowledged: bool) {
        let expected = match (acknowledged, there) {
            (false, _) => Expected::Either,
            (true, true) => Expected::There,
            (true, false) => Expected::Gone,
        };
        self.0.insert(thing.to_owned(), expected);
    }

    /// Whether it was acknowledged that the thing is there.
    pub fn is_there(&self, thing: &str) -> bool {
        self.0.get(thing) == Some(&Expected::There)
    }

    /// What was acknowledged and is not so.
    pub fn lost(&self, there: impl Fn(&str) -> bool) -> Vec<String> {
        let wrong = self.0.iter().filter_map(|(thing, expected)| match (expected, there(thing)) {
            (Expected::There, false) => Some(format!("{thing} was acknowledged and is not there")),
            (Expected::Gone, true) => Some(format!("{thing} was acknowledged to be gone and is there")),
            _ => None,
        });
        wrong.collect()
    }
}

/// The records as they are in the end.
pub(crate) fn last(history: &[Event]) -> BTreeMap<&str, &Value> {
    let mut records = BTreeMap::new();
    for Event { key, value } in history {
        match value {
            Some(value) => _ = records.insert(key.as_str(), value),
            None => _ = records.remove(key.as_str()),
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(id: &str, vip: &str, port: u16) -> Event {
        let value = json!({ "networks": [{ "network": "a", "vip": { "v4": vip, "v6": null } }],
            "ports": [{ "published": port, "protocol": "tcp" }] });
        Event { key: format!("svc/{id}"), value: Some(value) }
    }

    fn task(id: &str, address: &str) -> Event {
        let value = json!({ "addresses": { "a": { "v4": address, "v6": null } } });
        Event { key: format!("task/{id}"), value: Some(value) }
    }

    fn gone(key: &str) -> Event {
        Event { key: key.into(), value: None }
    }

    #[test]
    fn two_holders_at_one_time_are_found() {
        assert_eq!(given_twice(&[service("1", "10.0.0.2", 80), service("2", "10.0.0.2", 81)]).len(), 1);
        assert_eq!(given_twice(&[service("1", "10.0.0.2", 80), service("2", "10.0.0.3", 80)]).len(), 1);
        assert_eq!(given_twice(&[task("1", "10.0.0.2"), task("2", "10.0.0.2")]).len(), 1);
        assert_eq!(given_twice(&[task("1", "10.0.0.2"), service("2", "10.0.0.2", 80)]).len(), 1);
    }

    #[test]
    fn one_after_the_other_is_right() {
        let again = [service("1", "10.0.0.2", 80), service("1", "10.0.0.2", 80), gone("svc/1")];
        let other =
            [service("2", "10.0.0.2", 80), task("3", "10.0.0.9"), gone("task/3"), task("4", "10.0.0.9")];
        assert_eq!(given_twice(&[again.as_slice(), &other].concat()), Vec::<String>::new());
    }

    #[test]
    fn what_was_acknowledged_has_to_be_so() {
        let mut ledger = Ledger::default();
        ledger.note("service a", true, true);
        ledger.note("service b", true, true);
        ledger.note("service b", false, true);
        ledger.note("service c", true, false);
        assert!(ledger.is_there("service a") && !ledger.is_there("service b"));
        assert_eq!(ledger.lost(|thing| thing == "service a"), Vec::<String>::new());
        assert_eq!(ledger.lost(|thing| thing == "service c").len(), 1, "a is lost");
        assert_eq!(ledger.lost(|_| true).len(), 1, "b is there again");
    }
}
