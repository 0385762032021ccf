//! **Decision.** Published ports in a column: `*:8080-8082->80-82/tcp`.

use std::net::IpAddr;

use crate::api::types::{PortConfig, PublishMode};

/// Ports that follow each other on both sides become a range.
pub(super) fn fold(ports: &[PortConfig]) -> String {
    let mut sorted: Vec<_> = ports.iter().collect();
    sorted.sort_by_key(|port| {
        (port.protocol.as_str(), port.publish_mode.as_str(), &port.host_ip, port.published_port)
    });
    let mut runs: Vec<(&PortConfig, u16)> = Vec::new();
    for port in sorted {
        match runs.last_mut() {
            Some((first, more)) if follows(first, *more, port) => *more += 1,
            _ => runs.push((port, 0)),
        }
    }
    runs.iter().map(|(first, more)| show(first, *more)).collect::<Vec<_>>().join(", ")
}

fn follows(first: &PortConfig, more: u16, port: &PortConfig) -> bool {
    let next = |start: u16| start.checked_add(more).and_then(|last| last.checked_add(1));
    let expected = PortConfig {
        published_port: next(first.published_port).unwrap_or_default(),
        target_port: next(first.target_port).unwrap_or_default(),
        ..first.clone()
    };
    expected == *port
}

fn show(first: &PortConfig, more: u16) -> String {
    let range = |start: u16| if more == 0 { start.to_string() } else { format!("{start}-{}", start + more) };
    let mode = if first.publish_mode == PublishMode::Host { " (host)" } else { "" };
    let (published, target) = (range(first.published_port), range(first.target_port));
    let one = |at: &str| format!("{at}:{published}->{target}/{}{mode}", first.protocol.as_str());
    if first.host_ip.is_empty() {
        return one("*");
    }
    let each = first.host_ip.iter().map(|ip| match ip {
        IpAddr::V4(ip) => one(&ip.to_string()),
        IpAddr::V6(ip) => one(&format!("[{ip}]")),
    });
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::publish::Publish;

    fn folded(all: &[&str]) -> String {
        fold(&all.iter().flat_map(|text| text.parse::<Publish>().unwrap().0).collect::<Vec<_>>())
    }

    #[test]
    fn only_what_follows_on_both_sides_is_folded() {
        assert_eq!(folded(&[]), "");
        assert_eq!(folded(&["8082:82", "8080:80", "8081:81"]), "*:8080-8082->80-82/tcp");
        assert_eq!(folded(&["8080:80", "8081:80"]), "*:8080->80/tcp, *:8081->80/tcp");
        assert_eq!(folded(&["8080:80", "8081:81/udp"]), "*:8080->80/tcp, *:8081->81/udp");
        assert_eq!(folded(&["10.0.0.1:80:80", "81:81"]), "*:81->81/tcp, 10.0.0.1:80->80/tcp");
        assert_eq!(folded(&["65534-65535:65534-65535", "1:1"]), "*:1->1/tcp, *:65534-65535->65534-65535/tcp");
    }
}
