//! **Effect.** `mesh cluster ca`.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::api::types::ClusterAuthority;
use crate::cli::{OK, Session};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// How long it may be that nothing changes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Show the cluster's authority, or replace it
///
/// With --rotate every node gets a certificate of a new authority; the former one is trusted until all have. That
/// interrupts nothing. A node that is away holds up the end until it is back, or removed. Join tokens end with the former
/// authority.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CaArgs {
    /// Replace the authority; where that is going on already, wait for its end
    #[arg(long)]
    rotate: bool,
    /// Exit at once instead of waiting until the former authority is trusted no longer
    #[arg(short, long, requires = "rotate")]
    detach: bool,
}

pub(super) async fn run(args: CaArgs, session: Session) -> anyhow::Result<u8> {
    let CaArgs { rotate, detach } = args;
    if rotate {
        let _: serde_json::Value = session.client.post("/v1/cluster/ca/rotate", &json!({})).await?;
        if detach {
            return Ok(OK);
        }
        wait(&session).await?;
    }
    let authority: ClusterAuthority = session.client.get("/v1/cluster/ca").await?;
    session.out.line(authority.roots.trim_end());
    Ok(OK)
}

async fn wait(session: &Session) -> anyhow::Result<()> {
    let (mut shown, mut since) = (String::new(), Instant::now());
    loop {
        let ClusterAuthority { rotating, nodes, renewed, .. } = session.client.get("/v1/cluster/ca").await?;
        let progress = format!("rotated certificates: {renewed} out of {nodes} nodes");
        if progress != shown {
            session.out.say(&progress);
            (shown, since) = (progress, Instant::now());
        }
        if !rotating {
            return Ok(());
        }
        if since.elapsed() > PATIENCE {
            anyhow::bail!(
                "{renewed} out of {nodes} nodes have a new certificate, and no further one for {} s; both authorities are \
                 trusted until the others are back, or removed with 'mesh node rm'",
                PATIENCE.as_secs()
            );
        }
        sleep(LOOK).await;
    }
}
