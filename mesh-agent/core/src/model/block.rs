//! How a network's subnets are cut: one part for VIPs, equal blocks for nodes.
//!
//! A /16 gives a /20 of VIPs and 240 blocks of /24. A node claims whole blocks, so that it can give a task an
//! address without asking anyone, and so that every other node needs one route per block, not per task.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{Network, TaskAddress, Vip};

/// The smallest IPv4 subnet that can still be cut.
pub const MAX_V4_PREFIX: u8 = 26;
/// The largest IPv4 subnet that makes sense.
pub const MIN_V4_PREFIX: u8 = 8;
/// The largest IPv6 subnet that makes sense.
pub const MIN_V6_PREFIX: u8 = 16;
/// The smallest IPv6 subnet that can still be cut.
pub const MAX_V6_PREFIX: u8 = 96;

/// One block of a network: the same number in IPv4 and IPv6.
///
/// Inside a block, address 1 is the node's own (what traffic of the node itself comes from), the last is left
/// out, and the others are for tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Block(pub u32);

/// One sixteenth of the subnet is for VIPs.
const VIP_BITS: u8 = 4;

impl Network {
    fn v4_block_prefix(&self) -> u8 {
        let prefix = self.v4.prefix_len();
        if prefix <= 16 { 24 } else { (prefix + 8).min(28).max(prefix + VIP_BITS) }
    }

    /// Whether its subnets can be cut at all; `Err` says what is wrong.
    pub fn check_sizes(&self) -> Result<(), String> {
        let v4 = self.v4.prefix_len();
        if !(MIN_V4_PREFIX..=MAX_V4_PREFIX).contains(&v4) {
            return Err(format!("a /{v4} is no size for a network: /{MIN_V4_PREFIX} to /{MAX_V4_PREFIX}"));
        }
        match self.v6.map(|net| net.prefix_len()) {
            Some(v6) if !(MIN_V6_PREFIX..=MAX_V6_PREFIX).contains(&v6) => {
                Err(format!("a /{v6} is no size for a network: /{MIN_V6_PREFIX} to /{MAX_V6_PREFIX}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// How many addresses of the VIP pool can be given out: 1 to the last but one.
    pub fn vip_count(&self) -> u32 {
        (1u32 << (32 - self.v4.prefix_len() - VIP_BITS)) - 2
    }

    /// The VIP of a pool place, 1 to [`Network::vip_count`].
    pub fn vip(&self, place: u32) -> Vip {
        Vip {
            v4: offset_v4(self.v4.network(), place),
            v6: self.v6.map(|net| offset_v6(net.network(), u128::from(place))),
        }
    }

    /// Block numbers that exist. The first ones are left out: there the VIPs are.
    pub fn blocks(&self) -> std::ops::Range<u32> {
        let bits = self.v4_block_prefix() - self.v4.prefix_len();
        let count = 1u32 << bits;
        (count >> VIP_BITS)..count
    }

    /// The IPv4 addresses of a block.
    pub fn block_v4(&self, block: Block) -> Ipv4Net {
        let prefix = self.v4_block_prefix();
        let base = offset_v4(self.v4.network(), block.0 << (32 - prefix));
        Ipv4Net::new_assert(base, prefix)
    }

    /// The IPv6 addresses of a block.
    pub fn block_v6(&self, block: Block) -> Option<Ipv6Net> {
        let net = self.v6?;
        // 2^24 blocks at most come out of an IPv4 subnet; 24 more bits hold every block number.
        let prefix = net.prefix_len() + 24;
        let base = offset_v6(net.network(), u128::from(block.0) << (128 - prefix));
        Some(Ipv6Net::new_assert(base, prefix))
    }

    /// All prefixes of a block, IPv4 first.
    pub fn block_nets(&self, block: Block) -> impl Iterator<Item = IpNet> {
        std::iter::once(IpNet::V4(self.block_v4(block))).chain(self.block_v6(block).map(IpNet::V6))
    }

    /// The node's own addresses in a block.
    pub fn gateway(&self, block: Block) -> TaskAddress {
        self.address_in(block, 1)
    }

    /// Places in a block that can be given to tasks.
    pub fn task_places(&self) -> std::ops::RangeInclusive<u32> {
        let size = 1u32 << (32 - self.v4_block_prefix());
        2..=size - 2
    }

    /// The addresses at a place of a block.
    pub fn address_in(&self, block: Block, place: u32) -> TaskAddress {
        TaskAddress {
            v4: offset_v4(self.block_v4(block).network(), place),
            v6: self.block_v6(block).map(|net| offset_v6(net.network(), u128::from(place))),
        }
    }

    /// The block that an address belongs to, if it is in this network and not a VIP.
    pub fn block_of(&self, address: IpAddr) -> Option<Block> {
        let number = match address {
            IpAddr::V4(a) if self.v4.contains(&a) => {
                (u32::from(a) - u32::from(self.v4.network())) >> (32 - self.v4_block_prefix())
            }
            IpAddr::V6(a) => {
                let net = self.v6.filter(|net| net.contains(&a))?;
                u32::try_from((u128::from(a) - u128::from(net.network())) >> (104 - net.prefix_len())).ok()?
            }
            IpAddr::V4(_) => return None,
        };
        self.blocks().contains(&number).then_some(Block(number))
    }
}

fn offset_v4(base: Ipv4Addr, by: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(base).wrapping_add(by))
}

fn offset_v6(base: Ipv6Addr, by: u128) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(base).wrapping_add(by))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NetworkId, Vni};

    fn network(v4: &str, v6: Option<&str>) -> Network {
        Network {
            id: NetworkId::new("n"),
            name: "app".parse().unwrap(),
            v4: v4.parse().unwrap(),
            v6: v6.map(|net| net.parse().unwrap()),
            vni: Vni(4096),
            mtu: None,
            internal: false,
            encrypted: false,
            labels: Default::default(),
            created: 0,
        }
    }

    #[test]
    fn a_16_is_cut_as_documented() {
        let net = network("10.0.0.0/16", Some("fd00:1::/64"));
        assert_eq!(net.blocks(), 16..256);
        assert_eq!(net.block_v4(Block(16)).to_string(), "10.0.16.0/24");
        assert_eq!(net.block_v6(Block(16)).unwrap().to_string(), "fd00:1::1000:0:0/88");
        assert_eq!(net.vip_count(), 4094);
        assert_eq!(net.vip(1).v4.to_string(), "10.0.0.1");
        assert_eq!(net.gateway(Block(255)).v4.to_string(), "10.0.255.1");
        assert_eq!(net.task_places(), 2..=254);
    }

    /// Every legal size: VIPs and blocks never meet, blocks lie inside, and addresses map back to their block.
    #[test]
    fn every_size_is_cut_without_overlap() {
        for prefix in MIN_V4_PREFIX..=MAX_V4_PREFIX {
            let net = network(&format!("10.0.0.0/{prefix}"), Some("fd00::/48"));
            let first = net.block_v4(Block(net.blocks().start));
            assert!(u32::from(net.vip(net.vip_count()).v4) < u32::from(first.network()), "/{prefix}");
            let last = net.block_v4(Block(net.blocks().end - 1));
            assert!(net.v4.contains(&last), "/{prefix}");
            assert_eq!(last.broadcast(), net.v4.broadcast(), "/{prefix}: nothing is wasted");
            assert!(net.task_places().count() >= 1, "/{prefix}");
            for number in [net.blocks().start, net.blocks().end - 1] {
                for place in [1, *net.task_places().start(), *net.task_places().end()] {
                    let address = net.address_in(Block(number), place);
                    assert_eq!(net.block_of(address.v4.into()), Some(Block(number)), "/{prefix}");
                    assert_eq!(net.block_of(address.v6.unwrap().into()), Some(Block(number)), "/{prefix}");
                }
            }
            assert_eq!(net.block_of(net.vip(1).v4.into()), None);
        }
    }
}
