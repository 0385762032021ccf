//! **Effect.** `mesh explain`: why a flow goes where it goes.

use serde_json::Value;

use super::format::{self, Format, FormatArg};
use super::table;
use super::{OK, Session};
use crate::api::types::{ExplainRequest, Explanation, Protocol};

/// Explain where a flow goes, and why
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// The node where the flow enters the mesh [default: the client task's node, else this one]
    #[arg(long)]
    node: Option<String>,
    #[command(flatten)]
    format: FormatArg,
    /// Who sends: an address, or a task such as web.1
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
    let Explanation { verdict, refused: _, destination, frontend, service, policy, backends, excluded } =
        explanation;
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
    text
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
            "Excluded": [{"Task": "web.2", "Reason": "is draining"}]
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
        ");
    }
}
