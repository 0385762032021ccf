//! **Effect.** ICMP echoes (RFC 792, RFC 4443 §4.1), on raw sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use mesh_ebpf::csum;
use socket2::{Domain, Protocol, Socket, Type};

const HEADER: usize = 8;
/// With a secret of the sender's, and which round it was.
const LEN: usize = HEADER + 16;
/// Whatever else comes in, answers find room.
const ROOM: usize = 1 << 20;

/// A socket for one family.
#[derive(Debug)]
pub(super) struct Echo {
    /// A raw one: the library's type only says that it knows addresses.
    socket: UdpSocket,
    v6: bool,
    secret: u64,
}

impl Echo {
    /// From the node's own address, or from any if that is of the other family. Nobody else can know the secret.
    pub(super) fn open(own: IpAddr, v6: bool, secret: u64) -> io::Result<Self> {
        let (domain, protocol, any): (_, _, IpAddr) = if v6 {
            (Domain::IPV6, Protocol::ICMPV6, Ipv6Addr::UNSPECIFIED.into())
        } else {
            (Domain::IPV4, Protocol::ICMPV4, Ipv4Addr::UNSPECIFIED.into())
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        // The kernel may give less.
        let _ = socket.set_recv_buffer_size(ROOM);
        let from = if own.is_ipv6() == v6 { own } else { any };
        socket.bind(&SocketAddr::new(from, 0).into())?;
        Ok(Self { socket: socket.into(), v6, secret })
    }

    /// What to wait for.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a probe. What does not leave is not answered.
    pub(super) fn send(&self, to: IpAddr, round: u64) {
        let _ = self.socket.send_to(&request(self.v6, self.secret, round), (to, 0));
    }

    /// The next answer that came in: from whom, and to which round.
    pub(super) fn receive(&self) -> Option<(IpAddr, u64)> {
        let mut buffer = [0; 128];
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    if let Some(round) = answered(&buffer[..len], self.v6, self.secret) {
                        return Some((from.ip(), round));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}

/// The kernel fills in the checksum of ICMPv6.
fn request(v6: bool, secret: u64, round: u64) -> [u8; LEN] {
    let mut packet = [0; LEN];
    packet[0] = if v6 { 128 } else { 8 };
    packet[4..6].copy_from_slice(&secret.to_be_bytes()[..2]);
    packet[6..8].copy_from_slice(&round.to_be_bytes()[6..]);
    packet[8..16].copy_from_slice(&secret.to_be_bytes());
    packet[16..].copy_from_slice(&round.to_be_bytes());
    if !v6 {
        let words: [u32; LEN / 4] = std::array::from_fn(|word| {
            u32::from_ne_bytes(packet[word * 4..][..4].try_into().unwrap_or_default())
        });
        packet[2..4].copy_from_slice(&(!csum::fold(csum::sum(&words))).to_ne_bytes());
    }
    packet
}

/// The round that an answer is to, if it is one to us. Raw sockets of IPv4 get the header, too.
fn answered(packet: &[u8], v6: bool, secret: u64) -> Option<u64> {
    let header = if v6 { 0 } else { usize::from(packet.first()? & 15) * 4 };
    let echo = packet.get(header..)?.first_chunk::<LEN>()?;
    let is_answer = echo[..2] == [if v6 { 129 } else { 0 }, 0];
    let (said, round) = echo[HEADER..].split_first_chunk::<8>()?;
    (is_answer && u64::from_be_bytes(*said) == secret)
        .then(|| round.try_into().map(u64::from_be_bytes).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: u64 = 0x0123_4567_89ab_cdef;

    /// What a kernel makes of it.
    fn answer(v6: bool, round: u64) -> Vec<u8> {
        let mut echo = request(v6, SECRET, round).to_vec();
        echo[0] = if v6 { 129 } else { 0 };
        let header = if v6 { vec![] } else { [vec![0x46], vec![0; 23]].concat() };
        [header, echo].concat()
    }

    #[test]
    fn an_answer_says_to_which_round() {
        for v6 in [false, true] {
            assert_eq!(answered(&answer(v6, 7), v6, SECRET), Some(7));
            assert_eq!(answered(&answer(v6, 7), v6, SECRET + 1), None, "another's");
            let mut request = answer(v6, 7);
            *request.iter_mut().rev().nth(LEN - 1).unwrap() = 8;
            assert_eq!(answered(&request, v6, SECRET), None, "no answer");
            for len in 0..answer(v6, 7).len() {
                assert_eq!(answered(&answer(v6, 7)[..len], v6, SECRET), None, "{len} bytes");
            }
        }
    }

    /// RFC 1071: with the checksum, all words add up to all ones.
    #[test]
    fn the_checksum_is_right() {
        let packet = request(false, SECRET, 3);
        let sum: u32 = packet.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn this_machine_answers_itself() {
        for own in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let echo = Echo::open(own, own.is_ipv6(), SECRET).unwrap();
            echo.send(own, 42);
            let mut wait = [rustix::event::PollFd::from_borrowed_fd(echo.fd(), rustix::event::PollFlags::IN)];
            let second = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
            let heard = std::iter::from_fn(|| {
                rustix::event::poll(&mut wait, Some(&second)).ok()?;
                Some(echo.receive())
            });
            assert_eq!(heard.flatten().next(), Some((own, 42)));
        }
    }
}
