//! **Decision.** What of all is shown: words that must all be found, and `is:`, `service:` and `node:` with exactly one
//! word, as on the web page.

use std::collections::{BTreeMap, BTreeSet};

use super::look::{Look, Task};

/// What is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    text: String,
}

/// Ids of what is found; a service, or a node, also for the sake of a task.
#[derive(Debug, Default)]
pub(super) struct Found<'a> {
    pub(super) services: BTreeSet<&'a str>,
    pub(super) tasks: BTreeSet<&'a str>,
    pub(super) nodes: BTreeSet<&'a str>,
}

/// Words of one thing: those that prefixes name, and those that are searched.
struct Words<'a> {
    is: Vec<&'a str>,
    service: &'a str,
    node: &'a str,
    all: Vec<&'a str>,
}

impl Filter {
    /// Reads what was typed.
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned() }
    }

    /// As it was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn push(&mut self, letter: char) {
        self.text.push(letter);
    }

    pub(super) fn pop(&mut self) {
        self.text.pop();
    }

    /// Whether all is shown.
    pub fn is_empty(&self) -> bool {
        self.text.trim().is_empty()
    }

    pub(super) fn choose<'a>(&self, look: &'a Look) -> Found<'a> {
        let text = self.text.to_lowercase();
        let terms: Vec<_> = text.split_whitespace().collect();
        let wanted = |words: &Words<'_>| terms.iter().all(|term| words.has(term));
        let services: BTreeMap<_, _> =
            look.services.iter().map(|service| (&*service.id, &*service.name)).collect();
        let nodes: BTreeMap<_, _> = look.nodes.iter().map(|node| (&*node.id, &*node.name)).collect();
        let mut found = Found::default();
        for task in &look.tasks {
            let name = |names: &BTreeMap<&str, &'a str>, id: &str| names.get(id).copied().unwrap_or_default();
            if wanted(&Words::of(task, name(&services, &task.service), name(&nodes, &task.node))) {
                found.tasks.insert(&task.id);
                found.services.insert(&task.service);
                found.nodes.insert(&task.node);
            }
        }
        for service in &look.services {
            let mut all = vec![&*service.name];
            all.extend(
                [&service.addresses, &service.ports, &service.networks]
                    .into_iter()
                    .flatten()
                    .map(|text| &**text),
            );
            if wanted(&Words { is: Vec::new(), service: &service.name, node: "", all }) {
                found.services.insert(&service.id);
            }
        }
        for node in &look.nodes {
            let is = vec![&*node.state, &*node.availability];
            let all = vec![&*node.name, &*node.address, &*node.state, &*node.availability];
            if wanted(&Words { is, service: "", node: &node.name, all }) {
                found.nodes.insert(&node.id);
            }
        }
        found
    }
}

impl<'a> Words<'a> {
    fn of(task: &'a Task, service: &'a str, node: &'a str) -> Self {
        let is = vec![task.condition.word(), &*task.health];
        let mut all = vec![&*task.name, service, node];
        all.extend(&is);
        all.extend(task.addresses.iter().map(|text| &**text));
        Self { is, service, node, all }
    }

    /// Whether a term, in small letters, is found.
    fn has(&self, term: &str) -> bool {
        match term.split_once(':') {
            // A condition may be two words.
            Some(("is", word)) => self.is.iter().any(|is| is.to_lowercase().replace(' ', "-") == word),
            Some(("service", word)) => self.service.to_lowercase() == word,
            Some(("node", word)) => self.node.to_lowercase() == word,
            _ => self.all.iter().any(|text| text.to_lowercase().contains(term)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::look;
    use super::*;

    fn tasks(text: &str) -> Vec<String> {
        let look = look();
        Filter::new(text).choose(&look).tasks.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn all_words_must_be_found() {
        assert_eq!(tasks(""), ["t1", "t2", "t3", "t4"]);
        assert_eq!(tasks("WEB n1"), ["t1"]);
        assert_eq!(tasks("service:web"), ["t1", "t2"]);
        assert_eq!(tasks("service:we"), [""; 0]);
        assert_eq!(tasks("node:n2"), ["t2", "t3"]);
        assert_eq!(tasks("is:unhealthy"), ["t3"]);
        assert_eq!(tasks("10.0.16.2"), ["t2"]);
        assert_eq!(tasks("nothing"), [""; 0]);
    }

    #[test]
    fn a_service_stays_for_the_sake_of_a_task() {
        let look = look();
        let found = Filter::new("is:unhealthy").choose(&look);
        assert_eq!((found.services.contains("s2"), found.services.contains("s1")), (true, false));
        assert_eq!((found.nodes.contains("b"), found.nodes.contains("a")), (true, false));
        let found = Filter::new("8080").choose(&look);
        assert_eq!((found.services.contains("s1"), found.tasks.is_empty()), (true, true));
        let found = Filter::new("is:drain").choose(&look);
        assert_eq!((found.nodes.contains("b"), found.nodes.contains("a")), (true, false));
    }
}
