//! What holds for the whole node.

use super::{Addr16, Mac, TCP};

/// How long an idle flow is remembered, in ticks of [`crate::flow::TICK`], by all that it depends on: its protocol, its
/// states, and what its service wishes. A table, because it is asked for several times a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts([u32; Self::ALL]);

/// The same, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// TCP, only the client was heard.
    pub opening: u32,
    /// TCP, established.
    pub established: u32,
    /// One side has ended.
    pub closing: u32,
    /// UDP, heard once.
    pub datagram: u32,
    /// UDP, heard again.
    pub stream: u32,
}

impl Timeouts {
    /// How many steps of wishes there are; the first is none.
    pub const STEPS: usize = 16;
    const ALL: usize = 2 * 4 * Self::STEPS;
    /// Six hours for what is established: nobody's idle connection is cut before its own keep-alive
    /// (two hours, RFC 9293 §3.8.4) had several turns.
    pub const DEFAULT: Self =
        Self::new(Named { opening: 60, established: 6 * 3600, closing: 60, datagram: 30, stream: 180 });
    /// What a service may wish for what is established, in seconds.
    pub const WISHES: [u32; Self::STEPS] = {
        let (m, h) = (60, 3600);
        [0, 10, 30, m, 2 * m, 5 * m, 15 * m, 30 * m, h, 2 * h, 6 * h, 12 * h, 24 * h, 48 * h, 96 * h, 120 * h]
    };

    /// With these, where a service wishes nothing.
    pub const fn new(named: Named) -> Self {
        let mut all = [0; Self::ALL];
        let mut index = 0;
        while index < Self::ALL {
            let (tcp, state, step) = (index / 64 == 1, index / Self::STEPS % 4, index % Self::STEPS);
            let (established, closing) = (state & 1 != 0, state & 2 != 0);
            all[index] = if closing {
                named.closing
            } else if step != 0 && (established || !tcp) {
                Self::WISHES[step]
            } else {
                match (tcp, established) {
                    (true, false) => named.opening,
                    (true, true) => named.established,
                    (false, false) => named.datagram,
                    (false, true) => named.stream,
                }
            };
            index += 1;
        }
        Self(all)
    }

    /// Of a flow in a state (its lowest bit: established, the next: closing), with a step of its service's wish.
    #[inline(always)]
    pub const fn of(&self, proto: u8, state: u32, step: u32) -> u32 {
        let tcp = (proto == TCP) as u32;
        self.0[(tcp << 6 | (state & 3) << 4 | step & 15) as usize]
    }

    /// The step of what a service asks for: the first that is long enough, or else the last. A flow has four bits for
    /// it, and carries them to other nodes.
    pub const fn step(seconds: u32) -> u32 {
        let mut step = 1;
        while step < Self::STEPS - 1 && Self::WISHES[step] < seconds {
            step += 1;
        }
        step as u32
    }
}

/// What makes nanoseconds of the kernel's count of timer interrupts, "jiffies", which a program reads in no time at all.
/// A clock that is read by a call costs as much as the search for a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Nanoseconds of one.
    pub jiffy: u64,
    /// What is to be added, for the clock that never goes back (`CLOCK_MONOTONIC`).
    pub offset: u64,
}

impl Clock {
    /// Stands still.
    pub const NONE: Self = Self { jiffy: 0, offset: 0 };

    /// When `jiffies` are counted at `now`, in nanoseconds, of which each is `jiffy` long.
    pub const fn new(jiffy: u64, jiffies: u64, now: u64) -> Self {
        Self { jiffy, offset: now.wrapping_sub(jiffies.wrapping_mul(jiffy)) }
    }

    /// Nanoseconds.
    #[inline(always)]
    pub const fn nanos(&self, jiffies: u64) -> u64 {
        jiffies.wrapping_mul(self.jiffy).wrapping_add(self.offset)
    }
}

/// Value of `CONFIG`. What is needed of it for nearly each packet is in its first line of the cache, and the timeouts.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Places flows in their tables; random, so that nobody outside can aim at one place.
    pub table_seed: u64,
    /// Chooses backends where nodes need not agree; random.
    pub node_seed: u64,
    /// Chooses backends where all nodes agree.
    pub mesh_seed: u64,
    /// What the time is.
    pub clock: Clock,
    /// Buckets of `FLOWS_TCP` less one; the number is a power of two.
    pub tcp_mask: u32,
    /// Buckets of `FLOWS_UDP` less one.
    pub udp_mask: u32,
    /// The tunnel device; 0: none.
    pub tunnel: u32,
    /// Bytes of an IP packet that fit into the tunnel.
    pub tunnel_mtu: u32,
    /// The MAC of the tunnel device.
    pub mac: Mac,
    /// Whether somebody watches: 1, and then records are written; otherwise 0.
    pub watched: u8,
    /// Whether flows are on their way here from other maps: 1, and then segments of those that are not known are lost,
    /// and come again; otherwise 0.
    pub moving: u8,
    /// When flows are forgotten.
    pub timeouts: Timeouts,
    /// The addresses of the node that clients use most, of IPv4 and IPv6: those that are compared before `LOCALS` is
    /// asked.
    pub here: [Addr16; 2],
    /// What `bpf_l4_csum_replace` wants to be told of IPv6 (`BPF_F_IPV6`), where the kernel knows it.
    pub csum_v6: u32,
    /// Zero.
    pub end: u32,
}

impl Config {
    /// `BPF_F_IPV6` of linux/bpf.h.
    pub const CSUM_V6: u32 = 0x80;
    /// Of a node that nobody has told anything.
    pub const NEW: Self = Self {
        table_seed: 0,
        node_seed: 0,
        mesh_seed: 0,
        clock: Clock::NONE,
        tcp_mask: 0,
        udp_mask: 0,
        tunnel: 0,
        tunnel_mtu: 0,
        mac: [0; 6],
        watched: 0,
        moving: 0,
        timeouts: Timeouts::DEFAULT,
        here: [Addr16::ANY_V6; 2],
        csum_v6: 0,
        end: 0,
    };

    /// Whether an address is one of [`Self::here`].
    #[inline(always)]
    pub fn is_here(&self, addr: &Addr16) -> bool {
        self.here.contains(addr) && *addr != Addr16::ANY_V6
    }
}

const _: () = {
    assert!(size_of::<Config>() == 616);
    assert!(core::mem::offset_of!(Config, timeouts) == 64);
};
