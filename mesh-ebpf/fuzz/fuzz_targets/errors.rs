//! ICMP errors about packets of flows: each reaches who sent the packet, and is about it as it was sent.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use mesh_ebpf::testing::icmp;
use mesh_ebpf_fuzz::flow::read;
use mesh_ebpf_fuzz::read::{ETH, Read, quote};
use mesh_ebpf_fuzz::world::{self, SERVICES};
use mesh_ebpf_fuzz::{End, Flow, Hop, Way, Who, World};

fuzz_target!(|bytes: &[u8]| {
    let world = World::new(64);
    // Bytes that are no more there: it is over.
    let _ = run(&world, &mut Unstructured::new(bytes));
});

fn run(world: &World, u: &mut Unstructured<'_>) -> Result<()> {
    let mut flows = Vec::new();
    for _ in 0..32 {
        if u.is_empty() {
            return Ok(());
        }
        match u.int_in_range(0..=4)? {
            0 | 1 => flows.push(Flow::begin(world, u)?),
            2 if !flows.is_empty() => to_client(world, u.choose(&flows)?, u)?,
            3 if !flows.is_empty() => to_task(world, u.choose(&flows)?, u)?,
            4 => return forge(world, u),
            _ => {}
        }
    }
    Ok(())
}

/// The task, or a router before it, says what is wrong with a packet.
fn to_client(world: &World, flow: &Flow, u: &mut Unstructured<'_>) -> Result<()> {
    let (seen, sent) = (read(&flow.seen), read(&flow.sent));
    let (frame, told) = error(u, seen.dst, seen.src, &flow.seen)?;
    let from = Who::Task(flow.task);
    let Some(End::At(who, got)) = world.carry(from, &frame) else {
        panic!("the client does not hear of it: {:?}", world.carry(from, &frame));
    };
    assert_eq!(who, flow.listener);
    check(&got, &sent, told);
    assert_eq!((read(&got).src, read(&got).dst), (sent.dst, sent.src));
    Ok(())
}

/// The client, or a router before it, says what is wrong with an answer.
fn to_task(world: &World, flow: &Flow, u: &mut Unstructured<'_>) -> Result<()> {
    let (heard, answered) = (read(&flow.heard), read(&flow.answered));
    let router: IpAddr =
        if heard.src.is_ipv4() { [203, 0, 113, 9].into() } else { "2001:db8:9::9".parse().unwrap() };
    let by_router = matches!(flow.client, Who::Net(_)) && u.arbitrary()?;
    let (frame, told) = error(u, if by_router { router } else { heard.dst }, heard.src, &flow.heard)?;
    let end = world.carry(flow.client, &frame);
    let Some(End::At(Who::Task(task), got)) = end else {
        panic!("the task does not hear of it from {:?}: {end:?}", flow.client)
    };
    assert_eq!(task, flow.task);
    check(&got, &answered, told);
    assert_eq!(read(&got).dst, answered.src);
    if !by_router {
        assert_eq!(read(&got).src, answered.dst, "who told it is who it is about");
    }
    Ok(())
}

/// An error about a packet, and the bytes of what it says besides.
fn error(u: &mut Unstructured<'_>, src: IpAddr, dst: IpAddr, about: &[u8]) -> Result<(Vec<u8>, usize)> {
    let kinds: &[u8] = if src.is_ipv4() { &[3, 11, 12] } else { &[1, 2, 3, 4, 127] };
    let build = icmp(&src.to_string(), &dst.to_string(), *u.choose(kinds)?);
    let least = if src.is_ipv4() { 20 + 4 } else { 40 + 4 };
    let quoted = u.int_in_range(least..=about.len() - ETH)?;
    Ok((build.with(&about[ETH..ETH + quoted]).bytes(), quoted))
}

/// An error is whole, and about a packet as it was sent.
fn check(got: &[u8], about: &Read, told: usize) {
    let read = read(got);
    let (bytes, quoted) = quote(&got[ETH..], &read).expect("a quoted packet");
    assert_eq!(bytes.len(), told);
    let ends = |read: &Read| (read.src, read.dst, read.ports, read.proto);
    assert_eq!(ends(&quoted), ends(about));
    if about.src.is_ipv4() {
        assert_eq!(mesh_ebpf::testing::checksum(&bytes[..20]), 0, "the quoted header's checksum");
    }
}

/// Anything may come from anywhere.
fn forge(world: &World, u: &mut Unstructured<'_>) -> Result<()> {
    let node = u.choose_index(world::NODES)?;
    let from = match u.int_in_range(0..=3)? {
        0 => Way::Sender(Who::Net(node)),
        1 => Way::Sender(Who::Task(u.choose_index(world::TASKS)?)),
        2 => Way::Sender(Who::Stack(node)),
        _ => {
            let mut mac = || -> Result<[u8; 6]> {
                Ok(if u.arbitrary()? { world::mac(u.choose_index(world::TASKS)?) } else { u.arbitrary()? })
            };
            let macs = [mac()?, mac()?];
            Way::Tunnel {
                from: (node + 1) % world::NODES,
                to: node,
                vni: u.int_in_range(0..=0xff_ffff)?,
                macs,
            }
        }
    };
    let frame = if u.arbitrary()? {
        u.bytes(u.len())?.to_vec()
    } else {
        let (_, src, dst) =
            world::client(u.arbitrary()?, 5000, u.choose_index(SERVICES.len())?, u.arbitrary()?);
        let kind = u.arbitrary()?;
        icmp(&src.ip().to_string(), &dst.ip().to_string(), kind).with(u.bytes(u.len())?).bytes()
    };
    world.deliver(Hop { from, frame });
    Ok(())
}
