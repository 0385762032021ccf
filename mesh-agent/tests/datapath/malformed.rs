//! Packets that end too early, or contradict themselves.

use crate::frame::{ETH, ICMP, ICMP6, SYN, TCP, UDP, frame};
use crate::life::{FAMILIES, at, client, one};
use crate::node::Hook;
use crate::world::{UPLINK, World, device, own, task, vip};

/// Each kind of packet with the hook that it comes in by.
fn all() -> Vec<(Hook, Vec<u8>)> {
    let mut all = Vec::new();
    for v6 in FAMILIES {
        let (ping, icmp) = if v6 { (128, ICMP6) } else { (8, ICMP) };
        let inside = at(task(0, 1, v6), 5000);
        for proto in [TCP, UDP, icmp] {
            let kind = if proto == TCP { SYN } else { ping };
            all.push((Hook::Task(device(1)), frame(proto, kind, inside, at(vip(0, v6), 80), b"payload")));
            all.push((
                Hook::Net(UPLINK),
                frame(proto, kind, client(v6, 7), at(own(0, v6), 8000), b"payload"),
            ));
            all.push((Hook::Host, frame(proto, kind, at(own(0, v6), 7), at(own(0, v6), 8000), b"payload")));
        }
    }
    all
}

/// The kernel runs no program for a test on less than an IP header; the library's tests have those.
#[test]
fn packets_may_end_anywhere() {
    let mut world = one(0);
    for (hook, bytes) in all() {
        let shortest = ETH + if bytes[12] == 8 { 20 } else { 40 };
        for len in shortest..bytes.len() {
            world.nodes[0].run(hook, &bytes[..len]);
        }
    }
    world.agree();
}

/// Each byte of the headers, with values at which something changes.
#[test]
fn any_byte_may_be_wrong() {
    let mut world = one(0);
    for (hook, bytes) in all() {
        for place in 12..bytes.len().min(ETH + 40 + 20) {
            for value in [0, 1, 4, 5, 6, 0x0f, 0x10, 0x40, 0x44, 0x46, 0x60, 0x7f, 0x80, 0xff] {
                let mut wrong = bytes.clone();
                wrong[place] = value;
                // The pipeline remembers for itself, and its table is small: what matters is one packet.
                world.nodes[0].run(hook, &wrong);
            }
        }
    }
}

/// Frames are padded to 60 bytes: what comes after the packet is none of it.
#[test]
fn padding_is_left_alone() {
    let mut world: World = one(0);
    for (hook, mut bytes) in all() {
        bytes.extend([0xee; 11]);
        world.nodes[0].run(hook, &bytes);
    }
}
