//! What tasks of this node make of connections that they are given: by this sick ones are found.
//!
//! Only what begins and ends connections is looked at, and only at ports that a task is known to serve: whoever tries
//! other ones learns something of the task, and the mesh nothing.

use crate::abi::{Addr16, NetPort, ServedKey, Sign, TCP};
use crate::kernel::Kernel;
use crate::packet::Packet;

/// Where a packet is seen that says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Seen {
    /// It is translated, and goes to a task: what begins a connection.
    Given = 0,
    /// The same between addresses of a network.
    Passed = 1,
    /// A task sent it.
    Sent = 2,
    /// A task sent it: an ICMP error.
    Error = 3,
}

/// Counts what a packet says of a task. `of`: the network that it is passed in, or the device of the task that sent it.
///
/// What a task sends counts only with its own address, and what it sends to another only within their network: all else
/// goes no further than the gates, and would speak for others.
#[inline(always)]
pub fn sign<K: Kernel>(k: &K, packet: &Packet, seen: Seen, of: u32) {
    let tuple = &packet.tuple;
    match seen {
        Seen::Given => note(k, packet.sent.dst, packet.sent.dport(), TCP, None, Sign::Begun),
        Seen::Passed => note(k, tuple.dst, tuple.dport(), TCP, Some(of), Sign::Begun),
        Seen::Sent | Seen::Error => {
            let Some(vni) = k.endpoint(of).filter(|task| task.owns(&tuple.src)).map(|task| task.vni) else {
                return;
            };
            if seen == Seen::Error {
                // About what came to the task itself, and not about what it forwards.
                if packet.is_unreachable() && packet.quoted.dst == tuple.src {
                    let (port, proto) = (packet.quoted.dport(), packet.quoted_proto);
                    let sign = if proto == TCP { Sign::Refused } else { Sign::Unreachable };
                    note(k, tuple.src, port, proto, Some(vni), sign);
                }
            } else if packet.is_syn() {
                note(k, tuple.dst, tuple.dport(), TCP, Some(vni), Sign::Begun);
            } else if packet.takes_up() {
                note(k, tuple.src, tuple.sport(), TCP, Some(vni), Sign::Answered);
            } else if packet.turns_down() {
                note(k, tuple.src, tuple.sport(), TCP, Some(vni), Sign::Refused);
            }
        }
    }
}

#[inline(always)]
fn note<K: Kernel>(k: &K, addr: Addr16, port: NetPort, proto: u8, vni: Option<u32>, sign: Sign) {
    if let Some(served) = k.served(&ServedKey::new(addr, port, proto))
        && vni.is_none_or(|vni| vni == served.vni)
    {
        k.note(served.index, sign);
    }
}
