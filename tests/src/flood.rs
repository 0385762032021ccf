//! A flood of SYNs (RFC 4987): beginnings of connections from ever other addresses, that nobody goes on with.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use crate::Netns;

/// The first of the senders' addresses, from a range for tests (RFC 2544); there are 2^17.
const SENDERS: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const MANY: u64 = 1 << 17;
/// How often it sends what is due.
const TURN: Duration = Duration::from_millis(2);

/// A flood that goes on until it is dropped.
#[derive(Debug)]
pub struct Flood {
    sent: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Flood {
    /// Sends `rate` SYNs a second to the target, from inside `netns`.
    pub fn start(netns: &Netns, target: SocketAddrV4, rate: u32) -> Result<Self> {
        let raw =
            || socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, Some(SockProtocol::Raw));
        let socket = netns.run(raw)?.context("cannot open a raw socket")?;
        let flood = Self { sent: Arc::default(), over: Arc::default() };
        let (sent, over) = (Arc::clone(&flood.sent), Arc::clone(&flood.over));
        netns.thread("flood", move || send(&socket, target, rate, &sent, &over))?;
        Ok(flood)
    }

    /// How many were sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn send(socket: &OwnedFd, target: SocketAddrV4, rate: u32, sent: &AtomicU64, over: &AtomicBool) {
    let (start, to) = (Instant::now(), SockaddrIn::from(target));
    while !over.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        for number in sent.load(Ordering::Relaxed)..due {
            // A full queue is no reason to stop.
            let _ = sendto(socket.as_raw_fd(), &syn(number, target), &to, MsgFlags::empty());
        }
        sent.fetch_max(due, Ordering::Relaxed);
        thread::sleep(TURN);
    }
}

/// The SYN of a sender that nobody is, with its IP header, whose checksum and identification the kernel sees to.
fn syn(number: u64, target: SocketAddrV4) -> [u8; 40] {
    let source = Ipv4Addr::from(SENDERS + (number % MANY) as u32);
    let sport = 1024 + (number / MANY % 60_000) as u16;
    let mut packet = [0; 40];
    packet[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&target.ip().octets());
    packet[20..22].copy_from_slice(&sport.to_be_bytes());
    packet[22..24].copy_from_slice(&target.port().to_be_bytes());
    packet[24..28].copy_from_slice(&(number as u32).to_be_bytes());
    packet[32..36].copy_from_slice(&[0x50, 2, 0xff, 0xff]);
    // RFC 9293 §3.1: over addresses, protocol, length and header.
    let words = packet[12..].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum = words.sum::<u32>() + 6 + 20;
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    packet[36..38].copy_from_slice(&checksum.to_be_bytes());
    packet
}
