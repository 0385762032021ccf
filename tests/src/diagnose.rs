//! What a failed test shows.

use std::{
    env,
    fmt::Write,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{Host, Lab, LabBuilder, Node};

/// Set it to keep the lab of a failed test until the test is killed, to look around in it.
const HOLD: &str = "MESH_LAB_HOLD";

impl Lab {
    /// The state of every host, for people.
    pub fn diagnose(&self) -> String {
        let mut text = format!("--- lab {} in {}\n", self.id(), self.dir().display());
        for node in self.nodes() {
            text += &of_host(node);
            text += &of_agent(node);
        }
        for host in [self.client(), self.outside(), self.fabric()] {
            text += &of_host(host);
        }
        text
    }
}

fn of_host(host: &Host) -> String {
    let mut text = format!("--- {}: enter with: {}\n", host.name(), host.nsenter());
    show(&mut text, host, &["ip", "-brief", "address"]);
    // Without the kernel's own entries for local and broadcast addresses.
    show(
        &mut text,
        host,
        &[
            "sh",
            "-c",
            "{ ip route show table all; ip -6 route show table all; } | grep -v 'table local\\|proto kernel' | sort -u",
        ],
    );
    show(&mut text, host, &["ip", "neigh"]);
    text
}

fn of_agent(node: &Node) -> String {
    let mut text = String::new();
    show(&mut text, node, &["nft", "list", "table", "inet", "mesh"]);
    match (node.agent_id(), node.agent_runs()) {
        (Ok(id), true) => {
            let mesh = node.mesh_command(["status"]).timeout(Duration::from_secs(2)).run();
            let said = mesh.map_or_else(|error| format!("{error:#}"), |out| out.stdout + &out.stderr);
            section(&mut text, &format!("mesh status (agent: process {id})"), &said);
        }
        (Ok(id), false) => section(&mut text, "agent", &format!("process {id} has ended")),
        (Err(_), _) => section(&mut text, "agent", "never started"),
    }
    section(&mut text, "log", &node.log_tail(30));
    text
}

fn show(text: &mut String, host: &Host, argv: &[&str]) {
    let said = match host.command(argv).timeout(Duration::from_secs(2)).run() {
        Ok(output) => output.stdout + &output.stderr,
        Err(error) => format!("{error:#}"),
    };
    let title = if argv[0] == "sh" { "routes".into() } else { argv.join(" ") };
    section(text, &title, &said);
}

fn section(text: &mut String, title: &str, said: &str) {
    let said = said.trim_end();
    if !said.is_empty() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {title}:\n    {}", said.replace('\n', "\n    "));
    }
}

/// Runs a test in a lab of its own; shows the state of the lab when it fails or panics. With `MESH_LAB_HOLD=1`
/// in the environment, the lab of a failed test stays until the test is killed.
pub fn lab_test(lab: LabBuilder, test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let lab = lab.build()?;
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| test(&lab)));
    if !matches!(outcome, Ok(Ok(()))) {
        // Told first: the state of a lab is long, and whoever shortens it keeps the beginning.
        if let Ok(Err(error)) = &outcome {
            eprintln!("{error:#}");
        }
        eprintln!("{}", lab.diagnose());
        if env::var_os(HOLD).is_some() {
            eprintln!(
                "--- {HOLD} is set: the lab stays until this process ({}) is killed",
                std::process::id()
            );
            loop {
                thread::park();
            }
        }
    }
    match outcome {
        Ok(result) => result,
        Err(panic) => panic::resume_unwind(panic),
    }
}

/// The `mesh` program that was built with this test: the one that MESH_BIN names, or that of the same profile.
pub fn built_mesh() -> Result<PathBuf> {
    let mesh = match env::var_os("MESH_BIN") {
        Some(path) => path.into(),
        None => {
            // A test is target/PROFILE/deps/NAME.
            let test = env::current_exe().context("cannot find the test's own program")?;
            let profile = test.ancestors().nth(2).context("the test's program is in no target directory")?;
            profile.join("mesh")
        }
    };
    ensure!(
        mesh.is_file(),
        "there is no {}: run `cargo build -p mesh-agent`, or set MESH_BIN",
        mesh.display()
    );
    mesh.canonicalize().with_context(|| format!("cannot find {}", mesh.display()))
}
