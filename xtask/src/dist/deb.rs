//! Debian, Ubuntu and their kin: dpkg-deb.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};

use super::{Tree, VERSION, packager, write};
use crate::shell;

/// What dpkg runs when the package comes and goes.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

pub(super) fn build(tree: &Tree, work: &Path) -> Result<PathBuf> {
    let architecture =
        shell::output("dpkg", &["--print-architecture"]).context("cannot ask dpkg for the architecture")?;
    let architecture = architecture.trim();
    let control = tree.stage.join("DEBIAN");
    fs::create_dir(&control).with_context(|| format!("cannot make {}", control.display()))?;
    write(&control.join("control"), description(architecture, &libraries(tree, work)?))?;
    for script in SCRIPTS {
        let to = control.join(script);
        let from = shell::root().join("mesh-agent/packaging/deb").join(script);
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    let package = tree.out.join(format!("mesh_{VERSION}_{architecture}.deb"));
    // Every dpkg reads gzip.
    let options = ["--root-owner-group", "-Zgzip", "-z6", "--build"];
    shell::run(packager("dpkg-deb").args(options).arg(&tree.stage).arg(&package))?;
    // It is no part of what is installed.
    fs::remove_dir_all(&control).with_context(|| format!("cannot remove {}", control.display()))?;
    Ok(package)
}

fn description(architecture: &str, libraries: &str) -> String {
    format!(
        "Package: mesh\n\
         Version: {VERSION}\n\
         Architecture: {architecture}\n\
         Maintainer: The Mesh developers\n\
         Section: net\n\
         Priority: optional\n\
         Depends: {libraries}, nftables, iproute2, init-system-helpers\n\
         Suggests: etcd-server (>= 3.4)\n\
         Description: L4 routing mesh and VIP load balancer\n \
         Traffic to any node's published port, or to a service's VIP, is balanced to\n \
         healthy tasks on any node, by programs in the kernel (eBPF) or by nftables.\n"
    )
}

/// The packages of the libraries that the program needs, in the versions that it needs.
fn libraries(tree: &Tree, work: &Path) -> Result<String> {
    // It wants to be in the tree of a source package.
    let source = work.join("source");
    fs::create_dir_all(source.join("debian"))?;
    write(&source.join("debian/control"), "Source: mesh\n\nPackage: mesh\nArchitecture: any\n")?;
    let mut program = shell::command("dpkg-shlibdeps");
    program.current_dir(&source).arg("-O").arg(tree.stage.join("usr/bin/mesh")).stdout(Stdio::piped());
    let output = program.output().context("cannot start dpkg-shlibdeps")?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.trim().strip_prefix("shlibs:Depends=") {
        Some(libraries) if output.status.success() => Ok(libraries.to_owned()),
        _ => bail!("dpkg-shlibdeps cannot tell the program's libraries ({})", output.status),
    }
}
