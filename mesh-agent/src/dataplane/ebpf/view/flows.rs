//! **Decision.** What a table of flows says. Pure.

use mesh_ebpf::abi::Timeouts;
use mesh_ebpf::flow::{Bucket, Head};

/// How full a table is. A flow takes one entry on the way to its task, and one on the way back at the node that
/// translates it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Entries that count.
    pub live: u64,
    /// Of those, established ones: they are never given up for others.
    pub established: u64,
    /// Entries that there is room for.
    pub slots: u64,
}

impl Occupancy {
    pub(super) fn of(
        buckets: impl Iterator<Item = Bucket>,
        proto: u8,
        now: u32,
        timeouts: &Timeouts,
    ) -> Self {
        let mut sum = Self::default();
        for flow in buckets.flat_map(|bucket| bucket.0) {
            let head = Head(flow.head);
            let live = !head.is_empty() && head.age(now) <= head.timeout(proto, timeouts);
            let established = live && head.has(Head::ESTABLISHED) && !head.has(Head::CLOSING);
            sum.slots += 1;
            sum.live += u64::from(live);
            sum.established += u64::from(established);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use mesh_ebpf::abi::TCP;
    use mesh_ebpf::flow::{Client, Flow, Place, Role, WAYS};

    use super::*;

    #[test]
    fn what_has_expired_does_not_count() {
        let client = Client { place: Place::Uplink, via: 0 };
        let head = |marks, now| Flow { head: Head::new(Role::Forward, client, marks, now).0, ..Flow::EMPTY };
        let bucket = [
            head(Head::ESTABLISHED, 100),
            head(0, 100),
            head(Head::ESTABLISHED | Head::CLOSING, 100),
            Flow::EMPTY,
        ];
        let at = |now| {
            let of = Occupancy::of([Bucket(bucket)].into_iter(), TCP, now, &Timeouts::default());
            assert_eq!(of.slots, WAYS as u64);
            (of.live, of.established)
        };
        assert_eq!(at(100), (3, 1));
        assert_eq!(at(100 + 61), (1, 1));
        assert_eq!(at(100 + 6 * 3600 + 1), (0, 0));
    }
}
