//! **Effect.** A task's supervisor: makes its namespaces, registers it, runs its command, reports its end.
//!
//! The agent may be restarted at any time; whatever is to be told is told again until it is heard.

mod namespace;
pub(super) mod program;
mod ready;
pub(in crate::cli) mod resolv;
mod signals;

use std::cell::{Cell, RefCell};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ready::Awaited;
use signals::Signals;
use tokio::process::{Child, Command};

use super::exec;
use super::run::{Failure, RunArgs, Started, check_root, open_log};
use super::stat::start_time;
use crate::api::client::{Client, ClientError, Host};
use crate::api::types::{Changed, ErrorKind, Origin, Service, TaskSpec, TaskState, TaskUpdate};
use crate::cli::output::Out;
use crate::cli::several::encode;
use crate::logs::{Log, Stream, keep};

/// How long the agent may be away when a task registers or ends.
const TRIES: u32 = 8;
/// How long a command may take to listen before that is told.
const READY: Duration = Duration::from_secs(10);
/// How long what a command printed may take to be read when it has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The longest pause between two tries.
const PAUSE: Duration = Duration::from_secs(2);

/// Runs a task to its end. In the background, tells how it started.
pub(super) fn run(args: &RunArgs, host: &Host, out: &Out) -> Result<u8, Failure> {
    let result = supervise(args, host, out);
    if args.supervise
        && let Err(Failure { code, error }) = &result
    {
        tell(out, &Started::Failed { message: format!("{error:#}"), code: *code });
    }
    result
}

fn supervise(args: &RunArgs, host: &Host, out: &Out) -> Result<u8, Failure> {
    program::check(&args.command)?;
    check_root()?;
    if args.supervise {
        nix::unistd::setsid().context("cannot leave the terminal")?;
    }
    // Before the runtime exists: namespaces belong to threads, and this is the only one.
    namespace::enter()?;
    resolv::install(&resolv::content(&args.dns_search, &args.dns_option))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the supervisor")?;
    runtime.block_on(Supervisor { client: Client::new(host.clone()), args, out }.run())
}

fn tell(out: &Out, started: &Started) {
    out.line(serde_json::to_string(started).unwrap_or_default());
}

struct Supervisor<'a> {
    client: Client,
    args: &'a RunArgs,
    out: &'a Out,
}

impl Supervisor<'_> {
    async fn run(&self) -> Result<u8, Failure> {
        // From here on a signal is for the command.
        let mut signals = Signals::listen(self.args.stop_signal.unwrap_or(Signal::SIGTERM))?;
        let task = self.register().await?;
        let path = format!("/v1/tasks/{}", encode(&task.id));
        let status = self.command(&task, &path, &mut signals).await;
        let update = match &status {
            Ok(status) => ended(*status, signals.asked),
            Err(failure) => TaskUpdate {
                state: Some(TaskState::Failed),
                message: Some(format!("{:#}", failure.error)),
                ..TaskUpdate::default()
            },
        };
        self.report(&path, &update).await;
        status.map(program::status_code)
    }

    async fn register(&self) -> anyhow::Result<Changed> {
        let RunArgs { service, name, network, weight, dns, socket_balancing, slot, program, .. } = self.args;
        let spec = TaskSpec {
            service: service.clone(),
            name: name.clone(),
            networks: network.clone(),
            origin: Origin {
                pid: Some(std::process::id()),
                start_time: Some(start_time("self")?),
                supervised: true,
                netns: None,
            },
            weight: Some(*weight),
            dns: dns.clone(),
            socket_balancing: socket_balancing.is_off().then_some(false),
            state: Some(TaskState::Preparing),
            slot: *slot,
            program: *program,
        };
        Ok(self.client.post("/v1/tasks", &spec).await?)
    }

    /// Runs the command to its end.
    async fn command(
        &self,
        task: &Changed,
        path: &str,
        signals: &mut Signals,
    ) -> Result<ExitStatus, Failure> {
        self.state(path, TaskState::Starting).await.map_err(anyhow::Error::from)?;
        let mut child = self.spawn(task)?;
        let mut kept = std::pin::pin!(self.keep(&mut child)?);
        let mut ends = false;
        // Whether the one who started this in the background has been told how it went.
        let told = Cell::new(!self.args.supervise);
        let mut running = std::pin::pin!(self.running(task, path, &told));
        let mut runs = false;
        loop {
            tokio::select! {
                status = child.wait() => {
                    let status = status.context("cannot wait for the command")?;
                    if !told.get() {
                        self.ended_early(task, status, signals.asked);
                    }
                    // What it has started may have its output still, and go on.
                    if !ends {
                        let _ = tokio::time::timeout(LAST_WORDS, kept).await;
                    }
                    return Ok(status);
                }
                () = &mut kept, if !ends => ends = true,
                name = signals.next() => pass_on(&child, name),
                outcome = &mut running, if !runs => {
                    runs = true;
                    match outcome {
                        Ok(revision) => {
                            if !told.replace(true) {
                                tell(self.out, &Started::Running { id: task.id.clone(), revision });
                            }
                        }
                        Err(error) => {
                            self.out.error(&error.context("the mesh no longer has this task; it is stopped"));
                            pass_on(&child, signals.stop);
                        }
                    }
                }
            }
        }
    }

    fn spawn(&self, task: &Changed) -> anyhow::Result<Child> {
        let mut command = Command::new("/proc/self/exe");
        command.args(exec::words(std::process::id())).args(&self.args.command);
        for variable in &self.args.env {
            match variable.split_once('=') {
                Some((key, value)) => command.env(key, value),
                // It is in our own environment, if anywhere.
                None => continue,
            };
        }
        command.env("MESH_TASK_NAME", &task.name).env("MESH_TASK_ID", &task.id);
        command.env("MESH_SERVICE", self.args.service.as_deref().unwrap_or_default());
        if self.args.supervise {
            let log = || self.args.log.as_ref().map(open_log).transpose();
            command.stdin(Stdio::null());
            if self.args.program.is_some() && self.args.log.is_some() {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            } else {
                command.stdout(log()?.map_or_else(Stdio::null, Stdio::from));
                command.stderr(log()?.map_or_else(Stdio::null, Stdio::from));
            }
        }
        command.spawn().context("cannot start the command")
    }

    /// Keeps what it prints, if that is ours to keep, to its end.
    fn keep(&self, child: &mut Child) -> anyhow::Result<impl Future<Output = ()> + use<>> {
        let outputs = (child.stdout.take(), child.stderr.take());
        let log = self.args.log.clone().filter(|_| outputs.0.is_some());
        let log = log.map(Log::open).transpose().context("cannot open the log")?;
        Ok(async move {
            let (Some(log), (Some(stdout), Some(stderr))) = (log.map(RefCell::new), outputs) else { return };
            let (stdout, stderr) = (keep(stdout, Stream::Stdout, &log), keep(stderr, Stream::Stderr, &log));
            tokio::join!(stdout, stderr);
        })
    }

    /// By what the task's service is reached.
    async fn awaited(&self) -> Awaited {
        let Some(service) = &self.args.service else { return Awaited::Nothing };
        let found = self.client.get::<Service>(&format!("/v1/services/{}", encode(service))).await;
        found.map_or(Awaited::Nothing, |service| Awaited::of(&service))
    }

    /// The command was started but does not serve: this is told, and waited on.
    async fn slow(&self, task: &Changed, path: &str, awaited: &Awaited, told: &Cell<bool>) {
        let message = awaited.missing();
        if told.replace(true) {
            self.out.say(format!("task {} {message}", task.name));
        } else {
            tell(self.out, &Started::Waiting { id: task.id.clone(), message: message.clone() });
        }
        let update = TaskUpdate { message: Some(message), ..TaskUpdate::default() };
        // Only words; the agent may be away.
        let _ = self.client.patch::<Changed>(path, &update).await;
    }

    /// A command that is done before it was told to run is only a failure if it failed, and nobody asked it to end.
    fn ended_early(&self, task: &Changed, status: ExitStatus, asked: bool) {
        if !self.args.supervise {
            return;
        }
        tell(
            self.out,
            &match program::status_code(status) {
                code if code == 0 || asked => Started::Running { id: task.id.clone(), revision: 0 },
                code => Started::Failed { message: format!("the command ended at once ({status})"), code },
            },
        );
    }

    /// Says that the task runs, for as long as it takes: only then does it get traffic.
    async fn running(&self, task: &Changed, path: &str, told: &Cell<bool>) -> anyhow::Result<u64> {
        let awaited = self.awaited().await;
        if tokio::time::timeout(READY, awaited.listens()).await.is_err() {
            self.slow(task, path, &awaited, told).await;
            awaited.listens().await;
        }
        let mut pause = Duration::from_millis(100);
        loop {
            match self.state(path, TaskState::Running).await {
                Err(error) if error.is_passing() => {}
                other => return Ok(other?),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE);
        }
    }

    async fn state(&self, path: &str, state: TaskState) -> Result<u64, ClientError> {
        let update = TaskUpdate { state: Some(state), ..TaskUpdate::default() };
        self.client.patch::<Changed>(path, &update).await.map(|changed| changed.revision)
    }

    /// Says how the task ended and takes its record away. When nobody listens the agent finds out itself.
    async fn report(&self, path: &str, update: &TaskUpdate) {
        let mut pause = Duration::from_millis(100);
        for _ in 0..TRIES {
            let told = async {
                self.client.patch::<Changed>(path, update).await?;
                self.client.delete::<Changed>(&format!("{path}?force")).await
            };
            match told.await {
                Ok(_) | Err(ClientError::Refused { kind: ErrorKind::NotFound, .. }) => return,
                Err(error) if error.is_passing() => {}
                Err(error) => return self.out.error(&error.into()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE);
        }
    }
}

/// What to tell of a command that ended.
fn ended(status: ExitStatus, asked: bool) -> TaskUpdate {
    let (state, message) = match (status.success(), asked) {
        (true, false) => (TaskState::Complete, "the command ended with success".to_owned()),
        (_, true) => (TaskState::Shutdown, format!("stopped as asked ({status})")),
        (false, false) => (TaskState::Failed, format!("the command failed ({status})")),
    };
    TaskUpdate { state: Some(state), message: Some(message), ..TaskUpdate::default() }
}

/// The command may have ended already, which `wait` tells.
fn pass_on(child: &Child, name: Signal) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), name);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_end_is_told_as_it_was() {
        let code = |code| ExitStatus::from_raw(code << 8);
        assert_eq!(ended(code(0), false).state, Some(TaskState::Complete));
        assert_eq!(ended(code(3), true).state, Some(TaskState::Shutdown));
        let failed = ended(code(3), false);
        assert_eq!(failed.state, Some(TaskState::Failed));
        assert_eq!(failed.message.as_deref(), Some("the command failed (exit status: 3)"));
    }
}
