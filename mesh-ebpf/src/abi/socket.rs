//! What is remembered of sockets that were led to a backend.

use super::{Addr16, NetPort};

/// Key of `SOCK_REV` and `SOCK_FWD`: a socket, and where one of its flows goes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketKey {
    /// The socket's cookie: no two sockets ever have the same.
    pub cookie: u64,
    /// `SOCK_REV`: the backend's address. `SOCK_FWD`: the address that the process sends to.
    pub addr: Addr16,
    /// The port there.
    pub port: NetPort,
    /// Zero.
    pub pad: [u8; 6],
}

impl SocketKey {
    /// Of a socket's flow to or from there.
    #[inline(always)]
    pub const fn new(cookie: u64, addr: Addr16, port: NetPort) -> Self {
        Self { cookie, addr, port, pad: [0; 6] }
    }
}

/// Value of `SOCK_REV`: what the process takes the backend for, and who that is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOrigin {
    /// The network namespace of the socket: its cookie.
    pub netns: u64,
    /// The address that the process sends to.
    pub addr: Addr16,
    /// The backend's id.
    pub backend: u32,
    /// [`super::Backend::generation`] then.
    pub generation: u32,
    /// The port that the process sends to.
    pub port: NetPort,
    /// Zero.
    pub pad: [u8; 6],
}

/// Value of `SOCK_FWD`: where the datagrams of an unconnected socket go.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketChoice {
    /// The backend's id.
    pub backend: u32,
    /// [`super::Backend::generation`] then.
    pub generation: u32,
    /// When it was last used, in ticks of [`crate::flow::TICK`].
    pub seen: u32,
    /// Zero.
    pub pad: u32,
}

/// Key of `NETNS`: a network namespace, and a network that it is in.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsKey {
    /// The namespace's cookie.
    pub cookie: u64,
    /// The network, or [`Self::NODE`].
    pub vni: u32,
    /// Zero.
    pub pad: u32,
}

impl NetnsKey {
    /// No network has this number: the key of the node's own namespace, which is in all of them.
    pub const NODE: u32 = 0;

    /// A namespace in a network.
    #[inline(always)]
    pub const fn new(cookie: u64, vni: u32) -> Self {
        Self { cookie, vni, pad: 0 }
    }
}

const _: () = {
    assert!(size_of::<SocketKey>() == 32 && align_of::<SocketKey>() == 8);
    assert!(size_of::<SocketOrigin>() == 40);
    assert!(size_of::<SocketChoice>() == 16);
    assert!(size_of::<NetnsKey>() == 16);
};
