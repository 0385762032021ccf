//! **Fact.** Sockets that were led to a task as they connected: what the maps know of them, and what the kernel knows of
//! the sockets themselves.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use mesh_ebpf::abi::{Addr16, NetPort, SocketKey, SocketOrigin};

use super::super::EbpfError;
use super::super::kill::{Diag, Seen};
use super::super::members;
use super::flows::Task;
use super::{Asked, Live, State, View, flows};
use crate::netns::Netns;

/// States of TCP (linux/tcp_states.h).
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
/// What UDP says of a socket that is not connected.
const CLOSE: u8 = 7;

impl View {
    /// The flows of sockets in a namespace that are led to tasks instead of where they are asked to go, at most so many.
    pub fn led(&self, asked: &Asked, netns: &Netns, most: usize) -> Result<Vec<Live>, EbpfError> {
        let failed = |source| EbpfError::Sockets { source };
        let cookie = netns.run(members::cookie).map_err(io::Error::other).flatten().map_err(failed)?;
        let (destination, port) = (Addr16::from(asked.destination), NetPort::new(asked.port));
        let of =
            |origin: &SocketOrigin| (origin.netns, origin.addr, origin.port) == (cookie, destination, port);
        // One that is removed while they are listed has ended.
        let led: BTreeMap<u64, (SocketKey, SocketOrigin)> = self
            .origins
            .iter()
            .flatten()
            .filter(|(_, origin)| of(origin))
            .map(|one| (one.0.cookie, one))
            .collect();
        if led.is_empty() {
            return Ok(Vec::new());
        }
        let mut diag = netns.run(Diag::open).map_err(io::Error::other).flatten().map_err(failed)?;
        let mut live = Vec::new();
        for seen in diag.list(asked.proto).map_err(failed)? {
            let Some((key, origin)) = led.get(&seen.cookie) else { continue };
            if asked.client_port.is_none_or(|asked| asked == seen.port) && live.len() < most {
                live.extend(self.name(read(&seen, key, origin), asked));
            }
        }
        Ok(live)
    }
}

/// What is known of a socket.
fn read(seen: &Seen, key: &SocketKey, origin: &SocketOrigin) -> flows::Read {
    let live = Live {
        client_port: seen.port,
        changed_port: None,
        task: None,
        port: key.port.number(),
        state: match seen.state {
            ESTABLISHED | CLOSE => State::Established,
            SYN_SENT | SYN_RECV => State::Opening,
            _ => State::Closing,
        },
        idle: Duration::from_millis(seen.idle.into()),
        here: false,
        entered: None,
        direct: false,
        at_socket: true,
    };
    flows::Read { live, task: Task::Backend { id: origin.backend, generation: origin.generation } }
}
