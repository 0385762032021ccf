//! A small topology of network namespaces with what the overlay would have set up, and people who talk in it.
//!
//! Namespaces are held by file descriptors: when a lab is dropped, its namespaces end with all devices and
//! sockets in them, and no process has to be killed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

/// How long a question waits before it counts as unanswered.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1200);

/// A network namespace.
pub(crate) struct Ns {
    file: File,
}

impl Ns {
    fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let ns = Self { file: std::thread::spawn(make).join().unwrap() };
        ns.sh("ip link set lo up; echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; \
               echo 0 > /proc/sys/net/ipv4/conf/default/rp_filter; echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter");
        ns
    }

    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Runs a shell script inside and gives what it prints.
    pub(crate) fn sh(&self, script: &str) -> String {
        let net = format!("--net={}", self.path());
        let output =
            Command::new("nsenter").args([&net, "sh", "-ec", script]).output().expect("nsenter is needed");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs code inside: its sockets and child processes belong to this namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let work = || {
                setns(&self.file, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            };
            scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Serves a port over TCP: says its name and who is calling, then repeats each line.
    pub(crate) fn serve_tcp(&self, name: &'static str, at: &str) {
        let listener =
            self.inside(|| TcpListener::bind(at).unwrap_or_else(|e| panic!("{name} at {at}: {e}")));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let Ok(peer) = stream.peer_addr() else { continue };
                std::thread::spawn(move || {
                    let _ = writeln!(stream, "{name} {}", peer.ip().to_canonical());
                    let Ok(reader) = stream.try_clone() else { return };
                    for line in BufReader::new(reader).lines() {
                        let Ok(line) = line else { return };
                        let _ = writeln!(stream, "{line}");
                    }
                });
            }
        });
    }

    /// Serves a port over UDP: answers each packet with its name and who is calling.
    pub(crate) fn serve_udp(&self, name: &'static str, at: &str) {
        let socket = self.inside(|| UdpSocket::bind(at).unwrap_or_else(|e| panic!("{name} at {at}: {e}")));
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(format!("{name} {}", peer.ip().to_canonical()).as_bytes(), peer);
            }
        });
    }

    /// Connects over TCP.
    pub(crate) fn connect(&self, to: &str) -> io::Result<Talk> {
        self.inside(|| Talk::open(to))
    }

    /// Who answers over TCP, and whom it takes the caller for: `a 10.10.1.1`.
    pub(crate) fn tcp(&self, to: &str) -> io::Result<String> {
        self.connect(to).map(|talk| talk.greeting)
    }

    /// The same over UDP, from a new port.
    pub(crate) fn udp(&self, to: &str) -> io::Result<String> {
        self.inside(|| udp_socket(to, None).and_then(|socket| udp_ask(&socket)))
    }

    /// A UDP client that keeps its port.
    pub(crate) fn udp_client(&self, to: &str) -> UdpSocket {
        self.inside(|| udp_socket(to, None).unwrap())
    }

    /// Who answers over UDP if the caller says to be somebody.
    pub(crate) fn udp_as(&self, source: &str, to: &str) -> io::Result<String> {
        self.inside(|| udp_socket(to, Some(source)).and_then(|socket| udp_ask(&socket)))
    }
}

/// A connection that goes on.
pub(crate) struct Talk {
    reader: BufReader<TcpStream>,
    pub(crate) greeting: String,
}

impl Talk {
    fn open(to: &str) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream);
        let mut greeting = String::new();
        reader.read_line(&mut greeting)?;
        Ok(Self { reader, greeting: greeting.trim().to_owned() })
    }

    /// Whether the other end still answers.
    pub(crate) fn alive(&mut self) -> bool {
        let mut answer = String::new();
        let sent = self.reader.get_mut().write_all(b"still there?\n");
        sent.and_then(|()| self.reader.read_line(&mut answer)).is_ok() && answer == "still there?\n"
    }
}

fn udp_socket(to: &str, source: Option<&str>) -> io::Result<UdpSocket> {
    let to: SocketAddr = to.parse().unwrap();
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = UdpSocket::bind((source.unwrap_or(any).parse::<IpAddr>().unwrap(), 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Asks once.
pub(crate) fn udp_ask(socket: &UdpSocket) -> io::Result<String> {
    socket.send(b"who?")?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A node with two tasks of the network `app`, one of `other`, one of `inner` (no way to the world), another
/// node's task of `app` behind `mesh0`, and a client outside, which is also the world.
pub(crate) struct Lab {
    pub(crate) node: Ns,
    pub(crate) client: Ns,
    pub(crate) a: Ns,
    pub(crate) b: Ns,
    pub(crate) other: Ns,
    pub(crate) inner: Ns,
    pub(crate) remote: Ns,
}

/// The node's address outside, and the client's.
pub(crate) const NODE: &str = "203.0.113.1";
pub(crate) const CLIENT: &str = "203.0.113.9";
pub(crate) const VIP: &str = "10.10.0.5";
pub(crate) const VIP6: &str = "fd10::5";

impl Lab {
    pub(crate) fn new() -> Self {
        let node = Ns::new();
        node.sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        let client = Ns::new();
        client.sh(&format!(
            "ip link add eth0 type veth peer name eth0 netns {}; ip link set eth0 up; \
             ip addr add {CLIENT}/24 dev eth0; ip addr add fd99::9/64 dev eth0 nodad; \
             ip route add 10.0.0.0/8 via {NODE}",
            node.path()
        ));
        node.sh(&format!(
            "ip link set eth0 up; ip addr add {NODE}/24 dev eth0; ip addr add fd99::1/64 dev eth0 nodad; \
             for own in 10.10.1.1 10.20.1.1 10.30.1.1; do ip route add local $own dev lo; done; \
             ip route add local {VIP} dev lo src 10.10.1.1; \
             ip -6 route add local fd10::1:1 dev lo; ip -6 route add local {VIP6} dev lo; \
             for net in 10.10.0.0/16 10.20.0.0/16 10.30.0.0/16 fd10::/64; do ip route add unreachable $net; done"
        ));
        let a = Self::task(&node, "mesh00000000001", 4096, &["10.10.1.2", "fd10::1:2"], "default");
        let b = Self::task(&node, "mesh00000000002", 4096, &["10.10.1.3", "fd10::1:3"], "default");
        let other = Self::task(&node, "mesh00000000003", 4097, &["10.20.1.2"], "default");
        let inner = Self::task(&node, "mesh00000000004", 4098, &["10.30.1.2"], "10.30.0.0/16");
        // What comes out of the tunnel comes from a device of no group.
        let remote = Self::task(&node, "mesh0", 0, &["10.10.2.2", "fd10::2:2"], "10.10.0.0/16");
        let lab = Self { node, client, a, b, other, inner, remote };
        let tasks = [
            (&lab.a, "a"),
            (&lab.b, "b"),
            (&lab.other, "other"),
            (&lab.inner, "inner"),
            (&lab.remote, "remote"),
        ];
        for (task, name) in tasks {
            for port in [80, 81] {
                task.serve_tcp(name, &format!("[::]:{port}"));
            }
            task.serve_udp(name, "[::]:53");
        }
        lab.client.serve_tcp("world", "[::]:80");
        lab
    }

    /// A namespace on a veth, as the overlay makes it: single addresses, a gateway that is on no network, fixed
    /// neighbours.
    fn task(node: &Ns, device: &str, group: u32, addresses: &[&str], reaches: &str) -> Ns {
        let task = Ns::new();
        let mut inside = format!(
            "ip link add eth0 type veth peer name {device} netns {}; ip link set eth0 addr 02:54:00:00:00:01 up; \
             ip route add 169.254.1.1 dev eth0; ip neigh add 169.254.1.1 lladdr 02:4d:00:00:00:01 dev eth0; \
             ip -6 neigh add fe80::1 lladdr 02:4d:00:00:00:01 dev eth0; ",
            node.path()
        );
        let mut outside = format!(
            "ip link set {device} addr 02:4d:00:00:00:01 group {group} up; \
             echo 1 > /proc/sys/net/ipv4/conf/{device}/route_localnet; "
        );
        for address in addresses {
            let (length, flags) = if address.contains(':') { (128, "nodad") } else { (32, "") };
            inside += &format!("ip addr add {address}/{length} dev eth0 {flags}; ");
            outside += &format!(
                "ip route add {address}/{length} dev {device}; \
                 ip neigh add {address} lladdr 02:54:00:00:00:01 dev {device}; "
            );
        }
        inside +=
            &format!("ip route add {reaches} via 169.254.1.1; ip -6 route add default via fe80::1 dev eth0");
        task.sh(&inside);
        node.sh(&outside);
        task
    }
}
