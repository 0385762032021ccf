//! **Effect.** `mesh etcd`: runs the real etcd, and nothing else. It outlives the agent, so that an agent that is
//! replaced or killed takes no manager away.
//!
//! What is to run stands in `member.json`; when that changes etcd is started anew, and when it is gone all ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use mesh_core::etcd::{self, MemberSpec};
use mesh_core::members;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use super::binary;
use super::own::Own;
use crate::disk;

/// How often it is looked whether something else is to run.
const LOOK: Duration = Duration::from_millis(300);
/// How long etcd may take to end when it is asked to.
const END: Duration = Duration::from_secs(10);
/// One that has run for so long began well.
const WELL: Duration = Duration::from_secs(10);
/// How long the log may be when etcd starts, bytes; then the next begins.
const LOG: u64 = 16 << 20;

/// `mesh etcd`
#[derive(Debug, Clone, clap::Args)]
pub struct EtcdArgs {
    /// The directory with member.json
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Go on in the background, in a session of its own
    #[arg(long, conflicts_with = "wait")]
    detach: bool,
    /// Where another one does this already, wait until it has ended, and go on in its place
    #[arg(long)]
    wait: bool,
}

/// Runs until `member.json` is gone or a signal ends it.
pub fn main(args: &EtcdArgs) -> anyhow::Result<()> {
    if args.detach {
        return detach(&args.dir);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the supervisor of etcd")?.block_on(run(&Own::at(&args.dir), args.wait))
}

fn detach(dir: &Path) -> anyhow::Result<()> {
    nix::unistd::setsid().context("cannot leave the agent's session")?;
    let log = dir.join("etcd.log");
    if std::fs::metadata(&log).is_ok_and(|log| log.len() > LOG) {
        let _ = std::fs::rename(&log, log.with_extension("log.old"));
    }
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&log);
    let log = log.with_context(|| format!("cannot write to {}", dir.join("etcd.log").display()))?;
    let program = std::env::current_exe().context("cannot find this program")?;
    std::process::Command::new(program)
        .args(["etcd", "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start the supervisor of etcd")?;
    Ok(())
}

/// Whether a supervisor runs; it holds the lock.
pub(super) fn runs(own: &Own) -> bool {
    take(own).is_err()
}

fn take(own: &Own) -> anyhow::Result<Flock<File>> {
    let path = own.file("lock");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot open the lock {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| anyhow::anyhow!("another supervisor of etcd holds {}", path.display()))
}

/// Takes the lock; nothing, if there is nothing to run any more when the one who holds it ends.
async fn take_turn(own: &Own, wait: bool) -> anyhow::Result<Option<Flock<File>>> {
    loop {
        match take(own) {
            Ok(lock) => return Ok(Some(lock)),
            Err(error) if !wait => return Err(error),
            Err(_) if own.spec().is_ok_and(|spec| spec.is_none()) => return Ok(None),
            Err(_) => sleep(LOOK).await,
        }
    }
}

async fn run(own: &Own, wait: bool) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let turn = tokio::select! {
        turn = take_turn(own, wait) => turn?,
        _ = term.recv() => return Ok(()),
        _ = int.recv() => return Ok(()),
    };
    let Some(mut lock) = turn else { return Ok(()) };
    end_former(&mut lock).await;
    let mut failures = 0;
    while let Some(spec) = own.spec()? {
        let began = Instant::now();
        let (mut child, alone) = match start(own, &spec).await {
            Ok(started) => started,
            Err(error) => {
                eprintln!("mesh etcd: {error:#}");
                tokio::select! {
                    () = sleep(members::pause(failures)) => {}
                    () = another(own, &spec) => {}
                    _ = term.recv() => return Ok(()),
                    _ = int.recv() => return Ok(()),
                }
                failures += 1;
                continue;
            }
        };
        note(&mut lock, child.id())?;
        let ended = tokio::select! {
            status = child.wait() => Some(status?),
            () = another(own, &spec) => None,
            _ = term.recv() => return end(&mut child).await,
            _ = int.recv() => return end(&mut child).await,
        };
        match ended {
            None => {
                end(&mut child).await?;
                failures = 0;
            }
            Some(status) => {
                failures = if began.elapsed() > WELL { 0 } else { failures + 1 };
                if alone && failures > 0 {
                    Alone::of(own).again(&spec)?;
                }
                let pause = members::pause(failures);
                eprintln!("mesh etcd: etcd ended ({status}), and is started again in {pause:?}");
                tokio::select! {
                    () = sleep(pause) => {}
                    () = another(own, &spec) => {}
                    _ = term.recv() => return Ok(()),
                    _ = int.recv() => return Ok(()),
                }
            }
        }
        note(&mut lock, None)?;
    }
    Ok(())
}

/// Starts etcd, and says whether without the others.
async fn start(own: &Own, spec: &MemberSpec) -> anyhow::Result<(Child, bool)> {
    let (program, version) = binary::find().await?;
    let alone = Alone::of(own).begin(spec)?;
    let flags = etcd::flags(spec, &own.dir().to_string_lossy(), version, alone);
    // What stands in the environment would be flags, too.
    let foreign = std::env::vars_os().map(|(name, _)| name);
    let mut command = Command::new(&program);
    for name in foreign.filter(|name| name.to_string_lossy().starts_with("ETCD_")) {
        command.env_remove(name);
    }
    command.args(flags).stdin(Stdio::null());
    match command.spawn() {
        Ok(child) => Ok((child, alone)),
        Err(error) => {
            if alone {
                Alone::of(own).again(spec)?;
            }
            Err(error).with_context(|| format!("cannot start {}", program.display()))
        }
    }
}

/// The file that says for which word the member went on alone, so that it does so once for each.
struct Alone(PathBuf);

impl Alone {
    fn of(own: &Own) -> Self {
        Self(own.file("alone"))
    }

    /// Whether this start is the one without the others. Written down before it is done: a crash of ours in between
    /// leaves a member that waits, and not one that forgets twice.
    fn begin(&self, spec: &MemberSpec) -> anyhow::Result<bool> {
        let Some(word) = spec.alone.as_deref().filter(|word| !self.was(word)) else { return Ok(false) };
        disk::write_bytes(&self.0, word.as_bytes())?;
        Ok(true)
    }

    /// A start that was without the others did not last: the next start is so again, or it would wait for them for ever.
    fn again(&self, spec: &MemberSpec) -> anyhow::Result<()> {
        if spec.alone.as_deref().is_some_and(|word| self.was(word)) { disk::remove(&self.0) } else { Ok(()) }
    }

    fn was(&self, word: &str) -> bool {
        std::fs::read_to_string(&self.0).is_ok_and(|done| done == word)
    }
}

/// Waits until something else is to run.
async fn another(own: &Own, spec: &MemberSpec) {
    loop {
        sleep(LOOK).await;
        // One that cannot be read now may be half written; what runs is no worse for it.
        if own.spec().is_ok_and(|now| now.as_ref() != Some(spec)) {
            return;
        }
    }
}

async fn end(child: &mut Child) -> anyhow::Result<()> {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let ended: Result<std::io::Result<ExitStatus>, _> = timeout(END, child.wait()).await;
    if ended.is_err() {
        child.kill().await.context("etcd cannot be ended")?;
    }
    Ok(())
}

/// Writes down which process runs, in the file that is locked.
fn note(lock: &mut Flock<File>, child: Option<u32>) -> anyhow::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    Ok(write!(lock, "{}", child.map(|id| id.to_string()).unwrap_or_default())?)
}

/// Ends what a supervisor that was killed has left behind: two etcds cannot have one directory.
async fn end_former(lock: &mut Flock<File>) {
    let mut text = String::new();
    if lock.read_to_string(&mut text).is_err() {
        return;
    }
    let Ok(pid) = text.trim().parse::<i32>() else { return };
    for (attempt, signal) in [Signal::SIGTERM, Signal::SIGKILL].into_iter().enumerate() {
        if !is_ours(pid) {
            return;
        }
        let _ = kill(Pid::from_raw(pid), signal);
        let until = Instant::now() + END;
        while is_ours(pid) && Instant::now() < until {
            sleep(Duration::from_millis(50 + 50 * attempt as u64)).await;
        }
    }
}

/// Ends etcd, and waits until its supervisor has started it again.
pub(super) async fn start_anew(own: &Own) -> anyhow::Result<()> {
    let process = || {
        let text = std::fs::read_to_string(own.file("lock")).unwrap_or_default();
        text.trim().parse::<i32>().ok().filter(|pid| is_ours(*pid))
    };
    let former = process();
    if let Some(pid) = former {
        kill(Pid::from_raw(pid), Signal::SIGTERM).context("etcd cannot be ended")?;
    }
    let until = Instant::now() + END + WELL;
    while process().is_none_or(|pid| Some(pid) == former) {
        if Instant::now() >= until {
            bail!("etcd was not started anew; {}", own.last_words());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Whether a process is an etcd of a mesh.
fn is_ours(pid: i32) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.split(|byte| *byte == 0).any(|part| part.starts_with(b"--initial-cluster-token="))
}

/// Starts a supervisor where none runs, so that it goes on without its parent.
pub(super) async fn ensure(own: &Own) -> anyhow::Result<()> {
    if runs(own) {
        return Ok(());
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let output = Command::new(program)
        .args(["etcd", "--detach", "--dir"])
        .arg(own.dir())
        .stdin(Stdio::null())
        .output()
        .await
        .context("cannot start the supervisor of etcd")?;
    if !output.status.success() {
        bail!("the supervisor of etcd does not start: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_watches_and_another_may_wait_for_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let own = Own::at(dir.path());
        let file = own.file("member.json");
        std::fs::write(&file, "{").unwrap();
        let held = take(&own).unwrap();
        assert!(take_turn(&own, false).await.unwrap_err().to_string().contains("another supervisor"));
        assert!(timeout(LOOK * 2, take_turn(&own, true)).await.is_err(), "the other one goes on");
        drop(held);
        let held = take_turn(&own, true).await.unwrap();
        assert!(held.is_some());
        std::fs::remove_file(&file).unwrap();
        assert!(take_turn(&own, true).await.unwrap().is_none(), "there is nothing to run");
    }

    #[test]
    fn a_start_without_the_others_that_failed_is_made_again_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let alone = Alone::of(&Own::at(dir.path()));
        let spec = |word: Option<&str>| MemberSpec {
            node: "a".to_owned(),
            address: [192, 0, 2, 1].into(),
            cluster: Vec::new(),
            joins: false,
            token: "t".to_owned(),
            quota: etcd::QUOTA,
            alone: word.map(str::to_owned),
        };
        assert!(!alone.begin(&spec(None)).unwrap());
        assert!(alone.begin(&spec(Some("one"))).unwrap());
        assert!(!alone.begin(&spec(Some("one"))).unwrap(), "once for each word");
        alone.again(&spec(Some("one"))).unwrap();
        assert!(alone.begin(&spec(Some("one"))).unwrap(), "etcd did not come up");
        assert!(alone.begin(&spec(Some("two"))).unwrap());
        alone.again(&spec(Some("one"))).unwrap();
        assert!(!alone.begin(&spec(Some("two"))).unwrap(), "that was another one");
    }
}
