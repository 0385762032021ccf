//! **Effect.** The data planes: what makes the kernel balance, isolate and translate as planned.
//!
//! One contract ([`mesh_core::plan::Balance`]), several implementations; which one a node runs is its
//! configuration's choice.

pub mod conntrack;
pub mod ebpf;
pub mod nft;

use std::collections::BTreeSet;
use std::net::IpAddr;

/// The node's own addresses, of all devices.
fn addresses() -> Result<BTreeSet<IpAddr>, String> {
    match nix::ifaddrs::getifaddrs() {
        Ok(all) => Ok(all.filter_map(|one| address_of(&one)).collect()),
        Err(error) => Err(format!("cannot list the node's addresses: {error}")),
    }
}

fn address_of(one: &nix::ifaddrs::InterfaceAddress) -> Option<IpAddr> {
    let address = one.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}
