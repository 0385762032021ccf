//! **Effect.** `mesh store`.

use std::path::PathBuf;

use anyhow::{Context, bail};

use super::OK;
use super::output::Out;
use crate::agent::{configuration, node_id, take_node};
use crate::cluster::dissolve;
use crate::config::{Config, StoreMode};
use crate::facts::sync::known;
use crate::store::etcd::{EtcdStore, Known};
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
///
/// With --back a node keeps its records itself again: the only node of a cluster ('mesh cluster init'), which is no manager any
/// more, or the only one that has its records in an etcd that others run (with store.mode = "local", and store.endpoints as they
/// were). Stop its agent, run this, and start it again. What was in etcd is kept as records.before, a backup; an etcd that
/// others run is left as it is.
#[derive(Debug, clap::Args)]
pub(super) struct MigrateArgs {
    /// The configuration file [default: /etc/mesh/mesh.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one configuration key, over file and environment
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// The other way: the records come back to this node, which must be the only one that has any there
    #[arg(long)]
    back: bool,
}

pub(super) fn run(verb: Verb, out: &Out) -> anyhow::Result<u8> {
    let Verb::Migrate(args) = verb;
    let config = configuration(args.config.as_deref(), &args.set)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let told = |done: usize, all: usize| out.progress(&format!("{done} of {all} records"));
    if args.back {
        let count = runtime.block_on(back(&config, told))?;
        out.line(format!("{count} records are here. Start the agent: it keeps them from now on."));
        return Ok(OK);
    }
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
    let count = runtime.block_on(migrate::into_etcd(&local, options, told))?;
    std::fs::rename(&local, dir.join("store.redb.before"))?;
    out.line(format!("{count} records are in etcd. Start the agent: it follows them from there."));
    Ok(OK)
}

/// The agent is stopped, and stays so: then nobody writes while the records move.
async fn back(config: &Config, told: impl Fn(usize, usize)) -> anyhow::Result<usize> {
    let Config { node, store, .. } = config;
    if store.mode != StoreMode::Local {
        bail!(
            "the configuration says store.mode = \"{}\": write where the records are to be next, store.mode = \"local\", and leave \
             the endpoints of the etcd where they are",
            store.mode.name()
        );
    }
    let dir = &node.state_dir;
    let _lock = take_node(&node.run_dir).context("stop the agent first, which stops no traffic")?;
    let (id, known) = (node_id(dir)?, known(&dir.join("cache")));
    if dir.join("cluster.json").exists() {
        return dissolve(dir, &id, known, told).await;
    }
    if store.endpoints.is_empty() || dir.join("store.redb").exists() {
        bail!(
            "this node keeps its records itself already: it belongs to no cluster, and {}; nothing was changed",
            if store.endpoints.is_empty() {
                "no store.endpoints say where else they are"
            } else {
                "store.redb is here"
            }
        );
    }
    let mesh = known.cluster.clone();
    migrate::from_etcd(dir, &EtcdStore::new(store.etcd(known)?), &id, mesh.as_deref(), told).await
}
