//! `gen`: the documents that the program writes about itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::shell;

pub(crate) fn run(check: bool) -> Result<()> {
    let docs = shell::root().join("docs");
    if !check {
        return write(&docs);
    }
    let fresh = shell::target_dir().join("gen-check");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| format!("cannot empty {}", fresh.display()))?;
    }
    write(&fresh)?;
    let stale = stale(&fresh, &docs)?;
    if !stale.is_empty() {
        bail!("out of date: {}. Run `cargo xtask gen` and commit what it writes", stale.join(", "));
    }
    shell::say("docs/ is what the code says");
    Ok(())
}

fn write(out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    shell::run(shell::cargo().args(["build", "--package=mesh-agent", "--bin=mesh"]))?;
    let mesh = shell::target_dir().join("debug/mesh");
    shell::run(shell::command(mesh).arg("gen-docs").arg("--out").arg(out))
}

/// Generated files that `docs` does not hold in the same words.
fn stale(fresh: &Path, docs: &Path) -> Result<Vec<String>> {
    let files = files(fresh)?;
    if files.is_empty() {
        bail!("`mesh gen-docs` wrote nothing into {}", fresh.display());
    }
    let mut stale = Vec::new();
    for file in files {
        let name = file.strip_prefix(fresh).context("a listed file is below its directory")?;
        let new = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        if fs::read(docs.join(name)).ok() != Some(new) {
            stale.push(format!("docs/{}", name.display()));
        }
    }
    Ok(stale)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
            if path.is_dir() { dirs.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_and_absent_files_are_named_and_equal_ones_are_not() -> Result<()> {
        let dir = std::env::temp_dir().join(format!("mesh-xtask-gen-{}", std::process::id()));
        let (fresh, docs) = (dir.join("fresh"), dir.join("docs"));
        fs::create_dir_all(fresh.join("cli"))?;
        fs::create_dir_all(&docs)?;
        for (name, new, old) in
            [("same", "1", Some("1")), ("changed", "1", Some("2")), ("cli/absent", "1", None)]
        {
            fs::write(fresh.join(name), new)?;
            if let Some(old) = old {
                fs::write(docs.join(name), old)?;
            }
        }
        let stale = stale(&fresh, &docs)?;
        fs::remove_dir_all(&dir)?;
        assert_eq!(stale, ["docs/changed", "docs/cli/absent"]);
        Ok(())
    }
}
