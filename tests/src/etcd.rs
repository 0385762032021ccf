//! A real etcd, of one or more members, each with a data directory of its own.

use std::{
    ffi::OsString,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::{
    Cgroup, Exec, Host, Netns, Process, cgroup::command_in, eventually, janitor::Janitor, process::tail,
};

/// How long a member may take to be ready.
const READY: Duration = Duration::from_secs(20);
/// Where a member listens: for clients, for other members, and for questions about its health.
const PORTS: [u16; 3] = [2379, 2380, 2381];

/// The files with which members speak TLS to clients, PEM, and whose clients they trust.
#[derive(Clone, Debug)]
pub struct EtcdTls {
    /// The authority.
    pub ca: PathBuf,
    /// The members' certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// An etcd; dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    netns: Netns,
    tls: Option<EtcdTls>,
    /// The lab's, where it is on a host of one.
    _end: Option<(Cgroup, Janitor)>,
}

/// A member of an etcd.
#[derive(Debug)]
pub struct Member {
    address: Ipv4Addr,
    url: String,
    data: PathBuf,
    token: String,
    log: PathBuf,
    command: Vec<OsString>,
    cgroup: PathBuf,
    netns: Netns,
    process: Option<Process>,
}

impl Etcd {
    /// An etcd on this machine's loopback, started.
    pub fn on_loopback(members: u8) -> Result<Self> {
        let addresses: Vec<_> = (0..members).map(|_| Self::next_loopback()).collect();
        Self::at(&addresses, None, &memory())
    }

    /// The same with its data on the disk, where temporary files are.
    pub fn on_disk(members: u8) -> Result<Self> {
        let addresses: Vec<_> = (0..members).map(|_| Self::next_loopback()).collect();
        Self::at(&addresses, None, &std::env::temp_dir())
    }

    /// The same of one member, at an address of its own, that speaks TLS and wants certificates.
    pub fn on_loopback_with(address: Ipv4Addr, tls: EtcdTls) -> Result<Self> {
        Self::at(&[address], Some(tls), &memory())
    }

    /// An address of 127.0.0.0/8 that no other test has: its ports are nobody's.
    pub fn next_loopback() -> Ipv4Addr {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let id = std::process::id().to_le_bytes();
        Ipv4Addr::new(127, 64 + id[1] % 128, id[0], NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn at(addresses: &[Ipv4Addr], tls: Option<EtcdTls>, parent: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("mesh-etcd-").tempdir_in(parent)?;
        let name = dir.path().file_name().context("no name")?.to_string_lossy().into_owned();
        let cgroup = Cgroup::new(&name)?;
        let janitor = Janitor::start(cgroup.path(), dir.path())?;
        let dir = dir.keep();
        let netns = Netns::of_process(std::process::id())?;
        let mut etcd = Self::of(addresses, &dir, cgroup.path(), &netns, tls);
        etcd._end = Some((cgroup, janitor));
        etcd.start()?;
        Ok(etcd)
    }

    /// An etcd of one member on a host of a lab, started.
    pub fn on_host(host: &Host) -> Result<Self> {
        Self::of_host(host, &[host.address()])
    }

    /// An etcd on a host of a lab, one member for each of these addresses of the host, started.
    pub fn of_host(host: &Host, addresses: &[Ipv4Addr]) -> Result<Self> {
        let dir = host.dir().join("etcd");
        fs::create_dir(&dir)?;
        let mut etcd = Self::of(addresses, &dir, host.cgroup().path(), host.netns(), None);
        etcd.start()?;
        Ok(etcd)
    }

    fn of(addresses: &[Ipv4Addr], dir: &Path, cgroup: &Path, netns: &Netns, tls: Option<EtcdTls>) -> Self {
        let name = |address: &Ipv4Addr| format!("m{}", address.octets()[3]);
        let all: Vec<_> = addresses.iter().map(|a| format!("{}=http://{a}:{}", name(a), PORTS[1])).collect();
        let token = all.join("-");
        let members = addresses.iter().map(|address| {
            let scheme = if tls.is_some() { "https" } else { "http" };
            let url = format!("{scheme}://{address}:{}", PORTS[0]);
            let peer = format!("http://{address}:{}", PORTS[1]);
            let data = dir.join(name(address));
            let mut flags = vec![
                ("name", name(address)),
                ("data-dir", data.display().to_string()),
                ("listen-client-urls", url.clone()),
                ("advertise-client-urls", url.clone()),
                ("listen-peer-urls", peer.clone()),
                ("initial-advertise-peer-urls", peer),
                ("initial-cluster", all.join(",")),
                ("initial-cluster-token", token.clone()),
                ("listen-metrics-urls", format!("http://{address}:{}", PORTS[2])),
                ("max-txn-ops", "1024".to_owned()),
                ("max-request-bytes", "8388608".to_owned()),
                ("pre-vote", "true".to_owned()),
            ];
            if let Some(tls) = &tls {
                let path = |path: &Path| path.display().to_string();
                flags.push(("trusted-ca-file", path(&tls.ca)));
                flags.push(("cert-file", path(&tls.cert)));
                flags.push(("key-file", path(&tls.key)));
                flags.push(("client-cert-auth", "true".to_owned()));
            }
            let flags = flags.into_iter().map(|(flag, value)| format!("--{flag}={value}").into());
            Member {
                address: *address,
                url,
                token: token.clone(),
                log: dir.join(format!("{}.log", name(address))),
                data,
                command: std::iter::once("etcd".into()).chain(flags).collect(),
                cgroup: cgroup.to_owned(),
                netns: netns.clone(),
                process: None,
            }
        });
        Self { members: members.collect(), netns: netns.clone(), tls, _end: None }
    }

    /// The members.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A member, to be stopped or started.
    pub fn member(&mut self, index: usize) -> &mut Member {
        &mut self.members[index]
    }

    /// The members' URLs.
    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| member.url.clone()).collect()
    }

    /// Starts all members and waits until they are ready.
    pub fn start(&mut self) -> Result<()> {
        self.members.iter_mut().try_for_each(Member::start)?;
        self.members.iter().try_for_each(Member::wait_ready)
    }

    /// Kills all members with -9.
    pub fn kill(&mut self) -> Result<()> {
        self.members.iter_mut().try_for_each(Member::kill)
    }

    /// Throws all data away; the members must have been killed.
    pub fn wipe(&self) -> Result<()> {
        self.members.iter().try_for_each(|member| Ok(fs::remove_dir_all(&member.data)?))
    }

    /// Kills the only member and starts it with what a backup holds: in the same cluster, or in another one.
    pub fn restore(&mut self, backup: &str, elsewhere: bool) -> Result<()> {
        self.kill()?;
        self.wipe()?;
        let member = &self.members[0];
        let mut args = vec!["snapshot".to_owned(), "restore".to_owned(), backup.to_owned()];
        let kept = ["--name=", "--data-dir=", "--initial-cluster=", "--initial-advertise-peer-urls="];
        let flags = member.command.iter().map(|flag| flag.to_string_lossy().into_owned());
        args.extend(flags.filter(|flag| kept.iter().any(|kept| flag.starts_with(kept))));
        let token = if elsewhere { "another" } else { &member.token };
        args.push(format!("--initial-cluster-token={token}"));
        self.ctl(args.iter().map(String::as_str))?;
        self.start()
    }

    /// Which member is the leader.
    pub fn leader(&self) -> Result<usize> {
        let mut leaders = self.members.iter().map(|member| {
            let status: serde_json::Value =
                serde_json::from_str(&self.ctl_at(&member.url, ["endpoint", "status", "--write-out=json"])?)?;
            let status = &status[0]["Status"];
            Ok(status["header"]["member_id"] == status["leader"])
        });
        let found = leaders.position(|leads: Result<bool>| leads.is_ok_and(|leads| leads));
        found.context("no member is the leader")
    }

    /// Runs `etcdctl` on all members.
    pub fn ctl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<String> {
        self.ctl_at(&self.urls().join(","), args)
    }

    /// What `etcdctl watch` says of all keys that begin so, from the first revision to now.
    pub fn watch_from_start(&self, prefix: &str) -> Result<String> {
        // A watch has no end; what is there comes at once.
        let mut command = Command::new("timeout");
        let endpoints = format!("--endpoints={}", self.urls().join(","));
        command
            .env("ETCDCTL_API", "3")
            .args(["3", "etcdctl", &endpoints, "watch", "--rev=1", "--prefix", prefix]);
        let output = Exec::new(&self.netns, command, "etcdctl watch".to_owned()).run()?;
        ensure!(output.stderr.trim().is_empty(), "`etcdctl watch` says: {}", output.stderr);
        Ok(output.stdout)
    }

    fn ctl_at<'a>(&self, endpoints: &str, args: impl IntoIterator<Item = &'a str>) -> Result<String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={endpoints}")).args(args);
        if let Some(tls) = &self.tls {
            command
                .env("ETCDCTL_CACERT", &tls.ca)
                .env("ETCDCTL_CERT", &tls.cert)
                .env("ETCDCTL_KEY", &tls.key);
        }
        Exec::new(&self.netns, command, "etcdctl".to_owned()).ok()
    }
}

impl Member {
    /// Where it listens for clients.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Starts it, without waiting.
    pub fn start(&mut self) -> Result<()> {
        let command = command_in(&self.cgroup, &self.command);
        self.process = Some(Process::start(&self.netns, command, "etcd", self.log.clone())?);
        Ok(())
    }

    /// Waits until it is ready: it has a leader and answers.
    pub fn wait_ready(&self) -> Result<()> {
        let ready = eventually(READY, "etcd is ready", || {
            let answer = self.netns.run(|| health(self.address))??;
            ensure!(answer.contains(r#""health":"true""#), "it answers: {answer}");
            Ok(())
        });
        ready.with_context(|| format!("the log ends with:\n{}", tail(&self.log, 20)))
    }

    /// Kills it with -9.
    pub fn kill(&mut self) -> Result<()> {
        self.process()?.kill()
    }

    /// Freezes it (SIGSTOP): its sockets stay open and nothing answers.
    pub fn pause(&mut self) -> Result<()> {
        self.process()?.signal(Signal::SIGSTOP)
    }

    /// Lets a frozen one go on (SIGCONT).
    pub fn resume(&mut self) -> Result<()> {
        self.process()?.signal(Signal::SIGCONT)
    }

    fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the member was never started")
    }
}

/// In memory, where there is room: tests wait for no disk.
fn memory() -> PathBuf {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() }
}

fn health(address: Ipv4Addr) -> Result<String> {
    let socket = SocketAddr::from((address, PORTS[2]));
    let mut stream = TcpStream::connect_timeout(&socket, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
