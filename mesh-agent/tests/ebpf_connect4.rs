//! The socket-level balancer in the real kernel: real sockets, real processes in a real cgroup.
//!
//! Needs root, cgroup v2 and a mesh that was built with eBPF. Where one is missing the tests fail
//! and say so: a test that skips itself proves nothing.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use mesh_agent::dataplane::ebpf::{self, ConnectLb, Protocol, Vip};

/// Addresses that nobody on this machine owns.
const VIP: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);

/// A child cgroup that goes away with the test.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        let mount = ebpf::cgroup2_mount()
            .expect("no cgroup v2 is mounted. Mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified");
        let dir = mount.join(format!("mesh-test-{}-{name}", std::process::id()));
        fs::create_dir(&dir).unwrap_or_else(|error| {
            panic!(
                "cannot create the cgroup {}: {error}. This test needs root and a writable cgroup v2",
                dir.display()
            )
        });
        Self(dir)
    }

    /// Runs a program inside the cgroup, to its end.
    fn run(&self, program: &str, args: &[&str]) -> Output {
        Command::new("sh")
            .args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#])
            .arg(&self.0)
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("cannot start sh to run {program}: {error}"))
    }

    /// One HTTP request by curl, with everything that curl says on standard error.
    fn get(&self, addr: Ipv4Addr, port: u16) -> Output {
        let url = format!("http://{addr}:{port}/");
        self.run("curl", &["--silent", "--verbose", "--noproxy", "*", "--max-time", "5", &url])
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // An exited process may be a member for a moment longer.
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("could not remove the cgroup {}; remove it with rmdir", self.0.display());
    }
}

/// An HTTP server that answers every request with its name, for as long as the test process lives.
fn backend(addr: [u8; 4], name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::from(addr), 0)).expect("a free port on loopback");
    let local = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            // The request is read before the answer, or closing would reset the connection.
            let answered = stream.read(&mut request).and_then(|_| {
                write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())
            });
            if let Err(error) = answered {
                eprintln!("backend {name}: {error}");
            }
        }
    });
    local
}

fn tcp(addr: Ipv4Addr, port: u16) -> Vip {
    Vip { addr: IpAddr::V4(addr), port, protocol: Protocol::Tcp }
}

fn loaded(cgroup: &Path) -> ConnectLb {
    assert!(
        ebpf::built_in(),
        "this test was built without the eBPF half, so that it can prove nothing. \
         Run `cargo xtask setup`, unset MESH_EBPF_SKIP, and build again"
    );
    let mut lb = ConnectLb::load().unwrap_or_else(|error| panic!("{}", chain(&error)));
    lb.attach(cgroup).unwrap_or_else(|error| panic!("{}", chain(&error)));
    lb
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!("\n  because: {error}"));
        cause = error.source();
    }
    text
}

fn body(output: &Output) -> String {
    assert!(
        output.status.success(),
        "curl failed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_refused_at_once(cgroup: &Cgroup, addr: Ipv4Addr, port: u16) {
    let start = Instant::now();
    let output = cgroup.get(addr, port);
    let took = start.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("Connection refused"),
        "expected a refusal, got:\n{said}"
    );
    assert!(took < Duration::from_secs(1), "the refusal took {took:?}");
}

#[test]
fn a_vip_reaches_every_backend() {
    let cgroup = Cgroup::new("spread");
    let mut lb = loaded(&cgroup.0);
    let backends = [backend([127, 0, 0, 2], "one"), backend([127, 0, 0, 3], "two")];
    lb.set(tcp(VIP, 80), &backends).expect("the maps take two backends");

    // Both are missed by pure chance once in 2^39.
    let seen: BTreeSet<String> = (0..40).map(|_| body(&cgroup.get(VIP, 80))).collect();
    assert_eq!(seen, BTreeSet::from(["one".to_owned(), "two".to_owned()]));
}

#[test]
fn a_changed_set_of_backends_counts_for_the_next_connection() {
    let cgroup = Cgroup::new("change");
    let mut lb = loaded(&cgroup.0);
    let (one, two) = (backend([127, 0, 0, 2], "one"), backend([127, 0, 0, 3], "two"));
    let vip = tcp(VIP, 80);
    for (backends, expected) in [(one, "one"), (two, "two"), (one, "one")] {
        lb.set(vip, &[backends]).expect("the maps take a change");
        for _ in 0..5 {
            assert_eq!(body(&cgroup.get(VIP, 80)), expected);
        }
    }
}

#[test]
fn a_vip_without_backends_refuses_at_once() {
    let cgroup = Cgroup::new("refuse");
    let mut lb = loaded(&cgroup.0);
    let vip = tcp(VIP, 80);
    lb.set(vip, &[]).expect("the maps take a frontend without backends");
    assert_refused_at_once(&cgroup, VIP, 80);

    lb.set(vip, &[backend([127, 0, 0, 2], "one")]).expect("the maps take a backend");
    assert_eq!(body(&cgroup.get(VIP, 80)), "one");

    lb.set(vip, &[]).expect("the maps let the last backend go");
    assert_refused_at_once(&cgroup, VIP, 80);
}

#[test]
fn any_port_keeps_the_port_and_yields_to_an_entry_of_its_own() {
    let cgroup = Cgroup::new("anyport");
    let mut lb = loaded(&cgroup.0);
    let (one, two) = (backend([127, 0, 0, 2], "one"), backend([127, 0, 0, 3], "two"));
    // The backend's own port must not count here, so it is one where nobody listens.
    lb.set(tcp(VIP, 0), &[SocketAddr::new(one.ip(), 1)]).expect("the maps take any port");
    assert_eq!(body(&cgroup.get(VIP, one.port())), "one");

    lb.set(tcp(VIP, 80), &[two]).expect("the maps take a port beside it");
    assert_eq!(body(&cgroup.get(VIP, 80)), "two");
    assert_eq!(body(&cgroup.get(VIP, one.port())), "one");

    // "Any port" without backends is how the other ports of a VIP are refused.
    lb.set(tcp(VIP, 0), &[]).expect("the maps let the backend go");
    assert_refused_at_once(&cgroup, VIP, 81);
    assert_eq!(body(&cgroup.get(VIP, 80)), "two");
}

#[test]
fn what_is_no_vip_is_left_alone() {
    let cgroup = Cgroup::new("others");
    let mut lb = loaded(&cgroup.0);
    let (one, direct) = (backend([127, 0, 0, 2], "one"), backend([127, 0, 0, 4], "direct"));
    lb.set(tcp(VIP, 80), &[one]).expect("the maps take a backend");
    // Of the same address, another protocol; of the same port, another address.
    let udp = Vip { protocol: Protocol::Udp, ..tcp(Ipv4Addr::new(127, 0, 0, 4), direct.port()) };
    lb.set(udp, &[]).expect("the maps take UDP");
    assert_eq!(body(&cgroup.get(Ipv4Addr::new(127, 0, 0, 4), direct.port())), "direct");

    // A removed VIP is no VIP. 127.0.0.2 stands in for one, so that the plain route exists.
    let shadow = tcp(Ipv4Addr::new(127, 0, 0, 4), direct.port());
    lb.set(shadow, &[one]).expect("the maps take a VIP");
    assert_eq!(body(&cgroup.get(Ipv4Addr::new(127, 0, 0, 4), direct.port())), "one");
    lb.remove(&shadow).expect("a known VIP can be removed");
    lb.remove(&shadow).expect("removing it again is no error");
    assert_eq!(body(&cgroup.get(Ipv4Addr::new(127, 0, 0, 4), direct.port())), "direct");
}

#[test]
fn other_cgroups_and_a_dropped_balancer_are_not_touched() {
    let (inside, outside) = (Cgroup::new("inside"), Cgroup::new("outside"));
    let direct = backend([127, 0, 0, 4], "direct");
    let addr = Ipv4Addr::new(127, 0, 0, 4);
    let mut lb = loaded(&inside.0);
    lb.set(tcp(addr, direct.port()), &[]).expect("the maps take a frontend");
    assert_refused_at_once(&inside, addr, direct.port());
    assert_eq!(body(&outside.get(addr, direct.port())), "direct");
    drop(lb);
    assert_eq!(body(&inside.get(addr, direct.port())), "direct");
}

#[test]
fn ipv6_is_refused_with_the_reason() {
    let cgroup = Cgroup::new("v6");
    let mut lb = loaded(&cgroup.0);
    let v6 = Vip { addr: "fd00::1".parse().expect("an address"), port: 80, protocol: Protocol::Tcp };
    let said = lb.set(v6, &[]).expect_err("connect4 has no IPv6").to_string();
    assert!(said.starts_with("[fd00::1]:80/tcp is no IPv4 address"), "{said}");
    let backend = "[fd00::2]:80".parse().expect("an address");
    let said = lb.set(tcp(VIP, 80), &[backend]).expect_err("connect4 has no IPv6").to_string();
    assert!(said.contains("backend [fd00::2]:80 of 10.255.0.1:80/tcp"), "{said}");
}
