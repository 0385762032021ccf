//! **Effect.** `mesh completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::output::Out;
use super::{Cli, OK, Verb};

/// Print a completion script: source <(mesh completions bash)
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, out: &Out) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::<Verb>::command(), "mesh", &mut script);
    out.bytes(&script);
    Ok(OK)
}
