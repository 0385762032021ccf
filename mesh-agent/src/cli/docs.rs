//! **Effect.** `mesh gen-docs`: the documents that the program writes about itself.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Command, CommandFactory};

use super::{Cli, OK, Verb};
use crate::api::document;

/// As wide as the text in a browser.
const WIDTH: usize = 100;

/// Write the generated documents
#[derive(Debug, clap::Args)]
pub(super) struct DocsArgs {
    /// Where to
    #[arg(long, value_name = "DIR", required_unless_present = "man")]
    out: Option<PathBuf>,
    /// Write manual pages, one for each verb, into this directory
    #[arg(long, value_name = "DIR")]
    man: Option<PathBuf>,
}

pub(super) fn run(args: &DocsArgs) -> anyhow::Result<u8> {
    if let Some(out) = &args.out {
        for (name, text) in documents()? {
            let path = out.join(name);
            let directory = path.parent().unwrap_or(out);
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    if let Some(man) = &args.man {
        clap_mangen::generate_to(Cli::<Verb>::command(), man)
            .with_context(|| format!("cannot write manual pages into {}", man.display()))?;
    }
    Ok(OK)
}

/// Every generated document, by its path below docs/.
fn documents() -> anyhow::Result<Vec<(&'static str, String)>> {
    Ok(vec![("api/openapi.json", document::text()), ("cli.md", cli()?)])
}

/// The help of every verb.
fn cli() -> anyhow::Result<String> {
    let mut text = "# The command line\n\nWritten by `mesh gen-docs`; do not edit.\n".to_owned();
    let mut command = Cli::<Verb>::command().term_width(WIDTH);
    command.build();
    write(&mut text, "mesh", &mut command)?;
    Ok(text)
}

fn write(text: &mut String, name: &str, command: &mut Command) -> std::fmt::Result {
    let help = command.render_long_help().to_string();
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    writeln!(text, "\n## `{name}`\n\n```text\n{}\n```", lines.join("\n").trim_end())?;
    for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
        write(text, &format!("{name} {}", verb.get_name()), verb)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docs_are_what_the_program_says() {
        for (name, text) in documents().unwrap() {
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(found == text, "docs/{name} is out of date: run `cargo xtask gen`");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::<super::super::Command>::command().debug_assert();
    }
}
