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
    /// That of the managers' etcd instead: members start anew twice, one after the other, while all others are well
    #[arg(long, requires = "rotate")]
    members: bool,
    /// Exit at once instead of waiting until the former authority is trusted no longer
    #[arg(short, long, requires = "rotate")]
    detach: bool,
}

pub(super) async fn run(args: CaArgs, session: Session) -> anyhow::Result<u8> {
    let CaArgs { rotate, members, detach } = args;
    if rotate {
        let _: serde_json::Value =
            session.client.post("/v1/cluster/ca/rotate", &json!({ "Members": members })).await?;
        if detach {
            return Ok(OK);
        }
        wait(&session, members).await?;
        if members {
            return Ok(OK);
        }
    }
    let authority: ClusterAuthority = session.client.get("/v1/cluster/ca").await?;
    session.out.line(authority.roots.trim_end());
    Ok(OK)
}

async fn wait(session: &Session, members: bool) -> anyhow::Result<()> {
    let (mut shown, mut since) = (String::new(), Instant::now());
    loop {
        let all: ClusterAuthority = session.client.get("/v1/cluster/ca").await?;
        let (rotating, progress) = match members {
            true => (
                all.members_rotating,
                format!(
                    "rotated managers' etcd: {} out of {} steps",
                    all.member_steps_done, all.member_steps
                ),
            ),
            false => {
                (all.rotating, format!("rotated certificates: {} out of {} nodes", all.renewed, all.nodes))
            }
        };
        if progress != shown {
            session.out.say(&progress);
            (shown, since) = (progress, Instant::now());
        }
        if !rotating {
            return Ok(());
        }
        if since.elapsed() > PATIENCE {
            anyhow::bail!(
                "{shown}, and no further one for {} s; both authorities are trusted until the others are back, or {}",
                PATIENCE.as_secs(),
                if members { "demoted with 'mesh cluster demote'" } else { "removed with 'mesh node rm'" }
            );
        }
        sleep(LOOK).await;
    }
}
