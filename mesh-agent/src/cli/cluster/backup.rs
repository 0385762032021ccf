//! **Effect.** `mesh cluster backup` and `restore`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::Value;

use super::begin::began;
use crate::api::types::ClusterBackup;
use crate::cli::{OK, Session};

/// Write all records to a file
///
/// Certificates and keys are not in it. A node without a cluster can write its records, too.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct BackupArgs {
    /// A file that is not there yet
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Initialize a cluster with the records of a backup: this node becomes its first manager
///
/// For a node that belongs to no cluster. Other nodes leave the former cluster and join again; until then they and their
/// tasks are not in this one, and those that were removed since the backup was made do not come back with it.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RestoreArgs {
    /// What 'mesh cluster backup' wrote, or a copy in the state directory's etcd/snapshots
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn backup(args: BackupArgs, session: Session) -> anyhow::Result<u8> {
    let name = args.file.display().to_string();
    // Before anything is asked: a file that cannot be made needs no records.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file);
    let mut file = file.with_context(|| format!("cannot make the file {name}"))?;
    let backup = session.client.get::<ClusterBackup>("/v1/cluster/backup").await;
    let written = match backup {
        Ok(backup) => {
            file.write_all(backup.content.as_bytes()).and_then(|()| file.sync_all()).map_err(Into::into)
        }
        Err(error) => Err(anyhow::Error::from(error)),
    };
    if let Err(error) = written {
        let _ = std::fs::remove_file(&args.file);
        return Err(error.context(format!("there is no backup in {name}")));
    }
    session.out.line(name);
    Ok(OK)
}

pub(super) async fn restore(args: RestoreArgs, session: Session) -> anyhow::Result<u8> {
    let content = std::fs::read_to_string(&args.file);
    let content = content.with_context(|| format!("cannot read {}", args.file.display()))?;
    let _: Value = session.client.post("/v1/cluster/restore", &ClusterBackup { content }).await?;
    began(&session).await
}
