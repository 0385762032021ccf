//! **Decision.** A configuration of HAProxy 2.6 or later, as text.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// What clients connect to, and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frontend {
    /// What it is called.
    pub(super) name: String,
    /// Where HAProxy listens, if no other frontend before it does.
    pub(super) bind: u16,
    /// Where it listens then.
    pub(super) instead: Option<u16>,
    /// Where servers listen.
    pub(super) port: u16,
    /// What nodes are asked about, where servers are nodes. Tasks are asked themselves whether they accept.
    pub(super) asks: Option<String>,
    /// What is behind it.
    pub(super) servers: Servers,
}

/// What is behind a frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Servers {
    /// These.
    Each(Vec<Server>),
    /// As many as a name has addresses or SRV records, up to a number.
    Template {
        /// The name, with the port where its records have none.
        name: String,
        /// The number.
        slots: u16,
    },
}

/// A place to send flows to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// What it is called.
    pub(super) name: String,
    /// Its address.
    pub(super) address: String,
    /// The node that knows whether it can serve.
    pub(super) ask: String,
    /// What that node is asked about.
    pub(super) about: String,
}

const HEAD: &str = "\
defaults
    mode tcp
    timeout connect 2s
    timeout client 1m
    timeout server 1m
    timeout check 2s
    retries 3
    option redispatch 1
    default-server inter 1s fall 2 rise 1
";

/// Names are asked for as the documentation of HAProxy's `resolvers` has it; answers may be larger than 512 bytes.
const RESOLVERS: &str = "
resolvers mesh
    nameserver dns 127.0.0.11:53
    accepted_payload_size 8192
    resolve_retries 3
    timeout resolve 1s
    timeout retry 1s
    hold valid 1s
    hold obsolete 1s
    hold nx 1s
    hold other 10s
    hold refused 10s
    hold timeout 10s
";

/// The whole file. `notes`: what is not in it, and why. `checks`: the port at which nodes tell of themselves. `proxy`:
/// servers are told who the client is.
pub(super) fn text(frontends: &[Frontend], notes: &[String], checks: Option<u16>, proxy: bool) -> String {
    let mut text: String = notes.iter().map(|note| format!("# {note}\n")).collect();
    text.push_str(HEAD);
    if frontends.iter().any(|frontend| matches!(frontend.servers, Servers::Template { .. })) {
        text.push_str(RESOLVERS);
    }
    let proxy = if proxy { " send-proxy-v2" } else { "" };
    let mut names = BTreeSet::new();
    for (Frontend { name, bind, instead: _, port, asks, servers }, at) in
        frontends.iter().zip(binds(frontends))
    {
        // Writing into a string never fails.
        let _ = match names.insert(name) {
            true => write!(text, "\nlisten {name}\n"),
            false => write!(text, "\nlisten {name}-{at}\n"),
        };
        if at != *bind {
            let _ = writeln!(text, "    # port {bind} is taken above");
        }
        let _ = write!(text, "    bind :{at}\n    balance roundrobin\n");
        match servers {
            Servers::Template { name, slots } => {
                let how = "check resolvers mesh init-addr none";
                let _ = writeln!(text, "    server-template server- {slots} {name} {how}{proxy}");
            }
            Servers::Each(servers) => {
                if let (Some(_), Some(service)) = (checks, asks) {
                    let _ =
                        write!(text, "    option httpchk GET /{service}\n    http-check disable-on-404\n");
                }
                for Server { name, address, ask, about } in servers {
                    let _ = write!(text, "    server {name} {} check", with_port(address, *port));
                    if let Some(checks) = checks {
                        // What an agent says is a share of the weight; of 1 there is none.
                        let at = asks.as_ref().map_or_else(String::new, |_| format!(" port {checks}"));
                        let _ = write!(
                            text,
                            "{at} weight 100 agent-check agent-addr {ask} agent-port {checks} agent-inter 1s agent-send \"{about}\\n\""
                        );
                    }
                    let _ = writeln!(text, "{proxy}");
                }
            }
        }
    }
    text
}

/// Where each listens: two that share a port would get each other's connections.
fn binds(frontends: &[Frontend]) -> Vec<u16> {
    let mut taken = BTreeSet::new();
    let first: Vec<_> = frontends.iter().map(|frontend| taken.insert(frontend.bind)).collect();
    let each = frontends.iter().zip(first).map(|(Frontend { bind, instead, .. }, first)| {
        if first {
            return *bind;
        }
        let after = (*bind..=u16::MAX).chain(1..*bind);
        let free = instead.iter().copied().chain(after).find(|port| !taken.contains(port)).unwrap_or(*bind);
        taken.insert(free);
        free
    });
    each.collect()
}

/// IPv6 in brackets.
fn with_port(address: &str, port: u16) -> String {
    match address.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) => format!("{address}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, address: &str) -> Server {
        let (name, address) = (name.to_owned(), address.to_owned());
        Server { name, ask: address.clone(), address, about: "web".to_owned() }
    }

    #[test]
    fn nodes_are_servers() {
        let servers = Servers::Each(vec![node("n1", "192.0.2.1"), node("n2", "fd00::2")]);
        let web = Frontend {
            name: "web-8080".to_owned(),
            bind: 8080,
            instead: None,
            port: 8080,
            asks: Some("web".to_owned()),
            servers,
        };
        let plain = text(std::slice::from_ref(&web), &[], None, true);
        assert!(plain.ends_with(
            "\nlisten web-8080\n    bind :8080\n    balance roundrobin\n    \
             server n1 192.0.2.1:8080 check send-proxy-v2\n    server n2 [fd00::2]:8080 check send-proxy-v2\n"
        ));
        let asked = text(&[web], &[], Some(7304), false);
        let n2 = "server n2 [fd00::2]:8080 check port 7304 weight 100 agent-check agent-addr fd00::2 agent-port 7304 agent-inter \
                  1s agent-send \"web\\n\"\n";
        assert!(asked.contains(n2) && asked.contains("option httpchk GET /web\n"), "{asked}");
        assert!(!asked.contains("resolvers"));
    }

    #[test]
    fn names_fill_a_template() {
        let servers = Servers::Template { name: "tasks.web:80".to_owned(), slots: 30 };
        let web = Frontend { name: "web".to_owned(), bind: 80, instead: None, port: 80, asks: None, servers };
        let text = text(&[web], &[], None, false);
        assert!(text.contains("\nresolvers mesh\n"));
        assert!(
            text.contains("server-template server- 30 tasks.web:80 check resolvers mesh init-addr none\n")
        );
    }

    #[test]
    fn each_listens_at_a_port_of_its_own() {
        let frontend = |name: &str, bind, instead| {
            let (name, servers) = (name.to_owned(), Servers::Each(Vec::new()));
            Frontend { name, bind, instead, port: bind, asks: None, servers }
        };
        let all = [
            frontend("a", 80, Some(8080)),
            frontend("b", 80, Some(8081)),
            frontend("c", 80, None),
            frontend("d", 80, Some(8081)),
            frontend("e", 8081, Some(9000)),
            frontend("f", 65_535, None),
            frontend("f", 65_535, None),
        ];
        assert_eq!(binds(&all), [80, 81, 82, 83, 8081, 65_535, 1]);
        assert_eq!(binds(&all[..3]), [80, 8081, 81]);
        let text = text(&all, &["left out: x".to_owned()], None, false);
        assert!(text.starts_with("# left out: x\ndefaults\n"), "{text}");
        assert!(text.contains("\nlisten b\n    # port 80 is taken above\n    bind :81\n"), "{text}");
        assert!(text.contains("\nlisten f-1\n"), "{text}");
    }
}
