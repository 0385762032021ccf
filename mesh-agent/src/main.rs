//! `mesh`: one program, the agent and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh_agent::cli::main()
}
