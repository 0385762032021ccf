//! Packets in parts, in any order: each arrives where the whole one would, and is the same when it is put together.

#![no_main]

use std::collections::{HashSet, VecDeque};

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use mesh_ebpf::abi::TCP;
use mesh_ebpf::packet::tcp::ACK;
use mesh_ebpf::testing::checksum;
use mesh_ebpf_fuzz::flow::{ends, packet, read};
use mesh_ebpf_fuzz::read::{ETH, Read, valid};
use mesh_ebpf_fuzz::{End, Flow, Hop, Step, Way, Who, World};

fuzz_target!(|bytes: &[u8]| {
    let world = World::new(64);
    // Bytes that are no more there: it is over.
    let _ = run(&world, &mut Unstructured::new(bytes));
});

/// So many steps are more than all parts can need.
const MANY: usize = 10_000;

/// What becomes of a packet in parts.
struct Sent {
    /// Where it would arrive in one piece, and how.
    wanted: (Who, Vec<u8>),
    parts: Vec<Vec<u8>>,
}

fn run(world: &World, u: &mut Unstructured<'_>) -> Result<()> {
    let flows = (0..u.int_in_range(1..=3)?).map(|_| Flow::begin(world, u)).collect::<Result<Vec<_>>>()?;
    let mut all = Vec::new();
    let mut ids = HashSet::new();
    let mut on_the_way = VecDeque::new();
    for _ in 0..u.int_in_range(1..=4)? {
        let flow = u.choose(&flows)?;
        let (from, like) =
            if u.arbitrary()? { (flow.client, &flow.sent) } else { (Who::Task(flow.task), &flow.answered) };
        let (id, mut said) = (u.int_in_range(0..=2)?, read(like));
        let (src, dst) = ends(&said);
        // Whoever sends keeps them apart (RFC 791 §3.2, RFC 8200 §4.5).
        if !ids.insert((src.ip(), dst.ip(), flow.proto * u8::from(src.is_ipv4()), id)) {
            continue;
        }
        let len = u.int_in_range(16..=200)?;
        let payload = u.bytes(len.min(u.len()))?;
        let whole = packet(flow.proto, ACK, src, dst, payload);
        let Some(End::At(who, seen)) = world.carry(from, &whole) else { panic!("it is lost in one piece") };
        said.id = id;
        for frame in cut(&whole, &said, u)? {
            on_the_way.push_back((all.len(), Hop { from: Way::Sender(from), frame }));
        }
        all.push(Sent { wanted: (who, seen), parts: Vec::new() });
    }
    for turn in 0.. {
        if on_the_way.is_empty() {
            break;
        }
        assert!(turn < MANY, "somebody waits for ever: {on_the_way:?}");
        let next = u.choose_index(on_the_way.len())?;
        on_the_way.rotate_left(next);
        let Some((sent, hop)) = on_the_way.pop_front() else { break };
        match world.step(&hop) {
            Step::On(hop) | Step::Waits(hop) => on_the_way.push_back((sent, hop)),
            Step::Ends(End::At(who, frame)) => {
                assert_eq!(who, all[sent].wanted.0, "{frame:02x?}");
                all[sent].parts.push(frame);
            }
            Step::Ends(other) => panic!("a part is lost: {other:?}"),
        }
    }
    all.iter().for_each(check);
    Ok(())
}

/// Parts of a packet, the first of them with its transport header.
fn cut(whole: &[u8], said: &Read, u: &mut Unstructured<'_>) -> Result<Vec<Vec<u8>>> {
    let transport = &whole[ETH + said.l4..];
    let mut from = 0;
    let mut parts = Vec::new();
    while from < transport.len() {
        let least = if from == 0 && said.proto == TCP { 24 } else { 8 };
        let to = transport.len().min(from + (least + u.int_in_range(0..=8)? * 8));
        let more = u16::from(to < transport.len());
        let (mut head, part) = (whole[..ETH + said.l4].to_vec(), &transport[from..to]);
        if said.src.is_ipv4() {
            head[ETH + 2..ETH + 4].copy_from_slice(&((20 + part.len()) as u16).to_be_bytes());
            head[ETH + 4..ETH + 6].copy_from_slice(&(said.id as u16).to_be_bytes());
            head[ETH + 6..ETH + 8].copy_from_slice(&((more << 13) | (from as u16 / 8)).to_be_bytes());
            head[ETH + 10..ETH + 12].fill(0);
            let sum = checksum(&head[ETH..]);
            head[ETH + 10..ETH + 12].copy_from_slice(&sum.to_be_bytes());
        } else {
            head[ETH + 4..ETH + 6].copy_from_slice(&((8 + part.len()) as u16).to_be_bytes());
            head[ETH + 6] = 44;
            head.extend([said.proto, 0]);
            head.extend((from as u16 | more).to_be_bytes());
            head.extend(said.id.to_be_bytes());
        }
        parts.push([&head, part].concat());
        from = to;
    }
    Ok(parts)
}

/// Puts a packet together, and compares it with what it was in one piece.
fn check(sent: &Sent) {
    let whole = read(&sent.wanted.1);
    let mut parts = Vec::new();
    for frame in &sent.parts {
        let part = valid(&frame[ETH..]).unwrap_or_else(|wrong| panic!("{wrong}: {frame:02x?}"));
        assert_eq!((part.src, part.dst, part.proto), (whole.src, whole.dst, whole.proto));
        parts.push((part.fragment.0, &frame[ETH + part.l4..]));
    }
    parts.sort_unstable();
    let joined = parts.into_iter().flat_map(|(_, part)| part).copied().collect::<Vec<_>>();
    assert_eq!(joined, sent.wanted.1[ETH + whole.l4..]);
}
