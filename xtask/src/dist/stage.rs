//! The files of a package, where they are to lie.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::shell;

/// From the repository, and where to.
const FILES: [(&str, &str); 9] = [
    ("mesh-agent/packaging/systemd/mesh.service", "usr/lib/systemd/system/mesh.service"),
    ("mesh-agent/packaging/systemd/mesh-etcd.service", "usr/lib/systemd/system/mesh-etcd.service"),
    ("mesh-agent/packaging/systemd/mesh-etcd.path", "usr/lib/systemd/system/mesh-etcd.path"),
    ("mesh-agent/packaging/mesh.toml", "usr/share/doc/mesh/mesh.toml"),
    ("mesh-agent/packaging/prometheus/mesh.rules.yml", "usr/share/doc/mesh/prometheus/mesh.rules.yml"),
    ("mesh-agent/packaging/prometheus/grafana.json", "usr/share/doc/mesh/prometheus/grafana.json"),
    ("README.md", "usr/share/doc/mesh/README.md"),
    ("LICENSE-MIT", "usr/share/doc/mesh/LICENSE-MIT"),
    ("LICENSE-APACHE", "usr/share/doc/mesh/LICENSE-APACHE"),
];

/// Shells and where they look for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/mesh"),
    ("zsh", "usr/share/zsh/vendor-completions/_mesh"),
    ("fish", "usr/share/fish/vendor_completions.d/mesh.fish"),
];

/// Lays everything below `root`: `mesh`, and what it says of itself.
pub(super) fn files(mesh: &Path, root: &Path) -> Result<()> {
    let program = install(mesh, root.join("usr/bin/mesh"), 0o755)?;
    shell::run(shell::command("strip").arg(&program))?;
    for (from, to) in FILES {
        install(&shell::root().join(from), root.join(to), 0o644)?;
    }
    for (name, to) in COMPLETIONS {
        let script = output(&program, &["completions", name])?;
        let to = below(root.join(to))?;
        super::write(&to, script)?;
    }
    let manual = root.join("usr/share/man/man1");
    fs::create_dir_all(&manual).with_context(|| format!("cannot make {}", manual.display()))?;
    shell::run(shell::command(&program).arg("gen-docs").arg("--man").arg(&manual))?;
    let pages = fs::read_dir(&manual)?.map(|page| Ok(page?.path())).collect::<Result<Vec<_>>>()?;
    // Without name and time, so that the same page is the same file.
    shell::run(shell::command("gzip").args(["--best", "--no-name"]).args(pages))
}

fn install(from: &Path, to: PathBuf, mode: u32) -> Result<PathBuf> {
    let to = below(to)?;
    fs::copy(from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
    Ok(to)
}

/// The path, with the directories that lead to it.
fn below(path: PathBuf) -> Result<PathBuf> {
    let dir = path.parent().context("a file lies in a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(path)
}

fn output(program: &Path, args: &[&str]) -> Result<String> {
    let name = program.to_str().context("the path of the program is not UTF-8")?;
    shell::output(name, args).with_context(|| format!("`{name} {}` failed", args.join(" ")))
}
