//! The lab: nodes, a client and an outside host, connected.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{Cgroup, Host, LabInfo, Node, Programs, fabric, janitor::Janitor};

/// The data plane of the agents, `ebpf` or `nft`, where a lab is not told which.
const DATAPLANE: &str = "MESH_TEST_DATAPLANE";

/// What a lab is to be made of.
#[derive(Clone, Debug)]
#[must_use = "nothing is made until build()"]
pub struct LabBuilder {
    mesh: PathBuf,
    nodes: Vec<String>,
    /// That of the agent's defaults when `None`.
    dataplane: Option<String>,
    /// Which node (all when `None`) and what.
    extra: Vec<(Option<String>, String)>,
}

impl LabBuilder {
    /// Adds a node. The first one holds the store.
    pub fn node(mut self, name: &str) -> Self {
        self.nodes.push(name.into());
        self
    }

    /// Adds nodes up to that many: n1, n2, …
    pub fn nodes(mut self, count: usize) -> Self {
        self.nodes.extend((self.nodes.len() + 1..=count).map(|number| format!("n{number}")));
        self
    }

    /// Which data plane the agents use: `ebpf` or `nft`. Without it, the environment variable MESH_TEST_DATAPLANE
    /// says so, and without that, the agents choose.
    pub fn dataplane(mut self, dataplane: &str) -> Self {
        self.dataplane = Some(dataplane.into());
        self
    }

    /// Lays TOML text over the configuration of every agent.
    pub fn config(mut self, extra: &str) -> Self {
        self.extra.push((None, extra.into()));
        self
    }

    /// Lays TOML text over the configuration of one agent.
    pub fn config_of(mut self, node: &str, extra: &str) -> Self {
        self.extra.push((Some(node.into()), extra.into()));
        self
    }

    /// Makes the lab. Agents are not started.
    pub fn build(mut self) -> Result<Lab> {
        self.check_names()?;
        // Absolute, because agents and other processes run it from elsewhere.
        self.mesh = self
            .mesh
            .canonicalize()
            .with_context(|| format!("there is no mesh program at {}", self.mesh.display()))?;
        let dir = tempfile::Builder::new().prefix("mesh-lab-").tempdir_in("/run");
        let dir = dir.context("cannot make the lab's directory in /run: the lab must run as root")?;
        let id = dir.path().file_name().context("the lab's directory has no name")?;
        let id = id.to_string_lossy().into_owned();
        let cgroup = Cgroup::new(&id)?;
        let janitor = Janitor::start(cgroup.path(), dir.path())?;
        // From here on it is the janitor's to remove.
        let dir = dir.keep();

        let token_file = dir.join("token");
        write_token(&token_file)?;
        let host = |name: &str, addresses| Host::new(name, addresses, &cgroup, &dir, &self.mesh);
        let mut nodes = Vec::new();
        for (place, name) in self.nodes.iter().enumerate() {
            let host = host(name, fabric::node_addresses(place))?;
            let dataplane = self.dataplane.as_deref();
            nodes.push(Node::new(host, &self.mesh, &token_file, dataplane, &self.extra_of(name))?);
        }
        let client = host("client", fabric::CLIENT)?;
        let outside = host("outside", fabric::OUTSIDE)?;
        let fabric = host("fabric", fabric::ROUTER)?;
        let on_underlay = nodes.iter().map(|node| &**node).chain([&client]);
        fabric::connect(&fabric, on_underlay, &outside)?;

        let programs = Programs::write(&dir)?;
        let Self { mesh, dataplane, .. } = self;
        Ok(Lab { nodes, client, outside, fabric, programs, mesh, dataplane, dir, cgroup, janitor, id })
    }

    fn extra_of(&self, node: &str) -> Vec<String> {
        let of_node = |of: &Option<String>| of.as_ref().is_none_or(|name| name == node);
        self.extra.iter().filter(|(of, _)| of_node(of)).map(|(_, text)| text.clone()).collect()
    }

    fn check_names(&self) -> Result<()> {
        ensure!(self.nodes.len() <= fabric::MAX_NODES, "a lab has at most {} nodes", fabric::MAX_NODES);
        let mut taken = vec!["client", "outside", "fabric", "br0", "lo", "programs", "token"];
        for name in &self.nodes {
            let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            // The name is also that of an interface of the fabric.
            if name.is_empty() || name.len() > 15 || !name.bytes().all(legal) || name.starts_with('-') {
                bail!("a node cannot be named {name:?}: use 1 to 15 of a-z, 0-9 and -");
            }
            ensure!(!taken.contains(&name.as_str()), "the name {name} is taken: choose another for the node");
            taken.push(name);
        }
        for (of, _) in &self.extra {
            if let Some(name) = of {
                ensure!(self.nodes.contains(name), "there is configuration for {name}, which is no node");
            }
        }
        Ok(())
    }
}

/// A running network of hosts. Dropping it leaves nothing behind, nor does killing its process.
#[derive(Debug)]
pub struct Lab {
    // In the order in which they go: the janitor comes after what it would have to wait for.
    nodes: Vec<Node>,
    client: Host,
    outside: Host,
    fabric: Host,
    cgroup: Cgroup,
    janitor: Janitor,
    programs: Programs,
    mesh: PathBuf,
    dataplane: Option<String>,
    dir: PathBuf,
    id: String,
}

impl Lab {
    /// Describes a lab that runs the `mesh` program at that path.
    pub fn builder(mesh: impl Into<PathBuf>) -> LabBuilder {
        // Empty is as good as absent, as with most variables.
        let dataplane = env::var(DATAPLANE).ok().filter(|dataplane| !dataplane.is_empty());
        LabBuilder { mesh: mesh.into(), nodes: Vec::new(), dataplane, extra: Vec::new() }
    }

    /// A name that no other lab has: that of its directory in /run and of its control group.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its directory, gone with the lab.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its control group, which holds those of all hosts.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// The `mesh` program that it runs.
    pub fn mesh_program(&self) -> &Path {
        &self.mesh
    }

    /// The data plane that its agents were told to use; `None` when they choose.
    pub fn dataplane(&self) -> Option<&str> {
        self.dataplane.as_deref()
    }

    /// Servers to run as tasks or daemons.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The nodes, in the order of their making.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.with_context(|| format!("the lab has no node {name}"))
    }

    /// A machine beside the nodes, without an agent: 192.168.77.100.
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// A machine of the internet, behind the router: 198.51.100.1. It knows the way to the nodes and the client,
    /// and none to overlay addresses.
    pub fn outside(&self) -> &Host {
        &self.outside
    }

    /// The switch and router in the middle. Each host has an interface of its name here.
    pub fn fabric(&self) -> &Host {
        &self.fabric
    }

    /// Every host: nodes, client, outside, fabric.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.nodes.iter().map(|node| &**node).chain([&self.client, &self.outside, &self.fabric])
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.hosts().find(|host| host.name() == name).with_context(|| format!("the lab has no host {name}"))
    }

    /// Starts every agent, the one with the store first, and waits until all are ready.
    pub fn start_agents(&self, timeout: Duration) -> Result<()> {
        self.nodes.iter().try_for_each(Node::start_agent)?;
        self.nodes.iter().try_for_each(|node| node.wait_ready(timeout))
    }

    /// Cuts a node or the client off, as a dead switch port does: the link stays up and every frame is lost.
    pub fn unplug(&self, host: &str) -> Result<()> {
        self.port_state(host, "disabled")
    }

    /// Undoes [`Lab::unplug`].
    pub fn plug(&self, host: &str) -> Result<()> {
        self.port_state(host, "forwarding")
    }

    fn port_state(&self, host: &str, state: &str) -> Result<()> {
        self.fabric.exec(["bridge", "link", "set", "dev", host, "state", state])?.ok()?;
        Ok(())
    }

    /// Cuts a node's power: its processes, and all that its kernel knew, are gone from one moment to the next. What is in
    /// its state directory stays.
    pub fn power_off(&self, node: &str) -> Result<()> {
        // The wire first: the dead say nothing, not even that their connections end.
        self.unplug(node)?;
        let node = self.node(node)?;
        node.cgroup().kill()?;
        fabric::forget(node)?;
        let run = node.run_dir();
        // What is pinned there is in the kernel, and so is a mount of it.
        let unmount = format!("while umount {}/bpf; do :; done 2>/dev/null", run.display());
        node.show(&["sh", "-c", &format!("{unmount}; exit 0")])?;
        fs::remove_dir_all(&run)
            .and_then(|()| fs::create_dir(&run))
            .with_context(|| format!("cannot empty {}", run.display()))
    }

    /// Switches it on again: another boot, in which nothing runs yet but the kernel.
    pub fn power_on(&self, node: &str) -> Result<()> {
        let node = self.node(node)?;
        node.boot()?;
        fabric::plug_in(&self.fabric, node)
    }

    /// Writes `lab.json` to a directory: what other processes need to enter the lab (see [`LabInfo`]). The file
    /// goes with the lab.
    pub fn publish_state(&self, dir: &Path) -> Result<PathBuf> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?;
        let file = dir.join(LabInfo::FILE);
        self.janitor.also_remove(&file)?;
        LabInfo::of(self).save(&file)?;
        Ok(file)
    }
}

/// The secret that the agents of the lab share.
fn write_token(file: &Path) -> Result<()> {
    let mut bytes = [0_u8; 32];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| file.write_all(token.as_bytes()))
        .with_context(|| format!("cannot write the token to {}", file.display()))
}
