//! Hashes of flows.
//!
//! Two multiplications of 64 bits per hash, folded: what a mixing step of wyhash does, with constants whose bits
//! look random. It has to spread flows evenly and to be cheap, and a seed keeps others from predicting it.

use crate::abi::{Addr16, NetPort};
use crate::packet::Tuple;

const A: u64 = 0x9e37_79b9_7f4a_7c15;
const B: u64 = 0xd6e8_feb8_6659_fd93;

#[inline(always)]
const fn pair(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

#[inline(always)]
const fn mix(a: u64, b: u64, seed: u64) -> u32 {
    let x = (a ^ seed).wrapping_mul(A);
    let y = (b ^ (x >> 32) ^ seed.rotate_left(32)).wrapping_mul(B);
    let z = (x ^ y ^ (y >> 29)).wrapping_mul(A);
    (z >> 32) as u32
}

/// Where a flow is in its table.
#[inline(always)]
pub const fn place(tuple: &Tuple, seed: u64) -> u32 {
    let (src, dst) = (&tuple.src.0, &tuple.dst.0);
    let a = pair(src[3], dst[3]);
    // Both are constant for IPv4, and the compiler need not know.
    let b = pair(src[0] ^ dst[1].rotate_left(7), src[1] ^ dst[0].rotate_left(13));
    let c = pair(src[2] ^ dst[2].rotate_left(19), tuple.ports);
    mix(a, b.rotate_left(17) ^ c, seed)
}

/// Which slot a new flow of a client gets. Nothing of the node counts, so that it is the same on all.
#[inline(always)]
pub const fn slot(client: &Addr16, client_port: NetPort, port: NetPort, proto: u8, seed: u64) -> u32 {
    let c = &client.0;
    let ports = pair((client_port.0 as u32) << 16 | port.0 as u32, proto as u32);
    mix(pair(c[3], c[2]), pair(c[1], c[0]) ^ ports, seed)
}

/// Two of the bits of an address in the Bloom filter of VIPs.
#[inline(always)]
pub const fn bloom(addr: &Addr16) -> (u32, u32) {
    let a = &addr.0;
    let hash = mix(pair(a[3], a[2]), pair(a[1], a[0]), A);
    (hash, hash.rotate_left(16).wrapping_mul(0x85eb_ca6b))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn addr(text: &str) -> Addr16 {
        text.parse::<IpAddr>().unwrap().into()
    }

    /// Of flows that differ in little, as those of one client do, each place gets its share.
    #[test]
    fn similar_flows_are_spread_evenly() {
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let mut places = [0_u32; 256];
            let mut slots = [0_u32; 256];
            for port in 0..u16::MAX {
                let tuple = Tuple::new(addr(src), NetPort::new(port), addr(dst), NetPort::new(80));
                places[(place(&tuple, 42) & 255) as usize] += 1;
                slots[(slot(&tuple.src, tuple.sport(), tuple.dport(), 6, 42) & 255) as usize] += 1;
            }
            // 256 on average; seven standard deviations of a random choice.
            for counts in [places, slots] {
                assert!(counts.iter().all(|count| (144..=368).contains(count)), "{counts:?}");
            }
        }
    }

    #[test]
    fn clients_of_one_network_are_spread_evenly() {
        let mut slots = [0_u32; 64];
        for last in 0..=u16::MAX {
            let client = Addr16::from_word(u32::from_ne_bytes([10, 0, (last >> 8) as u8, last as u8]));
            slots[(slot(&client, NetPort::ANY, NetPort::ANY, 0, 7) & 63) as usize] += 1;
        }
        assert!(slots.iter().all(|count| (800..=1250).contains(count)), "{slots:?}");
    }

    /// Of flows and seeds that differ in little, hardly any agree in their places.
    #[test]
    fn a_seed_changes_all() {
        let mut same = [0; 2];
        for port in 0..1000 {
            let tuple = Tuple::new(addr("10.0.0.1"), NetPort::new(port), addr("10.0.0.2"), NetPort::new(80));
            let slot = |seed| slot(&tuple.src, tuple.sport(), tuple.dport(), 6, seed) & 255;
            same[0] += u32::from(place(&tuple, 1) & 255 == place(&tuple, 2) & 255);
            same[1] += u32::from(slot(1) == slot(2));
        }
        assert!(same.iter().all(|same| *same < 20), "{same:?}");
    }
}
