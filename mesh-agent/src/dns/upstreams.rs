//! **Fact.** Whom the node asks for names of the world: its resolv.conf(5), which changes with the networks that it is in.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{DnsServer, SERVER};

/// How often to look whether it has changed.
const LOOK: Duration = Duration::from_secs(5);

/// Has a server ask whom the file names, also when that changes. Ends when told to.
pub async fn follow(server: DnsServer, path: &Path, stop: CancellationToken) {
    let mut known = Vec::new();
    let work = async {
        loop {
            if learn(path, &mut known) {
                let all: Vec<_> = known.iter().map(SocketAddr::to_string).collect();
                info!(upstreams = all.join(", "), "names of the world are asked there");
                server.set_upstreams(known.clone());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    stop.run_until_cancelled(work).await;
}

/// Whether others are named than before. A file that names nobody is one that is just being written.
fn learn(path: &Path, known: &mut Vec<SocketAddr>) -> bool {
    let found = of_file(path);
    let changed = !found.is_empty() && found != *known;
    if changed {
        *known = found;
    }
    changed
}

fn of_file(path: &Path) -> Vec<SocketAddr> {
    from_resolv_conf(&std::fs::read_to_string(path).unwrap_or_default())
}

/// The name servers of a resolv.conf(5), port 53, without ourselves and without doubles. An address with a
/// device's name (`fe80::1%eth0`) is left out: it means something in one namespace only.
pub fn from_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let mut upstreams = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else {
            continue;
        };
        let upstream = SocketAddr::new(address, 53);
        if may_ask(upstream) && !upstreams.contains(&upstream) {
            upstreams.push(upstream);
        }
    }
    upstreams
}

/// Not ourselves: a question would come back to us for ever.
pub(super) fn may_ask(upstream: SocketAddr) -> bool {
    let ip = upstream.ip().to_canonical();
    ip != IpAddr::V4(SERVER) && !ip.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_gives_upstreams() {
        let text = "# nameserver 1.1.1.1\nsearch example.com\nnameserver 127.0.0.11\nnameserver 10.0.0.2\n\
                    nameserver\nnameserver  127.0.0.53 # the stub\nnameserver 10.0.0.2\nnameserver fd00::53\n\
                    nameserver fe80::1%eth0\nnameserver ::ffff:127.0.0.11\nnameserver 0.0.0.0\noptions ndots:0\n\
                    \tnameserver nonsense";
        let upstreams: Vec<_> = from_resolv_conf(text).iter().map(ToString::to_string).collect();
        assert_eq!(upstreams, ["10.0.0.2:53", "127.0.0.53:53", "[fd00::53]:53"]);
        assert!(from_resolv_conf("").is_empty());
    }

    #[test]
    fn a_file_that_says_nothing_leaves_what_was_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let server = |text: &str| vec![text.parse::<SocketAddr>().unwrap()];
        let mut known = of_file(&path);
        assert!(known.is_empty() && !learn(&path, &mut known), "no file");
        std::fs::write(&path, "nameserver 10.0.0.2\n").unwrap();
        assert!(learn(&path, &mut known) && known == server("10.0.0.2:53"));
        assert!(!learn(&path, &mut known), "the same");
        for half in ["", "# being written\n", "nameserver 127.0.0.11\n"] {
            std::fs::write(&path, half).unwrap();
            assert!(!learn(&path, &mut known) && known == server("10.0.0.2:53"), "{half}");
        }
        std::fs::write(&path, "nameserver 10.0.0.3\n").unwrap();
        assert!(learn(&path, &mut known) && known == server("10.0.0.3:53"));
    }
}
