//! **Effect.** One agent per node, and who the node is.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use mesh_core::model::NodeId;
use nix::fcntl::{Flock, FlockArg};

use crate::control::random;

/// Held as long as the agent lives; the kernel lets go of it whatever ends the agent.
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

/// Takes the node, or says who has it.
pub(crate) fn take(run_dir: &Path) -> anyhow::Result<Lock> {
    directory(run_dir, 0o755)?;
    let path = run_dir.join("agent.lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open the lock {}", path.display()))?;
    // Whoever may open it may hold it: of one that is there already, too, nobody else's.
    file.set_permissions(Permissions::from_mode(0o600))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0)?;
            write!(lock, "{}", std::process::id())?;
            Ok(Lock(lock))
        }
        Err((mut file, _)) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            bail!(
                "another agent (process {}) runs on this node already: it holds {}",
                if pid.is_empty() { "unknown" } else { pid.trim() },
                path.display()
            )
        }
    }
}

/// The node's id: made once, kept with its state.
pub(crate) fn node_id(state_dir: &Path) -> anyhow::Result<NodeId> {
    directory(state_dir, 0o700)?;
    let path = state_dir.join("node-id");
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let text = text.trim();
            if text.len() != 25 || !text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()) {
                bail!("{} holds no node id: restore it, or remove it to join as a new node", path.display());
            }
            Ok(NodeId::new(text))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let id = NodeId::from_random(random());
            // Whole or not at all: a crash in between must not leave half an id.
            let part = path.with_extension("new");
            std::fs::write(&part, format!("{id}\n"))
                .and_then(|()| File::open(&part)?.sync_all())
                .and_then(|()| std::fs::rename(&part, &path))
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok(id)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn directory(path: &Path, mode: u32) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("cannot make the directory {}", path.display()))
}
