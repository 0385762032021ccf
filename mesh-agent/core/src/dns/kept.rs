//! **Decision.** Tasks' sockets of DNS that a service manager keeps while no agent runs: what they are called there, whose
//! each is when it comes back, and how many there may be.
//!
//! A socket holds its network namespace, so the number of one that has a socket is no other's: a name with that number is
//! the namespace's as long as the descriptor is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;

use super::SERVER;
use crate::model::TaskId;

/// Descriptors of ours begin with it.
const PREFIX: &str = "mesh-dns-";
/// The longest name that a service manager takes (`FDNAME=` in sd_notify(3)).
const LONGEST: usize = 255;
/// All names come to a new agent in one variable, one after the other, and the kernel starts no program with one of more than
/// 128 KiB. The rest is for whom else an administrator has something kept.
const ROOM: usize = 120 << 10;

/// What a descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A UDP socket that has this address.
    Udp(SocketAddrV4),
    /// A TCP socket that listens there.
    Tcp(SocketAddrV4),
    /// Anything else.
    Other,
}

/// A descriptor that came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it was called.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

impl Found {
    /// Whether an agent has given it away, and not somebody else.
    pub fn is_ours(&self) -> bool {
        self.name.starts_with(PREFIX)
    }
}

/// Both sockets of a task, as places among what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The one for datagrams.
    pub udp: usize,
    /// The one for connections.
    pub tcp: usize,
}

/// What a task's sockets are called, both the same: which is which can be seen. `None` if a manager would take no such name.
pub fn name(task: &TaskId, namespace: u64) -> Option<String> {
    let name = format!("{PREFIX}{namespace}-{task}");
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    (name.len() <= LONGEST && name.bytes().all(is_plain)).then_some(name)
}

/// A task's own sockets among those that were found, given the namespace in which it is now. Both or none, and of each kind one:
/// of several nobody can say to which the task's packets are led.
pub fn pair(found: &[Found], task: &TaskId, namespace: u64) -> Option<Pair> {
    let name = name(task, namespace)?;
    let mut own = found.iter().enumerate().filter(|(_, found)| found.name == name);
    let both = [own.next()?, own.next()?];
    let at = |address: SocketAddrV4| *address.ip() == SERVER && address.port() != 0;
    let place = |is: fn(Kind) -> Option<SocketAddrV4>| {
        let (place, _) = both.iter().find(|(_, found)| is(found.kind).is_some_and(at))?;
        Some(*place)
    };
    let pair = Pair {
        udp: place(|kind| if let Kind::Udp(address) = kind { Some(address) } else { None })?,
        tcp: place(|kind| if let Kind::Tcp(address) = kind { Some(address) } else { None })?,
    };
    own.next().is_none().then_some(pair)
}

/// What a service manager has of us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shelf {
    names: BTreeMap<TaskId, String>,
    /// What lies there and is no task's.
    rest: BTreeSet<String>,
}

impl Shelf {
    /// What lies there already, for nobody so far.
    pub fn of(found: &[Found]) -> Self {
        let ours = found.iter().filter(|found| found.is_ours());
        Self { names: BTreeMap::new(), rest: ours.map(|found| found.name.clone()).collect() }
    }

    /// What lies there is this task's.
    pub fn found(&mut self, task: &TaskId, namespace: u64) {
        if let Some(name) = name(task, namespace) {
            self.rest.remove(&name);
            self.names.insert(task.clone(), name);
        }
    }

    /// What a task's sockets are to be called there. `None`: there is no room, or no name for them.
    pub fn put(&mut self, task: &TaskId, namespace: u64) -> Option<String> {
        let name = name(task, namespace)?;
        let others = self.names.iter().filter(|(other, _)| *other != task).map(|(_, name)| name);
        // Two descriptors, and a colon after each.
        let taken: usize = others.chain(&self.rest).chain([&name]).map(|name| 2 * (name.len() + 1)).sum();
        (taken <= ROOM).then(|| {
            self.names.insert(task.clone(), name.clone());
            name
        })
    }

    /// What is to be taken away, if it is there, before anything is put there for this task.
    pub fn clear(&mut self, task: &TaskId, namespace: u64) -> Option<String> {
        name(task, namespace).filter(|name| self.rest.remove(name))
    }

    /// What is to be taken away when a task is served no more.
    pub fn take(&mut self, task: &TaskId) -> Option<String> {
        self.names.remove(task)
    }

    /// What is to be taken away when all tasks are served that there are.
    pub fn take_rest(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.rest)
    }
}

#[cfg(test)]
mod tests;
