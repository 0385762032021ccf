//! `connect(2)` over IPv4: a virtual address becomes a backend's before any packet exists.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{bpf_get_prandom_u32, bpf_set_retval},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use mesh_ebpf::{
    abi::{Frontend, FrontendKey, NO_BACKEND},
    connect::{Match, Target4, key_v4, slot, target_v4},
};

use super::maps::{BACKENDS, FRONTENDS, SLOTS};

/// The program's answers to the kernel.
const REFUSE: i32 = 0;
const GO_ON: i32 = 1;

const ECONNREFUSED: i32 = 111;

#[cgroup_sock_addr(connect4)]
fn mesh_connect4(ctx: SockAddrContext) -> i32 {
    let Some(key) = asked(ctx.sock_addr) else {
        return GO_ON;
    };
    let Some((found, frontend)) = find(&key) else {
        return GO_ON;
    };
    match choose(found, &key, frontend) {
        Some(target) => redirect(ctx.sock_addr, target),
        None => refuse(),
    }
}

/// What the client asks for.
#[inline(always)]
fn asked(sock_addr: *mut bpf_sock_addr) -> Option<FrontendKey> {
    // SAFETY: the kernel hands a valid pointer to this hook, and allows these three fields to be
    // read. Volatile, because it allows whole words only: the compiler must not narrow or join them.
    let (ip, port, proto) = unsafe {
        (
            (&raw const (*sock_addr).user_ip4).read_volatile(),
            (&raw const (*sock_addr).user_port).read_volatile(),
            (&raw const (*sock_addr).protocol).read_volatile(),
        )
    };
    key_v4(ip, port, proto)
}

/// The frontend of this port, or else the one of any port.
#[inline(always)]
fn find(key: &FrontendKey) -> Option<(Match, Frontend)> {
    // SAFETY: the value is copied at once. Should the agent remove the entry meanwhile, the kernel
    // may give its memory to another frontend: the flow then goes to a live backend of a service
    // that is being removed. The bounds below hold whatever is read.
    unsafe {
        if let Some(frontend) = FRONTENDS.get(key) {
            return Some((Match::Exact, *frontend));
        }
        FRONTENDS.get(&key.any_port()).map(|frontend| (Match::AnyPort, *frontend))
    }
}

/// A random slot's backend. `None` is "nobody there".
#[inline(always)]
fn choose(found: Match, key: &FrontendKey, frontend: Frontend) -> Option<Target4> {
    if frontend.backends == 0 {
        return None;
    }
    // SAFETY: the helper has no preconditions.
    let random = unsafe { bpf_get_prandom_u32() };
    let id = *SLOTS.get(frontend.table)?.ids.get(slot(random))?;
    if id == NO_BACKEND {
        return None;
    }
    target_v4(found, key, BACKENDS.get(id)?)
}

#[inline(always)]
fn redirect(sock_addr: *mut bpf_sock_addr, target: Target4) -> i32 {
    // SAFETY: as in `asked`; this hook may write both fields, as whole words.
    unsafe {
        (&raw mut (*sock_addr).user_ip4).write_volatile(target.user_ip4);
        (&raw mut (*sock_addr).user_port).write_volatile(target.user_port);
    }
    GO_ON
}

/// The client learns at once that nobody answers, instead of waiting for a time-out.
#[inline(always)]
fn refuse() -> i32 {
    // SAFETY: the helper has no preconditions. Should it fail, the kernel answers EPERM instead.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    REFUSE
}
