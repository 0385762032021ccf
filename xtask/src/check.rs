//! `check`: everything that can be said about the code without running it.

use anyhow::Result;

use crate::{fuzz, shell, tidy};

pub(crate) fn run() -> Result<()> {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    shell::say("tidy: the house rules");
    tidy::run()?;
    shell::run(shell::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    fuzz::check()?;
    shell::run(shell::cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    deny()
}

fn deny() -> Result<()> {
    if !shell::exists("cargo-deny") {
        shell::say(
            "cargo-deny is not installed: licences and advisories of the dependencies were NOT checked. \
             To install it: cargo install cargo-deny --locked",
        );
        return Ok(());
    }
    let mut deny = shell::cargo();
    deny.args(["deny", "--workspace"]);
    // Advisories come from a database on the network; the rest is known here.
    if shell::succeeds("cargo", &["deny", "fetch", "db"]) {
        deny.args(["check", "--hide-inclusion-graph"]);
    } else {
        shell::say("the database of advisories cannot be fetched: advisories were NOT checked");
        deny.args(["--offline", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    }
    shell::run(&mut deny)
}
