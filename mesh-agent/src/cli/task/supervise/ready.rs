//! **Fact.** Whether a command listens where its service is reached.
//!
//! A command that was started is not one that serves: in between, every connection to it would be refused.

use std::time::Duration;

use crate::api::types::{Protocol, Service};

/// How often to look.
const LOOK: Duration = Duration::from_millis(20);
/// How long the other ports may take when one is open. A port that the command never opens is not what it serves by.
const REST: Duration = Duration::from_secs(3);
/// How long any port at all may take, where none is named: a command that opens none serves nobody and is not waited for
/// much longer.
const ANY: Duration = Duration::from_secs(3);

/// What a command is to listen on before it gets traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Awaited {
    /// It has no service, or a health check tells when it serves.
    Nothing,
    /// Nobody has named a port.
    Anything,
    /// The ports that its service publishes.
    Ports(Vec<(u16, Protocol)>),
    /// Those that it only names: nobody has to open them.
    Named(Vec<(u16, Protocol)>),
}

impl Awaited {
    /// Of a task of a service.
    pub(super) fn of(service: &Service) -> Self {
        let published = service.endpoint.ports.iter().map(|port| (port.target_port, port.protocol));
        let named = service.spec.port_names.iter().map(|port| (port.target_port, port.protocol));
        let (published, named): (Vec<_>, Vec<_>) = (published.collect(), named.collect());
        if !published.is_empty() {
            Self::Ports(published)
        } else if service.spec.healthcheck.is_some() {
            Self::Nothing
        } else if !named.is_empty() {
            Self::Named(named)
        } else {
            Self::Anything
        }
    }

    /// Waits until something listens on one of the ports, and a while for the others.
    pub(super) async fn listens(&self) {
        match self {
            Self::Nothing => {}
            Self::Anything => {
                let opens = wait(|| [Protocol::Tcp, Protocol::Udp].iter().any(|of| listening(*of, None)));
                _ = tokio::time::timeout(ANY, opens).await;
            }
            Self::Named(ports) => {
                _ = tokio::time::timeout(ANY, wait(|| ports.iter().all(is_open_here))).await;
            }
            Self::Ports(ports) => {
                wait(|| ports.iter().any(is_open_here)).await;
                _ = tokio::time::timeout(REST, wait(|| ports.iter().all(is_open_here))).await;
            }
        }
    }

    /// What it is waited for, in words.
    pub(super) fn missing(&self) -> String {
        let ports = match self {
            Self::Ports(ports) => ports.as_slice(),
            Self::Nothing | Self::Anything | Self::Named(_) => &[],
        };
        let mut names: Vec<_> = ports.iter().map(|(port, of)| format!("{port}/{}", of.as_str())).collect();
        names.dedup();
        format!("gets no traffic yet: nothing listens on {}", names.join(" or "))
    }
}

async fn wait(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(LOOK).await;
    }
}

fn is_open_here((port, protocol): &(u16, Protocol)) -> bool {
    listening(*protocol, Some(*port))
}

/// Whether something listens on a port; none: on any.
fn listening(protocol: Protocol, port: Option<u16>) -> bool {
    let name = protocol.as_str();
    // This process lives in the task's network namespace.
    ["", "6"].iter().any(|family| {
        let table = std::fs::read_to_string(format!("/proc/self/net/{name}{family}")).unwrap_or_default();
        table.lines().skip(1).any(|line| is_open(line, protocol, port))
    })
}

/// A line of proc(5) net/tcp or net/udp: `sl local_address rem_address st …`, all in hexadecimal.
fn is_open(line: &str, protocol: Protocol, wanted: Option<u16>) -> bool {
    let mut words = line.split_whitespace().skip(1);
    let (Some(local), Some(_), Some(state)) = (words.next(), words.next(), words.next()) else {
        return false;
    };
    let Some((address, port)) = local.split_once(':') else { return false };
    // TCP_LISTEN; a UDP socket that is bound but not connected has the state of TCP_CLOSE.
    let open = match protocol {
        Protocol::Tcp => "0A",
        Protocol::Udp => "07",
    };
    let is_wanted = wanted.is_none_or(|wanted| u16::from_str_radix(port, 16) == Ok(wanted));
    state == open && is_wanted && !is_loopback(address)
}

/// What listens on 127.0.0.0/8 or ::1 is not reached from outside. Words are in the machine's own order.
fn is_loopback(address: &str) -> bool {
    let Some(last) = address.get(address.len().saturating_sub(8)..) else { return false };
    let Ok(word) = u32::from_str_radix(last, 16) else { return false };
    let bytes = word.to_ne_bytes();
    match address.len() {
        8 => bytes[0] == 127,
        _ => address.starts_with("000000000000000000000000") && bytes == [0, 0, 0, 1],
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn only_open_sockets_that_can_be_reached_count() {
        let line = |address: &str, state: &str| {
            format!("   0: {address} 00000000:0000 {state} 00000000:00000000 00")
        };
        for (address, state, protocol, open) in [
            ("00000000:0050", "0A", Protocol::Tcp, true),
            ("00000000:0050", "01", Protocol::Tcp, false),
            ("00000000:0051", "0A", Protocol::Tcp, false),
            ("0100007F:0050", "0A", Protocol::Tcp, false),
            ("0500070A:0050", "0A", Protocol::Tcp, true),
            ("00000000000000000000000000000000:0050", "0A", Protocol::Tcp, true),
            ("00000000000000000000000001000000:0050", "0A", Protocol::Tcp, false),
            ("000000FD000000000000000001000000:0050", "0A", Protocol::Tcp, true),
            ("00000000:0050", "07", Protocol::Udp, true),
        ] {
            assert_eq!(is_open(&line(address, state), protocol, Some(80)), open, "{address} {state}");
        }
        assert!(!is_open("", Protocol::Tcp, Some(80)));
        let any = |address| is_open(&line(address, "0A"), Protocol::Tcp, None);
        assert!(any("00000000:0051") && !any("0100007F:0051"));
    }

    #[tokio::test]
    async fn a_listener_is_found() {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = |number| (number, Protocol::Tcp);
        let ports = |ports: &[_]| Awaited::Ports(ports.to_vec());
        let [closed, open] = [port(1), port(listener.local_addr().unwrap().port())];
        let began = std::time::Instant::now();
        for awaited in [Awaited::Nothing, Awaited::Anything, ports(&[open])] {
            awaited.listens().await;
        }
        assert!(began.elapsed() < REST, "all are open");
        let other = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let later = port(other.local_addr().unwrap().port());
        drop(other);
        let opens = async {
            tokio::time::sleep(LOOK * 2).await;
            TcpListener::bind(("0.0.0.0", later.0)).await.unwrap()
        };
        let (_, _other) = tokio::join!(async { ports(&[open, later]).listens().await }, opens);
        let listening = |(port, protocol)| listening(protocol, Some(port));
        assert!(listening(later), "the second was waited for");
        drop(listener);
        assert!(!listening(closed) && !listening(open));
        assert_eq!(
            ports(&[port(80), port(81)]).missing(),
            "gets no traffic yet: nothing listens on 80/tcp or 81/tcp"
        );
    }

    #[test]
    fn ports_are_awaited_that_are_published_or_named_and_else_any() {
        let service = |ports: serde_json::Value, names: serde_json::Value, check: serde_json::Value| {
            let service = serde_json::json!({
                "ID": "a", "Version": { "Index": 1 }, "CreatedAt": "", "UpdatedAt": "",
                "Spec": { "Name": "web", "PortNames": names, "Healthcheck": check },
                "Endpoint": { "Spec": {}, "Ports": ports },
                "ServiceStatus": { "RunningTasks": 0, "DesiredTasks": 0, "CompletedTasks": 0 },
            });
            Awaited::of(&serde_json::from_value(service).unwrap())
        };
        let (none, check) = (serde_json::json!([]), serde_json::json!({ "Test": ["TCP", "80"] }));
        let published = serde_json::json!([{ "TargetPort": 80, "PublishedPort": 8080, "Protocol": "tcp" }]);
        let named = serde_json::json!([{ "Name": "dns", "TargetPort": 53, "Protocol": "udp" }]);
        assert_eq!(service(none.clone(), none.clone(), serde_json::Value::Null), Awaited::Anything);
        assert_eq!(service(none.clone(), none.clone(), check.clone()), Awaited::Nothing);
        let only_named = Awaited::Named(vec![(53, Protocol::Udp)]);
        assert_eq!(service(none.clone(), named.clone(), serde_json::Value::Null), only_named);
        assert_eq!(service(none, named.clone(), check.clone()), Awaited::Nothing);
        assert_eq!(service(published, named, check), Awaited::Ports(vec![(80, Protocol::Tcp)]));
    }
}
