//! The packages: made as users make them, installed, used and removed in a copy of this machine's system.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::Lab;

/// Slow machines compress slowly.
const PACKED_WITHIN: Duration = Duration::from_secs(300);
const USED_WITHIN: Duration = Duration::from_secs(300);

/// A program of this workspace: they all lie where this test's directory does.
fn program(name: &str) -> Result<PathBuf> {
    let test = env::current_exe()?;
    let dir = test.ancestors().nth(2).context("a test lies in cargo's target directory")?;
    let path = dir.join(name);
    ensure!(path.exists(), "there is no {}: `cargo build --workspace` makes it", path.display());
    Ok(path)
}

#[test]
fn packages_are_installed_used_and_removed() -> Result<()> {
    let mesh = program("mesh")?;
    let lab = Lab::builder(&mesh).nodes(1).build()?;
    let node = lab.node("n1")?;
    let out = lab.dir().join("dist");
    let made = node
        .command([
            program("xtask")?.as_os_str(),
            "dist".as_ref(),
            "--mesh".as_ref(),
            mesh.as_ref(),
            "--out".as_ref(),
            out.as_ref(),
        ])
        .timeout(PACKED_WITHIN)
        .ok()?;
    let packages: Vec<&Path> = made.lines().map(Path::new).collect();
    ensure!(packages.len() == 2, "two packages, not: {made}");
    // All that is in one is in the other.
    let (deb, rpm) = (packages[0], packages[1]);
    let listed = |argv: [&str; 2], package: &Path| -> Result<Vec<String>> {
        let said = node.command(argv.into_iter().map(AsRef::as_ref).chain([package.as_os_str()])).ok()?;
        let path =
            |line: &str| line.split_whitespace().last().map(|path| path.trim_start_matches('.').to_owned());
        let mut files: Vec<_> = said.lines().filter_map(path).filter(|path| !path.ends_with('/')).collect();
        files.retain(|path| path != "/usr/share/doc/mesh" && path != "/usr/share/doc/mesh/prometheus");
        files.sort();
        Ok(files)
    };
    assert_eq!(listed(["dpkg", "--contents"], deb)?, listed(["rpm", "-qlp"], rpm)?);

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packages/boot.sh");
    let apart = "unshare --mount --pid --fork --cgroup --uts --ipc --kill-child sh";
    for (kind, package) in [("deb", deb), ("rpm", rpm)] {
        let words = apart.split(' ').map(AsRef::as_ref);
        let told = [script.as_os_str(), kind.as_ref(), package.as_os_str()];
        let used = node.command(words.chain(told)).timeout(USED_WITHIN).ok();
        used.with_context(|| fs::read_to_string(out.join(format!("{kind}.log"))).unwrap_or_default())?;
    }
    Ok(())
}
