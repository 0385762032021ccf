//! bpf-linker, which links the kernel half. Its LLVM must be the compiler's.

use anyhow::{Context, Result};

use super::Talk;
use crate::shell;

/// Newer ones are built on an LLVM that the compiler does not have yet. Change it together with the
/// package list and docs/adr/0002.
const VERSION: &str = "0.13.0";
const LLVM: &str = "22";

pub(super) fn install_if_missing(talk: Talk) -> Result<()> {
    let wanted = format!("bpf-linker {VERSION}");
    let there = shell::find("bpf-linker")
        .and_then(|path| shell::output(&path.to_string_lossy(), &["--version"]))
        .unwrap_or_default();
    if there.trim() == wanted {
        if talk == Talk::All {
            shell::say(&format!("{wanted} is installed"));
        }
        return Ok(());
    }
    shell::say(&format!("installing {wanted}: about a minute on two cores"));
    // Its default features are for another LLVM.
    let mut cargo = shell::cargo();
    cargo
        .args(["install", "bpf-linker", "--locked", "--force", "--no-default-features"])
        .args(["--version", VERSION])
        .arg(format!("--features=llvm-{LLVM}"));
    let prefix = format!("/usr/lib/llvm-{LLVM}");
    if std::path::Path::new(&prefix).exists() {
        cargo.env("LLVM_PREFIX", prefix);
    }
    shell::run(&mut cargo)
        .with_context(|| format!("cannot build {wanted}: it needs the development files of LLVM {LLVM}"))
}
