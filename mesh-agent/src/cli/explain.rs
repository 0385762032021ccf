//! **Effect.** `mesh explain`: why a flow goes where it goes.

use serde_json::Value;

use super::format::{self, Format, FormatArg};
use super::table;
use super::{OK, Session};
use crate::api::types::{ExplainRequest, Explanation, LiveFlow, Protocol};

/// Explain where a flow goes, and why
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// The node where the flow enters the mesh [default: the client task's node, else this one]
    #[arg(long)]
    node: Option<String>,
    #[command(flatten)]
    format: FormatArg,
    /// Who sends: an address, or a task such as web.1; with :PORT, its very flow is looked for
    client: String,
    /// To whom: IP:PORT[/udp], [IPv6]:PORT[/udp], or SERVICE:PORT[/udp]
    #[arg(value_name = "DEST", value_parser = destination)]
    destination: Destination,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Destination {
    host: String,
    port: u16,
    protocol: Protocol,
}

fn destination(text: &str) -> Result<Destination, String> {
    let (rest, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((rest, "tcp")) => (rest, Protocol::Tcp),
        Some((rest, "udp")) => (rest, Protocol::Udp),
        Some((_, other)) => return Err(format!("invalid protocol value '{other}'")),
    };
    let (host, port) =
        rest.rsplit_once(':').ok_or_else(|| format!("'{text}' has no port: write HOST:PORT"))?;
    let port = port.parse().map_err(|_| format!("invalid port '{port}'"))?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return Err(format!("'{text}' is ambiguous: write [IPv6]:PORT"));
    }
    if host.is_empty() {
        return Err(format!("'{text}' names no host: write HOST:PORT"));
    }
    Ok(Destination { host: bare.unwrap_or(host).to_owned(), port, protocol })
}

pub(super) async fn run(args: ExplainArgs, session: Session) -> anyhow::Result<u8> {
    let ExplainArgs { node, format, client, destination } = args;
    let Destination { host, port, protocol } = destination;
    let request = ExplainRequest { client, destination: host, port, protocol: Some(protocol), node };
    let value: Value = session.client.post("/v1/explain", &request).await?;
    match format.format.as_ref() {
        None | Some(Format::Table) => {
            session.out.bytes(text(&serde_json::from_value(value)?).as_bytes());
        }
        format => format::records(&session.out, format, "Explanation", &[value])?,
    }
    Ok(OK)
}

fn text(explanation: &Explanation) -> String {
    let Explanation {
        verdict,
        refused: _,
        destination,
        frontend,
        service,
        policy,
        backends,
        excluded,
        kernel,
    } = explanation;
    let mut text = format!("{destination}: {verdict}\n");
    for (name, value) in [("Frontend", frontend), ("Service", service), ("Policy", policy)] {
        if !value.is_empty() {
            text.push_str(&format!("{name}: {value}\n"));
        }
    }
    if !backends.is_empty() {
        let rows = backends.iter().map(|share| {
            let address = match share.address.parse() {
                Ok(ip) => std::net::SocketAddr::new(ip, share.port).to_string(),
                Err(_) => format!("{}:{}", share.address, share.port),
            };
            vec![share.task.clone(), share.node.clone(), address, format!("{:.1} %", share.share * 100.0)]
        });
        text.push('\n');
        text.push_str(&table::render(&["TASK", "NODE", "ADDRESS", "SHARE"], &rows.collect::<Vec<_>>()));
    }
    if !excluded.is_empty() {
        text.push_str("\nGet nothing:\n");
        excluded.iter().for_each(|one| text.push_str(&format!("  {} {}\n", one.task, one.reason)));
    }
    if let Some(kernel) = kernel {
        text.push_str(&format!("\nIn the kernel: {}\n", kernel.verdict));
        text.push_str(&flows(&kernel.flows));
    }
    text
}

fn flows(flows: &[LiveFlow]) -> String {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let rows = flows.iter().map(|flow| {
        let port = match flow.changed_port {
            0 => flow.client_port.to_string(),
            changed => format!("{} as {changed}", flow.client_port),
        };
        let mut way = match (flow.entered.as_str(), flow.translated) {
            _ if flow.at_socket => "led at its socket".to_owned(),
            ("", true) => "translated here".to_owned(),
            ("", false) => "tunnelled".to_owned(),
            (node, _) => format!("came in by {node}"),
        };
        if flow.direct {
            way.push_str(", answered straight");
        }
        let (task, node) = (or_dash(&flow.task), or_dash(&flow.node));
        vec![
            port,
            task,
            node,
            or_dash(&flow.address),
            flow.state.clone(),
            format!("{} s", flow.idle_seconds),
            way,
        ]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return "No flow of this client is known here.\n".to_owned();
    }
    table::render(&["PORT", "TASK", "NODE", "ADDRESS", "STATE", "IDLE", "WAY"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read() {
        let read = |text| destination(text).map(|d| (d.host, d.port, d.protocol.as_str()));
        assert_eq!(read("10.0.0.5:80"), Ok(("10.0.0.5".to_owned(), 80, "tcp")));
        assert_eq!(read("[fd00::1]:53/udp"), Ok(("fd00::1".to_owned(), 53, "udp")));
        assert_eq!(read("web:8080"), Ok(("web".to_owned(), 8080, "tcp")));
        for (text, error) in [
            ("web", "has no port"),
            ("web:x", "invalid port 'x'"),
            ("fd00::1:53", "is ambiguous"),
            (":80", "names no host"),
            ("web:80/sctp", "invalid protocol value 'sctp'"),
        ] {
            assert!(read(text).unwrap_err().contains(error), "{text}");
        }
    }

    #[test]
    fn the_answer_comes_first() {
        let explanation = serde_json::json!({
            "Verdict": "balanced by node n1 over 1 task of web", "Refused": false, "Destination": "10.0.0.5:80/tcp",
            "Frontend": "VIP 10.0.0.5 in network app", "Service": "web", "Policy": "each new flow at random",
            "Backends": [{"Task": "web.1", "Address": "10.0.16.2", "Port": 80, "Node": "n1", "Share": 1.0}],
            "Excluded": [{"Task": "web.2", "Reason": "is draining"}],
            "Kernel": {"Verdict": "slot 5 of 64 leads to web.1 on n1, translated here", "Events": ["new_flow"],
                "Slot": 5, "Slots": 64, "Task": "web.1", "Node": "n1", "Flows": [
                {"ClientPort": 4000, "ChangedPort": 0, "Task": "web.1", "Node": "n1", "Address": "10.0.16.2:80",
                    "State": "established", "IdleSeconds": 3, "Translated": true},
                {"ClientPort": 4001, "ChangedPort": 40000, "Task": "", "Node": "", "Address": "",
                    "State": "closing", "IdleSeconds": 0, "Translated": false, "Direct": true},
                {"ClientPort": 4002, "ChangedPort": 0, "Task": "web.1", "Node": "n1", "Address": "10.0.16.2:80",
                    "State": "established", "IdleSeconds": 0, "Translated": false, "AtSocket": true}]}
        });
        insta::assert_snapshot!(text(&serde_json::from_value(explanation).unwrap()), @r"
        10.0.0.5:80/tcp: balanced by node n1 over 1 task of web
        Frontend: VIP 10.0.0.5 in network app
        Service: web
        Policy: each new flow at random

        TASK    NODE   ADDRESS        SHARE
        web.1   n1     10.0.16.2:80   100.0 %

        Get nothing:
          web.2 is draining

        In the kernel: slot 5 of 64 leads to web.1 on n1, translated here
        PORT            TASK    NODE   ADDRESS        STATE         IDLE   WAY
        4000            web.1   n1     10.0.16.2:80   established   3 s    translated here
        4001 as 40000   -       -      -              closing       0 s    tunnelled, answered straight
        4002            web.1   n1     10.0.16.2:80   established   0 s    led at its socket
        ");
    }
}
