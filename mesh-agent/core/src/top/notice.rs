//! **Decision.** What people must know before they trust what they see, as on the web page.

use super::look::{Look, Mood, Teller};
use super::words::count;

/// Something to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How bad it is.
    pub mood: Mood,
    /// What it is.
    pub text: String,
}

/// All that a look makes necessary, the most urgent first.
pub fn notices(look: &Look) -> Vec<Notice> {
    let Teller { name, version: _, counts: _, store_connected, problems, failing, left_out } = &look.teller;
    let name = if name.is_empty() { "this node" } else { name };
    let mut all = Vec::new();
    let mut tell = |mood, text| all.push(Notice { mood, text });
    if !store_connected {
        tell(Mood::Warn, format!("{name} cannot ask the store: traffic goes on, news may be missing"));
    }
    let mut others = look.nodes.iter().filter(|node| !node.this).peekable();
    if others.peek().is_some() && others.all(|node| matches!(&*node.state, "down" | "disconnected")) {
        tell(Mood::Bad, format!("{name} reaches no other node"));
    }
    problems.iter().for_each(|problem| tell(Mood::Warn, problem.clone()));
    if *failing > 0 {
        tell(
            Mood::Warn,
            format!("{name} cannot apply {} of its kernel: see mesh status", count(*failing, "object")),
        );
    }
    if *left_out > 0 {
        tell(Mood::Warn, format!("{} more than can be shown are left out", count(*left_out, "task")));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::tests::look;
    use super::*;

    #[test]
    fn what_is_wrong_is_told() {
        let mut look = look();
        assert_eq!(notices(&look), []);
        look.teller.store_connected = false;
        look.teller.problems = vec!["network app: is full".to_owned()];
        look.teller.failing = 1;
        look.teller.left_out = 2;
        look.nodes[1].state = "down".to_owned();
        let texts: Vec<_> = notices(&look).into_iter().map(|notice| notice.text).collect();
        assert_eq!(
            texts,
            [
                "n1 cannot ask the store: traffic goes on, news may be missing",
                "n1 reaches no other node",
                "network app: is full",
                "n1 cannot apply 1 object of its kernel: see mesh status",
                "2 tasks more than can be shown are left out",
            ]
        );
    }
}
