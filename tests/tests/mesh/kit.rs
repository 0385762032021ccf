//! Words for what people do with a mesh and what they see.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use mesh_tests::{Exec, Host, Lab, LabBuilder, Netns, Node, Output, built_mesh, eventually, lab_test};
use serde_json::Value;

/// How long a start of all agents may take.
pub(crate) const READY: Duration = Duration::from_secs(15);

/// How long a change may take until every node acts on it.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// How long it may take to be refused, or to be heard of.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(1);

/// What a port does within [`AT_ONCE`] when nothing serves there (curl's "could not connect").
const CONNECTION_REFUSED: i32 = 7;

/// A lab that runs the built program.
pub(crate) fn lab() -> Result<LabBuilder> {
    Ok(Lab::builder(built_mesh()?))
}

/// Runs a test in a mesh of that many nodes, whose agents know each other.
pub(crate) fn mesh(nodes: usize, test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    started(lab()?.nodes(nodes), test)
}

/// Runs a test in a lab whose agents know each other.
pub(crate) fn started(lab: LabBuilder, test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    lab_test(lab, |lab| {
        lab.start_agents(READY)?;
        for node in lab.nodes() {
            eventually(READY, "every node knows all nodes", || {
                let known = node.rows("node ls")?.len();
                ensure!(known == lab.nodes().len(), "{} knows {known} nodes", node.name());
                Ok(())
            })?;
        }
        test(lab)
    })
}

/// `mesh` commands, as one line of words.
pub(crate) trait Cli {
    /// What a command says that has to go well.
    fn ok(&self, command: &str) -> Result<String>;

    /// The one message of a command that has to be refused.
    fn refused(&self, command: &str) -> Result<String>;

    /// The rows of a listing.
    fn rows(&self, command: &str) -> Result<Vec<Value>>;

    /// One thing, inspected.
    fn inspect(&self, kind: &str, name: &str) -> Result<Value>;

    /// The names in a listing, sorted.
    fn names(&self, kind: &str) -> Result<Vec<String>>;
}

impl Cli for Node {
    fn ok(&self, command: &str) -> Result<String> {
        self.mesh(command.split_whitespace())?.ok()
    }

    fn refused(&self, command: &str) -> Result<String> {
        one_message(self.mesh(command.split_whitespace())?)
    }

    fn rows(&self, command: &str) -> Result<Vec<Value>> {
        let text = self.ok(&format!("{command} --format json"))?;
        text.lines()
            .map(|line| {
                serde_json::from_str(line)
                    .with_context(|| format!("`{command}` has a row not in JSON: {line}"))
            })
            .collect()
    }

    fn inspect(&self, kind: &str, name: &str) -> Result<Value> {
        self.mesh_json([kind, "inspect", name])
    }

    fn names(&self, kind: &str) -> Result<Vec<String>> {
        let rows = self.rows(&format!("{kind} ls"))?;
        let mut names: Vec<_> = rows.iter().map(|row| text(&row["Name"])).collect();
        names.sort_unstable();
        Ok(names)
    }
}

/// The message of a command that was refused: all on standard error, one line, no noise. The code is 1, 2 for errors
/// of usage, and 125 for `task run`, whose other codes are its command's.
pub(crate) fn one_message(output: Output) -> Result<String> {
    let code = output.code();
    let (command, stdout) = (output.command.clone(), output.stdout.clone());
    let message = output.failed()?;
    ensure!(matches!(code, Some(1 | 2 | 125)), "`{command}` ended with {code:?}:\n{message}");
    // An inspection prints what it found, as Docker's does.
    ensure!(
        stdout.is_empty() || stdout == "[]\n",
        "`{command}` failed but said on standard output:\n{stdout}"
    );
    // Usage errors (2) come with a line of usage.
    ensure!(
        code == Some(2) || message.trim_end().lines().count() == 1,
        "`{command}` has more than one message, or none:\n{message}"
    );
    ensure!(
        !message.contains("panicked") && !message.contains("RUST_BACKTRACE"),
        "`{command}` crashed:\n{message}"
    );
    Ok(message)
}

/// An error unless the text has all of the parts, in any case of letters.
pub(crate) fn mentions(text: &str, parts: &[&str]) -> Result<()> {
    let lower = text.to_lowercase();
    for part in parts {
        ensure!(lower.contains(&part.to_lowercase()), "nothing about {part:?} in: {text}");
    }
    Ok(())
}

/// A JSON string's text.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), Into::into)
}

/// The VIPs of a service by the name of the network.
pub(crate) fn vips(node: &Node, service: &str) -> Result<BTreeMap<String, Ipv4Addr>> {
    let found = node.inspect("service", service)?;
    let none = Vec::new();
    let vips = found["Endpoint"]["VirtualIPs"].as_array().unwrap_or(&none);
    let name_of = |id: &Value| -> Result<String> { Ok(text(&node.inspect("network", &text(id))?["Name"])) };
    vips.iter()
        .map(|vip| {
            let addr = text(&vip["Addr"]);
            let (ip, length) = addr.split_once('/').with_context(|| format!("{addr} has no prefix"))?;
            length.parse::<u8>()?;
            Ok((name_of(&vip["NetworkID"])?, ip.parse()?))
        })
        .collect()
}

/// The only VIP of a service.
pub(crate) fn vip(node: &Node, service: &str) -> Result<Ipv4Addr> {
    let vips = vips(node, service)?;
    ensure!(vips.len() == 1, "{service} has the VIPs {vips:?}");
    vips.into_values().next().context("no VIP")
}

/// A task of a node.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    pub(crate) node: &'a Node,
    /// `web.1`
    pub(crate) name: String,
    /// A process in its namespaces.
    pub(crate) pid: u32,
}

impl<'a> Task<'a> {
    /// `mesh task run -d OPTIONS -- COMMAND`
    pub(crate) fn run(node: &'a Node, options: &str, command: &[impl AsRef<str>]) -> Result<Self> {
        let mut argv = vec!["task", "run", "-d"];
        argv.extend(options.split_whitespace());
        argv.push("--");
        argv.extend(command.iter().map(AsRef::as_ref));
        let said = node.mesh(argv)?.ok()?;
        Self::find(node, said.trim())
    }

    /// A task by its name or id.
    pub(crate) fn find(node: &'a Node, id: &str) -> Result<Self> {
        let found = node.inspect("task", id)?;
        let pid = found["Origin"]["Pid"].as_u64().with_context(|| format!("no pid: {found}"))?;
        Ok(Self { node, name: text(&found["Name"]), pid: u32::try_from(pid)? })
    }

    /// A web server on port 80.
    pub(crate) fn web(lab: &Lab, node: &'a Node, service: &str) -> Result<Self> {
        Self::serve(node, service, &lab.programs().web(80), "tcp6", 80)
    }

    /// A UDP server on that port.
    pub(crate) fn udp(lab: &Lab, node: &'a Node, service: &str, port: u16) -> Result<Self> {
        Self::serve(node, service, &lab.programs().udp(port), "udp6", port)
    }

    /// A server that listens when this returns.
    pub(crate) fn serve(
        node: &'a Node,
        service: &str,
        server: &[String],
        protocol: &str,
        port: u16,
    ) -> Result<Self> {
        let task = Self::run(node, &format!("--service {service}"), server)?;
        task.listens(protocol, port)?;
        Ok(task)
    }

    /// A task that only is there, to look at the mesh from.
    pub(crate) fn idle(node: &'a Node, network: &str) -> Result<Self> {
        let name = format!("idle-{network}-{}", node.name());
        Self::run(node, &format!("--name {name} --network {network}"), &["sleep", "1000"])
    }

    /// Waits until something has the port: `tcp6` and `udp6` for the servers of the lab, which take both families.
    pub(crate) fn listens(&self, protocol: &str, port: u16) -> Result<()> {
        listens(self.pid, protocol, port).with_context(|| format!("the server of {}", self.name))
    }

    /// Its addresses.
    pub(crate) fn addresses(&self) -> Result<BTreeSet<Ipv4Addr>> {
        addresses(&self.node.inspect("task", &self.name)?)
    }

    /// Its only address.
    pub(crate) fn address(&self) -> Result<Ipv4Addr> {
        let all = self.addresses()?;
        ensure!(all.len() == 1, "{} has the addresses {all:?}", self.name);
        all.into_iter().next().context("no address")
    }

    /// A command in its namespaces.
    pub(crate) fn command(&self, argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Exec {
        let pid = self.pid.to_string();
        let enter = ["nsenter", "-t", &pid, "-n", "-m", "--"];
        let mut words: Vec<_> = enter.iter().map(|word| OsStr::new(word).to_owned()).collect();
        words.extend(argv.into_iter().map(|word| word.as_ref().to_owned()));
        self.node.command(words)
    }

    /// Ends it as `mesh task rm` does.
    pub(crate) fn rm(&self) -> Result<()> {
        self.node.ok(&format!("task rm {}", self.name))?;
        Ok(())
    }
}

/// The addresses in an inspected task.
pub(crate) fn addresses(task: &Value) -> Result<BTreeSet<Ipv4Addr>> {
    let attached = task["NetworksAttachments"].as_array();
    let attached = attached.with_context(|| format!("no attachments: {task}"))?;
    let mut all = BTreeSet::new();
    for attachment in attached {
        for address in attachment["Addresses"].as_array().into_iter().flatten() {
            let address = text(address);
            all.insert(address.split('/').next().unwrap_or_default().parse()?);
        }
    }
    Ok(all)
}

/// Waits until a socket of a process's namespace has the port.
pub(crate) fn listens(pid: u32, protocol: &str, port: u16) -> Result<()> {
    let file = format!("/proc/{pid}/net/{protocol}");
    let suffix = format!(":{port:04X}");
    // Listening, or for UDP unconnected.
    let state = if protocol.starts_with("tcp") { "0A" } else { "07" };
    eventually(READY, &format!("port {port} is listened on"), || {
        let table = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let there = table.lines().any(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            fields.len() > 3 && fields[1].ends_with(&suffix) && fields[3] == state
        });
        ensure!(there, "nothing listens");
        Ok(())
    })
}

/// Somewhere to look at the mesh from.
pub(crate) trait Place {
    /// A command there.
    fn command_at(&self, argv: &[&str]) -> Exec;

    /// Its network namespace.
    fn netns_at(&self) -> Result<Netns>;
}

impl Place for Host {
    fn command_at(&self, argv: &[&str]) -> Exec {
        self.command(argv)
    }

    fn netns_at(&self) -> Result<Netns> {
        Ok(self.netns().clone())
    }
}

impl Place for Node {
    fn command_at(&self, argv: &[&str]) -> Exec {
        self.command(argv)
    }

    fn netns_at(&self) -> Result<Netns> {
        Ok(self.netns().clone())
    }
}

impl Place for Task<'_> {
    fn command_at(&self, argv: &[&str]) -> Exec {
        self.command(argv)
    }

    fn netns_at(&self) -> Result<Netns> {
        Netns::of_process(self.pid)
    }
}

/// What a web server answers.
pub(crate) fn curl(from: &(impl Place + ?Sized), url: &str) -> Result<String> {
    let said = from.command_at(&["curl", "-sS", "--max-time", "3", url]).ok()?;
    Ok(said.trim_end().into())
}

/// Waits until a web server answers.
pub(crate) fn answers(from: &(impl Place + ?Sized), url: &str) -> Result<String> {
    eventually(SOON, &format!("{url} answers"), || curl(from, url))
}

/// An error unless a connection is refused, and without a wait.
pub(crate) fn refuses(from: &(impl Place + ?Sized), url: &str) -> Result<()> {
    let start = Instant::now();
    let output = from.command_at(&["curl", "-sS", "--max-time", "3", url]).run()?;
    let took = start.elapsed();
    ensure!(
        output.code() == Some(CONNECTION_REFUSED),
        "`{}` was not refused but ended with {:?} after {took:?}: {}{}",
        output.command,
        output.code(),
        output.stdout,
        output.stderr
    );
    ensure!(took < AT_ONCE, "`{}` took {took:?}", output.command);
    Ok(())
}

/// Waits until connections are refused.
pub(crate) fn comes_to_refuse(from: &(impl Place + ?Sized), url: &str, within: Duration) -> Result<()> {
    eventually(within, &format!("{url} is refused"), || refuses(from, url))
}

/// Who answers how often when a web server is asked that many times, each time over a new connection.
pub(crate) fn spread(
    from: &(impl Place + ?Sized),
    url: &str,
    count: usize,
) -> Result<BTreeMap<String, usize>> {
    let urls = format!("{url}[1-{count}]");
    let curl = ["curl", "-sS", "--max-time", "8", "-H", "Connection: close", &urls];
    let said = from.command_at(&curl).ok()?;
    let mut spread = BTreeMap::new();
    for line in said.lines() {
        let who = line.split(" from ").next().unwrap_or_default();
        *spread.entry(who.to_owned()).or_default() += 1;
    }
    let all: usize = spread.values().sum();
    ensure!(all == count, "{all} of {count} answers: {spread:?}");
    Ok(spread)
}

/// Waits until exactly these tasks answer.
pub(crate) fn served_by(from: &(impl Place + ?Sized), url: &str, tasks: &[&Task<'_>]) -> Result<()> {
    let mut expected: Vec<_> = tasks.iter().map(|task| task.name.as_str()).collect();
    expected.sort_unstable();
    eventually(SOON, &format!("{url} is served by {expected:?}"), || {
        // That one of three tasks is not among 30 answers happens once in 60,000 times.
        let spread = spread(from, url, 30)?;
        let who: Vec<_> = spread.keys().collect();
        ensure!(who == expected, "it is served by {who:?}");
        Ok(())
    })
}

/// What a UDP server answers to one datagram.
pub(crate) fn ask(from: &(impl Place + ?Sized), to: impl Into<SocketAddr>) -> Result<String> {
    let to = to.into();
    from.netns_at()?
        .run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            socket.send(b"who are you?")?;
            let mut buffer = [0; 512];
            let read = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..read]).trim_end().to_owned())
        })?
        .and_then(
            |answer: String| {
                if answer.contains(" from ") { Ok(answer) } else { bail!("{to} answers {answer:?}") }
            },
        )
        .with_context(|| format!("asking {to} by UDP"))
}

/// Waits until a UDP server answers.
pub(crate) fn answers_udp(from: &(impl Place + ?Sized), to: impl Into<SocketAddr>) -> Result<String> {
    let to = to.into();
    eventually(SOON, &format!("{to} answers by UDP"), || ask(from, to))
}

/// An answer of the DNS, as `dig` shows it.
#[derive(Debug)]
pub(crate) struct Dig {
    /// `NOERROR`
    pub(crate) status: String,
    /// `qr rd ra`
    pub(crate) flags: Vec<String>,
    /// The data of the answers, in their order.
    pub(crate) data: Vec<String>,
    /// All of it.
    pub(crate) text: String,
}

impl Dig {
    /// The addresses that were answered, in their order.
    pub(crate) fn ips(&self) -> Result<Vec<Ipv4Addr>> {
        self.data.iter().map(|ip| ip.parse().with_context(|| format!("{ip:?} in {}", self.text))).collect()
    }

    /// The only address.
    pub(crate) fn ip(&self) -> Result<Ipv4Addr> {
        match self.ips()?[..] {
            [ip] => Ok(ip),
            _ => bail!("not one address:\n{}", self.text),
        }
    }

    /// The addresses without their order.
    pub(crate) fn set(&self) -> Result<BTreeSet<Ipv4Addr>> {
        Ok(self.ips()?.into_iter().collect())
    }
}

/// Asks the name server that a task finds in its resolv.conf; the question is in `dig`'s words.
pub(crate) fn dig(from: &Task<'_>, question: &str) -> Result<Dig> {
    let mut argv = vec!["dig", "+time=2", "+tries=1"];
    argv.extend(question.split_whitespace());
    read_dig(from.command(argv).ok()?)
}

/// Reads what `dig` prints.
pub(crate) fn read_dig(text: String) -> Result<Dig> {
    let after = |mark: &str, end: char| {
        let (_, rest) = text.split_once(mark)?;
        Some(rest.split([end, '\n']).next().unwrap_or_default().trim().to_owned())
    };
    let status = after("status: ", ',').with_context(|| format!("no answer:\n{text}"))?;
    let flags = after("flags: ", ';').unwrap_or_default();
    let answers = text
        .split_once(";; ANSWER SECTION:\n")
        .map_or("", |(_, rest)| rest.split("\n\n").next().unwrap_or_default());
    let data = |line: &str| {
        let data: Vec<_> = line.split_whitespace().skip(4).collect();
        data.join(" ")
    };
    Ok(Dig {
        status,
        flags: flags.split_whitespace().map(Into::into).collect(),
        data: answers.lines().map(data).collect(),
        text,
    })
}

/// `http://192.168.77.11:8080/`
pub(crate) fn url(host: &Host, port: u16) -> String {
    format!("http://{}:{port}/", host.address())
}

/// The published port of all nodes.
pub(crate) fn everywhere(lab: &Lab, port: u16) -> Vec<SocketAddr> {
    let nodes = lab.nodes().iter();
    nodes.map(|node| (node.address(), port).into()).collect()
}

/// An error unless `check` holds all the time.
pub(crate) fn holds(time: Duration, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        check().with_context(|| format!("after {:?} of {time:?}", start.elapsed()))?;
    }
    Ok(())
}
