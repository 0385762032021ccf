//! `bench`: builds what measures, as it would be released, and becomes it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::{program, setup, shell};

#[derive(Args)]
pub(crate) struct Bench {
    /// What
    #[arg(value_enum, default_value_t = What::Lab)]
    what: What,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Fewer rounds, and shorter ones: less than five minutes. Not for `datapath`
    #[arg(long)]
    quick: bool,
    /// Write a report with charts into this directory. For `lab` only
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Measure Katran beside: its object file (docs/benchmarks-datapath.md says how to build it). For `datapath` only
    #[arg(long, value_name = "OBJECT")]
    katran: Option<PathBuf>,
    /// How many flows Katran remembers, of all processors together [default: as it does, 8000000]
    #[arg(long, value_name = "N", requires = "katran")]
    katran_flows: Option<u32>,
    /// How often a node dies [default: 50, with --quick 10]. For `liveness` only, as those below
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// How long nobody dies, while packets are lost and processors busy [default: 20 seconds]
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    /// How many busy loops run meanwhile [default: 512]
    #[arg(long, value_name = "N")]
    busy: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// What a packet costs in the programs, and a changed service in their maps
    Datapath,
    /// What a service costs its clients: wrk and iperf3 in a mesh of nodes, beside the same without one, and beside
    /// what others would use
    Lab,
    /// How fast names are answered, beside dnsmasq and unbound
    Dns,
    /// What a thousand simulated nodes cost a real etcd, and how soon a change is everywhere
    Cluster,
    /// How soon a node that dies or is drained, or a task that is killed, gets no new flows, and how often one is taken for dead that is not
    Liveness,
    /// What 100, 1,000 and 10,000 services of ten tasks cost one node, and how soon a change of a task is in its kernel
    Scale,
    /// What health checks of 10,000 tasks cost a node
    Checks,
}

impl What {
    /// The program that measures, and those that it runs and that are built with it.
    const fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Datapath => &[("mesh-benches", "datapath")],
            Self::Lab => &[("mesh-benches", "lab"), ("mesh-agent", "mesh")],
            Self::Dns => &[("mesh-benches", "dns"), ("mesh-agent", "mesh")],
            Self::Cluster => &[("mesh-benches", "cluster")],
            Self::Liveness => &[("mesh-benches", "liveness"), ("mesh-agent", "mesh")],
            Self::Scale => &[("mesh-benches", "scale"), ("mesh-agent", "mesh")],
            Self::Checks => &[("mesh-benches", "checks"), ("mesh-agent", "mesh")],
        }
    }
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    let [(_, name), ..] = *bench.what.programs() else { bail!("nothing measures that") };
    if bench.quick && bench.what == What::Datapath {
        bail!("`cargo xtask bench {name}` has no shorter run: leave --quick out");
    }
    if bench.katran.is_some() && bench.what != What::Datapath {
        bail!("--katran is for `cargo xtask bench datapath`");
    }
    if bench.report.is_some() && bench.what != What::Lab {
        bail!("--report is for `cargo xtask bench lab`");
    }
    let only_liveness = [
        ("--rounds", bench.rounds.map(|rounds| rounds.to_string())),
        ("--minutes", bench.minutes.map(|minutes| minutes.to_string())),
        ("--busy", bench.busy.map(|busy| busy.to_string())),
    ];
    if let Some((flag, _)) = only_liveness.iter().find(|(_, value)| value.is_some())
        && bench.what != What::Liveness
    {
        bail!("{flag} is for `cargo xtask bench liveness`");
    }
    if !shell::is_root() {
        bail!(
            "this loads eBPF programs, which needs root. \
             Run `sudo -E env PATH=\"$PATH\" cargo xtask bench {name}`"
        );
    }
    setup::run(setup::Talk::Problems)?;
    let mut build = shell::cargo();
    build.args(["build", "--release"]);
    for (package, program) in bench.what.programs() {
        build.args([format!("--package={package}"), format!("--bin={program}")]);
    }
    shell::run(&mut build)?;
    let flags = [(bench.json, "--json"), (bench.quick, "--quick")];
    let mut measure = Command::new(shell::target_dir().join("release").join(name));
    measure.args(flags.iter().filter(|(given, _)| *given).map(|(_, flag)| flag));
    for (flag, value) in only_liveness {
        measure.args(value.map(|value| [flag.to_owned(), value]).into_iter().flatten());
    }
    if let Some(dir) = &bench.report {
        measure.arg("--report").arg(dir);
    }
    if let Some(object) = &bench.katran {
        measure.arg("--katran").arg(object);
    }
    if let Some(flows) = bench.katran_flows {
        measure.arg("--katran-flows").arg(flows.to_string());
    }
    program::become_it(measure)
}
