//! **Effect.** `mesh version`.

use super::{FAILED, OK, Session};
use crate::api::types::Status;

/// Show the versions of this program and of the agent
#[derive(Debug, clap::Args)]
pub(super) struct VersionArgs {}

pub(super) async fn run(_args: VersionArgs, session: Session) -> anyhow::Result<u8> {
    session.out.line(format!("Client: {}", env!("CARGO_PKG_VERSION")));
    match session.client.get::<Status>("/v1/status").await {
        Ok(status) => {
            session.out.line(format!("Agent:  {}", status.version));
            Ok(OK)
        }
        Err(error) => {
            session.out.error(&error.into());
            Ok(FAILED)
        }
    }
}
