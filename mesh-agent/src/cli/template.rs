//! **Effect.** `mesh template`: files that follow the mesh.

mod catalog;
mod command;
mod file;

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{OK, Session};
use crate::api::types::{WatchAction, WatchEvent, parse_duration};
use catalog::Catalog;
use command::Command;
use file::{Output, parse_mode};

/// How long until an agent that is away is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// A mesh that changes all the time is written down after so many of the pauses that were waited for.
const LONGEST: u32 = 20;

/// Render files from templates, and again whenever the mesh changes
///
/// A template has the fields of Go's: {{range service "web"}}{{.Address}}:{{.Port}}{{end}}, {{range services}},
/// {{range nodes}}, {{if}}, {{else}}. A file is written as a whole, and only if it differs.
#[derive(Debug, clap::Args)]
pub(super) struct TemplateArgs {
    /// Run this by the shell whenever a file has changed; when it fails, again after 250ms, 500ms, 1s …
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// End the command after so long
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    exec_timeout: Duration,
    /// Run the command so often at most, until there is news
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    exec_attempts: u32,
    /// Permissions of the files, in octal [default: as they are, else 0644]
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    mode: Option<u32>,
    /// Wait until the mesh has not changed for so long
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = parse_duration)]
    wait: Duration,
    /// End after the first time
    #[arg(long)]
    once: bool,
    /// What to render, and where to; without OUT to standard output
    #[arg(value_name = "FILE[:OUT]", required = true)]
    files: Vec<String>,
}

pub(super) async fn run(args: TemplateArgs, session: Session) -> anyhow::Result<u8> {
    let outputs =
        args.files.iter().map(|spec| Output::open(spec, args.mode)).collect::<anyhow::Result<Vec<_>>>()?;
    let command = args.exec.as_ref().map(|line| Command::new(line, args.exec_timeout, args.exec_attempts));
    let (send, receive) = unbounded_channel();
    let writer = Writer { args: &args, session: &session, outputs, command, catalog: Catalog::default() };
    let mut since = None;
    let follow = async {
        loop {
            let query = since.map_or_else(String::new, |since| format!("&since={since}"));
            let path = format!("/v1/watch?kind=service,task,node{query}");
            let mut broken = None;
            let read = |line: &str| match serde_json::from_str::<WatchEvent>(line) {
                Ok(event) => {
                    if event.action == WatchAction::Synced {
                        since = Some(event.revision);
                    }
                    send.send(event).is_ok()
                }
                Err(error) => {
                    broken = Some(error);
                    false
                }
            };
            let ended = session.client.lines(&path, || (), read).await;
            if let Some(error) = broken {
                bail!("the agent speaks of what this program does not know: {error}");
            }
            match ended {
                Ok(true) => return Ok(()),
                Ok(false) => session.out.say("the agent has ended; waiting for it"),
                Err(error) if args.once || !error.is_passing() => return Err(error.into()),
                Err(error) => session.out.say(format!("{error}; trying again")),
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        written = writer.run(receive) => written?,
        followed = follow => followed?,
    }
    Ok(OK)
}

/// Takes events in, and brings files up to date.
struct Writer<'a> {
    args: &'a TemplateArgs,
    session: &'a Session,
    outputs: Vec<Output>,
    command: Option<Command>,
    catalog: Catalog,
}

impl Writer<'_> {
    async fn run(mut self, mut events: UnboundedReceiver<WatchEvent>) -> anyhow::Result<()> {
        loop {
            let retry = self.command.as_ref().and_then(Command::due);
            let event = match retry {
                None => events.recv().await,
                Some(at) => tokio::select! {
                    event = events.recv() => event,
                    () = sleep_until(at) => {
                        self.command().await?;
                        continue;
                    }
                },
            };
            let Some(event) = event else { return Ok(()) };
            if self.catalog.apply(event) {
                self.settled(&mut events).await;
                self.write().await?;
                if self.args.once {
                    return Ok(());
                }
            }
        }
    }

    /// Takes in what comes at the same time.
    async fn settled(&mut self, events: &mut UnboundedReceiver<WatchEvent>) {
        let latest = Instant::now() + self.args.wait * LONGEST;
        while let Ok(Ok(Some(event))) = timeout_at(latest, timeout(self.args.wait, events.recv())).await {
            self.catalog.apply(event);
        }
    }

    async fn write(&mut self) -> anyhow::Result<()> {
        let whole = self.catalog.whole();
        let mut changed = false;
        for output in &self.outputs {
            match output.write(&whole, &self.session.out) {
                Ok(written) => changed |= written,
                Err(error) if self.args.once => return Err(error),
                // What was there stays until the mesh, or whoever looks after the file, has changed.
                Err(error) => self.session.out.say(format!("{error:#}; the file stays as it is")),
            }
        }
        if changed && let Some(command) = &mut self.command {
            command.renew();
            self.command().await?;
        }
        Ok(())
    }

    async fn command(&mut self) -> anyhow::Result<()> {
        let Some(command) = &mut self.command else { return Ok(()) };
        match command.run().await {
            Ok(()) => Ok(()),
            Err(error) if self.args.once => Err(error).context("--exec"),
            Err(error) => {
                let next =
                    command.due().map_or("; not tried again until there is news", |_| "; trying again");
                self.session.out.say(format!("--exec: {error:#}{next}"));
                Ok(())
            }
        }
    }
}
