//! **Fact.** Whether a task still has TCP flows that others opened to it.

use std::collections::BTreeSet;
use std::time::Duration;

use mesh_core::model::Origin;

use crate::netns::Netns;

/// How often to look.
const LOOK: Duration = Duration::from_millis(200);

/// Returns once no flow is left, or the namespace is gone.
pub(super) async fn ended(origin: &Origin) {
    loop {
        let origin = origin.clone();
        // Tables of sockets can be long.
        let left = tokio::task::spawn_blocking(move || count(&origin)).await;
        if left.ok().flatten().is_none_or(|left| left == 0) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How many are left; none: nobody can tell.
pub(super) fn count(origin: &Origin) -> Option<u64> {
    let inside = |of: &str| {
        let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{of}/net/{table}")));
        // A kernel without IPv6 has no table of it.
        tables
            .iter()
            .any(Result::is_ok)
            .then(|| tables.iter().flatten().map(|text| served(text) as u64).sum())
    };
    match origin {
        Origin::Process { pid, .. } => inside(&pid.to_string()),
        Origin::Netns { .. } => Netns::of_origin(origin).ok()?.run(|| inside("thread-self")).ok()?,
    }
}

/// Counts flows to ports that are listened on, from outside. Lines are as in proc(5) net/tcp: `sl local remote
/// st …`, in hexadecimal; of the states, only those in which the task itself has something left to do.
fn served(table: &str) -> usize {
    const ESTABLISHED: &str = "01";
    const CLOSE_WAIT: &str = "08";
    const LISTEN: &str = "0A";
    let lines = || {
        table.lines().skip(1).filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
            Some((local.split_once(':')?, remote, state))
        })
    };
    let listening: BTreeSet<&str> =
        lines().filter(|(_, _, state)| *state == LISTEN).map(|((_, port), ..)| port).collect();
    lines()
        .filter(|((_, port), _, state)| [ESTABLISHED, CLOSE_WAIT].contains(state) && listening.contains(port))
        .filter(|((address, _), remote, _)| !remote.starts_with(*address))
        .count()
}

#[cfg(test)]
mod tests {
    use super::served;

    #[test]
    fn only_flows_from_outside_to_a_listening_port_count() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue\n";
        let listen = "   0: 00000000:0050 00000000:0000 0A 0:0\n";
        let inbound = "   1: B51700A0:0050 644DA8C0:D431 01 0:0\n";
        let outbound = "   2: B51700A0:D431 644DA8C0:0050 01 0:0\n";
        let own = "   3: 0100007F:0050 0100007F:D432 01 0:0\n";
        let closing = "   4: B51700A0:0050 644DA8C0:D433 06 0:0\n";
        assert_eq!(served(&[head, listen, inbound, outbound, own, closing].concat()), 1);
        assert_eq!(served(&[head, inbound].concat()), 0);
        assert_eq!(served(""), 0);
    }
}
