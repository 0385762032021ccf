//! **Decision.** How many flows each backend has, where new ones go to whoever has the fewest. Pure.
//!
//! Programs count flows as they begin and end. Those that end without a word, and datagrams, which never say that they
//! were the last, are found by looking at the table now and then.

use std::collections::BTreeMap;

use mesh_core::model::Balancing;
use mesh_core::plan::Balance;
use mesh_ebpf::abi::{Addr16, NetPort, TCP, Timeouts};
use mesh_ebpf::flow::{self, Head, Role};

/// Whether any service wants it.
pub(super) fn counts(want: &Balance) -> bool {
    want.frontends.values().any(|pool| pool.balancing == Balancing::LeastConn)
}

/// A flow that a backend has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    /// Its number, and which of those that had it.
    pub(super) backend: u32,
    pub(super) generation: u32,
    /// Whether programs count it.
    pub(super) counted: bool,
}

/// The flows of a table that are not over.
pub(super) fn flows(
    table: impl Iterator<Item = flow::Flow>,
    proto: u8,
    now: u32,
    timeouts: Timeouts,
) -> impl Iterator<Item = Flow> {
    table.filter_map(move |flow| {
        let (head, [backend, generation, ..]) = (Head(flow.head), flow.addr.0);
        let lives = head.is(Role::Forward) && !head.is_over(proto, now, &timeouts);
        lives.then(|| Flow { backend, generation, counted: head.has(Head::COUNTED) })
    })
}

/// Where the connections of a table lead, as their clients know it, that have a task and were heard of in time. One that
/// only one side has ended still goes on.
pub(super) fn running(
    table: impl Iterator<Item = flow::Flow>,
    now: u32,
    timeouts: Timeouts,
    serves: impl Fn(u32, u32) -> bool,
) -> impl Iterator<Item = (Addr16, NetPort)> {
    table.filter_map(move |flow| {
        let (head, [backend, generation, ..]) = (Head(flow.head), flow.addr.0);
        let lives = head.is(Role::Forward) && head.age(now) <= head.timeout(TCP, &timeouts);
        (lives && serves(backend, generation)).then(|| (flow.tuple.dst, flow.tuple.dport()))
    })
}

/// By how much what programs counted is wrong, for each backend. While the table was looked at they went on, from
/// `before` to `after`: whatever lies in between may be right.
pub(super) fn corrections(
    flows: &BTreeMap<u32, i64>,
    before: &[i64],
    after: &[i64],
) -> impl Iterator<Item = (u32, i64)> {
    let counted = before.iter().zip(after).zip(0..);
    counted.filter_map(|((before, after), id)| {
        let found = flows.get(&id).copied().unwrap_or_default();
        let wrong = found - found.clamp(*before.min(after), *before.max(after));
        (wrong != 0).then_some((id, wrong))
    })
}

#[cfg(test)]
mod tests {
    use mesh_ebpf::flow::{Client, Place};
    use mesh_ebpf::packet::Tuple;

    use super::*;

    #[test]
    fn flows_count_until_they_are_over() {
        let client = Client { place: Place::Uplink, via: 2 };
        let of = |role, marks, states, backend| flow::Flow {
            head: Head::new(role, client, marks, 100).used(100, states).0,
            addr: flow::Flow::target(backend, 1, 1),
            ..flow::Flow::EMPTY
        };
        let table = [
            of(Role::Forward, Head::COUNTED, Head::ESTABLISHED, 7),
            of(Role::Forward, Head::COUNTED, Head::CLOSING, 7),
            of(Role::Forward, 0, Head::ESTABLISHED, 7),
            of(Role::Reply, Head::LOOPBACK, Head::ESTABLISHED, 7),
            of(Role::Forward, Head::COUNTED, 0, 8),
            flow::Flow::EMPTY,
        ];
        let at = |now| {
            let flows = flows(table.into_iter(), TCP, now, Timeouts::DEFAULT);
            flows.map(|flow| (flow.backend, flow.counted)).collect::<Vec<_>>()
        };
        assert_eq!(at(101), [(7, true), (7, false), (8, true)]);
        assert_eq!(at(100 + 61), [(7, true), (7, false)], "what only opens is forgotten sooner");
    }

    #[test]
    fn connections_run_until_their_task_has_gone_or_both_sides_are_silent() {
        let (client, to) = (Client { place: Place::Uplink, via: 2 }, Addr16::from_word(7));
        let of = |role, states, backend: u32| flow::Flow {
            head: Head::new(role, client, 0, 100).used(100, states).0,
            tuple: Tuple::new(to, NetPort::new(1), to, NetPort::new(8000 + backend as u16)),
            addr: flow::Flow::target(backend, 1, 1),
            ..flow::Flow::EMPTY
        };
        let table = [
            of(Role::Forward, Head::ESTABLISHED, 7),
            of(Role::Forward, Head::ESTABLISHED | Head::CLOSING, 8),
            of(Role::Forward, Head::ESTABLISHED, 9),
            of(Role::Reply, Head::ESTABLISHED, 10),
            flow::Flow::EMPTY,
        ];
        let at = |now| {
            let serves = |backend, generation| backend != 9 && generation == 1;
            let found = running(table.into_iter(), now, Timeouts::DEFAULT, serves);
            found.map(|(_, port)| port.number()).collect::<Vec<_>>()
        };
        assert_eq!(at(101), [8007, 8008]);
        assert_eq!(at(100 + 3600), [8007]);
    }

    #[test]
    fn only_what_cannot_be_right_is_corrected() {
        let flows = [(1, 5), (2, 9), (3, 2)].into();
        let found = corrections(&flows, &[0, 5, 4, 9, 3], &[0, 7, 6, 8, 3]);
        assert_eq!(found.collect::<Vec<_>>(), [(2, 3), (3, -6), (4, -3)]);
    }
}
