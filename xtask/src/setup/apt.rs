//! Debian, Ubuntu and their kin.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{Ebpf, Talk};
use crate::shell;

/// Programs that Mesh, its build, its tests or its benchmarks run.
const TOOLS: [&str; 30] = [
    "nftables",
    "iproute2",
    "iputils-ping",
    "bind9-dnsutils",
    "curl",
    "haproxy",
    "dnsmasq-base",
    "unbound",
    "dnsperf",
    "etcd-server",
    "etcd-client",
    // What etcd's protocol is compiled with, and the definitions that it includes.
    "protobuf-compiler",
    "libprotobuf-dev",
    "tcpdump",
    "conntrack",
    "python3",
    "util-linux",
    "git",
    "g++",
    // What the allocator is built with.
    "make",
    "wrk",
    "iperf3",
    "nginx",
    "libnginx-mod-stream",
    "iptables",
    "prometheus",
    // What packages are made with.
    "dpkg-dev",
    "rpm",
    // Looks at the web page.
    "chromium",
    // A terminal for what is drawn in one.
    "tmux",
];

/// Those of them that start a service of their own when they are installed, and its unit. Tests start programs, not
/// services.
const SERVICES: [(&str, &str); 5] = [
    ("etcd-server", "etcd.service"),
    ("haproxy", "haproxy.service"),
    ("nginx", "nginx.service"),
    ("unbound", "unbound.service"),
    ("prometheus", "prometheus.service"),
];

/// What compiles the kernel half: a Rust compiler with a core library for BPF, and the libraries of
/// its LLVM, which bpf-linker is built on.
const EBPF: [&str; 8] = [
    "rustc-web",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
    "libxml2-dev",
    "libffi-dev",
];

pub(super) fn install_missing(talk: Talk) -> Result<Ebpf> {
    let installed = installed()?;
    let missing = |list: &[&'static str]| -> Vec<&'static str> {
        list.iter().copied().filter(|package| !installed.contains(*package)).collect()
    };
    let (tools, ebpf) = (missing(&TOOLS), missing(&EBPF));
    if tools.is_empty() && ebpf.is_empty() {
        if talk == Talk::All {
            shell::say(&format!("packages: all {} are installed", TOOLS.len() + EBPF.len()));
        }
        return Ok(Ebpf::Possible);
    }

    // Where apt has no such packages, asking its servers again at every run would change nothing.
    if tools.is_empty() && has_lists() {
        let absent = not_offered(&ebpf)?;
        if !absent.is_empty() {
            return Ok(left_out(&absent));
        }
    }

    shell::say(&format!("packages missing: {}", [&tools[..], &ebpf[..]].concat().join(" ")));
    // Only a fresh list tells "not offered" from "not heard of yet". If a mirror fails, what the
    // old list offers may do.
    if let Err(error) = apt_get(&["update"]) {
        shell::say(&format!("{error:#}; going on with the package lists that are here"));
    }
    let mut wanted = tools;
    let absent = not_offered(&ebpf)?;
    let outcome = if absent.is_empty() {
        wanted.extend(ebpf);
        Ebpf::Possible
    } else {
        left_out(&absent)
    };
    if !wanted.is_empty() {
        let mut args = vec!["install", "--yes", "--no-install-recommends"];
        args.extend(&wanted);
        apt_get(&args).with_context(|| format!("cannot install {}", wanted.join(" ")))?;
        if let Err(error) = stop_services(&wanted) {
            shell::say(&format!("{error:#}: what was installed runs as a service, which no test needs"));
        }
    }
    Ok(outcome)
}

fn left_out(absent: &[&str]) -> Ebpf {
    Ebpf::LeftOut { why: format!("apt does not offer {} here", absent.join(", ")) }
}

/// Whether apt has ever been told what there is. Fresh container images have not.
fn has_lists() -> bool {
    not_offered(&["curl"]).is_ok_and(|absent| absent.is_empty())
}

/// Which of our packages are fully installed.
fn installed() -> Result<BTreeSet<String>> {
    // It fails when one name is unknown to it, and lists the others all the same.
    let output = shell::command("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Abbrev}\\n"])
        .args(TOOLS)
        .args(EBPF)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .output()
        .context("cannot start dpkg-query")?;
    Ok(parse_installed(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_installed(list: &str) -> BTreeSet<String> {
    list.lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, state)| state.starts_with("ii"))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// Which of these apt cannot install.
fn not_offered(packages: &[&'static str]) -> Result<Vec<&'static str>> {
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let output = shell::command("apt-cache")
        .arg("policy")
        .args(packages)
        .env("LC_ALL", "C")
        .stdout(Stdio::piped())
        .output()
        .context("cannot start apt-cache")?;
    let offered = parse_offered(&String::from_utf8_lossy(&output.stdout));
    Ok(packages.iter().copied().filter(|package| !offered.contains(*package)).collect())
}

/// Packages with a candidate. Unknown ones are not listed at all.
fn parse_offered(policy: &str) -> BTreeSet<String> {
    let mut offered = BTreeSet::new();
    let mut package = "";
    for line in policy.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with(' ')) {
            package = name;
        } else if line.trim_start().starts_with("Candidate:") && !line.contains("(none)") {
            offered.insert(package.to_owned());
        }
    }
    offered
}

fn apt_get(args: &[&str]) -> Result<()> {
    let mut command = as_root("apt-get", args)?;
    // Another apt may be at work, at boot for example: wait for it.
    command.args(["-o", "DPkg::Lock::Timeout=300"]).args(args);
    shell::run(&mut command)
}

/// Ends and switches off what packages started that were not here before.
fn stop_services(installed: &[&str]) -> Result<()> {
    let started = SERVICES.iter().filter(|(package, _)| installed.contains(package));
    let units: Vec<&str> = started.map(|(_, unit)| *unit).collect();
    if units.is_empty() || !Path::new("/run/systemd/system").exists() {
        return Ok(());
    }
    shell::say(&format!("not to run as services: {}", units.join(" ")));
    let args = [&["disable", "--now", "--quiet"], &units[..]].concat();
    shell::run(as_root("systemctl", &args)?.args(&args))
}

/// A program that will be root; `args` are for the message only.
fn as_root(program: &str, args: &[&str]) -> Result<Command> {
    let mut command = if shell::is_root() {
        shell::command(program)
    } else if shell::exists("sudo") {
        let mut sudo = shell::command("sudo");
        sudo.args(["env", "DEBIAN_FRONTEND=noninteractive", program]);
        sudo
    } else {
        bail!("setup needs root here, and there is no sudo. As root, run: {program} {}", args.join(" "));
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fully_installed_packages_count() {
        let list = "curl ii \nhaproxy rc \nnftables un \ngit ii \n";
        assert_eq!(parse_installed(list), BTreeSet::from(["curl".to_owned(), "git".to_owned()]));
    }

    #[test]
    fn a_package_without_candidate_is_not_offered() {
        let policy = "curl:\n  Installed: 7\n  Candidate: 8\n  Version table:\n     8 500\n\
                      rustc-web:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n";
        assert_eq!(parse_offered(policy), BTreeSet::from(["curl".to_owned()]));
    }
}
