//! The programs at sockets: a process's own calls, before there is a packet.
//!
//! One for each call and family, as the kernel wants it. A socket of IPv6 that speaks IPv4 has mapped addresses,
//! which is what [`Addr16`] has anyway.

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock_addr,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_set_retval},
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use mesh_ebpf::abi::{Addr16, NetPort, NetnsKey, Record, SocketChoice, SocketKey, SocketOrigin, TCP, UDP};
use mesh_ebpf::sock::{self, Outcome, Place, Socket};

use super::maps::{NETNS, RECORDS, SOCK_FWD, SOCK_REV, TOLD};
use super::node::Node;
use super::tell::{RECORDS_AT_ONCE, within};

/// The call goes on.
const GO: i32 = 1;
/// The call fails.
const FAIL: i32 = 0;
/// `ECONNREFUSED`.
const REFUSED: i32 = -111;

#[cgroup_sock_addr(connect4)]
fn mesh_connect4(ctx: SockAddrContext) -> i32 {
    lead::<false, false>(ctx)
}

#[cgroup_sock_addr(connect6)]
fn mesh_connect6(ctx: SockAddrContext) -> i32 {
    lead::<true, false>(ctx)
}

#[cgroup_sock_addr(sendmsg4)]
fn mesh_sendmsg4(ctx: SockAddrContext) -> i32 {
    lead::<false, true>(ctx)
}

#[cgroup_sock_addr(sendmsg6)]
fn mesh_sendmsg6(ctx: SockAddrContext) -> i32 {
    lead::<true, true>(ctx)
}

#[cgroup_sock_addr(recvmsg4)]
fn mesh_recvmsg4(ctx: SockAddrContext) -> i32 {
    name::<false>(ctx)
}

#[cgroup_sock_addr(recvmsg6)]
fn mesh_recvmsg6(ctx: SockAddrContext) -> i32 {
    name::<true>(ctx)
}

#[cgroup_sock_addr(getpeername4)]
fn mesh_getpeer4(ctx: SockAddrContext) -> i32 {
    name::<false>(ctx)
}

#[cgroup_sock_addr(getpeername6)]
fn mesh_getpeer6(ctx: SockAddrContext) -> i32 {
    name::<true>(ctx)
}

/// A connection, or a datagram of a socket that has none.
#[inline(always)]
fn lead<const V6: bool, const DATAGRAM: bool>(ctx: SockAddrContext) -> i32 {
    let Some(node) = Node::get() else { return GO };
    let call = Call::<V6, DATAGRAM> { node, ctx: ctx.sock_addr };
    let mut place = call.place();
    let outcome = if DATAGRAM { sock::send(&call, &mut place) } else { sock::connect(&call, &mut place) };
    if outcome == Outcome::REPLACED {
        call.replace(&place);
    }
    if outcome == Outcome::REFUSE {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_set_retval(REFUSED) };
        return FAIL;
    }
    GO
}

/// The name of the other end. Nothing can be refused here.
#[inline(always)]
fn name<const V6: bool>(ctx: SockAddrContext) -> i32 {
    let Some(node) = Node::get() else { return GO };
    let call = Call::<V6, false> { node, ctx: ctx.sock_addr };
    let mut place = call.place();
    if sock::name(&call, &mut place) == Outcome::REPLACED {
        call.replace(&place);
    }
    GO
}

/// A call in progress: of which family, and whether it sends a datagram.
struct Call<const V6: bool, const DATAGRAM: bool> {
    node: Node,
    ctx: *mut bpf_sock_addr,
}

impl<const V6: bool, const DATAGRAM: bool> Call<V6, DATAGRAM> {
    /// The address that the call is about.
    #[inline(always)]
    fn place(&self) -> Place {
        // SAFETY: fields that programs of this family may read.
        unsafe {
            let addr = if V6 {
                words(&raw const (*self.ctx).user_ip6)
            } else {
                Addr16::from_word((*self.ctx).user_ip4)
            };
            Place { addr, port: NetPort((*self.ctx).user_port as u16) }
        }
    }

    /// Gives it another.
    #[inline(always)]
    fn replace(&self, place: &Place) {
        // SAFETY: fields that programs of this family may write, word by word.
        unsafe {
            if V6 {
                let word = (&raw mut (*self.ctx).user_ip6).cast::<u32>();
                word.write_volatile(place.addr.0[0]);
                word.add(1).write_volatile(place.addr.0[1]);
                word.add(2).write_volatile(place.addr.0[2]);
                word.add(3).write_volatile(place.addr.0[3]);
            } else {
                (*self.ctx).user_ip4 = place.addr.0[3];
            }
            (*self.ctx).user_port = u32::from(place.port.0);
        }
    }

    /// The address that it sends from, if that is settled.
    #[inline(always)]
    fn source(&self) -> Addr16 {
        // SAFETY: fields that programs of this family may read: the former only where a datagram is sent.
        unsafe {
            let sk = (*self.ctx).__bindgen_anon_1.sk;
            match (V6, DATAGRAM) {
                (false, true) => Addr16::from_word((*self.ctx).msg_src_ip4),
                (true, true) => words(&raw const (*self.ctx).msg_src_ip6),
                (false, false) => Addr16::from_word((*sk).src_ip4),
                (true, false) => words(&raw const (*sk).src_ip6),
            }
        }
    }
}

/// The kernel lets programs read an address of a context by single words only.
///
/// # Safety
/// They must be readable.
#[inline(always)]
unsafe fn words(addr: *const [u32; 4]) -> Addr16 {
    let word = addr.cast::<u32>();
    // SAFETY: as the caller says.
    unsafe {
        Addr16([
            word.read_volatile(),
            word.add(1).read_volatile(),
            word.add(2).read_volatile(),
            word.add(3).read_volatile(),
        ])
    }
}

// As for `Node`: values of hash maps are copied at once.
impl<const V6: bool, const DATAGRAM: bool> Socket for Call<V6, DATAGRAM> {
    type Kernel = Node;

    #[inline(always)]
    fn kernel(&self) -> &Node {
        &self.node
    }

    #[inline(always)]
    fn proto(&self) -> u8 {
        // SAFETY: a field that may be read.
        unsafe { (*self.ctx).protocol as u8 }
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the helper takes the context.
        unsafe { bpf_get_socket_cookie(self.ctx.cast()) }
    }

    #[inline(always)]
    fn netns(&self) -> u64 {
        // SAFETY: the helper takes the context.
        unsafe { bpf_get_netns_cookie(self.ctx.cast()) }
    }

    #[inline(always)]
    fn is_tied(&self) -> bool {
        let Addr16([a, b, _, d]) = self.source();
        // SAFETY: fields that may be read; no socket address is without a socket.
        // Of a mapped "any" the third word is not zero.
        a | b | d != 0 || unsafe { (*(*self.ctx).__bindgen_anon_1.sk).bound_dev_if != 0 }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn device(&self, key: &NetnsKey) -> Option<u32> {
        // SAFETY: see above.
        unsafe { NETNS.get(key) }.copied()
    }

    #[inline(always)]
    fn origin(&self, key: &SocketKey) -> Option<SocketOrigin> {
        // SAFETY: see above.
        unsafe { SOCK_REV.get(key) }.copied()
    }

    #[inline(always)]
    fn remember(&self, key: &SocketKey, origin: &SocketOrigin) -> bool {
        SOCK_REV.insert(key, origin, 0).is_ok()
    }

    #[inline(always)]
    fn choice(&self, key: &SocketKey) -> Option<SocketChoice> {
        // SAFETY: see above.
        unsafe { SOCK_FWD.get(key) }.copied()
    }

    #[inline(always)]
    fn choose(&self, key: &SocketKey, choice: &SocketChoice) {
        // One that is not remembered is chosen by the socket's cookie again.
        let _ = SOCK_FWD.insert(key, choice, 0);
    }

    #[inline(always)]
    fn tell(&self, record: &Record) {
        if within(&TOLD, record.event, RECORDS_AT_ONCE) {
            // Whoever reads too slowly misses some.
            let _ = RECORDS.output::<Record>(record, 0);
        }
    }
}

/// A connected socket ends: nobody asks for what it was led to any more. Without this, sockets that live long would
/// be forgotten for those that ended.
#[cgroup_sock(sock_release)]
fn mesh_release(ctx: SockContext) -> i32 {
    let sock = ctx.sock;
    // SAFETY: fields that may be read; the helper takes the context.
    let (key, proto) = unsafe {
        // Both, for the compiler would choose between the places and not between what is there.
        let (v4, v6) = ((&raw const (*sock).dst_ip4).read_volatile(), words(&raw const (*sock).dst_ip6));
        let addr = if (*sock).family == AF_INET { Addr16::from_word(v4) } else { v6 };
        let port = NetPort((*sock).dst_port);
        if port == NetPort::ANY {
            return GO;
        }
        (SocketKey::new(bpf_get_socket_cookie(ctx.as_ptr()), addr, port), (*sock).protocol as u8)
    };
    if proto == TCP || proto == UDP {
        // Of nearly all there is none.
        let _ = SOCK_REV.remove(&key);
    }
    GO
}

const AF_INET: u32 = 2;
