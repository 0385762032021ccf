//! What a service manager does for an agent's descriptors, without the service manager.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{Host, Process, eventually};

const PROGRAM: &str = include_str!("programs/keeper.py");

/// How long it may take to begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);

/// Keeps what an agent gives it, and hands it to the next one. Dropping it loses all.
#[derive(Debug)]
pub(crate) struct Keeper {
    program: PathBuf,
    control: PathBuf,
    notify: PathBuf,
    _process: Process,
}

impl Keeper {
    /// Listens at `notify` for what an agent on the host says.
    pub(crate) fn start(host: &Host, notify: PathBuf) -> Result<Self> {
        let program = host.dir().join("keeper.py");
        fs::write(&program, PROGRAM).with_context(|| format!("cannot write {}", program.display()))?;
        let control = host.dir().join("keeper");
        let argv = [
            &["python3".as_ref(), program.as_os_str(), "keep".as_ref()],
            &[&*notify, &*control].map(Path::as_os_str)[..],
        ];
        let _process = host.spawn_daemon("keeper", argv.concat())?;
        eventually(BEGINS_WITHIN, "the stand-in for a service manager listens", || {
            ensure!(control.exists());
            Ok(())
        })?;
        Ok(Self { program, control, notify, _process })
    }

    /// What a command begins with that is to find what is kept.
    pub(crate) fn starts(&self) -> Vec<OsString> {
        self.words("start", &self.control)
    }

    /// The names of what is kept, in their order.
    pub(crate) fn names(&self, host: &Host) -> Result<Vec<String>> {
        let said = host.exec(self.words("names", &self.control))?.ok()?;
        Ok(said.split_whitespace().map(str::to_owned).collect())
    }

    /// Has something kept under a name that is nothing of the agent's.
    pub(crate) fn give(&self, host: &Host, name: &str) -> Result<()> {
        let mut words = self.words("give", &self.notify);
        words.push(name.into());
        host.exec(words)?.ok().map(drop)
    }

    fn words(&self, verb: &str, at: &Path) -> Vec<OsString> {
        ["python3".into(), self.program.clone().into(), verb.into(), at.into()].into()
    }
}
