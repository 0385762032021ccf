//! **Effect.** `mesh task run`: a command in a network namespace of its own, as a task.
//!
//! The process that runs it is a supervisor like containerd's shims: it outlives restarts of the agent, so
//! that those stop nothing.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::Switch;
use super::supervise::{self, program, resolv};
use crate::api::client::{Client, Host};
use crate::api::types::parse_signal;
use crate::cli::output::Out;
use crate::cli::{OK, Session, converge};

/// The mesh itself failed, as in `docker run`.
pub(super) const MESH_FAILED: u8 = 125;
/// The command cannot be executed.
pub(super) const NOT_EXECUTABLE: u8 = 126;
/// The command is not there.
pub(super) const NOT_FOUND: u8 = 127;

/// How long to wait for nodes that may be gone without anybody knowing yet.
const SOON: Duration = Duration::from_secs(5);

/// Run a command as a task, in a network namespace of its own
///
/// It gets traffic once it listens on one of the ports that its service publishes, at once where there are
/// none. Exits as the command does; with 125 when the mesh itself failed, 126 when the command cannot be executed,
/// 127 when it is not there.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(group = clap::ArgGroup::new("background").args(["detach", "supervise"]))]
pub(in crate::cli) struct RunArgs {
    /// The service that it serves [default: none, a task of its own]
    #[arg(long)]
    pub(super) service: Option<String>,
    /// A name of its own, where it serves nothing [default: made up]
    #[arg(long, conflicts_with = "service")]
    pub(super) name: Option<String>,
    /// Network to attach to [default: all of the service's]
    #[arg(long, value_name = "NETWORK")]
    pub(super) network: Vec<String>,
    /// Set an environment variable; without a value, pass on the present one
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub(super) env: Vec<String>,
    /// Share of new flows, in relation to the service's other tasks
    #[arg(short, long, default_value_t = 1)]
    pub(super) weight: u16,
    /// Name server for what is not the mesh's, asked from inside the task [default: those of the node]
    #[arg(long, value_name = "IP")]
    pub(super) dns: Vec<IpAddr>,
    /// Domain that names are looked up in, too; '.' for none
    #[arg(long, value_name = "DOMAIN", value_parser = resolv::word)]
    pub(super) dns_search: Vec<String>,
    /// Option of resolv.conf(5), such as timeout:1
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION", value_parser = resolv::word)]
    pub(super) dns_option: Vec<String>,
    /// Whether its sockets may be led to a backend as they connect; off: each packet is balanced
    #[arg(long, value_name = "on|off", default_value = "on", hide_possible_values = true)]
    pub(super) socket_balancing: Switch,
    /// Signal that the command gets when the task is to end [default: SIGTERM]
    #[arg(long, value_name = "SIGNAL", value_parser = parse_signal)]
    pub(super) stop_signal: Option<Signal>,
    /// Run in the background, and print the task's ID once it runs
    #[arg(short, long)]
    pub(super) detach: bool,
    /// With --detach: append what the command prints to this file
    #[arg(long, value_name = "FILE", requires = "background")]
    pub(super) log: Option<PathBuf>,
    /// This is the background
    #[arg(long, hide = true)]
    pub(super) supervise: bool,
    /// Which of the service's tasks it is to be
    #[arg(long, hide = true, requires = "supervise")]
    pub(super) slot: Option<u32>,
    /// Which version of the service's program it runs
    #[arg(long, hide = true, requires = "supervise")]
    pub(super) program: Option<u64>,
    /// The command
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
}

/// What a supervisor in the background says of its start, once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Started {
    /// The task runs.
    Running {
        /// Its id.
        id: String,
        /// The revision at which it runs.
        revision: u64,
    },
    /// Its command runs, but does not serve yet.
    Waiting {
        /// Its id.
        id: String,
        /// What it waits for.
        message: String,
    },
    /// It does not.
    Failed {
        /// Why.
        message: String,
        /// What to exit with.
        code: u8,
    },
}

/// A failure and what to exit with.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u8,
    pub(super) error: anyhow::Error,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { code: MESH_FAILED, error }
    }
}

/// Runs a task to its end, or starts it in the background.
pub(in crate::cli) fn run(args: &RunArgs, host: &Host, out: &Out) -> u8 {
    let result = if args.detach { launch(args, host, out) } else { supervise::run(args, host, out) };
    result.unwrap_or_else(|Failure { code, error }| {
        out.error(&error);
        code
    })
}

/// Nothing is done before it is sure that it can be.
pub(super) fn check_root() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("task run needs root: it makes a network namespace; try sudo");
    }
    Ok(())
}

/// Starts a supervisor of this program's own kind, and waits until it says how the task fares.
fn launch(args: &RunArgs, host: &Host, out: &Out) -> Result<u8, Failure> {
    program::check(&args.command)?;
    check_root()?;
    let quiet = |file: Option<std::fs::File>| file.map_or_else(Stdio::null, Stdio::from);
    let log = args.log.as_ref().map(open_log).transpose()?;
    let mut child = Command::new("/proc/self/exe")
        .args(supervisor_args(args, host))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(quiet(log))
        .spawn()
        .context("cannot start the task's supervisor")?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).context("cannot hear from the task's supervisor")?;
    }
    match serde_json::from_str(&line) {
        Ok(Started::Running { id, revision }) => {
            out.line(id);
            everywhere(host, revision)?;
            Ok(OK)
        }
        Ok(Started::Waiting { id, message }) => {
            out.say(format!("task {id} {message}"));
            out.line(id);
            Ok(OK)
        }
        Ok(Started::Failed { message, code }) => Err(Failure { code, error: anyhow::Error::msg(message) }),
        Err(_) => {
            let status = child.wait().context("cannot wait for the task's supervisor")?;
            Err(anyhow::anyhow!("the task's supervisor ended without a word ({status})").into())
        }
    }
}

/// Waits until every node sends to the task: whoever looks next finds it there.
fn everywhere(host: &Host, revision: u64) -> anyhow::Result<()> {
    let session = Session { client: Client::new(host.clone()), out: Out::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // A node that lags does not make the task any less running.
    let everywhere = converge::wait(&session, "Task", revision);
    if let Ok(Err(error)) = runtime.block_on(async { tokio::time::timeout(SOON, everywhere).await }) {
        session.out.error(&error);
    }
    Ok(())
}

/// What the command prints goes to the end of the log.
pub(super) fn open_log(path: &PathBuf) -> anyhow::Result<std::fs::File> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("cannot open the log {}", path.display()))
}

/// The command line that makes this program the supervisor of the same task.
fn supervisor_args(args: &RunArgs, host: &Host) -> Vec<OsString> {
    let RunArgs {
        service,
        name,
        network,
        env,
        weight,
        dns,
        dns_search,
        dns_option,
        socket_balancing,
        stop_signal,
        detach: _,
        log,
        supervise: _,
        slot: _,
        program: _,
        command,
    } = args;
    let mut all: Vec<OsString> =
        ["-H", &host.to_string(), "task", "run", "--supervise"].map(OsString::from).into();
    // One word per flag: a value may begin with a dash.
    let mut flag = |flag: &str, value: &OsString| {
        let mut word = OsString::from(format!("{flag}="));
        word.push(value);
        all.push(word);
    };
    service.iter().for_each(|service| flag("--service", &service.into()));
    name.iter().for_each(|name| flag("--name", &name.into()));
    network.iter().for_each(|network| flag("--network", &network.into()));
    env.iter().for_each(|env| flag("--env", &env.into()));
    flag("--weight", &weight.to_string().into());
    dns.iter().for_each(|server| flag("--dns", &server.to_string().into()));
    dns_search.iter().for_each(|domain| flag("--dns-search", &domain.into()));
    dns_option.iter().for_each(|option| flag("--dns-option", &option.into()));
    if socket_balancing.is_off() {
        flag("--socket-balancing", &"off".into());
    }
    stop_signal.iter().for_each(|signal| flag("--stop-signal", &signal.as_str().into()));
    log.iter().for_each(|log| flag("--log", &log.into()));
    all.push("--".into());
    all.extend(command.iter().cloned());
    all
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Verb, task};

    fn parse(words: impl IntoIterator<Item = OsString>) -> RunArgs {
        let words = std::iter::once(OsString::from("mesh")).chain(words);
        match Cli::<Verb>::try_parse_from(words).unwrap().command {
            Verb::Task(task::Verb::Run(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_supervisor_gets_the_same_task() {
        let text = "task run -d --service web --network a --network b -e A=1 -e=-x=2 -w 3 --dns 192.0.2.1 \
             --dns-search x.test --dns-opt timeout:1 --socket-balancing off --stop-signal QUIT --log /l -- sh -c -- x";
        let asked = parse(text.split(' ').map(OsString::from));
        let host: Host = "unix:///x/y.sock".parse().unwrap();
        let passed_on = parse(supervisor_args(&asked, &host));
        assert_eq!(passed_on, RunArgs { detach: false, supervise: true, ..asked });
        assert_eq!(passed_on.command, ["sh", "-c", "--", "x"].map(OsString::from));
    }

    #[test]
    fn a_task_has_a_service_or_a_name_not_both_and_a_command() {
        for words in
            ["task run --service a --name b -- x", "task run --name a", "task run --name a --log /l -- x"]
        {
            let words = std::iter::once("mesh").chain(words.split(' '));
            assert!(Cli::<Verb>::try_parse_from(words).is_err());
        }
    }
}
