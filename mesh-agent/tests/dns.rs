//! The DNS server in real network namespaces, asked by the real `dig`, with the real `dnsmasq` as the world.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

#[path = "dns/fixture.rs"]
mod fixture;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_agent::dns::{DnsConfig, DnsServer};
use mesh_core::dns::Zone;
use mesh_core::model::{EndpointMode, NodeId, TaskId};

use fixture::{Dnsmasq, Namespace, add, has, nets, on_a_node, server, upstreams, world};

/// A server and one task of network `app`.
async fn serving(config: DnsConfig) -> (DnsServer, Namespace) {
    let (server, _) = server(config);
    let task = Namespace::new();
    server.serve(TaskId::new("t1"), Arc::clone(&task.0), nets("app"), vec![]).await.unwrap();
    (server, task)
}

#[test]
fn names_resolve_as_in_swarm() {
    on_a_node(|| async {
        let (_server, task) = serving(DnsConfig::default()).await;
        let web = task.dig("web");
        has(&web, &["status: NOERROR", "flags: qr aa rd ra;", "ANSWER: 1,", "web.\t\t\t5\tIN\tA\t10.1.0.1"]);
        has(&web, &["SERVER: 127.0.0.11#53(127.0.0.11) (UDP)"]);
        assert_eq!(task.short("WeB.aPP"), ["10.1.0.1"]);
        has(&task.dig("web +tcp"), &["flags: qr aa rd ra;", "10.1.0.1", "127.0.0.11#53(127.0.0.11) (TCP)"]);
        for name in ["tasks.web", "tasks.web.app", "rr", "tasks.rr"] {
            let orders: BTreeSet<_> = (0..20).map(|_| task.short(name)).collect();
            assert!(orders.len() > 1, "{name} is not shuffled: {orders:?}");
            let sets: BTreeSet<BTreeSet<_>> =
                orders.into_iter().map(|all| all.into_iter().collect()).collect();
            let block = if name.contains("web") { 16 } else { 17 };
            let wanted = (2..5).map(|n| format!("10.1.{block}.{n}")).collect();
            assert_eq!(sets, [wanted].into(), "{name}");
        }
        assert_eq!(task.short("web.2"), ["10.1.16.3"]);
        assert_eq!(task.short("-x 10.1.16.3"), ["web.2.app."]);
        assert_eq!(task.short("-x 10.1.0.1"), ["web.app."]);
        has(
            &task.dig("_8080._tcp.rr SRV"),
            &["ANSWER: 3,", "ADDITIONAL: 4", "SRV\t0 256 8080 rr.1.", "10.1.17.2"],
        );
    });
}

#[test]
fn what_there_is_not_is_denied_for_a_short_time() {
    on_a_node(|| async {
        let (server, task) = serving(DnsConfig::default()).await;
        for args in ["web AAAA", "web MX", "web TXT", "web SRV"] {
            let output = task.dig(args);
            has(&output, &["status: NOERROR", "flags: qr aa rd ra;", "ANSWER: 0, AUTHORITY: 1"]);
            has(&output, &["SOA\t. . 1 5 5 5 5"]);
        }
        for name in
            ["web.9", "tasks.secret", "secret", "secret.other", "secret.1", "-x 10.2.16.2", "-x 10.1.99.9"]
        {
            let output = task.dig(name);
            has(&output, &["status: NXDOMAIN", "flags: qr aa rd ra;", "ANSWER: 0, AUTHORITY: 1", "SOA"]);
        }
        has(&task.dig("web ANY +notcp"), &["status: NOTIMP"]);
        has(&task.dig("version.bind CH TXT"), &["status: REFUSED"]);
        has(&task.dig("web AXFR"), &["Transfer failed"]);
        has(&task.dig("web +opcode=notify"), &["status: NOTIMP"]);
        let counters = server.counters();
        assert_eq!((counters.no_data, counters.nx_domain, counters.forwarded), (4, 7, 0));
    });
}

#[test]
fn two_tasks_see_their_own_networks() {
    on_a_node(|| async {
        let (server, task) = serving(DnsConfig::default()).await;
        let six = Namespace::new();
        server.serve(TaskId::new("t2"), Arc::clone(&six.0), nets("six other"), vec![]).await.unwrap();
        assert_eq!(server.serving(), [TaskId::new("t1"), TaskId::new("t2")].into());
        assert_eq!(six.short("dual AAAA"), ["fd06::1"]);
        assert_eq!(six.short("secret"), ["10.2.0.1"]);
        has(&six.dig("web"), &["status: NXDOMAIN"]);
        assert_eq!(task.short("web"), ["10.1.0.1"]);
        has(&task.dig("dual AAAA"), &["status: NXDOMAIN"]);
        // Attached to another network, and detached: the next question knows.
        server.serve(TaskId::new("t1"), Arc::clone(&task.0), nets("six"), vec![]).await.unwrap();
        assert_eq!(task.short("dual"), ["10.6.0.1"]);
        has(&task.dig("web"), &["status: NXDOMAIN"]);
    });
}

#[test]
fn big_answers_are_cut_over_udp_and_whole_over_tcp() {
    on_a_node(|| async {
        let (server, task) = serving(DnsConfig::default()).await;
        for (args, most, size) in [("+noedns", 32, 512), ("+bufsize=2048", 126, 2048)] {
            let output = task.dig(&format!("many +ignore {args}"));
            has(&output, &["flags: qr aa tc rd ra;"]);
            let count = output.matches("10.1.18.").count();
            assert!(count > most / 2 && count <= most, "{count} records with {args}");
            let bytes: usize = output.rsplit("rcvd: ").next().unwrap().trim().parse().unwrap();
            assert!(bytes <= size, "{bytes} bytes with {args}");
        }
        assert_eq!(server.counters().truncated, 2);
        for args in ["many", "many +tcp", "many +noedns"] {
            let all: BTreeSet<_> =
                task.short(args).into_iter().filter(|line| !line.starts_with(';')).collect();
            assert_eq!(all.len(), 200, "{args}");
        }
        // Whoever takes as much has all of it at once, as HAProxy may.
        for args in ["many +tcp", "many +ignore +bufsize=8192"] {
            has(&task.dig(args), &["flags: qr aa rd ra;", "ANSWER: 200,"]);
        }
    });
}

#[test]
fn the_rest_is_asked_of_the_world() {
    on_a_node(|| async {
        let long = format!("--txt-record=long.example,{}", vec!["x".repeat(200); 10].join(","));
        let www = "--host-record=www.example,192.0.2.7,2001:db8::7,77";
        let upstream = Dnsmasq::start(5301, &[www, "--local=/example/", &long]);
        let (server, task) = serving(upstreams(&[5301])).await;
        has(&task.dig("www.example"), &["status: NOERROR", "www.example.\t\t77\tIN\tA\t192.0.2.7", "#53"]);
        assert_eq!(task.short("www.example AAAA +tcp"), ["2001:db8::7"]);
        has(&task.dig("gone.example"), &["status: NXDOMAIN"]);
        has(&task.dig("www.example MX"), &["status: NOERROR", "ANSWER: 0"]);
        assert_eq!(server.counters().forwarded, 4);
        // Cut for whoever asks over UDP, whole over TCP, also where the upstream itself must be asked so.
        has(&task.dig("long.example TXT +ignore"), &["flags: qr aa tc rd ra;"]);
        has(&task.dig("long.example TXT"), &["ANSWER: 1", "(TCP)", &"x".repeat(200)]);
        assert_eq!(task.short("web"), ["10.1.0.1"]);
        assert_eq!(server.counters().forwarded, 7);
        drop(upstream);
        let start = Instant::now();
        has(&task.dig("other.example"), &["status: SERVFAIL"]);
        assert!(start.elapsed() < Duration::from_secs(1), "a closed port is noticed at once");
        server.set_upstreams(vec![]);
        has(&task.dig("other.example"), &["status: SERVFAIL"]);
        assert_eq!(server.counters().failed, 2);
    });
}

#[test]
fn a_silent_upstream_costs_its_time_once() {
    on_a_node(|| async {
        let silent = UdpSocket::bind("127.0.0.1:5302").unwrap();
        let (server, task) = serving(upstreams(&[5302])).await;
        let start = Instant::now();
        has(&task.dig("www.example"), &["status: SERVFAIL"]);
        let took = start.elapsed();
        assert!(took > Duration::from_millis(3900) && took < Duration::from_secs(5), "{took:?}");
        let _upstream = Dnsmasq::start(5303, &["--host-record=www.example,192.0.2.7"]);
        server.set_upstreams(upstreams(&[5302, 5303]).upstreams);
        for most in [3000, 1000, 1000] {
            let start = Instant::now();
            assert_eq!(task.short("www.example"), ["192.0.2.7"]);
            assert!(start.elapsed() < Duration::from_millis(most), "{:?}", start.elapsed());
        }
        drop(silent);
    });
}

/// An upstream that answers with another id, another question, or a broken header is not believed.
#[test]
fn what_the_world_said_is_kept_for_its_time() {
    on_a_node(|| async {
        let (www, local) = ("--host-record=www.example,192.0.2.7,2", "--local=/example/");
        let upstream = Dnsmasq::start(5310, &[www, local]);
        let (server, task) = serving(upstreams(&[5310])).await;
        has(&task.dig("www.example"), &["www.example.\t\t2\tIN\tA\t192.0.2.7"]);
        drop(upstream);
        has(&task.dig("WWW.example +tcp"), &["status: NOERROR", "WWW.example.", "192.0.2.7"]);
        assert_eq!((server.counters().forwarded, server.counters().cached), (2, 1));
        tokio::time::sleep(Duration::from_millis(2100)).await;
        has(&task.dig("www.example"), &["status: SERVFAIL"]);
        server.set_upstreams(vec![]);
        has(&task.dig("www.example"), &["status: SERVFAIL"]);
    });
}

#[test]
fn a_task_may_have_name_servers_of_its_own() {
    on_a_node(|| async {
        let _nodes = Dnsmasq::start(5311, &["--host-record=www.example,192.0.2.7"]);
        let (server, _) = server(upstreams(&[5311]));
        let [own, other] = [Namespace::new(), Namespace::new()];
        let long = format!("--txt-record=long.example,{}", vec!["x".repeat(200); 10].join(","));
        let _own = own.run(move || Dnsmasq::start(5311, &["--host-record=www.example,192.0.2.8", &long]));
        let asked = upstreams(&[5311]).upstreams;
        server.serve(TaskId::new("t1"), Arc::clone(&own.0), nets("app"), asked).await.unwrap();
        server.serve(TaskId::new("t2"), Arc::clone(&other.0), nets("app"), vec![]).await.unwrap();
        for args in ["www.example", "www.example +tcp"] {
            assert_eq!(own.short(args), ["192.0.2.8"]);
            assert_eq!(other.short(args), ["192.0.2.7"]);
        }
        has(&own.dig("long.example TXT"), &["ANSWER: 1", "(TCP)", &"x".repeat(200)]);
        assert_eq!(own.short("web"), ["10.1.0.1"]);
    });
}

#[test]
fn forged_answers_are_not_believed() {
    on_a_node(|| async {
        let forger = UdpSocket::bind("127.0.0.1:5304").unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = forger.recv_from(&mut buffer) {
                let asked = buffer[..length].to_vec();
                let mut answer = asked.clone();
                answer[2] |= 0x80;
                let with = |at: usize, bit: u8| {
                    let mut forged = answer.clone();
                    forged[at] ^= bit;
                    forged
                };
                // Its id, its opcode, its name and its type; then no answer at all, and what is cut off.
                let forged = [with(0, 1), with(2, 8), with(13, 1), with(length - 3, 1)];
                for forged in forged.into_iter().chain([asked, answer[..14].to_vec(), vec![]]) {
                    forger.send_to(&forged, from).unwrap();
                }
                // The only true one says NXDOMAIN.
                answer[3] = 0x83;
                forger.send_to(&answer, from).unwrap();
            }
        });
        let (_server, task) = serving(upstreams(&[5304])).await;
        has(&task.dig("a.example +noedns"), &["status: NXDOMAIN"]);
    });
}

/// The upstream is a task that asks us: the question waits for itself, and nothing multiplies.
#[test]
fn a_loop_ends_by_itself() {
    on_a_node(|| async {
        let _looping = Dnsmasq::start(5305, &["--server=127.0.0.11#53"]);
        let (server, _) = server(upstreams(&[5305]));
        let node = Namespace(Arc::new(File::open("/proc/thread-self/ns/net").unwrap()));
        server.serve(TaskId::new("t1"), Arc::clone(&node.0), nets("app"), vec![]).await.unwrap();
        assert_eq!(node.short("web"), ["10.1.0.1"]);
        has(&node.dig("loop.example"), &["status: SERVFAIL"]);
        let counters = server.counters();
        assert!(counters.failed + counters.forwarded < 10, "{counters:?}");
        // It has been found out, and costs no more time.
        let start = Instant::now();
        has(&node.dig("again.example"), &["status: SERVFAIL"]);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    });
}

#[test]
fn floods_are_refused_and_others_still_served() {
    on_a_node(|| async {
        let _silent = UdpSocket::bind("127.0.0.1:5306").unwrap();
        let config = DnsConfig { max_forwards_per_task: 4, max_forwards: 6, ..upstreams(&[5306]) };
        let (server, flooding) = serving(config).await;
        let _upstream = Dnsmasq::start(5307, &["--host-record=www.example,192.0.2.7"]);
        let other = Namespace::new();
        server.serve(TaskId::new("t2"), Arc::clone(&other.0), nets("app"), vec![]).await.unwrap();
        let asking: Vec<_> = (0..10)
            .map(|n| {
                let flooding = flooding.clone();
                std::thread::spawn(move || flooding.dig(&format!("n{n}.example")))
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(2);
        while server.counters().refused < 6 {
            assert!(Instant::now() < until, "{:?}", server.counters());
            std::thread::sleep(Duration::from_millis(10));
        }
        server.set_upstreams(upstreams(&[5307]).upstreams);
        assert_eq!(other.short("www.example"), ["192.0.2.7"]);
        assert_eq!(flooding.short("web"), ["10.1.0.1"]);
        let outputs: Vec<_> = asking.into_iter().map(|one| one.join().unwrap()).collect();
        assert_eq!(outputs.iter().filter(|output| output.contains("status: REFUSED")).count(), 6);
    });
}

#[test]
fn idle_connections_make_room() {
    on_a_node(|| async {
        let config = DnsConfig {
            max_connections_per_task: 2,
            idle_timeout: Duration::from_millis(700),
            ..DnsConfig::default()
        };
        let (_server, task) = serving(config).await;
        let idle = task.run(|| [0; 2].map(|_| TcpStream::connect("127.0.0.11:53").unwrap()));
        let start = Instant::now();
        assert_eq!(task.short("web +tcp"), ["10.1.0.1"]);
        assert!(start.elapsed() > Duration::from_millis(300), "a third connection waited");
        for mut stream in idle {
            assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "closed");
        }
        // Several questions on one connection.
        assert_eq!(task.short("+tcp +keepopen web rr.1"), ["10.1.0.1", "10.1.17.2"]);
    });
}

#[test]
fn a_task_may_serve_port_53_and_have_ours() {
    on_a_node(|| async {
        let (server, task) = serving(DnsConfig::default()).await;
        let _own = task.run(|| Dnsmasq::start(53, &["--host-record=own.example,192.0.2.9"]));
        assert_eq!(task.short("web"), ["10.1.0.1"]);
        assert_eq!(task.short("web +tcp"), ["10.1.0.1"]);
        assert_eq!(task.short("@127.0.0.1 own.example"), ["192.0.2.9"]);
        let other = Namespace::new();
        let taken = other
            .run(|| (UdpSocket::bind("0.0.0.0:20053").unwrap(), TcpListener::bind("0.0.0.0:20053").unwrap()));
        server.serve(TaskId::new("t2"), Arc::clone(&other.0), nets("app"), vec![]).await.unwrap();
        assert_eq!(other.short("web"), ["10.1.0.1"]);
        assert_eq!(other.short("web +tcp"), ["10.1.0.1"]);
        drop(taken);
    });
}

#[test]
fn a_new_zone_is_seen_by_the_next_question() {
    on_a_node(|| async {
        let (server, zone) = server(DnsConfig::default());
        let task = Namespace::new();
        server.serve(TaskId::new("t1"), Arc::clone(&task.0), nets("app"), vec![]).await.unwrap();
        assert_eq!(task.short("tasks.web").len(), 3);
        let mut changed = world();
        add(&mut changed, "web", "app", EndpointMode::Vip, 1, 5);
        zone.store(Arc::new(Zone::build(&changed, &NodeId::new("n1"))));
        assert_eq!(task.short("tasks.web").len(), 5);
        changed.tasks = Default::default();
        zone.store(Arc::new(Zone::build(&changed, &NodeId::new("n1"))));
        has(&task.dig("tasks.web"), &["status: NOERROR", "ANSWER: 0", "flags: qr aa"]);
        assert_eq!(task.short("web"), ["10.1.0.1"]);
    });
}

#[test]
fn stopping_leaves_nothing_and_a_restart_takes_over() {
    on_a_node(|| async {
        let (first, task) = serving(DnsConfig::default()).await;
        let rules = |task: &Namespace| {
            let list = || Command::new("nft").args(["list", "tables"]).output().unwrap().stdout;
            String::from_utf8(task.run(list)).unwrap()
        };
        has(&rules(&task), &["table inet mesh_dns"]);
        task.run(|| assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success()));
        assert!(first.repair().await.is_empty());
        assert_eq!(task.short("web"), ["10.1.0.1"]);
        first.stop(&TaskId::new("t1")).await;
        assert!(first.serving().is_empty());
        assert_eq!(rules(&task), "");
        task.run(|| {
            UdpSocket::bind("127.0.0.11:20053").unwrap();
            TcpListener::bind("127.0.0.11:20053").unwrap();
        });
        first.stop(&TaskId::new("t1")).await;
        first.serve(TaskId::new("t1"), Arc::clone(&task.0), nets("app"), vec![]).await.unwrap();
        assert_eq!(task.short("web"), ["10.1.0.1"]);
        // The agent dies without a word; the next one finds its rules there.
        drop(first);
        let (next, _) = server(DnsConfig::default());
        next.serve(TaskId::new("t1"), Arc::clone(&task.0), nets("app"), vec![]).await.unwrap();
        assert_eq!(task.short("web"), ["10.1.0.1"]);
        // The same task in a new namespace.
        let moved = Namespace::new();
        next.serve(TaskId::new("t1"), Arc::clone(&moved.0), nets("app"), vec![]).await.unwrap();
        assert_eq!(moved.short("web"), ["10.1.0.1"]);
        assert_eq!(rules(&task), "");
    });
}

#[test]
fn a_namespace_that_cannot_be_served_says_why() {
    on_a_node(|| async {
        let (server, _) = server(DnsConfig::default());
        let file = Arc::new(File::open("/dev/null").unwrap());
        let error = server.serve(TaskId::new("t1"), file, nets("app"), vec![]).await.unwrap_err().to_string();
        has(&error, &["cannot enter the network namespace of task t1"]);
        assert!(server.serving().is_empty());
    });
}

#[test]
fn garbage_does_not_break_it() {
    on_a_node(|| async {
        let _upstream = Dnsmasq::start(5308, &[]);
        let (server, task) = serving(upstreams(&[5308])).await;
        task.run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect("127.0.0.11:53").unwrap();
            let mut state = 42u64;
            let mut random = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            };
            for turn in 0..6000 {
                let length = random() as usize % 1400;
                let mut packet: Vec<u8> = (0..length).map(|_| random() as u8).collect();
                if turn % 2 == 0 && length > 12 {
                    // So that half of it gets past the header.
                    packet[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, (turn % 3) as u8]);
                }
                let _ = socket.send(&packet);
                if turn % 100 == 0 {
                    let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
                    let _ = stream.write_all(&packet);
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        assert_eq!(task.short("web"), ["10.1.0.1"]);
        assert_eq!(task.short("web +tcp"), ["10.1.0.1"]);
        assert!(server.counters().malformed > 1000, "{:?}", server.counters());
    });
}
