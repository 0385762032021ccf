//! The page about HAProxy, run from top to bottom.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Node, built_mesh};

use crate::kit::{answers, lab, started, url};

/// The commands of a page: what follows `# ` in its console blocks, without the remarks after them.
fn commands(page: &str) -> Vec<&str> {
    let blocks = page.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("console\n"));
    let lines = blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("# "));
    lines.map(|line| line.split("  # ").next().unwrap_or_default().trim_end()).collect()
}

/// Runs a command as root does on the page's node, in a directory of its own.
fn run(node: &Node, dir: &Path, command: &str) -> Result<String> {
    let address = node.address().to_string();
    let command = command.replace("192.0.2.1", &address).replace("/etc/haproxy", &dir.to_string_lossy());
    // What serves until it is stopped is only looked at.
    let command =
        command.strip_prefix("haproxy -db ").map_or(command.clone(), |rest| format!("haproxy -c {rest}"));
    let mesh = built_mesh()?;
    // Not every machine has nc.
    let nc = "nc() { exec 3<>/dev/tcp/$1/$2; cat >&3; head -n 1 <&3; }";
    let script = format!("cd {} && {nc}; mesh() {{ {} \"$@\"; }}; {command}", dir.display(), mesh.display());
    node.command(["bash", "-ec", &script]).timeout(Duration::from_secs(60)).ok().context(command)
}

/// On one node, which all tasks are on. Each command does what it is there for, as written, after those before it.
#[test]
fn the_page_about_haproxy_runs_from_top_to_bottom() -> Result<()> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/haproxy.md");
    let page = fs::read_to_string(page).context(page)?;
    started(lab()?.nodes(1).config("[checks]\nlisten = \"0.0.0.0:7304\"\n"), |lab| {
        let n1 = lab.node("n1")?;
        let dir = lab.dir().join("page");
        fs::create_dir_all(&dir)?;
        let all = commands(&page);
        ensure!(all.len() > 15, "{all:?}");
        for command in all {
            let said = run(n1, &dir, command)?;
            match command {
                "curl http://192.0.2.1:7304/web:8080" => {
                    ensure!(said.starts_with("up") || said.starts_with("drain"), "{said}")
                }
                command if command.starts_with("mesh task run -d --service proxy") => {
                    answers(lab.client(), &url(n1, 8000)).context(command.to_owned())?;
                }
                _ => {}
            }
        }
        Ok(())
    })
}
