//! **Effect.** The store of a mesh under chaos: an external etcd beside the nodes, or that of nodes which are managers.

use std::{fmt::Write, net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Event, Place,
    managed::{self, Managed},
};
use crate::{Etcd, Host, Lab};

/// How many members.
pub(super) const MEMBERS: u8 = 3;
/// Under which name the records are.
const PREFIX: &str = "/mesh/records/";

/// An etcd of three members.
#[derive(Debug)]
pub(super) enum Store<'a> {
    /// Beside the nodes.
    External(Etcd),
    /// On the first of them.
    Managed(Managed<'a>),
}

/// An external member's addresses on the underlay.
fn addresses() -> [Ipv4Addr; MEMBERS as usize] {
    [101, 102, 103].map(|last| Ipv4Addr::new(192, 168, 77, last))
}

fn external(host: &Host) -> Result<Etcd> {
    let mut lines = String::new();
    for address in addresses() {
        writeln!(lines, "address add {address}/24 dev eth0")?;
    }
    host.ip(&lines)?;
    Etcd::of_host(host, &addresses())
}

impl<'a> Store<'a> {
    /// What agents are told of it.
    pub(super) fn config(managed: bool) -> String {
        if managed {
            return managed::CONFIG.to_owned();
        }
        let urls = addresses().map(|address| format!("\"http://{address}:2379\""));
        format!("[store]\nmode = \"external\"\nendpoints = [{}]\n", urls.join(", "))
    }

    /// Starts it, and all agents.
    pub(super) fn start(lab: &'a Lab, managed: bool, within: Duration) -> Result<Self> {
        if managed {
            lab.start_agents(within)?;
            return Ok(Self::Managed(Managed::start(lab)?));
        }
        let etcd = external(lab.client())?;
        lab.start_agents(within)?;
        Ok(Self::External(etcd))
    }

    /// Which member leads; the first where nobody says.
    pub(super) fn leader(&self) -> Place {
        match self {
            Self::External(etcd) => etcd.leader().unwrap_or_default(),
            Self::Managed(managed) => managed.leader(),
        }
    }

    pub(super) fn kill(&mut self, member: Place) -> Result<()> {
        match self {
            Self::External(etcd) => etcd.member(member).kill(),
            Self::Managed(managed) => managed.kill(member),
        }
    }

    pub(super) fn kill_all(&mut self) -> Result<()> {
        match self {
            Self::External(etcd) => etcd.kill(),
            Self::Managed(managed) => (0..MEMBERS.into()).try_for_each(|member| managed.kill(member)),
        }
    }

    pub(super) fn kill_supervisor(&mut self, member: Place) -> Result<()> {
        match self {
            Self::External(_) => bail!("nothing watches over an external member"),
            Self::Managed(managed) => managed.kill_supervisor(member),
        }
    }

    /// Starts it again where nobody else does, and waits until it answers.
    pub(super) fn restart(&mut self, member: Place) -> Result<()> {
        match self {
            Self::External(etcd) => {
                let member = etcd.member(member);
                member.start()?;
                member.wait_ready()
            }
            Self::Managed(managed) => managed.is_well(member),
        }
    }

    pub(super) fn restart_all(&mut self) -> Result<()> {
        match self {
            Self::External(etcd) => etcd.start(),
            Self::Managed(managed) => (0..MEMBERS.into()).try_for_each(|member| managed.is_well(member)),
        }
    }

    pub(super) fn freeze(&mut self, member: Place) -> Result<()> {
        match self {
            Self::External(etcd) => etcd.member(member).pause(),
            Self::Managed(managed) => managed.freeze(member),
        }
    }

    pub(super) fn thaw(&mut self, member: Place) -> Result<()> {
        match self {
            Self::External(etcd) => {
                let member = etcd.member(member);
                member.resume()?;
                member.wait_ready()
            }
            Self::Managed(managed) => {
                managed.thaw(member)?;
                managed.is_well(member)
            }
        }
    }

    /// All changes of all records since the beginning. Nobody compacts it; managers do after a quarter of an hour.
    pub(super) fn history(&self) -> Result<Vec<Event>> {
        let said = match self {
            Self::External(etcd) => etcd.watch_from_start(PREFIX)?,
            Self::Managed(managed) => managed.ctl(&["watch", "--rev=1", "--prefix", PREFIX])?,
        };
        read(&said).context("what `etcdctl watch` says")
    }
}

/// Reads the lines of `etcdctl watch`: what happened, the key, the value, which may be of more than one line.
fn read(said: &str) -> Result<Vec<Event>> {
    let lines: Vec<_> = said.lines().collect();
    let begins = |at: &usize| {
        let key = lines.get(at + 1).is_some_and(|key| key.starts_with(PREFIX));
        key && matches!(lines[*at], "PUT" | "DELETE")
    };
    let begins: Vec<_> = (0..lines.len()).filter(begins).collect();
    ensure!(lines.is_empty() || begins.first() == Some(&0), "it begins with no event: {}", lines[0]);
    let mut history = Vec::new();
    for (place, at) in begins.iter().enumerate() {
        let end = begins.get(place + 1).copied().unwrap_or(lines.len());
        let key = lines[at + 1].strip_prefix(PREFIX).context("a key of somebody else")?.to_owned();
        let put = lines[*at] == "PUT";
        let value = if put { serde_json::from_str(&lines[at + 2..end].join("\n")).ok() } else { None };
        // Indexes hold no JSON, and nothing that is looked for.
        if !put || value.is_some() {
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
                    PUT\n/mesh/records/csr/1\n-----BEGIN\nPUT\nEND-----\n\nDELETE\n/mesh/records/svc/1\n\n";
        let history = read(said).unwrap();
        assert_eq!(history.len(), 2);
        assert_eq!(history[0].value.as_ref().unwrap()["name"], "web");
        assert_eq!(history[1], Event { key: "svc/1".into(), value: None });
        assert!(read("hello").is_err());
    }
}
