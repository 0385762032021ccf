//! **Effect.** Leaves no trace: removes by mark all that any agent ever made on this node.

use anyhow::{Context, bail};

use super::lock;
use crate::config::Config;
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
    let rules = NftPlane::new().remove_all().await;
    let devices = OverlayPlane::new().context("cannot talk to the kernel's network")?.remove_all().await;
    for applied in [rules, devices] {
        removed += applied.changed;
        errors.extend(applied.errors.into_iter().map(|(object, error)| format!("{object}: {error}")));
    }
    let run_dir = &config.node.run_dir;
    std::fs::remove_dir_all(run_dir).with_context(|| format!("cannot remove {}", run_dir.display()))?;
    drop(lock);
    let state_dir = &config.node.state_dir;
    if purge {
        std::fs::remove_dir_all(state_dir)
            .with_context(|| format!("cannot remove {}", state_dir.display()))?;
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
