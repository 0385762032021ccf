//! **Effect.** Programs at the sockets of a control group, and what they know and leave.
//!
//! They only save the programs on devices work. So nothing here is needed: where the kernel or the control group
//! lacks what it takes, the node does without.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, Program, ProgramError};
use mesh_core::plan::Balance;
use mesh_ebpf::abi::{NetnsKey, SocketKey, SocketOrigin, TCP, UDP, map};

use super::books::Facts;
use super::kill::{Diag, Lost};
use super::load::Loaded;
use super::maps::{self, Maps};
use super::members::Members;
use super::syscall::replace_program;
use super::{EbpfError, cgroup2_mount};
use crate::plane::{Applied, DIFFERS, Drift, MISSING};

const PROGRAMS: [&str; 9] = [
    "mesh_connect4",
    "mesh_connect6",
    "mesh_sendmsg4",
    "mesh_sendmsg6",
    "mesh_recvmsg4",
    "mesh_recvmsg6",
    "mesh_getpeer4",
    "mesh_getpeer6",
    "mesh_release",
];

/// Programs at the sockets of a control group.
pub(super) struct Sockets {
    cgroup: PathBuf,
    pins: PathBuf,
    /// Pins of links that have this agent's programs.
    held: BTreeSet<PathBuf>,
    members: Members,
    netns: HashMap<MapData, NetnsKey, u32>,
    known: BTreeMap<NetnsKey, u32>,
    origins: HashMap<MapData, SocketKey, SocketOrigin>,
    /// Those whose backend's node is silent, and that were ended for it if they are of datagrams.
    silent: BTreeSet<SocketKey>,
}

impl Sockets {
    /// Those that were loaded, for the processes in a control group; the empty path means all of the machine.
    pub(super) fn open(loaded: &mut Loaded, pins: PathBuf, cgroup: &Path) -> Result<Self, EbpfError> {
        std::mem::replace(&mut loaded.sockets, Ok(()))?;
        let cgroup = if cgroup.as_os_str().is_empty() {
            cgroup2_mount()
                .ok_or_else(|| no_group(Path::new("of version 2"), io::ErrorKind::NotFound.into()))?
        } else {
            cgroup.to_path_buf()
        };
        let ebpf = &mut loaded.ebpf;
        let netns = maps::take(ebpf, map::NETNS)?;
        let members = Members::new().map_err(|source| EbpfError::Netns { source })?;
        let origins = maps::take(ebpf, map::SOCK_REV)?;
        Ok(Self {
            cgroup,
            pins,
            held: BTreeSet::new(),
            members,
            netns,
            known: BTreeMap::new(),
            origins,
            silent: BTreeSet::new(),
        })
    }

    /// Has the programs know this node's tasks, and be where they belong. How much was changed. With `looks` what they
    /// know is read anew.
    pub(super) fn settle(
        &mut self,
        ebpf: &mut Ebpf,
        want: &Balance,
        facts: &Facts,
        looks: bool,
    ) -> Result<usize, EbpfError> {
        if looks {
            self.known = self.there()?;
        }
        Ok(self.settle_members(want, facts)? + self.settle_links(ebpf)?)
    }

    /// Takes all programs away.
    pub(super) fn forget(&self) {
        forget(&self.pins, |_| true);
    }

    /// Notes what is not as it should be.
    pub(super) fn look(&mut self, want: &Balance, facts: &Facts, drift: &Drift) -> Result<(), EbpfError> {
        let entries = self.members.entries(want, facts);
        let there = self.there()?;
        for key in there.keys().chain(entries.keys()).filter(|key| there.get(*key) != entries.get(*key)) {
            drift.note(format!("sockets of {key:?}"), DIFFERS);
        }
        let missing = self.held.iter().filter(|path| !path.exists());
        missing.for_each(|path| drift.note(format!("link {}", path.display()), MISSING));
        Ok(())
    }

    fn there(&self) -> Result<BTreeMap<NetnsKey, u32>, EbpfError> {
        Ok(maps::all(&self.netns, map::NETNS)?.into_iter().collect())
    }

    fn settle_members(&mut self, want: &Balance, facts: &Facts) -> Result<usize, EbpfError> {
        let entries = self.members.entries(want, facts);
        let mut changed = 0;
        // Who is no member any more is none before others come.
        for key in self.known.keys().filter(|key| !entries.contains_key(key)) {
            maps::put(&mut self.netns, map::NETNS, key, None)?;
            changed += 1;
        }
        for (key, device) in &entries {
            if self.known.get(key) != Some(device) {
                maps::put(&mut self.netns, map::NETNS, key, Some(device))?;
                changed += 1;
            }
        }
        self.known = entries;
        Ok(changed)
    }

    fn settle_links(&mut self, ebpf: &mut Ebpf) -> Result<usize, EbpfError> {
        let failed = |source| no_group(&self.cgroup, source);
        let group = File::open(&self.cgroup).map_err(failed)?;
        // A group that was made anew has the same name and none of the links.
        let id = group.metadata().map_err(failed)?.ino();
        let mut changed = 0;
        let wanted = PROGRAMS.map(|name| (name, self.pins.join(format!("{name}-{id}"))));
        for (name, path) in &wanted {
            if self.held.contains(path) && path.exists() {
                continue;
            }
            put(ebpf, name, &group, path)?;
            self.held.insert(path.clone());
            changed += 1;
        }
        Ok(changed + forget(&self.pins, |path| !wanted.iter().any(|(_, wanted)| wanted == path)))
    }

    /// Ends the sockets whose backend has gone. Of one whose node has fallen silent only those of datagrams: a connection may go
    /// on when the node is back, datagrams can go elsewhere at once, as on the packet path.
    pub(super) async fn end_lost(&mut self, maps: &Maps, applied: &mut Applied) {
        // One that is removed while they are listed ends by itself.
        let all: Vec<_> = self.origins.iter().flatten().collect();
        if all.is_empty() {
            return;
        }
        let backends = match maps.backends() {
            Ok(backends) => backends,
            Err(error) => return note(applied, error.in_full()),
        };
        let backend = |id: u32| ((id as usize) < backends.len()).then(|| backends.get(id as usize));
        let is_gone = |of: &SocketOrigin| backend(of.backend).is_none_or(|now| !now.serves(of.generation));
        let is_silent = |of: &SocketOrigin| backend(of.backend).is_some_and(|now| now.is_silent());
        let (gone, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, of)| is_gone(of));
        let silent: Vec<_> = rest.into_iter().filter(|(_, of)| is_silent(of)).collect();
        for key in self.end_all(&gone, &[TCP, UDP], applied).await {
            // It may have ended by itself.
            let _ = self.origins.remove(&key);
        }
        // Once: who connects anew is led elsewhere.
        let known: BTreeSet<_> = silent.iter().map(|(key, _)| *key).collect();
        let anew: Vec<_> = silent.into_iter().filter(|(key, _)| !self.silent.contains(key)).collect();
        let ended = self.end_all(&anew, &[UDP], applied).await;
        self.silent.retain(|key| known.contains(key));
        self.silent.extend(ended);
    }

    /// Ends those of these protocols. Which were looked for.
    async fn end_all(
        &self,
        lost: &[(SocketKey, SocketOrigin)],
        protocols: &'static [u8],
        applied: &mut Applied,
    ) -> Vec<SocketKey> {
        let mut by_netns: BTreeMap<u64, Vec<SocketKey>> = BTreeMap::new();
        lost.iter().for_each(|(key, of)| by_netns.entry(of.netns).or_default().push(*key));
        let mut looked_for = Vec::new();
        for (netns, keys) in by_netns {
            let sockets = keys.iter().map(|key| (key.cookie, key.addr, key.port)).collect();
            match self.end(netns, sockets, protocols).await {
                Ok(ended) => {
                    applied.changed += ended;
                    looked_for.extend(keys);
                }
                Err(error) => note(applied, format!("cannot end them: {error}")),
            }
        }
        looked_for
    }

    async fn end(&self, netns: u64, lost: BTreeSet<Lost>, protocols: &'static [u8]) -> io::Result<usize> {
        // Whose namespace is nobody's has ended, too.
        let Some(netns) = self.members.netns(netns) else { return Ok(0) };
        let netns = match netns {
            Ok(netns) => netns,
            Err(error) if error.is_gone() => return Ok(0),
            Err(error) => return Err(io::Error::other(error)),
        };
        let mut diag = netns.run(Diag::open).map_err(io::Error::other)??;
        // Listing all sockets of a busy namespace takes long enough to hold up other tasks.
        tokio::task::spawn_blocking(move || diag.end(&lost, protocols)).await.map_err(io::Error::other)?
    }
}

fn note(applied: &mut Applied, error: String) {
    applied.errors.insert("sockets whose task has gone".to_owned(), error);
}

/// Removes links that an agent left. How many there were.
pub(super) fn forget(pins: &Path, which: impl Fn(&Path) -> bool) -> usize {
    let entries = fs::read_dir(pins).into_iter().flatten().flatten().map(|entry| entry.path());
    // Removing the pin of a link removes the link.
    entries.filter(|path| which(path) && fs::remove_file(path).is_ok()).count()
}

fn find<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Program, EbpfError> {
    ebpf.program_mut(name).ok_or(EbpfError::Incomplete { kind: "program", name })
}

/// Loads the programs.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), EbpfError> {
    for name in PROGRAMS {
        let done = match find(ebpf, name)? {
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            _ => return Err(EbpfError::Incomplete { kind: "program of a control group", name }),
        };
        done.map_err(|source| EbpfError::Program { name, source: Box::new(source) })?;
    }
    Ok(())
}

/// Puts a program into its pinned link, or into a new one.
fn put(ebpf: &mut Ebpf, name: &'static str, group: &File, path: &Path) -> Result<(), EbpfError> {
    let program = find(ebpf, name)?;
    let failed = |source| EbpfError::AttachToSockets { name, source: Box::new(source) };
    if path.exists() {
        if replace_program(path, program.fd().map_err(failed)?.as_fd()).is_ok() {
            return Ok(());
        }
        // Of a group that was removed.
        drop(fs::remove_file(path));
    }
    let link = attach(program, group).map_err(failed)?;
    let link = link.ok_or(EbpfError::Incomplete { kind: "pinnable link of", name })?;
    let kept = link.pin(path);
    kept.map(drop).map_err(|source| EbpfError::Pin {
        device: name.to_owned(),
        path: path.to_path_buf(),
        source: Box::new(source),
    })
}

/// None: the kernel's links cannot be pinned.
fn attach(program: &mut Program, group: &File) -> Result<Option<FdLink>, ProgramError> {
    let link = match program {
        Program::CgroupSockAddr(program) => {
            let id = program.attach(group, CgroupAttachMode::Single)?;
            FdLink::try_from(program.take_link(id)?)
        }
        Program::CgroupSock(program) => {
            let id = program.attach(group, CgroupAttachMode::Single)?;
            FdLink::try_from(program.take_link(id)?)
        }
        _ => return Ok(None),
    };
    Ok(link.ok())
}

fn no_group(path: &Path, source: io::Error) -> EbpfError {
    EbpfError::Cgroup { path: path.to_path_buf(), source }
}
