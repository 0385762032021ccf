//! **Effect.** Leaves no trace: removes by mark all that any agent ever made on this node.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, bail};

use super::lock;
use crate::cluster;
use crate::config::Config;
use crate::dataplane::ebpf;
use crate::dataplane::nft::NftPlane;
use crate::dns;
use crate::facts::sync;
use crate::netns::Netns;
use crate::overlay::OverlayPlane;
use crate::plane::Plane;

/// Removes devices, routes, rules and the run directory; with `purge` the state directory, too.
pub(super) async fn run(config: &Config, purge: bool) -> anyhow::Result<()> {
    // A running agent would put everything back.
    let lock = lock::take(&config.node.run_dir).context("stop the agent first")?;
    let mut errors = Vec::new();
    let mut removed = forget_names(config, &mut errors).await;
    let programs = ebpf::remove_all(&config.dataplane.pins);
    let rules = NftPlane::new().remove_all().await;
    let devices = OverlayPlane::new().context("cannot talk to the kernel's network")?.remove_all().await;
    for applied in [programs, rules, devices] {
        removed += applied.changed;
        errors.extend(applied.errors.into_iter().map(|(object, error)| format!("{object}: {error}")));
    }
    let (run_dir, state_dir) = (&config.node.run_dir, &config.node.state_dir);
    remove(run_dir, &["mesh.sock", "agent.lock", "attempt"], &mut errors);
    drop(lock);
    if purge {
        if let Err(error) = cluster::purge(state_dir).await {
            errors.push(format!("{error:#}"));
        }
        let copies = ["cache", "cache.old", "cache.new", "cache.good", "cache.ripe", crate::liveness::FILE];
        remove(state_dir, &[&["node-id", "store.redb"], &copies[..]].concat(), &mut errors);
    }
    if !errors.is_empty() {
        bail!("these are left:\n  {}", errors.join("\n  "));
    }
    println!("removed {removed} kernel objects and {}", run_dir.display());
    if !purge {
        println!(
            "kept {} (the mesh's records and the node's identity); --purge removes it",
            state_dir.display()
        );
    }
    Ok(())
}

/// Tasks that still run keep their namespaces; what the agent set inside goes.
async fn forget_names(config: &Config, errors: &mut Vec<String>) -> usize {
    // Reading it would make one where there is none.
    if !config.node.state_dir.join("node-id").exists() {
        return 0;
    }
    let Ok(id) = lock::node_id(&config.node.state_dir) else { return 0 };
    let Some(world) = sync::last_known(&config.node.state_dir.join("cache")) else { return 0 };
    let mut removed = 0;
    for task in world.tasks.values().filter(|task| task.node == id) {
        // One that is gone has taken everything with it.
        let Ok(netns) = Netns::of_origin(&task.origin) else { continue };
        match dns::forget(&task.id, &netns.into_file()).await {
            Ok(()) => removed += 1,
            Err(error) => errors.push(error.to_string()),
        }
    }
    removed
}

/// Removes our files and the directory, if nothing else is in it: it may be one that others use.
fn remove(dir: &Path, files: &[&str], errors: &mut Vec<String>) {
    for file in files.iter().map(|file| dir.join(file)) {
        if let Err(error) = std::fs::remove_file(&file)
            && error.kind() != ErrorKind::NotFound
        {
            errors.push(format!("{}: {error}", file.display()));
        }
    }
    match std::fs::remove_dir(dir) {
        Err(error) if ![ErrorKind::NotFound, ErrorKind::DirectoryNotEmpty].contains(&error.kind()) => {
            errors.push(format!("{}: {error}", dir.display()));
        }
        Ok(()) | Err(_) => {}
    }
}
