//! **Effect.** `mesh store`.

use std::path::PathBuf;

use anyhow::bail;

use super::OK;
use super::output::Out;
use crate::agent::configuration;
use crate::config::StoreMode;
use crate::store::etcd::Known;
use crate::store::migrate;

/// Manage where this node's records are
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    Migrate(MigrateArgs),
}

/// Move this node's records into an etcd that others run
///
/// Write into the configuration where they are to go (store.mode = "external", store.endpoints), stop the agent, which
/// stops no traffic, run this, and start the agent again. What was here is kept as store.redb.before.
#[derive(Debug, clap::Args)]
pub(super) struct MigrateArgs {
    /// The configuration file [default: /etc/mesh/mesh.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one configuration key, over file and environment
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

pub(super) fn run(verb: Verb, out: &Out) -> anyhow::Result<u8> {
    let Verb::Migrate(args) = verb;
    let config = configuration(args.config.as_deref(), &args.set)?;
    if config.store.mode != StoreMode::External {
        bail!(
            "the configuration says store.mode = \"{}\": write where the records are to go, store.mode = \"external\" \
             and store.endpoints",
            config.store.mode.name()
        );
    }
    let (dir, local) = (&config.node.state_dir, config.node.state_dir.join("store.redb"));
    if dir.join("cluster.json").exists() {
        bail!("this node belongs to a cluster, whose managers keep the records: there is nothing to move");
    }
    let options = config.store.etcd(Known::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let told = |done: usize, all: usize| out.progress(&format!("{done} of {all} records"));
    let count = runtime.block_on(migrate::into_etcd(&local, options, told))?;
    std::fs::rename(&local, dir.join("store.redb.before"))?;
    out.line(format!("{count} records are in etcd. Start the agent: it follows them from there."));
    Ok(OK)
}
