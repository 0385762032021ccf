//! **Effect.** What comes through to another node and back: ICMP echoes of any size that are not split, and the time
//! that its kernel tells (RFC 792, RFC 4443 §4).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mesh_ebpf::probe;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, Socket, Type};

/// How long an answer may take; a lost packet is asked for once more.
const PATIENCE: Duration = Duration::from_millis(400);
const TRIES: u32 = 2;
const ICMP: usize = 8;
/// Every path takes so much (RFC 791, RFC 8200).
const LEAST: u32 = 576;
const DAY: i64 = 86_400_000;

/// A raw socket, and what tells our packets from others'.
pub(super) struct Way {
    socket: UdpSocket,
    to: IpAddr,
    secret: [u8; 2],
    round: u16,
}

impl Way {
    /// From an address of this node's, or from whichever routes say.
    pub(super) fn open(from: Option<IpAddr>, to: IpAddr) -> io::Result<Self> {
        let v6 = to.is_ipv6();
        let (domain, protocol) =
            if v6 { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        if v6 {
            sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
        } else {
            sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
        }
        let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        socket.bind(&SocketAddr::new(from.filter(|from| from.is_ipv6() == v6).unwrap_or(any), 0).into())?;
        let secret = getrandom::u32().unwrap_or_default().to_be_bytes();
        Ok(Self { socket: socket.into(), to, secret: [secret[0], secret[1]], round: 0 })
    }

    fn header(&self) -> usize {
        if self.to.is_ipv6() { 40 } else { 20 }
    }

    /// Whether a packet of so many bytes, with all headers, comes there and back.
    pub(super) fn passes(&mut self, size: u32) -> bool {
        let payload = (size as usize).saturating_sub(self.header() + ICMP);
        (0..TRIES).any(|_| {
            let kind = if self.to.is_ipv6() { 128 } else { 8 };
            let answer = if self.to.is_ipv6() { 129 } else { 0 };
            self.ask(kind, &vec![0x6d; payload], answer).is_some()
        })
    }

    /// The largest size that passes, up to one that need not.
    pub(super) fn largest(&mut self, most: u32) -> Option<u32> {
        if self.passes(most) {
            return Some(most);
        }
        let (mut passes, mut fails) = (LEAST.min(most), most);
        if !self.passes(passes) {
            return None;
        }
        while fails - passes > 1 {
            let middle = passes.midpoint(fails);
            if self.passes(middle) { passes = middle } else { fails = middle }
        }
        Some(passes)
    }

    /// How far the other's clock is ahead, ms, as its kernel tells it (IPv4 only).
    pub(super) fn ahead(&mut self) -> Option<i64> {
        if self.to.is_ipv6() {
            return None;
        }
        let sent = since_midnight();
        let mut body = [0; 12];
        body[..4].copy_from_slice(&u32::try_from(sent).ok()?.to_be_bytes());
        let answer = self.ask(13, &body, 14)?;
        let back = since_midnight();
        let told = answer.get(ICMP + 4..ICMP + 8)?.first_chunk::<4>()?;
        let told = u32::from_be_bytes(*told);
        // The highest bit says that it is no such time.
        let told = i64::from((told < 1 << 31).then_some(told)?);
        let off = (told - sent.midpoint(back)).rem_euclid(DAY);
        // Half of the way is no difference.
        let off = if off > DAY / 2 { off - DAY } else { off };
        Some(if off.abs() <= (back - sent) / 2 + 1 { 0 } else { off })
    }

    fn ask(&mut self, kind: u8, body: &[u8], answer: u8) -> Option<Vec<u8>> {
        self.round = self.round.wrapping_add(1);
        let mut packet = vec![kind, 0, 0, 0, self.secret[0], self.secret[1]];
        packet.extend_from_slice(&self.round.to_be_bytes());
        packet.extend_from_slice(body);
        if self.to.is_ipv4() {
            let sum = checksum(&packet);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        self.socket.send_to(&packet, (self.to, 0)).ok()?;
        let until = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.socket.set_read_timeout(Some(left)).ok()?;
            let (len, from) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return None,
            };
            // Raw sockets of IPv4 get the header, too.
            let header = if self.to.is_ipv6() { 0 } else { usize::from(buffer[0] & 15) * 4 };
            let found = buffer.get(header..len).unwrap_or_default();
            let ours = found.get(..8).is_some_and(|head| {
                head[0] == answer && head[4..6] == self.secret && head[6..8] == self.round.to_be_bytes()
            });
            if ours && from.ip() == self.to {
                return Some(found.to_vec());
            }
        }
    }
}

/// RFC 1071.
fn checksum(packet: &[u8]) -> u16 {
    let word = |two: &[u8]| u32::from(two[0]) << 8 | u32::from(two.get(1).copied().unwrap_or_default());
    let mut sum: u32 = packet.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn since_midnight() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or_default() % DAY
}

/// Whether the programs in a node's kernel answer on UDP port 7304.
pub(super) fn probed(from: IpAddr, to: IpAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let words = probe::question(getrandom::u32().unwrap_or_default(), u64::from(std::process::id()));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        socket.send_to(&bytes, (to, probe::PORT))?;
        let mut buffer = [0; probe::LEN];
        Ok(socket.recv_from(&mut buffer)?.1 == SocketAddr::new(to, probe::PORT))
    };
    (0..TRIES).any(|_| ask().unwrap_or_default())
}

/// Whether a port takes connections.
pub(super) fn connects(to: SocketAddr) -> Result<(), String> {
    TcpStream::connect_timeout(&to, Duration::from_secs(1)).map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As root only, as all that the doctor measures.
    #[test]
    fn this_machine_answers_itself() {
        for own in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let mut way = Way::open(Some(own), own).unwrap();
            assert_eq!(way.largest(9000), Some(9000));
            assert_eq!(way.largest(65_535), Some(65_535), "the largest there is");
            assert!(way.ahead().is_none_or(|ahead| ahead.abs() < 1000));
        }
    }

    #[test]
    fn all_words_and_the_checksum_add_up() {
        let packet = [8, 0, 0, 0, 1, 2, 3, 4, 5];
        let mut whole = packet.to_vec();
        whole[2..4].copy_from_slice(&checksum(&packet).to_be_bytes());
        assert_eq!(checksum(&whole), 0);
    }
}
