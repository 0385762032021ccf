//! **Effect.** What Mesh promises, checked with curl, dig, ping and HAProxy. Each check leaves the mesh as it
//! found it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mesh_tests::{Load, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::scene::Scene;
use super::{Dataplane, DemoStore, SOON};

/// One promise.
pub(super) struct Check {
    pub(super) name: &'static str,
    /// Says in words what was seen.
    pub(super) run: fn(&Scene) -> Result<String>,
}

/// What holds on a data plane and with a store, in the order in which a newcomer would try it.
pub(super) fn on(dataplane: Dataplane, store: DemoStore) -> impl Iterator<Item = &'static Check> {
    let more = match dataplane {
        Dataplane::Ebpf => EBPF,
        // `mesh status` says there that it cannot.
        Dataplane::Nft => &[],
    };
    let last = match store {
        DemoStore::Local => &[],
        DemoStore::Etcd => ETCD,
    };
    EVERYWHERE.iter().chain(more).chain(last)
}

const ETCD: &[Check] = &[
    Check { name: "etcd's leader is killed: no request fails, and changes go on", run: kill_leader },
    Check { name: "a node is unplugged: within a second nobody is sent there any more", run: unplug },
];

const EBPF: &[Check] =
    &[Check { name: "a task on another node sees the client's own address and port", run: client_address }];

const EVERYWHERE: &[Check] = &[
    Check { name: "every node answers port 8080, also the one without tasks", run: every_node },
    Check { name: "requests reach all three tasks", run: all_tasks },
    Check { name: "the service's name is its one VIP", run: name_is_vip },
    Check { name: "the VIP answers requests and ping", run: vip_answers },
    Check { name: "tasks.web has three addresses", run: tasks_name },
    Check { name: "a UDP service answers on every node", run: udp },
    Check { name: "scale 3, 5, 2 is followed on every node", run: scale },
    Check { name: "publish-add leaves other ports alone", run: publish_add },
    Check { name: "publish-rm is refused within a second on every node", run: publish_rm },
    Check { name: "drain of a node moves its traffic without a failed request", run: drain },
    Check { name: "another network cannot reach it", run: isolation },
    Check { name: "HAProxy in front spreads, and survives the stop of one node's tasks", run: haproxy },
    Check { name: "mesh doctor finds nothing wrong, and the rule that closes the tunnels", run: doctor },
    Check { name: "every kernel is as planned, and what is changed by hand is told and mended", run: verify },
    Check {
        name: "kill -9 of an agent stops no traffic, and the state is whole after a restart",
        run: kill_agent,
    },
];

fn every_node(scene: &Scene) -> Result<String> {
    let mut seen = Vec::new();
    for node in scene.lab.nodes() {
        seen.push(format!("{}: {}", node.name(), scene.curl(node, 8080)?));
    }
    Ok(seen.join(", "))
}

/// Who answers requests to a node's port, over enough of them to see all.
fn answering(scene: &Scene, node: &str, port: u16, requests: u32) -> Result<BTreeSet<String>> {
    let node = scene.lab.node(node)?;
    let url = format!("http://{}:{port}/?[1-{requests}]", node.address());
    // Globbed by curl itself; a new connection for each.
    let text =
        scene.lab.client().exec(["curl", "-sS", "--max-time", "5", "-H", "Connection: close", &url])?.ok()?;
    Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

fn tasks_answer(scene: &Scene, wanted: &[&str]) -> Result<()> {
    let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    for node in scene.lab.nodes() {
        let seen = answering(scene, node.name(), 8080, 40)?;
        ensure!(seen == wanted, "by {} answered {seen:?}, not {wanted:?}", node.name());
    }
    Ok(())
}

fn all_tasks(scene: &Scene) -> Result<String> {
    tasks_answer(scene, &["web.1", "web.2", "web.3"])?;
    Ok("web.1, web.2 and web.3 answered by every node".to_owned())
}

fn vip(scene: &Scene) -> Result<String> {
    let format = "{{json .Endpoint.VirtualIPs}}";
    let text = scene.mesh("n1", &["service", "inspect", "--format", format, "web"])?;
    let vips: serde_json::Value = serde_json::from_str(&text)?;
    let address = vips[0]["Addr"].as_str().and_then(|text| text.split('/').next()).unwrap_or_default();
    ensure!(!address.is_empty(), "the service has no VIP: {text}");
    Ok(address.to_owned())
}

fn name_is_vip(scene: &Scene) -> Result<String> {
    let vip = vip(scene)?;
    let answer = scene.beside("n3", "app", &["dig", "+short", "web"])?.ok()?;
    ensure!(answer.trim() == vip, "dig says {answer:?}, the service's VIP is {vip}");
    Ok(format!("web is {vip}"))
}

fn vip_answers(scene: &Scene) -> Result<String> {
    scene.beside("n3", "app", &["ping", "-c", "2", "-i", "0.2", "-W", "1", "web"])?.ok()?;
    let text = scene.beside("n3", "app", &["curl", "-sS", "--max-time", "3", "http://web/"])?.ok()?;
    ensure!(text.starts_with("web."), "http://web/ says {text:?}");
    Ok(format!("ping 2 of 2; {}", text.trim()))
}

fn tasks_name(scene: &Scene) -> Result<String> {
    let text = scene.beside("n1", "app", &["dig", "+short", "tasks.web"])?.ok()?;
    let addresses: BTreeSet<_> = text.lines().collect();
    ensure!(addresses.len() == 3, "dig says {text:?}");
    Ok(addresses.into_iter().collect::<Vec<_>>().join(", "))
}

const UDP_CLIENT: &str = "import socket,sys
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(2)
s.sendto(b'hello',(sys.argv[1],9000)); print(s.recv(100).decode().strip())";

fn udp(scene: &Scene) -> Result<String> {
    for node in scene.lab.nodes() {
        let address = node.address().to_string();
        let text = scene.lab.client().exec(["python3", "-c", UDP_CLIENT, &address])?.ok()?;
        ensure!(text.starts_with("echo.1"), "{} says {text:?}", node.name());
    }
    Ok("echo.1 answered by n1, n2 and n3".to_owned())
}

/// Prints both ends of what it sees: its own, and the one that the server sees.
const UDP_PEER: &str = "import socket,sys
family=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
s=socket.socket(family,socket.SOCK_DGRAM); s.settimeout(2); s.connect((sys.argv[1],9000))
s.send(b'peer'); print(*s.getsockname()[:2]); print(s.recv(100).decode().strip())";

/// n3 has no task: whoever answers there is on another node.
fn client_address(scene: &Scene) -> Result<String> {
    let n3 = scene.lab.node("n3")?;
    let mut seen = Vec::new();
    for address in [IpAddr::from(n3.address()), n3.address6().into()] {
        let url = format!("http://{}/peer", SocketAddr::from((address, 8080)));
        let own = "%{local_ip} %{local_port}\n";
        let (to, client) = (address.to_string(), scene.lab.client());
        let tcp = client.exec(["curl", "-sS", "--max-time", "3", "-w", own, &url])?.ok()?;
        let udp = client.exec(["python3", "-c", UDP_PEER, &to])?.ok()?;
        // curl is told first what the server sees.
        let tcp = tcp.lines().rev().collect::<Vec<_>>();
        for (protocol, ends) in [("TCP", tcp), ("UDP", udp.lines().collect())] {
            let [own, peer] = ends[..] else { bail!("{protocol} to {to}: {ends:?}") };
            let Some((ip, port)) = own.split_once(' ') else { bail!("{protocol} to {to}: {own:?}") };
            let own = SocketAddr::new(ip.parse()?, port.parse()?);
            let peer: SocketAddr = peer.parse().with_context(|| format!("{protocol} to {to}: {peer:?}"))?;
            ensure!(peer == own, "{protocol} to {to}: the client is {own}, and the task sees {peer}");
            seen.push(format!("{protocol} {peer}"));
        }
    }
    Ok(seen.join(", "))
}

fn scale(scene: &Scene) -> Result<String> {
    scene.run_web("n1")?;
    scene.run_web("n2")?;
    eventually(SOON, "five tasks answer everywhere", || {
        tasks_answer(scene, &["web.1", "web.2", "web.3", "web.4", "web.5"])
    })?;
    scene.mesh("n3", &["task", "rm", "web.3", "web.4", "web.5"])?;
    eventually(SOON, "two tasks answer everywhere", || tasks_answer(scene, &["web.1", "web.2"]))?;
    scene.run_web("n2")?;
    eventually(SOON, "three tasks answer everywhere", || tasks_answer(scene, &["web.1", "web.2", "web.3"]))?;
    Ok("5, 2 and 3 tasks answered by every node".to_owned())
}

fn publish_add(scene: &Scene) -> Result<String> {
    let load = scene.load(8080)?;
    scene.mesh("n2", &["service", "update", "--publish-add", "9090:80", "web"])?;
    for node in scene.lab.nodes() {
        scene.curl(node, 9090)?;
    }
    let report = load.stop()?;
    report.lossless()?;
    Ok(format!("9090 answers on every node; {} requests to 8080 meanwhile, none failed", report.ok))
}

fn publish_rm(scene: &Scene) -> Result<String> {
    scene.mesh("n1", &["service", "update", "-d", "--publish-rm", "9090:80", "web"])?;
    let since = Instant::now();
    let mut slowest = Duration::ZERO;
    for node in scene.lab.nodes() {
        let url = format!("http://{}:9090/", node.address());
        eventually(Duration::from_secs(1), "the port is refused", || {
            let output = scene.lab.client().exec(["curl", "-sS", "--max-time", "1", &url])?;
            // 7: could not connect. A time-out (28) would be a hang.
            ensure!(output.code() == Some(7), "{} still says {:?}", node.name(), output.code());
            Ok(())
        })?;
        slowest = slowest.max(since.elapsed());
    }
    ensure!(slowest < Duration::from_secs(1), "it took {slowest:?}");
    all_tasks(scene)?;
    Ok(format!("refused everywhere after {} ms; 8080 still answers", slowest.as_millis()))
}

fn drain(scene: &Scene) -> Result<String> {
    let load = scene.load(8080)?;
    scene.mesh("n1", &["node", "update", "--availability", "drain", "n2"])?;
    eventually(SOON, "only n1's tasks answer", || tasks_answer(scene, &["web.1", "web.2"]))?;
    scene.mesh("n1", &["node", "update", "--availability", "active", "n2"])?;
    eventually(SOON, "n2's task answers again", || tasks_answer(scene, &["web.1", "web.2", "web.3"]))?;
    let report = load.stop()?;
    report.lossless()?;
    Ok(format!("{} requests while n2 was drained and came back, none failed", report.ok))
}

fn isolation(scene: &Scene) -> Result<String> {
    let vip = vip(scene)?;
    scene.mesh("n1", &["network", "create", "other"])?;
    let tries = (|| {
        let name = scene.beside("n3", "other", &["dig", "+short", "web"])?.ok()?;
        ensure!(name.trim().is_empty(), "the name web is {name:?} in another network");
        let since = Instant::now();
        let url = format!("http://{vip}/");
        let output = scene.beside("n3", "other", &["curl", "-sS", "--max-time", "3", &url])?;
        ensure!(output.code() == Some(7), "curl to the VIP says {:?}: {}", output.code(), output.stdout);
        Ok(since.elapsed())
    })();
    eventually(SOON, "the other network is removed", || {
        scene.mesh("n1", &["network", "rm", "other"]).map(drop)
    })?;
    Ok(format!("no name, and the VIP is refused after {} ms", tries?.as_millis()))
}

fn haproxy(scene: &Scene) -> Result<String> {
    let client = scene.lab.client();
    let servers: Vec<_> = scene
        .lab
        .nodes()
        .iter()
        .map(|node| format!("    server {} {}:8080 check inter 500ms", node.name(), node.address()))
        .collect();
    let config = format!(
        "defaults\n    mode http\n    timeout connect 1s\n    timeout client 5s\n    timeout server 5s\n    \
         retries 2\n    option redispatch\nfrontend in\n    bind 127.0.0.1:8000\n    default_backend mesh\n\
         backend mesh\n    balance roundrobin\n    option httpchk GET /\n    \
         http-response set-header X-Node %s\n{}\n",
        servers.join("\n")
    );
    let file = client.dir().join("haproxy.cfg");
    std::fs::write(&file, config)?;
    let program = client.spawn_daemon("haproxy", ["haproxy", "-db", "-f", &file.to_string_lossy()])?;
    let entries = || -> Result<BTreeSet<String>> {
        let url = "http://127.0.0.1:8000/?[1-12]";
        let text =
            client.exec(["curl", "-sS", "-D", "-", "-o", "/dev/null", "--max-time", "3", url])?.ok()?;
        Ok(text.lines().filter_map(|line| line.strip_prefix("x-node: ")).map(str::to_owned).collect())
    };
    eventually(SOON, "HAProxy sends to all three nodes", || {
        let seen = entries()?;
        ensure!(seen.len() == 3, "it sent to {seen:?}; its log:\n{}", program.log_tail(5));
        Ok(())
    })?;
    let load = Load::start(client.netns(), &[SocketAddr::from(([127, 0, 0, 1], 8000))], 100)?;
    scene.mesh("n1", &["task", "rm", "web.1", "web.2"])?;
    eventually(SOON, "only n2's task is left", || tasks_answer(scene, &["web.3"]))?;
    std::thread::sleep(Duration::from_secs(1));
    let report = load.stop()?;
    let seen = entries()?;
    for _ in 0..2 {
        scene.run_web("n1")?;
    }
    eventually(SOON, "n1's tasks are back", || tasks_answer(scene, &["web.1", "web.2", "web.3"]))?;
    report.lossless()?;
    if seen.len() != 3 {
        bail!("without tasks of its own n1 was taken out: HAProxy sent to {seen:?}");
    }
    Ok(format!("spread over 3 nodes; {} requests while n1's tasks stopped, none failed", report.ok))
}

fn verify(scene: &Scene) -> Result<String> {
    let node = scene.lab.node("n1")?;
    eventually(SOON, "all are as planned", || node.mesh(["verify"])?.ok().map(drop))?;
    scene.lab.node("n2")?.exec(["nft", "flush", "chain", "inet", "mesh", "guard"])?.ok()?;
    let told = node.mesh(["verify"])?;
    ensure!(told.code() == Some(1), "a chain was emptied, and `mesh verify` says {}", told.stdout);
    node.mesh(["verify", "--repair"])?.ok()?;
    node.mesh(["verify"])?.ok()?;
    let told = told.stdout.lines().find(|line| line.starts_with("n2: ")).unwrap_or_default().to_owned();
    Ok(format!("told: {told}; mended, and all are as planned"))
}

fn doctor(scene: &Scene) -> Result<String> {
    let node = scene.lab.node("n1")?;
    let config = node.config_file().display().to_string();
    let look = || node.mesh(["doctor", "--config", &config]);
    eventually(SOON, "nothing is wrong", || look()?.ok().map(drop))?;
    let rules =
        "table inet closed { chain in { type filter hook input priority 10; udp dport 4789 drop; }; }";
    node.exec(["nft", rules])?.ok()?;
    let told = look()?;
    node.exec(["nft", "delete table inet closed"])?.ok()?;
    let line = told.stdout.lines().find(|line| line.starts_with("firewall")).unwrap_or_default();
    ensure!(
        told.code() == Some(1) && line.contains("chain in of table inet closed drops tunnels"),
        "tunnels were closed, and `mesh doctor` says\n{}",
        told.stdout
    );
    eventually(SOON, "nothing is wrong", || look()?.ok().map(drop))?;
    Ok(format!("told: {}", line.split_whitespace().collect::<Vec<_>>().join(" ")))
}

fn kill_agent(scene: &Scene) -> Result<String> {
    let node = scene.lab.node("n2")?;
    let load = scene.load(8080)?;
    node.kill_agent()?;
    std::thread::sleep(Duration::from_secs(1));
    let without = answering(scene, "n2", 8080, 20)?;
    ensure!(!without.is_empty(), "nobody answers on n2 without its agent");
    node.start_agent()?;
    node.wait_ready(Duration::from_secs(15))?;
    eventually(SOON, "n2 is whole again", || {
        tasks_answer(scene, &["web.1", "web.2", "web.3"])?;
        scene.mesh("n2", &["status"]).map(drop)
    })?;
    // DNS in the tasks of the restarted agent answers again.
    name_is_vip(scene)?;
    let report = load.stop()?;
    report.lossless()?;
    Ok(format!("{} requests without the agent and through its restart, none failed", report.ok))
}

/// What the supervisor holds names the member's process.
fn kill_leader(scene: &Scene) -> Result<String> {
    let leader = scene.leader()?;
    let lock = leader.state_dir().join("etcd/lock");
    let text = std::fs::read_to_string(&lock).with_context(|| format!("no {}", lock.display()))?;
    let member = text.trim().parse().map(Pid::from_raw).with_context(|| format!("{text:?} is no process"))?;
    let other = scene.lab.nodes().iter().map(|node| node.name()).find(|name| *name != leader.name());
    let other = other.context("there is one node only")?;
    let load = scene.load(8080)?;
    let since = Instant::now();
    kill(member, Signal::SIGKILL).context("cannot kill the leader's etcd")?;
    let mut tries = 0;
    eventually(SOON, "a change is made", || {
        tries += 1;
        scene
            .mesh(other, &["service", "update", "-d", "--label-add", &format!("try={tries}"), "web"])
            .map(drop)
    })?;
    let gap = since.elapsed();
    eventually(SOON, "all three are there again", || {
        let cluster = scene.lab.node(other)?.mesh_json(["cluster", "status"])?;
        ensure!(cluster["Reachable"] == 3, "{cluster}");
        Ok(())
    })?;
    let report = load.stop()?;
    report.lossless()?;
    let (name, gap) = (leader.name(), gap.as_secs_f32());
    Ok(format!("{name} led; a change was made {gap:.1} s later; {} requests, none failed", report.ok))
}

fn unplug(scene: &Scene) -> Result<String> {
    let entry = scene.lab.node("n1")?;
    let load = Load::start(scene.lab.client().netns(), &[(entry.address(), 8080).into()], 100)?;
    std::thread::sleep(Duration::from_secs(1));
    scene.lab.unplug("n2")?;
    std::thread::sleep(Duration::from_secs(4));
    let report = load.stop()?;
    let only = answering(scene, "n1", 8080, 20);
    scene.lab.plug("n2")?;
    let only = only?;
    eventually(Duration::from_secs(20), "n2's task answers again", || {
        ensure!(answering(scene, "n1", 8080, 40)?.contains("web.3"));
        Ok(())
    })?;
    ensure!(!only.contains("web.3"), "n2 is unplugged, and its task answered: {only:?}");
    let vain = match (report.failed.first(), report.failed.last()) {
        (Some(first), Some(last)) => last.at.saturating_sub(first.at),
        _ => Duration::ZERO,
    };
    ensure!(vain <= Duration::from_secs(1), "requests were sent there for {vain:?}: {report}");
    Ok(format!("{} requests; {} in vain, within {} ms", report.ok, report.failed.len(), vain.as_millis()))
}
