//! **Effect.** Runs the `nft` program: one script is one kernel transaction.
//!
//! The `nftables` crate can run it, too, but leaves what nft says to the agent's own stderr, while here it
//! belongs into the error; and knows no end of waiting.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::script::Script;

/// A table of thousands of services takes about a second; longer means that nft hangs.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Why the kernel's table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum NftError {
    /// There is no such program.
    #[error(
        "the program nft was not found: this data plane needs it; install the package `nftables` \
         (0.9.3 or newer), or choose the ebpf data plane"
    )]
    Absent,
    /// It could not be run.
    #[error("cannot run the program nft: {0}; check that it may be executed by the agent")]
    Run(#[source] io::Error),
    /// It does not end.
    #[error("nft did not end within {} s and was stopped; look for another nft that holds the kernel's lock", TIMEOUT.as_secs())]
    Hangs,
    /// It, or the kernel, refused.
    #[error("nft could not {action}: {words}{advice}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// What nft said.
        words: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// The script is no JSON.
    #[error("cannot write the change as JSON: {0}; this is a fault of mesh")]
    Unwritable(#[from] serde_json::Error),
    /// The listing is no listing.
    #[error(transparent)]
    Unreadable(#[from] super::listing::Unreadable),
}

/// Commits a script as one transaction: all of it, or nothing.
pub(super) async fn commit(script: &Script<'_>) -> Result<(), NftError> {
    let json = serde_json::to_vec(script)?;
    run("change the table", &["-j", "-f", "-"], &json).await.map(drop)
}

/// Our table as JSON; none: it does not exist.
pub(super) async fn list_table() -> Result<Option<String>, NftError> {
    match run("list the table", &["-j", "list", "table", "inet", "mesh"], b"").await {
        Err(error) if error.is_absence() => Ok(None),
        result => result.map(Some),
    }
}

/// One chain of it as JSON. (nft 1.0.6 cannot list two in one call: it loads the first only.)
pub(super) async fn list_chain(name: &str) -> Result<String, NftError> {
    run("list a chain", &["-j", "list", "chain", "inet", "mesh", name], b"").await
}

/// Deletes our table; false: there was none.
pub(super) async fn delete_table() -> Result<bool, NftError> {
    match commit(&Script::no_table()).await {
        Err(error) if error.is_absence() => Ok(false),
        result => result.map(|()| true),
    }
}

impl NftError {
    fn is_absence(&self) -> bool {
        matches!(self, Self::Refused { words, .. } if words.contains("No such file or directory"))
    }
}

async fn run(action: &'static str, arguments: &[&str], input: &[u8]) -> Result<String, NftError> {
    let mut command = Command::new("nft");
    command.args(arguments).env("LC_ALL", "C").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NftError::Absent,
        _ => NftError::Run(error),
    })?;
    let stdin = child.stdin.take();
    let talk = async {
        if let Some(mut stdin) = stdin {
            // nft may refuse and end before it has read all: its words are what counts then.
            let _ = stdin.write_all(input).await;
        }
        child.wait_with_output().await
    };
    let output =
        tokio::time::timeout(TIMEOUT, talk).await.map_err(|_| NftError::Hangs)?.map_err(NftError::Run)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = first_lines(&String::from_utf8_lossy(&output.stderr));
    let advice = advice(&words);
    Err(NftError::Refused { action, words, advice })
}

/// nft repeats itself for every line that depends on a wrong one.
fn first_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
    let mut words = lines.join(" | ");
    if words.len() > 600 {
        let end = (0..=600).rev().find(|at| words.is_char_boundary(*at)).unwrap_or(0);
        words.truncate(end);
    }
    if words.is_empty() { "it gave no reason".to_owned() } else { words }
}

fn advice(words: &str) -> &'static str {
    let says = |phrase: &str| words.contains(phrase);
    if says("Operation not permitted") {
        "; run the agent as root or with CAP_NET_ADMIN"
    } else if says("JSON support not compiled-in") {
        "; install a package of nft that was built with it, as those of distributions are"
    } else if says("Operation not supported")
        || says("Protocol not supported")
        || says("cache initialization failed")
    {
        "; the kernel lacks nf_tables or a part of it: it needs the modules nf_tables, nft_chain_nat, nft_nat, \
         nft_masq, nft_reject_inet, nft_fib_inet, nft_numgen, nft_hash and nf_conntrack"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let no_kernel = "netlink: Error: cache initialization failed: Protocol not supported\n\n";
        assert_eq!(first_lines(no_kernel), no_kernel.trim());
        assert!(advice(no_kernel).contains("modules nf_tables"));
        assert!(advice("Error: Could not process rule: Operation not permitted").contains("CAP_NET_ADMIN"));
        assert_eq!(first_lines(" \n"), "it gave no reason");
        assert_eq!(first_lines(&"ä".repeat(900)).len(), 600);
        assert!(NftError::Absent.to_string().contains("install the package `nftables`"));
    }
}
