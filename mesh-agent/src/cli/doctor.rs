//! **Effect.** `mesh doctor`: what is wrong on this node, and what cures it.

use std::path::PathBuf;

use mesh_core::doctor::{Finding, Severity, findings};
use serde_json::{Value, json};

use super::format::{Format, FormatArg};
use super::{FAILED, OK, Session, table};
use crate::agent::configuration;
use crate::doctor::examine;

/// Look for what is wrong on this node and between it and the others; exits with 1 when something does not work
///
/// To be run as root, for it measures: packets of full size that are not split, over the network and through the tunnel.
/// It needs no agent; who else there is it knows by the node's own copy of the records.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// The configuration file [default: /etc/mesh/mesh.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one configuration key, over file and environment
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: DoctorArgs, session: Session) -> anyhow::Result<u8> {
    let config = configuration(args.config.as_deref(), &args.set)?;
    let found = findings(&examine(&session.client, &config).await);
    match args.format.format.as_ref() {
        None | Some(Format::Table) => session.out.bytes(text(&found).as_bytes()),
        Some(Format::Json) => found.iter().for_each(|finding| session.out.line(object(finding).to_string())),
        Some(Format::Template(template) | Format::TableTemplate(template)) => {
            for finding in &found {
                session.out.line(template.render(&object(finding))?);
            }
        }
    }
    let bad = found.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if bad { FAILED } else { OK })
}

fn object(Finding { check, severity, detail, cure }: &Finding) -> Value {
    json!({"Check": check, "Result": severity.as_str(), "Detail": detail, "Cure": cure})
}

/// A row for each finding, and its cure below it.
fn text(found: &[Finding]) -> String {
    let mut rows = Vec::new();
    for Finding { check, severity, detail, cure } in found {
        let word = if *severity == Severity::Error { "ERROR" } else { severity.as_str() };
        rows.push(vec![(*check).to_owned(), word.to_owned(), detail.clone()]);
        if !cure.is_empty() {
            rows.push(vec![String::new(), String::new(), format!("-> {cure}")]);
        }
    }
    table::render(&["CHECK", "RESULT", "DETAIL"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cures_are_below_what_they_cure() {
        let finding = |check, severity, detail: &str, cure: &str| Finding {
            check,
            severity,
            detail: detail.to_owned(),
            cure: cure.to_owned(),
        };
        let found = [
            finding("agent", Severity::Ok, "it runs", ""),
            finding(
                "mtu",
                Severity::Error,
                "packets of 1500 bytes do not come to n2 and back",
                "set the MTU",
            ),
        ];
        insta::assert_snapshot!(text(&found), @r"
        CHECK   RESULT   DETAIL
        agent   ok       it runs
        mtu     ERROR    packets of 1500 bytes do not come to n2 and back
                         -> set the MTU
        ");
    }
}
