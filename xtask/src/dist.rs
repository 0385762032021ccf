//! `dist`: packages for Debian and its kin, and for systems with RPM.
//!
//! Both are made of one tree of files, by the systems' own programs.

mod deb;
mod rpm;
mod stage;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{setup, shell};

#[derive(Args)]
pub(crate) struct Dist {
    /// Where to put the packages [default: dist in cargo's target directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Package this program, instead of one that is built for release
    #[arg(long, value_name = "FILE")]
    mesh: Option<PathBuf>,
}

/// What is packaged, and where the packages go.
struct Tree {
    /// All files, as they are to lie below `/`.
    stage: PathBuf,
    out: PathBuf,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) fn run(dist: &Dist) -> Result<()> {
    setup::run(setup::Talk::Problems)?;
    let mesh = match &dist.mesh {
        Some(mesh) => mesh.clone(),
        None => release()?,
    };
    let out = dist.out.clone().unwrap_or_else(|| shell::target_dir().join("dist"));
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let out = out.canonicalize()?;
    let work = empty(out.join("work"))?;
    let tree = Tree { stage: work.join("root"), out };
    stage::files(&mesh, &tree.stage)?;
    let packages = [deb::build(&tree, &work)?, rpm::build(&tree, &work)?];
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    for package in packages {
        println!("{}", package.display());
    }
    Ok(())
}

/// Mesh, built for release.
fn release() -> Result<PathBuf> {
    shell::run(shell::cargo().args(["build", "--release", "--package=mesh-agent", "--bin=mesh"]))?;
    Ok(shell::target_dir().join("release/mesh"))
}

fn empty(dir: PathBuf) -> Result<PathBuf> {
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// A program that makes a package. Two packages of one commit are to be the same, so its time counts, not today's.
fn packager(program: &str) -> Command {
    let mut command = shell::command(program);
    let committed = shell::output("git", &["-c", "safe.directory=*", "log", "-1", "--format=%ct"]);
    if let Some(seconds) = committed.as_deref().map(str::trim).filter(|seconds| !seconds.is_empty()) {
        command.env("SOURCE_DATE_EPOCH", seconds);
    }
    command
}

fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
