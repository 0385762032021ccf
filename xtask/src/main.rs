//! The only automation of this repository: `cargo xtask VERB`. One file per verb.

#![forbid(unsafe_code)]

mod bench;
mod chaos;
mod check;
mod ci;
mod demo;
mod dist;
mod fuzz;
mod generate;
mod lossless;
mod program;
mod setup;
mod shell;
mod test;
mod tidy;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, checks and runs Mesh from its source")]
struct Xtask {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what Mesh needs to build and to be tested, and show what this kernel can do
    Setup,
    /// Check format, lints, house rules, documentation and dependencies
    Check,
    /// Run the tests. Needs root, except for the pure ones
    Test {
        /// Which tests
        #[arg(value_enum, default_value_t = Rung::All)]
        rung: Rung,
        /// For the test programs, as after `cargo test --`
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Build Mesh and run `mesh demo` with the arguments given
    #[command(disable_help_flag = true)]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Measure. Needs root
    Bench(bench::Bench),
    /// Trouble a mesh under traffic with random faults, and judge what comes of it. Needs root
    Chaos(chaos::Chaos),
    /// Make every planned change under load, and count the requests that are lost. Needs root
    Lossless(lossless::Lossless),
    /// Make the packages that Mesh is installed from, .deb and .rpm
    Dist(dist::Dist),
    /// Look for packets that the code of the kernel's half or the name server mistakes, with libFuzzer
    Fuzz {
        /// Where [default: all, in turn]
        #[arg(value_enum)]
        target: Option<fuzz::Target>,
        /// How long, for each
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Write what is generated from the code: API description, default configuration, CLI reference
    Gen {
        /// Write nothing; fail when what is in docs/ is out of date
        #[arg(long)]
        check: bool,
    },
    /// Everything that continuous integration runs
    Ci,
    /// Check the house rules alone
    Tidy,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rung {
    All,
    /// Decisions and formats: no root, no kernel
    Pure,
    /// Everything else: real nodes in namespaces, on the real kernel
    Lab,
}

fn main() -> ExitCode {
    match run(Xtask::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What failed and why; where in xtask it was noticed (a backtrace) helps nobody.
            shell::say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Setup => setup::run(setup::Talk::All),
        Verb::Check => check::run(),
        Verb::Test { rung, args } => test::run(rung, &args),
        Verb::Demo { args } => demo::run(&args),
        Verb::Bench(bench) => bench::run(&bench),
        Verb::Chaos(chaos) => chaos::run(&chaos),
        Verb::Lossless(lossless) => lossless::run(&lossless),
        Verb::Dist(dist) => dist::run(&dist),
        Verb::Fuzz { target, seconds } => fuzz::run(target, seconds),
        Verb::Gen { check } => generate::run(check),
        Verb::Ci => ci::run(),
        Verb::Tidy => tidy::run(),
    }
}
