//! A node of the lab: a host with the agent of the real `mesh` program.

use std::{
    ffi::{OsStr, OsString},
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::{
    Host, Process,
    config::{AgentConfig, lay_over},
    descriptors::Keeper,
    eventually,
    exec::{Exec, Output},
    fabric,
    process::tail,
};

/// How long an agent may take to end when it is asked to.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How long one question for the agent's status may take; a frozen one never answers.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A host with an agent. All that a [`Host`] can do, a node can.
#[derive(Debug)]
pub struct Node {
    host: Host,
    mesh: PathBuf,
    agent: Mutex<Option<Process>>,
    keeper: OnceLock<Keeper>,
}

impl Node {
    /// Makes the directories and the configuration file of a node.
    pub(crate) fn new(
        mut host: Host,
        mesh: &Path,
        token_file: &Path,
        dataplane: Option<&str>,
        extra: &[String],
    ) -> Result<Self> {
        let mut socket = OsString::from("unix://");
        socket.push(host.dir().join("run/mesh.sock"));
        host.set_env("MESH_HOST", socket);
        let node = Self { host, mesh: mesh.into(), agent: Mutex::default(), keeper: OnceLock::new() };
        for dir in [node.run_dir(), node.state_dir()] {
            fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        node.boot()?;
        let mut config = AgentConfig {
            name: node.name(),
            address: node.address(),
            store: fabric::node_addresses(0).0,
            upstream: fabric::OUTSIDE.0,
            state_dir: &node.state_dir(),
            run_dir: &node.run_dir(),
            boot_id: &node.boot_id(),
            cgroup: node.cgroup().path(),
            token_file,
            dataplane,
        }
        .table();
        for extra in extra {
            lay_over(&mut config, extra)?;
        }
        node.write_config(&config)?;
        Ok(node)
    }

    /// Where the agent keeps what is gone after a reboot.
    pub fn run_dir(&self) -> PathBuf {
        self.dir().join("run")
    }

    /// Where the agent keeps what survives a reboot.
    pub fn state_dir(&self) -> PathBuf {
        self.dir().join("state")
    }

    /// The file that says which boot of the node this is.
    fn boot_id(&self) -> PathBuf {
        self.dir().join("boot_id")
    }

    /// From now on the node is in another boot.
    pub(crate) fn boot(&self) -> Result<()> {
        let id = fs::read("/proc/sys/kernel/random/uuid").context("cannot make a boot's id")?;
        fs::write(self.boot_id(), id).context("cannot write a boot's id")
    }

    /// The socket of the agent's API.
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("mesh.sock")
    }

    /// Where the agent says to whoever started it that it is ready, or stops (`sd_notify`). Nobody listens there unless a
    /// test does.
    pub fn notify_socket(&self) -> PathBuf {
        self.dir().join("notify")
    }

    /// From the next start on somebody keeps descriptors for the agents, as systemd does (`FDSTORE=1`).
    pub fn keep_descriptors(&self) -> Result<()> {
        let keeper = Keeper::start(&self.host, self.notify_socket())?;
        self.keeper.set(keeper).ok().with_context(|| format!("{} has a service manager", self.name()))
    }

    /// The names of the descriptors that are kept for the next agent.
    pub fn kept_descriptors(&self) -> Result<Vec<String>> {
        self.keeper()?.names(&self.host)
    }

    /// Has a descriptor kept that is none of the agent's.
    pub fn keep_stranger(&self, name: &str) -> Result<()> {
        self.keeper()?.give(&self.host, name)
    }

    fn keeper(&self) -> Result<&Keeper> {
        self.keeper.get().with_context(|| format!("nobody keeps descriptors on {}", self.name()))
    }

    /// The agent's configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.dir().join("mesh.toml")
    }

    /// What the agent says; kept over restarts.
    pub fn log_file(&self) -> PathBuf {
        self.dir().join("agent.log")
    }

    /// The last lines of the agent's log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log_file(), lines)
    }

    /// Changes the configuration file: tables of the TOML text are merged, other keys replaced. The agent reads
    /// it when it starts.
    pub fn configure(&self, extra: &str) -> Result<()> {
        let file = self.config_file();
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut config = text.parse().with_context(|| format!("{} is no TOML", file.display()))?;
        lay_over(&mut config, extra)?;
        self.write_config(&config)
    }

    fn write_config(&self, config: &toml::Table) -> Result<()> {
        let file = self.config_file();
        fs::write(&file, config.to_string()).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Starts the agent, without waiting for it.
    pub fn start_agent(&self) -> Result<()> {
        let mut slot = self.slot();
        if let Some(agent) = slot.as_mut()
            && agent.ended()?.is_none()
        {
            bail!("the agent of {} runs already, as process {}", self.name(), agent.id());
        }
        let config = self.config_file();
        // Its own only: some servers end when nobody listens there.
        let mut notify = OsString::from("NOTIFY_SOCKET=");
        notify.push(self.notify_socket());
        let argv = ["env".as_ref(), notify.as_os_str(), self.mesh.as_os_str(), "agent".as_ref()];
        let argv = argv.into_iter().chain(["--config".as_ref(), config.as_os_str()]).map(OsStr::to_owned);
        let argv = self.keeper.get().map(Keeper::starts).into_iter().flatten().chain(argv);
        *slot = Some(self.spawn_daemon("agent", argv)?);
        Ok(())
    }

    /// Waits until the agent answers `mesh status`. An agent that has ended is an error at once.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        let what = format!("the agent of {} is ready", self.name());
        let ready = eventually(timeout, &what, || {
            if let Some(status) = self.with_agent(Process::ended)? {
                return Ok(Err(status));
            }
            self.mesh_command(["status", "--format", "json"])
                .timeout(timeout.min(ANSWER_WITHIN))
                .ok()
                .map(|_| Ok(()))
        });
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => {
                bail!("the agent of {} ended ({status}); its log:\n{}", self.name(), self.log_tail(20))
            }
            Err(error) => Err(error).with_context(|| format!("the log ends with:\n{}", self.log_tail(20))),
        }
    }

    /// Whether the agent's process runs (a paused one does).
    pub fn agent_runs(&self) -> bool {
        matches!(self.with_agent(Process::ended), Ok(None))
    }

    /// The agent's process id.
    pub fn agent_id(&self) -> Result<u32> {
        self.with_agent(|agent| Ok(agent.id()))
    }

    /// Kills the agent with -9, and nothing that it started.
    pub fn kill_agent(&self) -> Result<()> {
        self.with_agent(Process::kill)
    }

    /// Asks the agent to end and waits until it has.
    pub fn stop_agent(&self) -> Result<ExitStatus> {
        self.with_agent(|agent| agent.stop(STOP_WITHIN))
    }

    /// Freezes the agent (SIGSTOP): its sockets stay open and nothing answers.
    pub fn pause_agent(&self) -> Result<()> {
        self.with_agent(|agent| agent.signal(Signal::SIGSTOP))
    }

    /// Lets a frozen agent go on (SIGCONT).
    pub fn resume_agent(&self) -> Result<()> {
        self.with_agent(|agent| agent.signal(Signal::SIGCONT))
    }

    /// Stops the agent, starts it, and waits until it is ready.
    pub fn restart_agent(&self, timeout: Duration) -> Result<()> {
        self.stop_agent()?;
        self.start_agent()?;
        self.wait_ready(timeout)
    }

    /// A `mesh` command against this node's agent, to be given a time limit, input or environment.
    pub fn mesh_command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Exec {
        let mut argv = vec![self.mesh.clone().into_os_string()];
        argv.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self.command(argv)
    }

    /// Runs a `mesh` command against this node's agent.
    pub fn mesh(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Output> {
        self.mesh_command(args).run()
    }

    /// Runs a `mesh` command with `--format json` at its end, and reads the answer.
    pub fn mesh_json(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<serde_json::Value> {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        let args: Vec<OsString> = args.chain(["--format".into(), "json".into()]).collect();
        let output = self.mesh(args)?;
        let command = output.command.clone();
        let text = output.ok()?;
        serde_json::from_str(&text).with_context(|| format!("`{command}` did not answer in JSON:\n{text}"))
    }

    fn with_agent<T>(&self, f: impl FnOnce(&mut Process) -> Result<T>) -> Result<T> {
        let mut slot = self.slot();
        let agent = slot.as_mut();
        f(agent.with_context(|| format!("the agent of {} was never started", self.name()))?)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Process>> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Node {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}
