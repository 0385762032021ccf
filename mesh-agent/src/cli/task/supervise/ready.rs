//! **Fact.** Whether a command listens where its service's published ports lead.
//!
//! A command that was started is not one that serves: in between, every connection to it would be refused.

use std::time::Duration;

use crate::api::types::{PortConfig, Protocol};

/// How often to look.
const LOOK: Duration = Duration::from_millis(20);
/// How long the other ports may take when one is open. A port that the command never opens is not what it serves by.
const REST: Duration = Duration::from_secs(3);

/// Waits until something listens on one of the ports, and a while for the others. Without a port there is nothing to wait
/// for.
pub(super) async fn listens(ports: &[PortConfig]) {
    wait(|| ports.is_empty() || ports.iter().any(listening)).await;
    let _ = tokio::time::timeout(REST, wait(|| ports.iter().all(listening))).await;
}

async fn wait(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(LOOK).await;
    }
}

fn listening(port: &PortConfig) -> bool {
    let name = port.protocol.as_str();
    // This process lives in the task's network namespace.
    ["", "6"].iter().any(|family| {
        let table = std::fs::read_to_string(format!("/proc/self/net/{name}{family}")).unwrap_or_default();
        table.lines().skip(1).any(|line| is_open(line, port.protocol, port.target_port))
    })
}

/// A line of proc(5) net/tcp or net/udp: `sl local_address rem_address st …`, all in hexadecimal.
fn is_open(line: &str, protocol: Protocol, wanted: u16) -> bool {
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
    state == open && u16::from_str_radix(port, 16) == Ok(wanted) && !is_loopback(address)
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

/// The ports in words.
pub(super) fn missing(ports: &[PortConfig]) -> String {
    let names: Vec<_> =
        ports.iter().map(|port| format!("{}/{}", port.target_port, port.protocol.as_str())).collect();
    format!("gets no traffic yet: nothing listens on {}", names.join(" or "))
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
            assert_eq!(is_open(&line(address, state), protocol, 80), open, "{address} {state}");
        }
        assert!(!is_open("", Protocol::Tcp, 80));
    }

    #[tokio::test]
    async fn a_listener_is_found() {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = |target_port| PortConfig {
            protocol: Protocol::Tcp,
            target_port,
            published_port: 1,
            publish_mode: crate::api::types::PublishMode::Ingress,
            host_ip: Vec::new(),
            nodes: Vec::new(),
            allow: Vec::new(),
        };
        let [closed, open] = [port(1), port(listener.local_addr().unwrap().port())];
        let began = std::time::Instant::now();
        for ports in [&[][..], std::slice::from_ref(&open), &[open.clone(), open.clone()]] {
            listens(ports).await;
        }
        assert!(began.elapsed() < REST, "all are open");
        let other = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let later = port(other.local_addr().unwrap().port());
        drop(other);
        let opens = async {
            tokio::time::sleep(LOOK * 2).await;
            TcpListener::bind(("0.0.0.0", later.target_port)).await.unwrap()
        };
        let ports = [open.clone(), later.clone()];
        let (_, _other) = tokio::join!(listens(&ports), opens);
        assert!(listening(&later), "the second was waited for");
        drop(listener);
        assert!(!listening(&closed) && !listening(&open));
        assert_eq!(
            missing(&[port(80), port(81)]),
            "gets no traffic yet: nothing listens on 80/tcp or 81/tcp"
        );
    }
}
