//! Which events are wanted, as `docker events --filter` has it: one of the values of each key.

use std::collections::{BTreeMap, BTreeSet};

use super::{Event, Kind};

/// What events can be chosen by.
pub const FILTERS: [&str; 6] = ["type", "event", "service", "task", "network", "node"];

/// What is wanted; empty: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<&'static str, BTreeSet<String>>);

impl Filters {
    /// Wants this value of a key, or another one that is wanted of it. In words what is wrong with it.
    pub fn add(&mut self, key: &str, value: &str) -> Result<(), String> {
        let Some(known) = FILTERS.into_iter().find(|known| *known == key) else {
            return Err(format!("invalid filter '{key}': must be one of {}", FILTERS.join(", ")));
        };
        if value.is_empty() {
            return Err(format!("invalid filter '{key}': its value is empty"));
        }
        if known == "type" {
            value.parse::<Kind>()?;
        }
        self.0.entry(known).or_default().insert(value.to_owned());
        Ok(())
    }

    /// Whether an event is wanted.
    pub fn has(&self, event: &Event) -> bool {
        self.0.iter().all(|(key, wanted)| wanted.iter().any(|value| is(event, key, value)))
    }
}

fn is(event: &Event, key: &str, value: &str) -> bool {
    match key {
        "type" => event.kind.as_str() == value,
        // `health_status` is all of its kinds.
        "event" => event.action == value || event.action.split(':').next() == Some(value),
        key if event.kind.as_str() == key => {
            is_id(&event.id, value) || event.attributes.get("name").is_some_and(|name| name == value)
        }
        key => event.attributes.get(key).is_some_and(|found| found == value),
    }
}

/// A whole one, or as much of it as lists show: what is shorter may be a name.
fn is_id(id: &str, value: &str) -> bool {
    id == value || value.len() >= SHORT_ID && id.starts_with(value)
}

const SHORT_ID: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, action: &'static str) -> Event {
        let attributes = [("name", "web.1"), ("service", "web"), ("node", "n1")];
        let attributes = attributes.into_iter().map(|(key, value)| (key, value.to_owned())).collect();
        Event { kind, action, id: "abc123def456ghi".to_owned(), attributes }
    }

    fn filters(all: &[(&str, &str)]) -> Filters {
        let mut filters = Filters::default();
        all.iter().for_each(|(key, value)| filters.add(key, value).unwrap());
        filters
    }

    #[test]
    fn one_value_of_each_key_is_enough() {
        let sick = event(Kind::Task, "health_status: unhealthy");
        for wanted in [
            &[][..],
            &[("type", "task")],
            &[("type", "node"), ("type", "task")],
            &[("event", "health_status")],
            &[("event", "health_status: unhealthy"), ("service", "web"), ("node", "n1")],
            &[("task", "web.1")],
            &[("task", "abc123def456")],
        ] {
            assert!(filters(wanted).has(&sick), "{wanted:?}");
        }
        for unwanted in [
            &[("type", "node")][..],
            &[("event", "health_status: healthy")],
            &[("event", "health")],
            &[("service", "we")],
            &[("task", "abc123")],
            &[("network", "web")],
            &[("type", "task"), ("node", "n2")],
        ] {
            assert!(!filters(unwanted).has(&sick), "{unwanted:?}");
        }
        assert!(filters(&[("service", "web.1")]).has(&event(Kind::Service, "create")), "its own name");
    }

    #[test]
    fn what_there_is_not_is_told() {
        let mut filters = Filters::default();
        for (key, value, told) in [
            ("Type", "task", "must be one of type, event, service"),
            ("type", "pod", "invalid event type value (pod): must be one of 'network'"),
            ("service", "", "is empty"),
        ] {
            let said = filters.add(key, value).unwrap_err();
            assert!(said.contains(told), "{said}");
        }
        assert_eq!(filters, Filters::default());
    }
}
