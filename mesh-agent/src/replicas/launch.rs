//! **Effect.** A command of a service under a supervisor of its own, from its start to its end.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use mesh_core::model::{Name, Resolver, Run, TaskId};
use mesh_core::replicas::Start;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::cli::Started;
use crate::logs;

/// A command that ended.
pub(super) struct Ended {
    /// What was started.
    pub(super) start: Start,
    /// Its task, if it got as far.
    pub(super) task: Option<TaskId>,
    /// How long it ran.
    pub(super) lived: Duration,
    /// How it ended, in words.
    pub(super) why: String,
}

/// Runs it to its end.
pub(super) async fn run(socket: PathBuf, service: Name, run: Run, start: Start, log: PathBuf) -> Ended {
    let begun = Instant::now();
    let mut task = None;
    let why = match supervise(&socket, &service, &run, &start, &log, &mut task).await {
        Ok(why) => why,
        Err(error) => format!("{error:#}"),
    };
    Ended { start, task, lived: begun.elapsed(), why }
}

async fn supervise(
    socket: &Path,
    service: &Name,
    run: &Run,
    start: &Start,
    log: &Path,
    task: &mut Option<TaskId>,
) -> anyhow::Result<String> {
    let mut child = spawn(socket, service, run, start, log)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        reader.read_line(&mut line).await.context("cannot hear from the task's supervisor")?;
    }
    match serde_json::from_str(&line) {
        Ok(Started::Running { id, .. } | Started::Waiting { id, .. }) => *task = Some(TaskId::new(id)),
        Ok(Started::Failed { message, .. }) => {
            let _ = child.wait().await;
            return Ok(message);
        }
        Err(_) => {}
    }
    let status = child.wait().await.context("cannot wait for the task's supervisor")?;
    Ok(format!("the command ended ({status}); see {}", log.display()))
}

fn spawn(socket: &Path, service: &Name, run: &Run, start: &Start, log: &Path) -> anyhow::Result<Child> {
    let output = logs::open(log).with_context(|| format!("cannot open the log {}", log.display()))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("-H").arg(format!("unix://{}", socket.display())).args(["task", "run", "--supervise"]);
    command.arg(format!("--service={service}")).arg(format!("--slot={}", start.slot));
    command.arg(format!("--program={}", start.version)).arg(format!("--log={}", log.display()));
    for variable in &run.env {
        command.arg(format!("--env={variable}"));
    }
    if let Some(signal) = &run.stop_signal {
        command.arg(format!("--stop-signal={signal}"));
    }
    let Resolver { servers, search, options } = &run.resolver;
    command.args(servers.iter().map(|server| format!("--dns={server}")));
    command.args(search.iter().map(|domain| format!("--dns-search={domain}")));
    command.args(options.iter().map(|option| format!("--dns-option={option}")));
    command.arg("--").args(&run.command);
    // The agent's own environment is no business of a service's.
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()));
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(output);
    command.spawn().context("cannot start the task's supervisor")
}
