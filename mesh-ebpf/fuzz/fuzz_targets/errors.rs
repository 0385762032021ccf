//! ICMP errors about packets of flows: each reaches who sent the packet, and is about it as it was sent.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use mesh_ebpf::abi::{TCP, UDP};
use mesh_ebpf::packet::tcp::{ACK, SYN};
use mesh_ebpf::testing::{icmp, tcp, udp};
use mesh_ebpf_fuzz::read::{ETH, Read, quote, valid};
use mesh_ebpf_fuzz::world::{self, SERVICES};
use mesh_ebpf_fuzz::{End, Hop, Step, Way, Who, World};

/// A flow that reached a task, and was answered.
struct Flow {
    client: Who,
    task: usize,
    /// As the client sent it, as the task saw it; and the same of the answer.
    sent: Vec<u8>,
    seen: Vec<u8>,
    answered: Vec<u8>,
    heard: Vec<u8>,
}

fuzz_target!(|bytes: &[u8]| {
    let world = World::default();
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
            0 | 1 => flows.push(begin(world, u)?),
            2 if !flows.is_empty() => to_client(world, u.choose(&flows)?, u)?,
            3 if !flows.is_empty() => to_task(world, u.choose(&flows)?, u)?,
            4 => return forge(world, u),
            _ => {}
        }
    }
    Ok(())
}

/// A client sends to a service, and is answered.
fn begin(world: &World, u: &mut Unstructured<'_>) -> Result<Flow> {
    let (kind, port) = (u.int_in_range(0..=6)?, u.int_in_range(5000..=5002)?);
    let (service, v6, proto) = (u.choose_index(SERVICES.len())?, u.arbitrary()?, *u.choose(&[TCP, UDP])?);
    let (client, src, dst) = world::client(kind, port, service, v6);
    let sent = packet(proto, SYN, src, dst);
    let (task, seen) = match world.carry(client, &sent) {
        Some(End::At(Who::Task(task), seen)) => (task, seen),
        other => panic!("{client:?} {src} -> {dst}: {other:?}"),
    };
    let at = read(&seen);
    assert_eq!(SocketAddr::new(at.dst, at.ports.1), SocketAddr::new(world::address(task, v6), world::TARGET));
    let answered = packet(
        proto,
        SYN | ACK,
        SocketAddr::new(at.dst, at.ports.1),
        SocketAddr::new(at.src, at.ports.0),
    );
    let heard = match world.carry(Who::Task(task), &answered) {
        Some(End::At(who, heard)) if who == client => heard,
        other => panic!("what {client:?} {src} -> {dst} is answered: {other:?}"),
    };
    let back = read(&heard);
    assert_eq!((back.src, back.ports.0, back.dst, back.ports.1), (dst.ip(), dst.port(), src.ip(), src.port()));
    Ok(Flow { client, task, sent, seen, answered, heard })
}

/// The task, or a router before it, says what is wrong with a packet.
fn to_client(world: &World, flow: &Flow, u: &mut Unstructured<'_>) -> Result<()> {
    let (seen, sent) = (read(&flow.seen), read(&flow.sent));
    let (frame, told) = error(u, seen.dst, seen.src, &flow.seen)?;
    let from = Who::Task(flow.task);
    let Some(End::At(who, got)) = world.carry(from, &frame) else {
        panic!("the client does not hear of it: {:?}", world.carry(from, &frame));
    };
    assert_eq!(who, flow.client);
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
            let mac = if u.arbitrary()? { world::mac(u.choose_index(world::TASKS)?) } else { u.arbitrary()? };
            Way::Tunnel { from: (node + 1) % world::NODES, to: node, vni: u.int_in_range(0..=0xff_ffff)?, mac }
        }
    };
    let frame = if u.arbitrary()? {
        u.bytes(u.len())?.to_vec()
    } else {
        let (_, src, dst) = world::client(u.arbitrary()?, 5000, u.choose_index(SERVICES.len())?, u.arbitrary()?);
        let kind = u.arbitrary()?;
        icmp(&src.ip().to_string(), &dst.ip().to_string(), kind).with(u.bytes(u.len())?).bytes()
    };
    let mut hop = Hop { from, frame };
    while let Step::On(next) = world.step(&hop) {
        hop = next;
    }
    Ok(())
}

fn packet(proto: u8, flags: u8, src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    let (src, dst) = (src.to_string(), dst.to_string());
    let build = if proto == TCP { tcp(&src, &dst, flags) } else { udp(&src, &dst) };
    build.with(b"payload").bytes()
}

fn read(frame: &[u8]) -> Read {
    valid(&frame[ETH..]).unwrap_or_else(|wrong| panic!("{wrong}: {frame:02x?}"))
}
