//! The agent as it is seen from outside: its processor time and memory, its page of metrics, its maps.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aya::maps::{HashMap, Map, MapData};
use mesh_ebpf::abi::{Addr16, Frontend, FrontendKey, LAYOUT, NetPort, UDP, map};
use mesh_tests::{Lab, Netns, Node};

use super::{FIRST_PORT, METRICS};

/// Between two looks.
const LOOK: Duration = Duration::from_micros(100);
/// The kernel counts processor time in hundredths of a second (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);
const VXLAN: u16 = 4789;
const PATIENCE: Duration = Duration::from_secs(20);

/// A running agent.
pub(super) struct Agent {
    process: u32,
    client: Netns,
    metrics: SocketAddrV4,
    frontends: HashMap<MapData, FrontendKey, Frontend>,
    services: u16,
}

impl Agent {
    /// That of a node; its maps are opened as soon as they are there.
    pub(super) fn of(lab: &Lab, node: &Node, services: u16) -> Result<Self> {
        let pin = node.run_dir().join(format!("bpf/maps/v{LAYOUT}")).join(map::FRONTENDS);
        let frontends =
            mesh_tests::eventually(PATIENCE, "the maps are pinned", || Ok(MapData::from_pin(&pin)?))?;
        let frontends = Map::from_map_data(frontends)?.try_into()?;
        let metrics = SocketAddrV4::new(node.address(), METRICS);
        let client = lab.client().netns().clone();
        Ok(Self { process: node.agent_id()?, client, metrics, frontends, services })
    }

    /// How many backends a service has in the kernel; none: it is not there.
    pub(super) fn backends(&self, service: u16) -> Option<u32> {
        let key = FrontendKey::published(Addr16::ANY_V4, NetPort::new(FIRST_PORT + service), UDP);
        self.frontends.get(&key, 0).ok().map(|frontend| frontend.backends)
    }

    /// Waits until a service has so many. When that was.
    pub(super) fn reaches(&self, service: u16, backends: u32) -> Result<Instant> {
        let began = Instant::now();
        while self.backends(service) != Some(backends) {
            if began.elapsed() > PATIENCE {
                bail!("service {service} has {:?} backends instead of {backends}", self.backends(service));
            }
            thread::sleep(LOOK);
        }
        Ok(Instant::now())
    }

    /// Waits until every service is in the kernel, and the agent says that it is done. When that was.
    pub(super) fn programmed(&self, patience: Duration) -> Result<Instant> {
        let began = Instant::now();
        for service in (0..self.services).rev() {
            while self.backends(service).is_none() {
                if began.elapsed() > patience {
                    bail!("service {service} is not in the kernel");
                }
                thread::sleep(LOOK);
            }
        }
        let programmed = Instant::now();
        mesh_tests::eventually(patience, "all is applied", || {
            let page = self.metrics()?;
            let (wanted, applied) = (page.one("mesh_wanted_revision")?, page.one("mesh_applied_revision")?);
            anyhow::ensure!(applied > 0.0 && applied >= wanted, "{applied} of {wanted}");
            Ok(())
        })?;
        Ok(programmed)
    }

    /// The share of a processor that it takes while nothing happens, by the second that passes.
    pub(super) fn busy(&self, time: Duration) -> Result<f64> {
        let (began, before) = (Instant::now(), self.processor()?);
        thread::sleep(time);
        Ok((self.processor()? - before).as_secs_f64() / began.elapsed().as_secs_f64())
    }

    /// The processor time that it took so far, proc(5) stat.
    pub(super) fn processor(&self) -> Result<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.process))?;
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |place: usize| fields.get(place).and_then(|ticks| ticks.parse::<u32>().ok());
        Ok(TICK
            * (ticks(11).zip(ticks(12)).map(|(user, system)| user + system)).context("no processor time")?)
    }

    /// MiB of memory, by its name in proc(5) status.
    pub(super) fn memory(&self, name: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
        let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// How long a scrape takes, and what it says.
    pub(super) fn scrape(&self) -> Result<(Duration, String)> {
        let at = self.metrics;
        self.client.run(move || {
            let began = Instant::now();
            let mut stream = TcpStream::connect(at)?;
            write!(stream, "GET /metrics HTTP/1.0\r\nHost: {at}\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            anyhow::ensure!(text.contains("mesh_build_info"), "no metrics: {text:.200}");
            Ok((began.elapsed(), text))
        })?
    }

    pub(super) fn metrics(&self) -> Result<Page> {
        Ok(Page(self.scrape()?.1))
    }
}

/// A page of metrics.
pub(super) struct Page(String);

impl Page {
    fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            Some((labels, value.parse().ok()?)).filter(|_| labels.is_empty() || labels.starts_with('{'))
        })
    }

    fn one(&self, name: &str) -> Result<f64> {
        self.lines(name).next().map(|(_, value)| value).with_context(|| format!("no {name}"))
    }

    /// How long all rounds of each plane took so far, ms.
    pub(super) fn rounds(&self) -> BTreeMap<String, f64> {
        let plane = |labels: &str| labels.trim_matches(['{', '}']).replace("plane=", "").replace('"', "");
        self.lines("mesh_round_seconds_total").map(|(labels, s)| (plane(labels), s * 1000.0)).collect()
    }
}

/// A client sends datagrams to a port of the node all the time, each from a port of its own. Tells when the first one
/// came through a tunnel to the peer that has some of the tasks.
pub(super) fn first_packet(lab: &Lab, peer: &Node) -> Result<Receiver<Instant>> {
    let (told, first) = channel();
    let tunnel =
        peer.netns().run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, VXLAN)))?.context("no tunnel")?;
    tunnel.set_read_timeout(Some(super::READY))?;
    thread::Builder::new().name("tunnel".into()).spawn(move || {
        // Longer than the headers of VXLAN and of an empty frame.
        while !matches!(tunnel.recv(&mut [0; 2048]), Ok(64..)) {}
        let _ = told.send(Instant::now());
    })?;
    let to = SocketAddrV4::new(lab.node("n1")?.address(), FIRST_PORT);
    lab.client().netns().thread("datagrams", move || {
        let until = Instant::now() + super::READY;
        while Instant::now() < until {
            if let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) {
                let _ = socket.send_to(&[0; 64], to);
            }
            thread::sleep(Duration::from_millis(1));
        }
    })?;
    Ok(first)
}
