//! **Decision.** Which slot of a pool leads to which backend. Pure.
//!
//! A rule draws a number below a modulus, at random or by a hash, and looks the backend up. For random draws
//! each backend has a range as long as its weight. For hashes a Maglev table keeps most clients where they
//! are when a backend comes or goes, and is the same on every node.

use std::net::IpAddr;

use mesh_core::model::fnv64;
use mesh_core::plan::Backend;

/// Table sizes, all prime, so that every step visits every slot. A table has at least [`PER_BACKEND`] slots
/// for each backend, or else the largest size.
const SIZES: [u32; 3] = [251, 1021, 4093];
/// How many slots a backend should have, so that shares come out within a few percent.
const PER_BACKEND: usize = 8;

/// Consecutive slots of one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The first slot.
    pub(super) first: u32,
    /// The last slot.
    pub(super) last: u32,
    /// Where they lead.
    pub(super) address: IpAddr,
}

/// All slots of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slots {
    /// How many there are.
    pub(super) modulus: u32,
    /// In order, without gaps.
    pub(super) runs: Vec<Run>,
}

/// A range for each backend, as long as its weight; weights are reduced by what divides them all.
pub(super) fn by_weight(backends: &[Backend]) -> Slots {
    let divisor = backends.iter().map(weight).fold(0, gcd).max(1);
    let mut first = 0;
    let mut runs = Vec::with_capacity(backends.len());
    for backend in backends {
        let length = weight(backend) / divisor;
        runs.push(Run { first, last: first + length - 1, address: backend.address });
        first += length;
    }
    Slots { modulus: first, runs }
}

/// A Maglev table (Eisenbud et al., NSDI 2016, §3.4) in which each backend's number of slots goes by weight.
pub(super) fn by_hash(backends: &[Backend]) -> Slots {
    let wanted = backends.len() * PER_BACKEND;
    let size = SIZES.into_iter().find(|size| *size as usize >= wanted).unwrap_or(SIZES[SIZES.len() - 1]);
    let backends = &backends[..backends.len().min(size as usize)];
    let mut left = quotas(backends, size);
    let mut walks: Vec<(u32, u32)> = (backends.iter())
        .map(|backend| {
            let hash = fnv64(backend.id.as_str().as_bytes());
            // Both are below the size, which fits.
            ((hash % u64::from(size)) as u32, ((hash >> 32) % u64::from(size - 1)) as u32 + 1)
        })
        .collect();
    let mut table: Vec<Option<IpAddr>> = vec![None; size as usize];
    let mut free = size;
    while free > 0 {
        for (index, backend) in backends.iter().enumerate() {
            if left[index] == 0 {
                continue;
            }
            let (at, step) = &mut walks[index];
            while table[*at as usize].is_some() {
                *at = (*at + *step) % size;
            }
            table[*at as usize] = Some(backend.address);
            left[index] -= 1;
            free -= 1;
        }
    }
    let mut runs: Vec<Run> = Vec::new();
    for (slot, address) in (0..).zip(table.into_iter().flatten()) {
        match runs.last_mut() {
            Some(run) if run.address == address => run.last = slot,
            _ => runs.push(Run { first: slot, last: slot, address }),
        }
    }
    Slots { modulus: size, runs }
}

/// How many of `size` slots each backend gets: by weight, at least one, all given out.
fn quotas(backends: &[Backend], size: u32) -> Vec<u32> {
    let total: u64 = backends.iter().map(|backend| u64::from(weight(backend))).sum();
    let spare = u64::from(size) - backends.len() as u64;
    let mut given = 0;
    let mut quotas: Vec<u32> = (backends.iter())
        .map(|backend| {
            let share = spare * u64::from(weight(backend)) / total.max(1);
            given += share + 1;
            share as u32 + 1
        })
        .collect();
    let rest = u64::from(size) - given;
    let count = quotas.len();
    for slot in 0..rest {
        quotas[slot as usize % count] += 1;
    }
    quotas
}

fn weight(backend: &Backend) -> u32 {
    u32::from(backend.weight.max(1))
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{NodeId, TaskId};

    fn backends(weights: &[u16]) -> Vec<Backend> {
        (1u8..)
            .zip(weights)
            .map(|(n, weight)| Backend {
                id: TaskId::new(format!("task{n}")),
                slot: n.into(),
                address: IpAddr::from([10, 0, 0, n]),
                node: NodeId::new("n1"),
                local: true,
                weight: *weight,
            })
            .collect()
    }

    fn shares(slots: &Slots) -> Vec<u32> {
        let mut shares = vec![0; 256];
        let mut next = 0;
        for run in &slots.runs {
            assert_eq!(run.first, next, "no gaps");
            next = run.last + 1;
            let IpAddr::V4(address) = run.address else { panic!("{run:?}") };
            shares[usize::from(address.octets()[3])] += run.last - run.first + 1;
        }
        assert_eq!(next, slots.modulus);
        shares.into_iter().filter(|share| *share > 0).collect()
    }

    #[test]
    fn weights_are_reduced() {
        let slots = by_weight(&backends(&[100, 300]));
        assert_eq!((slots.modulus, shares(&slots)), (4, vec![1, 3]));
        assert_eq!(by_weight(&backends(&[7, 7, 7])).modulus, 3);
    }

    #[test]
    fn hash_tables_keep_to_weights_and_give_everyone_a_slot() {
        assert_eq!(shares(&by_hash(&backends(&[1, 1]))), [126, 125]);
        let uneven = shares(&by_hash(&backends(&[1, 65535, 3])));
        assert!(uneven[0] >= 1 && uneven[1] > 240, "{uneven:?}");
        let many = by_hash(&backends(&[1; 200]));
        assert_eq!((many.modulus, shares(&many).len()), (4093, 200));
    }

    #[test]
    fn only_relations_of_weights_count() {
        assert_eq!(by_hash(&backends(&[1, 7, 3])), by_hash(&backends(&[10, 70, 30])));
        assert_eq!(by_weight(&backends(&[1, 7, 3])), by_weight(&backends(&[10, 70, 30])));
    }

    #[test]
    fn a_leaving_backend_moves_few_others() {
        let owner = |slots: &Slots, slot| {
            slots
                .runs
                .iter()
                .find(|run| run.first <= slot && slot <= run.last)
                .map(|run| run.address)
                .unwrap()
        };
        let all = backends(&[1; 5]);
        let (before, after) = (by_hash(&all), by_hash(&all[..4]));
        let gone = all[4].address;
        let moved = (0..251)
            .filter(|slot| owner(&before, *slot) != gone && owner(&before, *slot) != owner(&after, *slot));
        assert!(moved.count() < 50, "about a fifth had to move anyway");
    }
}
