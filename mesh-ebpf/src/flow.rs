//! The table of flows: a set-associative cache that lives in an array map.
//!
//! Each flow has one place, a bucket of four, and a flow is one cache line. The kernel's own LRU hash costs
//! several times as much per lookup and evicts whatever it finds, flows in use too. Here a bucket gives up, in
//! this order: nothing, what has expired, what is closing, what is only opening. What is established is never
//! given up: a flood of SYNs finds the bucket full, and its flows are balanced without being remembered. (What is to
//! be remembered for answers needs a place: it gets another source port, and so another bucket, or the flow is
//! lost.) The agent maps the same memory and reads a table of 16 MiB without a system call.
//!
//! Writers on several CPUs meet at [`Head`], one word that is compared and exchanged. It counts the flows that
//! its way has had, so that a reader notices when another one's was read half or whole. A way is never emptied
//! again, so that the search may end at the first empty one.

use core::marker::PhantomData;

use crate::abi::{Addr16, NetPort, Timeouts};
use crate::atomic;
use crate::packet::Tuple;

mod head;

pub use head::{Client, Head, Place, Role, states};

/// A tick is 2^30 ns, about a second: a shift and no division.
pub const TICK: u32 = 30;
/// Ways of a bucket.
pub const WAYS: usize = 4;

/// A flow: one cache line, for the map begins on a page.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The packet's addresses and ports as they come in.
    pub tuple: Tuple,
    /// Forward: the backend's port. Reply: the port that the client sent to.
    pub port: NetPort,
    /// The port that the client has towards the backend, and that of its own, where they differ; forward: the
    /// former, reply: the latter. Otherwise [`NetPort::ANY`].
    pub client_port: NetPort,
    /// What it is.
    pub head: u64,
    /// Reply: the address that the client sent to. Forward: see [`Flow::target`].
    pub addr: Addr16,
}

impl Flow {
    /// None.
    pub const EMPTY: Self = Self {
        tuple: Tuple::NONE,
        port: NetPort::ANY,
        client_port: NetPort::ANY,
        head: 0,
        addr: Addr16::ANY_V6,
    };

    /// The address field of a forward flow.
    #[inline(always)]
    pub const fn target(backend: u32, generation: u32, frontend: u32) -> Addr16 {
        Addr16([backend, generation, frontend, 0])
    }
}

/// The place of four flows. Value of `FLOWS_TCP` and `FLOWS_UDP`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket(pub [Flow; WAYS]);

const _: () = {
    assert!(size_of::<Flow>() == 64 && align_of::<Flow>() == 8);
    assert!(core::mem::offset_of!(Flow, head) == 40);
    assert!(size_of::<Bucket>() == 64 * WAYS);
};

/// A bucket that other CPUs read and write, too.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    ways: *mut Flow,
    table: PhantomData<&'a Bucket>,
}

/// A flow in its bucket, as it was when it was found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    flow: *mut Flow,
    /// What it was.
    pub head: Head,
    table: PhantomData<&'a Bucket>,
}

/// What became of a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It has a place that nobody needed.
    Placed,
    /// Another that was still counted gave way.
    Evicted,
    /// It is not remembered.
    Full,
}

impl<'a> Shared<'a> {
    /// A bucket of nobody else's.
    pub fn of(bucket: &'a mut Bucket) -> Self {
        Self { ways: bucket.0.as_mut_ptr(), table: PhantomData }
    }

    /// A bucket in a map.
    ///
    /// # Safety
    /// The pointer must be to a bucket that is readable and writable for `'a`.
    #[inline(always)]
    pub const unsafe fn at(bucket: *mut Bucket) -> Self {
        Self { ways: bucket.cast(), table: PhantomData }
    }

    #[inline(always)]
    const fn way(self, way: usize) -> *mut Flow {
        // SAFETY: callers count to WAYS.
        unsafe { self.ways.add(way) }
    }

    /// Whether no flow was ever here. A way is never emptied again, and the first is filled first.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        load(self.way(0)).is_empty()
    }

    /// Looks for a flow.
    #[inline(always)]
    pub fn find(self, tuple: &Tuple, role: Role) -> Option<Found<'a>> {
        let mut way = 0;
        while way < WAYS {
            let flow = self.way(way);
            let head = load(flow);
            if head.is_empty() {
                return None;
            }
            if head.is(role) && !head.has(Head::BUSY) && has(flow, tuple) {
                return Some(Found { flow, head, table: PhantomData });
            }
            way += 1;
        }
        None
    }

    /// Whether there is a place for a flow that is not known.
    #[inline(always)]
    pub fn has_room(self, proto: u8, now: u32, timeouts: &Timeouts) -> bool {
        let mut way = 0;
        while way < WAYS {
            if load(self.way(way)).spare(proto, now, timeouts) > 0 {
                return true;
            }
            way += 1;
        }
        false
    }

    /// Remembers a flow that [`Self::find`] did not find.
    #[inline(always)]
    pub fn insert(self, new: &Flow, proto: u8, now: u32, timeouts: &Timeouts) -> Inserted {
        let mut victim = 0;
        let mut best = 0;
        let mut old = Head::default();
        let mut way = 0;
        while way < WAYS {
            let head = load(self.way(way));
            let spare = head.spare(proto, now, timeouts);
            if spare > best || spare == best && spare > 0 && head.had_fewer(old) {
                (victim, best, old) = (way, spare, head);
            }
            if head.is_empty() {
                break;
            }
            way += 1;
        }
        let place = Found { flow: self.way(victim), head: old, table: PhantomData };
        if best == 0 || !place.replace(new) {
            return Inserted::Full;
        }
        if best < 3 { Inserted::Evicted } else { Inserted::Placed }
    }
}

impl Found<'_> {
    /// A copy of the entry; `None` if somebody else was given its place meanwhile.
    #[inline(always)]
    pub fn read(&self) -> Option<(NetPort, NetPort, Addr16)> {
        // SAFETY: see `Shared::at`. Volatile, for the compiler must not exchange these and the next of the head.
        let (port, client_port, addr) = unsafe {
            let word = (&raw const (*self.flow).addr).cast::<u32>();
            let first = [word.read_volatile(), word.add(1).read_volatile()];
            let last = [word.add(2).read_volatile(), word.add(3).read_volatile()];
            (
                (&raw const (*self.flow).port).read_volatile(),
                (&raw const (*self.flow).client_port).read_volatile(),
                Addr16([first[0], first[1], last[0], last[1]]),
            )
        };
        load(self.flow).is_still(self.head).then_some((port, client_port, addr))
    }

    /// Whether it says the same as another of the same tuple.
    #[inline(always)]
    pub fn leads_as(&self, other: &Flow) -> bool {
        // SAFETY: as in `read`.
        let mut difference = unsafe {
            let (port, client_port) = (&raw const (*self.flow).port, &raw const (*self.flow).client_port);
            u32::from(port.read_volatile().0 ^ other.port.0)
                | u32::from(client_port.read_volatile().0 ^ other.client_port.0)
        };
        let mut word = 0;
        while word < 4 {
            // SAFETY: as above; an address has four words.
            let there = unsafe { (&raw const (*self.flow).addr).cast::<u32>().add(word).read_volatile() };
            difference |= there ^ other.addr.0[word];
            word += 1;
        }
        difference == 0 && load(self.flow).is_still(self.head)
    }

    /// Gives it another head, unless somebody was faster. Whether it has another one now.
    #[inline(always)]
    pub fn set(&self, head: Head) -> bool {
        head != self.head && exchange(self.flow, self.head, head)
    }

    /// Puts another flow in this one's place, unless somebody was faster.
    #[inline(always)]
    pub fn replace(&self, new: &Flow) -> bool {
        if !exchange(self.flow, self.head, Head(Head::BUSY | self.head.0)) {
            return false;
        }
        // SAFETY: see `Shared::at`; the exchange made this CPU the only writer.
        unsafe {
            (*self.flow).tuple = new.tuple;
            (*self.flow).port = new.port;
            (*self.flow).client_port = new.client_port;
            (*self.flow).addr = new.addr;
            // Nothing of it may be written later than the head. An instruction of none, that no other passes.
            core::arch::asm!("");
            (&raw mut (*self.flow).head).write_volatile(self.head.before(new.head).0);
        }
        true
    }
}

/// Whether an entry is of a tuple. All words at once: one comparison, and no branch in between.
#[inline(always)]
fn has(flow: *const Flow, tuple: &Tuple) -> bool {
    // SAFETY: see `Shared::at`. Whatever another CPU does meanwhile, its bytes are some tuple. Volatile, for the
    // compiler must not read them before the head.
    let (src, dst, ports) = unsafe {
        let there = &raw const (*flow).tuple;
        let (src, dst) = ((&raw const (*there).src).cast::<u32>(), (&raw const (*there).dst).cast::<u32>());
        (src, dst, (&raw const (*there).ports).read_volatile())
    };
    let mut difference = ports ^ tuple.ports;
    let mut word = 0;
    while word < 4 {
        // SAFETY: as above; an address has four words.
        let (src, dst) = unsafe { (src.add(word).read_volatile(), dst.add(word).read_volatile()) };
        difference |= src ^ tuple.src.0[word];
        difference |= dst ^ tuple.dst.0[word];
        word += 1;
    }
    difference == 0
}

#[inline(always)]
fn load(flow: *mut Flow) -> Head {
    // SAFETY: see `Shared::at`; an aligned word.
    Head(unsafe { (&raw const (*flow).head).read_volatile() })
}

/// Puts `new` in the place of `old`, if that is what is there.
#[inline(always)]
fn exchange(flow: *mut Flow, old: Head, new: Head) -> bool {
    // SAFETY: see `Shared::at`; an aligned word.
    unsafe { atomic::compare_exchange(&raw mut (*flow).head, old.0, new.0) }
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
