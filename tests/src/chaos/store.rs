//! **Effect.** The store of a mesh under chaos. It is the only place that knows that it is an external etcd.

use std::{fmt::Write, net::Ipv4Addr};

use anyhow::{Context, Result, ensure};

use super::Event;
use crate::{Etcd, Host};

/// How many members.
pub(super) const MEMBERS: u8 = 3;
/// Under which name the records are.
const PREFIX: &str = "/mesh/records/";

/// An etcd of three members beside the nodes.
#[derive(Debug)]
pub(super) struct Store {
    etcd: Etcd,
}

impl Store {
    /// The members' addresses on the underlay.
    fn addresses() -> [Ipv4Addr; MEMBERS as usize] {
        [101, 102, 103].map(|last| Ipv4Addr::new(192, 168, 77, last))
    }

    /// What agents are told of it.
    pub(super) fn config() -> String {
        let urls = Self::addresses().map(|address| format!("\"http://{address}:2379\""));
        format!("[store]\nmode = \"external\"\nendpoints = [{}]\n", urls.join(", "))
    }

    /// Starts it on a host.
    pub(super) fn start(host: &Host) -> Result<Self> {
        let mut lines = String::new();
        for address in Self::addresses() {
            writeln!(lines, "address add {address}/24 dev eth0")?;
        }
        host.ip(&lines)?;
        Ok(Self { etcd: Etcd::of_host(host, &Self::addresses())? })
    }

    /// Which member leads; the first where nobody says.
    pub(super) fn leader(&self) -> usize {
        self.etcd.leader().unwrap_or_default()
    }

    pub(super) fn kill(&mut self, member: usize) -> Result<()> {
        self.etcd.member(member).kill()
    }

    pub(super) fn kill_all(&mut self) -> Result<()> {
        self.etcd.kill()
    }

    /// Starts it again and waits until it answers.
    pub(super) fn restart(&mut self, member: usize) -> Result<()> {
        let member = self.etcd.member(member);
        member.start()?;
        member.wait_ready()
    }

    pub(super) fn restart_all(&mut self) -> Result<()> {
        self.etcd.start()
    }

    pub(super) fn freeze(&mut self, member: usize) -> Result<()> {
        self.etcd.member(member).pause()
    }

    pub(super) fn thaw(&mut self, member: usize) -> Result<()> {
        let member = self.etcd.member(member);
        member.resume()?;
        member.wait_ready()
    }

    /// All changes of all records since the beginning. Nobody compacts it.
    pub(super) fn history(&self) -> Result<Vec<Event>> {
        let said = self.etcd.watch_from_start(PREFIX)?;
        read(&said).context("what `etcdctl watch` says")
    }
}

/// Reads the lines of `etcdctl watch`: what happened, the key, the value.
fn read(said: &str) -> Result<Vec<Event>> {
    let mut lines = said.lines();
    let mut history = Vec::new();
    while let (Some(what), Some(key), Some(value)) = (lines.next(), lines.next(), lines.next()) {
        ensure!(matches!(what, "PUT" | "DELETE"), "it is no event: {what}");
        let key = key.strip_prefix(PREFIX).context("a key of somebody else")?.to_owned();
        let value = if what == "PUT" { serde_json::from_str(value).ok() } else { None };
        // Indexes hold no JSON, and nothing that is looked for.
        if what == "DELETE" || value.is_some() {
            history.push(Event { key, value });
        }
    }
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read() {
        let said = "PUT\n/mesh/records/svc/1\n{\"name\":\"web\"}\nPUT\n/mesh/records/idx/svc/web\n1x\n\
                    DELETE\n/mesh/records/svc/1\n\n";
        let history = read(said).unwrap();
        assert_eq!(history.len(), 2);
        assert_eq!(history[0].value.as_ref().unwrap()["name"], "web");
        assert_eq!(history[1], Event { key: "svc/1".into(), value: None });
    }
}
