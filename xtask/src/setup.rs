//! `setup`: installs what is missing, then shows what this kernel can do.
//!
//! It can be run at any time: what is there is left alone.

mod apt;
mod bpf_linker;
mod elsewhere;
mod features;

use anyhow::Result;

use crate::shell;

/// How much setup says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Talk {
    All,
    /// Nothing, unless something is missing.
    Problems,
}

/// Whether the eBPF toolchain can be had on this system.
enum Ebpf {
    Possible,
    LeftOut { why: String },
}

pub(crate) fn run(talk: Talk) -> Result<()> {
    let ebpf = if shell::exists("apt-get") { apt::install_missing(talk)? } else { elsewhere::check()? };
    match ebpf {
        Ebpf::Possible => bpf_linker::install_if_missing(talk)?,
        Ebpf::LeftOut { why } => shell::say(&format!(
            "eBPF is left out: {why}. Mesh builds without it and uses its nft data plane; \
             the eBPF tests will fail and say so."
        )),
    }
    features::report(talk);
    Ok(())
}
