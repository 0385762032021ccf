//! Tasks that a health check finds sick, or well, as a test wants.

use std::{fs, path::PathBuf};

use anyhow::{Result, ensure};
use mesh_tests::{Lab, Node, eventually};

use super::{Cli, READY, Task};

/// Which tasks are sick, in files: one with its address for each.
pub(crate) struct Sick(PathBuf);

impl Sick {
    /// None so far.
    pub(crate) fn none(lab: &Lab) -> Self {
        Self(lab.dir().to_owned())
    }

    /// A health check's command, which knows by the address that it finds in which task's namespace it runs.
    pub(crate) fn command(&self) -> String {
        format!(
            "for f in {}/sick-*; do [ -e $f ] && ip -o address | grep -qF \" $(cat $f)/\" && exit 1; done; exit 0",
            self.0.display()
        )
    }

    /// A task falls sick.
    pub(crate) fn fall(&self, task: &Task<'_>) -> Result<()> {
        Ok(fs::write(self.file(task), task.address()?.to_string())?)
    }

    /// It is well again.
    pub(crate) fn heal(&self, task: &Task<'_>) -> Result<()> {
        Ok(fs::remove_file(self.file(task))?)
    }

    fn file(&self, task: &Task<'_>) -> PathBuf {
        self.0.join(format!("sick-{}", task.name))
    }
}

/// Waits until the mesh says so of a task's health.
pub(crate) fn is(task: &Task<'_>, by: &Node, health: &str) -> Result<()> {
    eventually(READY, &format!("{} is {health}", task.name), || {
        let said = by.inspect("task", &task.name)?;
        ensure!(said["Health"] == health, "{said:#}");
        Ok(())
    })
}
