//! What this kernel can do, found out by trying it in a throw-away namespace.

use std::{fs, path::Path, process::Stdio, thread};

use super::Talk;
use crate::shell;

/// What a try showed.
struct Answer {
    here: bool,
    detail: String,
}

struct Feature {
    name: &'static str,
    /// What does not work without it.
    lost: &'static str,
    probe: Probe,
}

enum Probe {
    /// A script that must succeed in a network namespace of its own.
    Netns(&'static str),
    Call(fn() -> Answer),
}

const FEATURES: [Feature; 15] = [
    Feature { name: "network namespaces", lost: "everything", probe: Probe::Netns("true") },
    Feature {
        name: "veth",
        lost: "attaching tasks to networks",
        probe: Probe::Netns("ip link add probe0 type veth peer name probe1"),
    },
    Feature {
        name: "nf_tables",
        lost: "the nft data plane, and masquerading",
        probe: Probe::Netns(
            "nft 'add table inet t; add map inet t m { type ipv4_addr . inet_proto . inet_service : verdict; }; \
             add chain inet t c { type nat hook prerouting priority dstnat; }; \
             add rule inet t c dnat ip to numgen random mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }'",
        ),
    },
    Feature {
        name: "VXLAN, collect metadata",
        lost: "the overlay: networks span one node only",
        probe: Probe::Netns("ip link add probe0 type vxlan external dstport 4789"),
    },
    Feature {
        name: "lwtunnel, ip encap",
        lost: "the overlay: networks span one node only",
        probe: Probe::Netns(
            "ip link add probe0 type vxlan external dstport 4789; ip link set probe0 up; \
             ip route add 10.9.0.0/24 encap ip id 4096 dst 192.0.2.1 dev probe0",
        ),
    },
    Feature {
        name: "IPv6",
        lost: "IPv6 addresses of networks, VIPs and nodes",
        probe: Probe::Netns("ip -6 addr add fd00::1/128 dev lo"),
    },
    Feature {
        name: "ip_forward may be set",
        lost: "forwarding between tasks, networks and nodes",
        probe: Probe::Netns("echo 1 > /proc/sys/net/ipv4/ip_forward"),
    },
    Feature { name: "cgroup v2", lost: "the socket balancer, and its tests", probe: Probe::Call(cgroup2) },
    Feature { name: "bpf syscall", lost: "the eBPF data plane", probe: Probe::Call(bpf_syscall) },
    Feature {
        name: "BTF of the kernel",
        lost: "readable maps and programs in bpftool",
        probe: Probe::Call(btf),
    },
    Feature { name: "tcx", lost: "ordered, atomic packet hooks; clsact is used", probe: Probe::Call(tcx) },
    Feature {
        name: "bpffs",
        lost: "forwarding through an agent's restart (eBPF)",
        probe: Probe::Call(bpffs),
    },
    Feature {
        name: "mount namespaces",
        lost: "tests with nodes of their own",
        probe: Probe::Call(mount_namespaces),
    },
    Feature { name: "root", lost: "all tests but the pure ones", probe: Probe::Call(root) },
    Feature {
        name: "user namespaces, unprivileged",
        lost: "nothing; tools could run as a user",
        probe: Probe::Call(user_namespaces),
    },
];

/// Tries every feature, and prints the table (if something is missing, or all is asked for).
pub(super) fn report(talk: Talk) {
    let answers: Vec<Answer> = thread::scope(|scope| {
        let tries: Vec<_> = FEATURES.iter().map(|feature| scope.spawn(|| feature.probe.answer())).collect();
        tries.into_iter().map(|answer| answer.join().unwrap_or_else(|_| no("the try crashed"))).collect()
    });
    if talk == Talk::Problems && answers.iter().all(|answer| answer.here) {
        return;
    }
    shell::headline(&row("kernel feature", "here", "lost without it"));
    for (feature, answer) in FEATURES.iter().zip(&answers) {
        let here = if answer.here { "yes" } else { "NO" };
        let here =
            if answer.detail.is_empty() { here.to_owned() } else { format!("{here}: {}", answer.detail) };
        shell::say(&row(feature.name, &here, feature.lost));
    }
    if !shell::is_root() {
        shell::say("Tried without root: a NO may be for want of permission.");
    }
}

fn row(name: &str, here: &str, lost: &str) -> String {
    format!("{name:<30} {here:<38} {lost}")
}

impl Probe {
    fn answer(&self) -> Answer {
        match self {
            Self::Netns(script) => attempt(&["--net"], script),
            Self::Call(call) => call(),
        }
    }
}

/// Runs a script in namespaces of its own; its last words tell why it failed.
fn attempt(namespaces: &[&str], script: &str) -> Answer {
    let mut unshare = shell::command("unshare");
    if !shell::is_root() {
        // A user may own namespaces below a user namespace.
        unshare.arg("--map-root-user");
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let output = unshare
        .args(namespaces)
        .args(["sh", "-ec", script])
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    match output {
        Ok(output) if output.status.success() => yes(""),
        Ok(output) => no(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default()),
        Err(error) => no(&format!("cannot run unshare: {error}")),
    }
}

fn cgroup2() -> Answer {
    let Some(mount) = mount_of("cgroup2") else {
        return no("not mounted");
    };
    let child = Path::new(&mount).join(format!("mesh-setup-{}", std::process::id()));
    match fs::create_dir(&child).and_then(|()| fs::remove_dir(&child)) {
        Ok(()) => yes(&mount),
        Err(error) => no(&format!("{mount}: {error}")),
    }
}

/// Only a kernel with the system call has its file system.
fn bpf_syscall() -> Answer {
    let attempt = mount_bpffs();
    if attempt.here || mount_of("bpf").is_some() { yes("") } else { attempt }
}

fn bpffs() -> Answer {
    match mount_of("bpf") {
        Some(mount) => yes(&mount),
        None if mount_bpffs().here => yes("the agent mounts it"),
        None => no("not mounted, and cannot be"),
    }
}

fn mount_bpffs() -> Answer {
    attempt(&["--mount"], "mount -t bpf bpf /mnt")
}

fn mount_namespaces() -> Answer {
    attempt(&["--mount"], "mount -t tmpfs tmpfs /mnt")
}

fn btf() -> Answer {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() { yes("") } else { no(&format!("no {path}")) }
}

/// The one thing that is told by the version: a try needs a compiled program.
fn tcx() -> Answer {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    if at_least(release, (6, 6)) { yes(release) } else { no(&format!("{release}, 6.6 is needed")) }
}

fn root() -> Answer {
    if shell::is_root() { yes("") } else { no("") }
}

fn user_namespaces() -> Answer {
    let unshare = ["unshare", "--user", "--map-root-user", "true"];
    let works = if shell::is_root() {
        let mut args = vec!["--reuid=65534", "--regid=65534", "--clear-groups"];
        args.extend(unshare);
        shell::succeeds("setpriv", &args)
    } else {
        shell::succeeds(unshare[0], &unshare[1..])
    };
    if works { yes("") } else { no("") }
}

fn mount_of(kind: &str) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (dir, found) = (fields.next()?, fields.next()?);
        (found == kind).then(|| dir.to_owned())
    })
}

fn at_least(release: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= wanted
}

fn yes(detail: &str) -> Answer {
    Answer { here: true, detail: detail.to_owned() }
}

fn no(detail: &str) -> Answer {
    // A table cell, not a log.
    Answer { here: false, detail: detail.chars().take(60).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert!(
            at_least("6.18.44-fc-v657", (6, 6)) && at_least("6.6.0", (6, 6)) && at_least("10.0-rc1", (6, 6))
        );
        assert!(!at_least("6.1.0-21-amd64", (6, 6)) && !at_least("", (6, 6)));
    }

    #[test]
    fn every_feature_says_what_is_lost() {
        assert!(FEATURES.iter().all(|feature| !feature.name.is_empty() && !feature.lost.is_empty()));
    }
}
