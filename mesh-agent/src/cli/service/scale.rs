//! **Effect.** `mesh service scale`.

use std::str::FromStr;

use crate::api::types::{Changed, ProgramConfig, ServiceUpdate};
use crate::cli::several::{encode, report};
use crate::cli::{OK, Session, replicas};

/// Scale one or multiple services whose command the mesh runs
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ScaleArgs {
    /// Exit at once instead of waiting for the services to converge
    #[arg(short, long)]
    detach: bool,
    /// How many tasks each is to have
    #[arg(required = true, value_name = "SERVICE=REPLICAS")]
    services: Vec<Scale>,
}

#[derive(Debug, Clone)]
struct Scale {
    service: String,
    replicas: u32,
}

impl FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid scale specifier '{text}': write SERVICE=REPLICAS, such as web=3");
        let (service, replicas) = text.split_once('=').ok_or_else(invalid)?;
        Ok(Self { service: service.to_owned(), replicas: replicas.parse().map_err(|_| invalid())? })
    }
}

pub(super) async fn run(args: ScaleArgs, session: Session) -> anyhow::Result<u8> {
    let (mut code, mut changes) = (OK, Vec::new());
    for Scale { service, replicas } in &args.services {
        let program = Some(ProgramConfig { replicas: Some(*replicas), ..ProgramConfig::default() });
        let update = ServiceUpdate { program, ..ServiceUpdate::default() };
        let path = format!("/v1/services/{}", encode(service));
        match session.client.patch::<Changed>(&path, &update).await {
            Ok(changed) => {
                session.out.line(format!("{service} scaled to {replicas}"));
                changes.push(changed);
            }
            Err(error) => code = report(&session, error)?,
        }
    }
    if !args.detach {
        for changed in &changes {
            replicas::converged(&session, changed).await?;
        }
    }
    Ok(code)
}
