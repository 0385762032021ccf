//! **Effect.** `mesh cluster recover`.

use std::io::{BufRead, IsTerminal};

use anyhow::bail;
use serde_json::{Value, json};

use super::wait;
use crate::cli::{OK, Session};

/// What is to be typed.
const WORD: &str = "recover";

/// Go on with this manager alone, when most managers are lost for good
///
/// What only the lost ones knew is gone. They must not come back: remove their state before they join again. Choose the
/// manager whose INDEX in 'mesh cluster status' is the highest.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RecoverArgs {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(args: RecoverArgs, session: Session) -> anyhow::Result<u8> {
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            bail!("this cannot be undone: say --yes, or run it on a terminal");
        }
        session.out.say(format!(
            "This node goes on alone: what only the other managers knew is lost, and they must not come back.\n\
             Type '{WORD}' to go on:"
        ));
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        if line.trim() != WORD {
            bail!("nothing was done");
        }
    }
    let starts = wait::starts(&session).await?;
    let _: Value = session.client.post("/v1/cluster/recover", &json!({})).await?;
    wait::until_started_again(&session, starts, "managed").await?;
    session.out.line("This node is the only manager now.");
    Ok(OK)
}
