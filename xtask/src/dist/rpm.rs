//! Fedora, SUSE and their kin: rpmbuild.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Tree, VERSION, packager};
use crate::shell;

pub(super) fn build(tree: &Tree, work: &Path) -> Result<PathBuf> {
    let name = format!("mesh-{VERSION}-1.{}.rpm", std::env::consts::ARCH);
    let define = |what: &str, value: &dyn std::fmt::Display| format!("--define={what} {value}");
    let mut rpmbuild = packager("rpmbuild");
    rpmbuild.args(["-bb", "--quiet", "--nodeps", &format!("--target={}-linux", std::env::consts::ARCH)]);
    rpmbuild.args([
        define("version", &VERSION),
        define("stage", &tree.stage.display()),
        define("_topdir", &work.join("rpm").display()),
        define("_rpmdir", &tree.out.display()),
        define("_rpmfilename", &name),
        define("_binary_payload", &"w6.gzdio"),
        define("_buildhost", &"localhost"),
        define("use_source_date_epoch_as_buildtime", &1),
        define("clamp_mtime_to_source_date_epoch", &1),
    ]);
    shell::run(rpmbuild.arg(shell::root().join("mesh-agent/packaging/rpm/mesh.spec")))?;
    Ok(tree.out.join(name))
}
