//! What another process needs to enter a lab.

use std::{
    ffi::{OsStr, OsString},
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{Lab, cgroup::command_in, host::path_with};

/// A description of a running lab, which belongs to another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabInfo {
    /// The lab's own name.
    pub id: String,
    /// The process that holds it; the lab goes with it.
    pub process: u32,
    /// The lab's directory.
    pub dir: PathBuf,
    /// The `mesh` program that it runs.
    pub mesh: PathBuf,
    /// Nodes, client, outside and fabric.
    pub hosts: Vec<HostInfo>,
}

/// One host of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Its name.
    pub name: String,
    /// Its address on the underlay.
    pub address: Ipv4Addr,
    /// Its IPv6 address on the underlay.
    pub address6: Ipv6Addr,
    /// A path to its network namespace.
    pub netns: PathBuf,
    /// Its control group.
    pub cgroup: PathBuf,
    /// Its own directory.
    pub dir: PathBuf,
    /// The socket of its agent; only nodes have one.
    pub socket: Option<PathBuf>,
}

impl LabInfo {
    /// The name of the file in the directory that a lab is published to.
    pub const FILE: &str = "lab.json";

    /// Describes a lab of this process.
    pub fn of(lab: &Lab) -> Self {
        let socket = |name: &str| lab.node(name).ok().map(|node| node.socket());
        let hosts = lab.hosts().map(|host| HostInfo {
            name: host.name().into(),
            address: host.address(),
            address6: host.address6(),
            netns: host.netns().path(),
            cgroup: host.cgroup().path().into(),
            dir: host.dir().into(),
            socket: socket(host.name()),
        });
        Self {
            id: lab.id().into(),
            process: std::process::id(),
            dir: lab.dir().into(),
            mesh: lab.mesh_program().into(),
            hosts: hosts.collect(),
        }
    }

    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        // By a rename, so that a reader never sees half of it.
        let new = file.with_extension(format!("{}.new", self.id));
        fs::write(&new, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&new, file))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Reads what [`Lab::publish_state`] wrote to a directory. A lab that is gone is an error.
    pub fn load(dir: &Path) -> Result<Self> {
        let file = dir.join(Self::FILE);
        let text = fs::read(&file)
            .with_context(|| format!("no lab runs here: cannot read {}; start one first", file.display()))?;
        let info: Self =
            serde_json::from_slice(&text).with_context(|| format!("cannot understand {}", file.display()))?;
        if !info.dir.is_dir() || !info.hosts.iter().all(|host| host.netns.exists()) {
            bail!(
                "the lab of {} is gone (it was held by process {}); start one again",
                file.display(),
                info.process
            );
        }
        Ok(info)
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> Result<&HostInfo> {
        self.hosts.iter().find(|host| host.name == name).with_context(|| {
            let names: Vec<_> = self.hosts.iter().map(|host| host.name.as_str()).collect();
            format!("the lab has no host {name}; it has {}", names.join(", "))
        })
    }

    /// A command that runs `argv` on a host, in its namespace and its control group, with its agent as
    /// MESH_HOST. Input and output are the caller's.
    pub fn command(&self, host: &str, argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Command> {
        let host = self.host(host)?;
        let mut enter = OsString::from("--net=");
        enter.push(&host.netns);
        let mut words: Vec<OsString> = vec!["nsenter".into(), enter, "--".into()];
        words.extend(argv.into_iter().map(|word| word.as_ref().to_owned()));
        let mut command = command_in(&host.cgroup, words);
        command.env("PATH", path_with(&self.mesh));
        if let Some(socket) = &host.socket {
            let mut address = OsString::from("unix://");
            address.push(socket);
            command.env("MESH_HOST", address);
        }
        Ok(command)
    }
}
