//! What the commands print that the mesh runs.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Node, Output, eventually};

use crate::kit::{Cli, READY, SOON, Task, mentions, mesh, text};

/// A command that greets, by both ways out and in bytes that are no text, and counts then.
const TALKS: &str = r#"sh -c 'echo "hello from $MESH_TASK_NAME"; echo "not well" >&2; printf "\377\0end\n"; n=0; while :; do n=$((n+1)); echo "tick $n"; sleep 0.1; done'"#;

/// The task of a service on a node.
fn task_on(by: &Node, service: &str, node: &str) -> Result<String> {
    let tasks = by.rows(&format!("service ps {service}"))?;
    let task = tasks.iter().find(|task| task["Node"] == node).context("no task there")?;
    Ok(text(&task["Name"]))
}

/// `mesh service logs -f`, ended after some seconds.
fn follow(lab: &Lab, node: &Node, options: &str) -> Result<Output> {
    let (program, host) =
        (lab.mesh_program().display().to_string(), format!("unix://{}", node.socket().display()));
    let mut words = vec!["timeout", "3", &program, "-H", &host, "service", "logs", "-f"];
    words.extend(options.split_whitespace());
    node.command(words).run()
}

/// Lines with their prefix, as `docker service logs` shows them; tasks of other nodes are named, with where to ask.
#[test]
fn what_a_services_tasks_print_is_shown_where_they_run() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.mesh([
            "service",
            "create",
            "--name",
            "talk",
            "--network",
            "app",
            "--replicas",
            "2",
            "--cmd",
            TALKS,
        ])?
        .ok()?;
        let (here, there) = (task_on(n1, "talk", "n1")?, task_on(n1, "talk", "n2")?);
        let prefix = format!("{here}@n1    | ");
        let logs = |options: &str| n1.mesh(format!("service logs {options}").split_whitespace());
        let said = eventually(SOON, "it has said something", || {
            let said = logs("talk")?;
            ensure!(said.status.success() && said.stdout.contains("tick 3"), "{}", said.stdout);
            Ok(said)
        })?;
        mentions(
            &said.stdout,
            &[&format!("{prefix}hello from {here}\n"), &format!("{prefix}\u{fffd}\0end\n")],
        )?;
        ensure!(said.stdout.lines().all(|line| line.starts_with(&prefix)), "{}", said.stdout);
        let errors: Vec<_> = said.stderr.lines().collect();
        let elsewhere = format!(
            "mesh: {there}@n2 runs on another node: 'mesh service logs {there}' on node n2 shows what it prints"
        );
        ensure!(errors == [elsewhere.clone(), format!("{prefix}not well")], "{errors:?}");
        mentions(
            &n2.ok(&format!("service logs {there}"))?,
            &[&format!("{there}@n2    | hello from {there}\n")],
        )?;
        let absent = logs(&there)?;
        ensure!(absent.status.success() && absent.stdout.is_empty() && absent.stderr.trim() == elsewhere);

        let last = logs("--tail 2 -t talk")?.stdout;
        ensure!(last.lines().count() == 2, "{last}");
        for line in last.lines() {
            let (time, rest) = line.split_once(' ').context("no time")?;
            ensure!(
                time.len() == 30 && time.ends_with('Z') && rest.starts_with(&format!("{prefix}tick ")),
                "{line}"
            );
        }
        let (time, _) = last.split_once(' ').context("no time")?;
        let since = logs(&format!("-t --since {time} talk"))?.stdout;
        ensure!(since.starts_with(time), "{since}");
        ensure!(!since.contains("hello"), "{since}");
        ensure!(logs("--since 10m --tail 0 talk")?.stdout.is_empty());

        let log = n1.state_dir().join(format!("logs/{here}.log"));
        ensure!(fs::metadata(&log)?.permissions().mode() & 0o777 == 0o600);
        // Whoever empties it, as logrotate(8) may, stops neither the command nor those who read.
        let followed = std::thread::scope(|scope| {
            let followed = scope.spawn(|| follow(lab, n1, "--tail 0 talk"));
            std::thread::sleep(std::time::Duration::from_secs(1));
            fs::File::create(&log)?;
            followed.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?
        })?;
        let ticks = followed.stdout.lines().filter(|line| line.contains("tick")).count();
        ensure!(followed.code() == Some(124) && ticks > 5, "{followed:?}");

        for wrong in ["nope", "nope.1"] {
            let said = n1.refused(&format!("service logs {wrong}"))?;
            ensure!(said.trim() == format!("mesh: no such task or service: {wrong}"), "{said}");
        }
        Ok(())
    })
}

/// Tasks that somebody else started are not kept silent about, nor are agents that end.
#[test]
fn what_is_not_kept_is_said() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let web = Task::web(lab, n1, "web")?;
        let said = n1.mesh(["service", "logs", "web"])?;
        let told = "mesh: web.1@n1 was not started by the mesh, which does not keep what it prints";
        ensure!(said.stdout.is_empty() && said.stderr.trim() == told, "{said:?}");
        let alone = Task::idle(n1, "app")?;
        mentions(&n1.refused(&format!("service logs {}", alone.name))?, &["has no service"])?;
        web.rm()?;
        n1.mesh(["service", "create", "--name", "talk", "--network", "app", "--cmd", TALKS])?.ok()?;
        let restart = std::thread::scope(|scope| {
            let followed = scope.spawn(|| follow(lab, n1, "talk"));
            std::thread::sleep(std::time::Duration::from_secs(1));
            n1.stop_agent()?;
            followed.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?
        })?;
        ensure!(restart.code() == Some(1) && restart.stderr.contains("the agent has ended"), "{restart:?}");
        n1.start_agent()?;
        n1.wait_ready(READY)?;
        // The command went on, and what it printed meanwhile is there.
        let lines = n1.ok("service logs talk")?;
        let ticks: Vec<u64> =
            lines.lines().filter_map(|line| line.split_once("| tick ")?.1.parse().ok()).collect();
        ensure!(ticks.len() > 10 && ticks.iter().zip(1..).all(|(tick, n)| *tick == n), "{ticks:?}");
        Ok(())
    })
}
