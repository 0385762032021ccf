//! Systems without apt: nothing is installed, but what is missing is named.

use anyhow::{Result, bail};

use super::Ebpf;
use crate::shell;

/// A program, and the project that it comes from (packages of distributions are named after it).
const TOOLS: [(&str, &str); 24] = [
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("ping", "iputils"),
    ("dig", "BIND's DNS utilities"),
    ("curl", "curl"),
    ("haproxy", "HAProxy"),
    ("dnsmasq", "dnsmasq"),
    ("unbound", "unbound"),
    ("dnsperf", "dnsperf"),
    ("etcd", "etcd"),
    ("etcdctl", "etcd"),
    ("protoc", "Protocol Buffers, with its include files"),
    ("tcpdump", "tcpdump"),
    ("conntrack", "conntrack-tools"),
    ("python3", "Python 3"),
    ("unshare", "util-linux"),
    ("g++", "GCC"),
    ("make", "GNU make"),
    ("wrk", "wrk"),
    ("iperf3", "iperf3"),
    ("nginx", "nginx, with its stream module"),
    ("iptables-legacy-restore", "iptables"),
    ("promtool", "Prometheus"),
    ("tmux", "tmux"),
];

pub(super) fn check() -> Result<Ebpf> {
    let missing: Vec<String> = TOOLS
        .iter()
        .filter(|(program, _)| !shell::exists(program))
        .map(|(program, project)| format!("  {program} (of {project})"))
        .collect();
    let ebpf = if shell::exists("bpf-linker") && has_core_sources() {
        Ebpf::Possible
    } else {
        Ebpf::LeftOut {
            why: "without apt it is not installed automatically. Install the development files of LLVM 22, then run \
                  `rustup component add rust-src` and `LLVM_PREFIX=/path/to/llvm-22 cargo install bpf-linker \
                  --version 0.13.0 --locked --no-default-features --features llvm-22`"
                .to_owned(),
        }
    };
    if !missing.is_empty() {
        bail!("this system has no apt-get, so please install these yourself:\n{}", missing.join("\n"));
    }
    Ok(ebpf)
}

fn has_core_sources() -> bool {
    shell::output("rustc", &["--print", "sysroot"]).is_some_and(|root| {
        std::path::Path::new(root.trim()).join("lib/rustlib/src/rust/library/core").exists()
    })
}
