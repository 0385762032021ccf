//! **Effect.** `mesh cluster init`, `join`, `token`, `leave`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::{show_token, wait};
use crate::api::types::{ClusterJoin, ClusterLeave, ClusterToken, Status, parse_duration};
use crate::cli::{OK, Session};

/// Initialize a cluster: this node becomes its first manager, with all records that it has
///
/// etcd runs on the managers, and the mesh looks after it. Traffic goes on meanwhile.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InitArgs {}

/// Join a cluster, as what the token says: worker or manager
///
/// While it runs, every user of this machine sees its arguments: a file or standard input keeps the token from them.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct JoinArgs {
    /// As 'mesh cluster init' and 'mesh cluster token worker' print it; -: from standard input
    #[arg(value_name = "TOKEN@HOST:PORT", required_unless_present = "token_file")]
    token: Option<String>,
    /// Read the token from a file, as 'mesh cluster token --quiet' prints it; -: from standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
}

impl JoinArgs {
    fn token(self) -> anyhow::Result<String> {
        let file = match (self.token, self.token_file) {
            (Some(token), _) if token != "-" => return Ok(token),
            (_, Some(file)) if file != Path::new("-") => file,
            _ => return read_token(std::io::stdin().lock(), "standard input"),
        };
        let from = file.display().to_string();
        read_token(File::open(&file).with_context(|| format!("cannot open {from}"))?, &from)
    }
}

/// More is no token.
const LONGEST: u64 = 4096;

/// The only word that there is to read.
fn read_token(source: impl Read, from: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    source.take(LONGEST).read_to_string(&mut text).with_context(|| format!("cannot read {from}"))?;
    let mut words = text.split_whitespace();
    match (words.next(), words.next()) {
        (None, _) => bail!("there is no token in {from}"),
        (Some(token), None) => Ok(token.to_owned()),
        // What it is instead may be a secret, too.
        _ => bail!(
            "there is more than a token in {from}: 'mesh cluster token --quiet worker' prints nothing else"
        ),
    }
}

/// Make a token that other nodes join with
///
/// It is shown once: who needs it again makes another one.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TokenArgs {
    /// Only display the token
    #[arg(short, long)]
    quiet: bool,
    /// End all earlier tokens of the role
    #[arg(long)]
    rotate: bool,
    /// How long it is good; 0s: until it is replaced
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    expiry: Duration,
    /// How many nodes may join with it; 0: any number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    uses: u32,
    /// As what they join
    #[arg(value_enum)]
    role: TokenRole,
}

/// As what a node joins.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(in crate::cli) enum TokenRole {
    /// It gets the records from a manager
    Worker,
    /// It keeps them, too
    Manager,
}

/// Leave the cluster: this node becomes a mesh of its own, without records
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LeaveArgs {
    /// Even if the node is a manager, runs tasks, or cannot tell the others
    #[arg(short, long)]
    force: bool,
}

pub(super) async fn init(session: Session) -> anyhow::Result<u8> {
    let _: Value = session.client.post("/v1/cluster/init", &json!({})).await?;
    began(&session).await
}

/// Waits for a node that became the first manager, and says so.
pub(super) async fn began(session: &Session) -> anyhow::Result<u8> {
    let status = wait::until_engine_is(session, "managed").await?;
    session.out.line(format!("Cluster initialized: current node ({}) is now a manager.\n", status.node_id));
    let token = make_token(session, json!({ "Role": "worker" })).await?;
    show_token(session, "worker", &token);
    session.out.line("To add a manager, run 'mesh cluster token manager' and follow the instructions.");
    Ok(OK)
}

async fn make_token(session: &Session, request: Value) -> anyhow::Result<ClusterToken> {
    Ok(session.client.post("/v1/cluster/token", &request).await?)
}

pub(super) async fn join(args: JoinArgs, session: Session) -> anyhow::Result<u8> {
    let token = args.token()?;
    let _: Value = session.client.post("/v1/cluster/join", &ClusterJoin { token }).await?;
    wait::until_engine_is(&session, "gateway").await?;
    session.out.line("This node joined a cluster.");
    Ok(OK)
}

pub(super) async fn token(args: TokenArgs, session: Session) -> anyhow::Result<u8> {
    let TokenArgs { quiet, rotate, expiry, uses, role } = args;
    let role = match role {
        TokenRole::Worker => "worker",
        TokenRole::Manager => "manager",
    };
    let request = json!({ "Role": role, "Expiry": expiry.as_secs(), "Uses": uses, "Rotate": rotate });
    let token = make_token(&session, request).await?;
    if quiet {
        session.out.line(&token.token)
    } else {
        show_token(&session, role, &token)
    }
    Ok(OK)
}

pub(super) async fn leave(args: LeaveArgs, session: Session) -> anyhow::Result<u8> {
    let _: Value = session.client.post("/v1/cluster/leave", &ClusterLeave { force: args.force }).await?;
    let _: Status = wait::until_engine_is(&session, "local").await?;
    session.out.line("Node left the cluster.");
    Ok(OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_only_word() {
        let read = |text: &str| read_token(text.as_bytes(), "t").map_err(|error| error.to_string());
        assert_eq!(read("MESHTKN-1-a-b@192.0.2.1:7300\n"), Ok("MESHTKN-1-a-b@192.0.2.1:7300".to_owned()));
        assert_eq!(read(" \n"), Err("there is no token in t".to_owned()));
        let more = read("mesh cluster join MESHTKN").unwrap_err();
        assert!(more.contains("more than a token in t") && !more.contains("MESHTKN"), "{more}");
        let long = "x".repeat(10_000);
        assert!(read(&long).unwrap().len() <= 4096);
        assert!(read_token(&[0xff, 0xfe][..], "t").is_err());
    }

    #[test]
    fn it_is_given_in_one_of_three_ways() {
        use clap::Parser;
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            join: JoinArgs,
        }
        let of = |words: &[&str]| Line::try_parse_from([&["join"], words].concat()).map(|line| line.join);
        assert!(of(&[]).is_err() && of(&["x", "--token-file", "y"]).is_err());
        assert_eq!(of(&["x"]).unwrap().token().unwrap(), "x");
        assert_eq!(of(&["-"]).unwrap().token.as_deref(), Some("-"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "x@y\n").unwrap();
        let path = file.path().display().to_string();
        assert_eq!(of(&["--token-file", &path]).unwrap().token().unwrap(), "x@y");
        let gone = of(&["--token-file", "/nonexistent"]).unwrap().token().unwrap_err();
        assert!(format!("{gone:#}").contains("cannot open /nonexistent"), "{gone:#}");
    }
}
