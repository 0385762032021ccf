//! A control group (version 2): what a node is to cgroup BPF programs, and the one handle that reaches every
//! process that a node started, however deep.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::eventually;

/// Joins the group named by `$0` and becomes the program.
const ENTER: &str = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;

/// How long killed processes get to disappear.
const EMPTY_WITHIN: Duration = Duration::from_secs(5);

/// A control group; dropping it kills what is inside and removes it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the group `name` at the top of the cgroup v2 hierarchy, wherever that is mounted.
    pub fn new(name: &str) -> Result<Self> {
        Self::make(mount_point()?.join(name))
    }

    /// Makes a group inside this one.
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::make(self.path.join(name))
    }

    fn make(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("cannot make the control group {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command that runs `argv` inside the group.
    pub fn command(&self, argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        command_in(&self.path, argv)
    }

    /// The processes inside, those of inner groups not counted.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let file = self.path.join("cgroup.procs");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Kills every process inside and in inner groups, and waits until they are gone.
    pub fn kill(&self) -> Result<()> {
        let file = self.path.join("cgroup.kill");
        fs::write(&file, "1").with_context(|| format!("cannot write {}", file.display()))?;
        let what = format!("the processes of {} end after a kill", self.path.display());
        eventually(EMPTY_WITHIN, &what, || {
            let events = fs::read_to_string(self.path.join("cgroup.events"))?;
            ensure!(events.contains("populated 0"), "some are left: {:?}", self.processes()?);
            Ok(())
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let gone = self.kill().and_then(|()| {
            remove_tree(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
        });
        if let Err(error) = gone
            && self.path.exists()
        {
            eprintln!("lab: {error:#}");
        }
    }
}

/// A command that runs `argv` inside the group at `path`. It is the shell that joins, because joining in this
/// process after a fork would need unsafe code.
pub(crate) fn command_in(path: &Path, argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", ENTER]).arg(path).args(argv);
    command
}

/// Groups are removed from the inside out, directories only: the files in them are the kernel's.
fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// Where cgroup v2 is mounted.
fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find_map(|fields| match fields[..] {
            [_, point, "cgroup2", ..] => Some(point.into()),
            _ => None,
        })
        .context("cgroup v2 is not mounted; try: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified")
}
