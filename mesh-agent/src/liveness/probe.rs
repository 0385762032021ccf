//! **Effect.** Probes that programs in the other's kernel answer: `mesh_ebpf::probe`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use mesh_core::liveness::Echo;
use mesh_ebpf::probe::{self, LEN, PORT, Words};

/// A socket for one family.
#[derive(Debug)]
pub(super) struct Probe {
    socket: UdpSocket,
    secret: u64,
}

impl Probe {
    /// From the node's own address, or from any if that is of the other family. Nobody else can know the secret.
    pub(super) fn open(own: IpAddr, v6: bool, secret: u64) -> io::Result<Self> {
        let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((if own.is_ipv6() == v6 { own } else { any }, 0))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, secret })
    }

    /// What to wait for.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a probe. What does not leave is not answered.
    pub(super) fn send(&self, to: IpAddr, round: u64) {
        let words = probe::question(low(round), self.secret);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let _ = self.socket.send_to(&bytes, (to, PORT));
    }

    /// The next answer that came in: from whom, to which round, and what it says. `now` is the present round.
    pub(super) fn receive(&self, now: u64) -> Option<(IpAddr, u64, Echo)> {
        let mut buffer = [0; LEN + 1];
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((LEN, from)) if from.port() == PORT => {
                    let mut bytes = buffer.chunks_exact(4).map(|word| word.try_into().unwrap_or_default());
                    let words: Words =
                        std::array::from_fn(|_| u32::from_ne_bytes(bytes.next().unwrap_or_default()));
                    let Some(answer) = probe::read(&words, self.secret) else { continue };
                    // Of the round only the lower half is sent.
                    let ago = low(now).wrapping_sub(answer.round);
                    let echo = Echo { boot: answer.boot, epoch: answer.epoch, age: answer.age.into() };
                    return Some((from.ip(), now.saturating_sub(ago.into()), echo));
                }
                Ok(_) => {}
                // An ICMP error to an earlier probe is told here; it is no answer.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => {}
            }
        }
    }
}

fn low(round: u64) -> u32 {
    (round & u64::from(u32::MAX)) as u32
}
