//! **Decision.** How many flows each backend has, where new ones go to whoever has the fewest. Pure.
//!
//! Programs count flows as they begin and end. Those that end without a word, and datagrams, which never say that they
//! were the last, are found by looking at the table now and then.

use std::collections::BTreeMap;

use mesh_core::model::Balancing;
use mesh_core::plan::Balance;
use mesh_ebpf::abi::Timeouts;
use mesh_ebpf::flow::{Bucket, Head, Role};

/// Whether any service wants it.
pub(super) fn counts(want: &Balance) -> bool {
    want.frontends.values().any(|pool| pool.balancing == Balancing::LeastConn)
}

/// Adds the flows of a table to those that each backend has.
pub(super) fn add(
    flows: &mut BTreeMap<u32, i64>,
    table: impl Iterator<Item = Bucket>,
    proto: u8,
    now: u32,
    timeouts: &Timeouts,
) {
    for flow in table.flat_map(|bucket| bucket.0) {
        let head = Head(flow.head);
        if head.is(Role::Forward) && head.has(Head::COUNTED) && !head.is_over(proto, now, timeouts) {
            *flows.entry(flow.addr.0[0]).or_default() += 1;
        }
    }
}

/// Adds all flows of a table, counted by programs or not, to those that each backend has had since it got its number.
pub(super) fn add_all(
    flows: &mut BTreeMap<(u32, u32), u64>,
    table: impl Iterator<Item = Bucket>,
    proto: u8,
    now: u32,
    timeouts: &Timeouts,
) {
    for flow in table.flat_map(|bucket| bucket.0) {
        let head = Head(flow.head);
        if head.is(Role::Forward) && !head.is_over(proto, now, timeouts) {
            let [id, generation, ..] = flow.addr.0;
            *flows.entry((id, generation)).or_default() += 1;
        }
    }
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
    use mesh_ebpf::abi::TCP;
    use mesh_ebpf::flow::{Client, Flow, Place, WAYS};

    use super::*;

    #[test]
    fn flows_count_until_they_are_over() {
        let client = Client { place: Place::Uplink, via: 2 };
        let of = |role, marks, states, backend| Flow {
            head: Head::new(role, client, marks, 100).used(100, states).0,
            addr: Flow::target(backend, 1, 1),
            ..Flow::EMPTY
        };
        let mut bucket = [Flow::EMPTY; WAYS];
        bucket[0] = of(Role::Forward, Head::COUNTED, Head::ESTABLISHED, 7);
        bucket[1] = of(Role::Forward, Head::COUNTED, Head::CLOSING, 7);
        bucket[2] = of(Role::Forward, 0, Head::ESTABLISHED, 7);
        bucket[3] = of(Role::Reply, Head::LOOPBACK, Head::ESTABLISHED, 7);
        let mut other = [Flow::EMPTY; WAYS];
        other[0] = of(Role::Forward, Head::COUNTED, 0, 8);
        let at = |now| {
            let mut flows = BTreeMap::new();
            add(&mut flows, [Bucket(bucket), Bucket(other)].into_iter(), TCP, now, &Timeouts::DEFAULT);
            flows
        };
        assert_eq!(at(101), [(7, 1), (8, 1)].into());
        assert_eq!(at(100 + 61), [(7, 1)].into(), "what only opens is forgotten sooner");
        let mut all = BTreeMap::new();
        add_all(&mut all, [Bucket(bucket), Bucket(other)].into_iter(), TCP, 101, &Timeouts::DEFAULT);
        assert_eq!(all, [((7, 1), 2), ((8, 1), 1)].into(), "those, too, that no program counts");
    }

    #[test]
    fn only_what_cannot_be_right_is_corrected() {
        let flows = [(1, 5), (2, 9), (3, 2)].into();
        let found = corrections(&flows, &[0, 5, 4, 9, 3], &[0, 7, 6, 8, 3]);
        assert_eq!(found.collect::<Vec<_>>(), [(2, 3), (3, -6), (4, -3)]);
    }
}
