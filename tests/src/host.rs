//! A machine of the lab: a network namespace, a control group and a directory.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    Cgroup, Netns, Process,
    exec::{Exec, Output, run_in, shown},
};

/// A machine of the lab. Nodes are hosts with an agent; the client and the outside host are just hosts.
#[derive(Debug)]
pub struct Host {
    name: String,
    netns: Netns,
    cgroup: Cgroup,
    dir: PathBuf,
    address: Ipv4Addr,
    address6: Ipv6Addr,
    env: Vec<(&'static str, OsString)>,
}

impl Host {
    pub(crate) fn new(
        name: &str,
        (address, address6): (Ipv4Addr, Ipv6Addr),
        cgroups: &Cgroup,
        lab_dir: &Path,
        mesh: &Path,
    ) -> Result<Self> {
        let dir = lab_dir.join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self {
            name: name.into(),
            netns: Netns::new()?,
            cgroup: cgroups.child(name)?,
            dir,
            address,
            address6,
            env: vec![("PATH", path_with(mesh))],
        })
    }

    /// Every command on the host gets this variable.
    pub(crate) fn set_env(&mut self, name: &'static str, value: OsString) {
        self.env.push((name, value));
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its control group.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Its own directory, gone with the lab.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its address on `eth0`.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its IPv6 address on `eth0`.
    pub fn address6(&self) -> Ipv6Addr {
        self.address6
    }

    /// A command on the host, to be given a time limit, input or environment before it runs.
    pub fn command(&self, argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Exec {
        let argv: Vec<_> = argv.into_iter().collect();
        let mut command = self.cgroup.command(&argv);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        Exec::new(&self.netns, command, shown(&self.name, &argv))
    }

    /// Runs a command to its end. It is an error when it cannot start or takes longer than 10 seconds; its own
    /// failure is in the [`Output`].
    pub fn exec(&self, argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Output> {
        self.command(argv).run()
    }

    /// Starts a program in the background, with its output in `NAME.log` of the host's directory.
    pub fn spawn_daemon(
        &self,
        name: &str,
        argv: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Process> {
        let mut command = self.cgroup.command(argv);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let log = self.dir.join(format!("{name}.log"));
        Process::start(&self.netns, command, &format!("{name} on {}", self.name), log)
    }

    /// Applies lines of `ip` commands in the host's namespace, in one go.
    pub fn ip(&self, lines: &str) -> Result<()> {
        run_in(&self.netns, &["ip", "-batch", "-"], lines)
            .with_context(|| format!("cannot set up the network of {}:\n{lines}", self.name))?;
        Ok(())
    }

    /// What a program of the machine says about the host's namespace; it does not count as the host's process.
    pub(crate) fn show(&self, argv: &[&str]) -> Result<String> {
        run_in(&self.netns, argv, "")
    }

    /// Writes a kernel setting of the host's namespace, such as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key);
        self.netns
            .run(|| fs::write(&path, value))?
            .with_context(|| format!("cannot write {value} to {} on {}", path.display(), self.name))
    }

    /// The command line that enters the host from a terminal, while this process lives.
    pub fn nsenter(&self) -> String {
        format!("nsenter --net={}", self.netns.path().display())
    }
}

/// A search path where `mesh` is the lab's.
pub(crate) fn path_with(mesh: &Path) -> OsString {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let dirs = mesh.parent().map(Path::to_path_buf).into_iter().chain(env::split_paths(&inherited));
    env::join_paths(dirs).unwrap_or(inherited)
}
