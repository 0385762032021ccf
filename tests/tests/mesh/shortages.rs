//! What a task's probes said, and what services are to have and cannot be given: shown, with the cure.

use anyhow::{Context, Result, ensure};
use mesh_tests::eventually;

use crate::kit::{Cli, READY, Task, mentions, mesh, text};

/// On the task's own node its last probes can be read, as `docker inspect` has them, and no log has what they printed.
#[test]
fn the_last_probes_of_a_task_can_be_read() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app --health-tcp 80 --health-interval 200ms")?;
        n1.ok("service update --health-retries 2 --health-start-interval 200ms web")?;
        let web = Task::web(lab, n1, "web")?;
        let health = || -> Result<_> { Ok(n1.inspect("task", "web.1")?["State"]["Health"].clone()) };
        eventually(READY, "five probes went well", || {
            let health = health()?;
            ensure!(health["Status"] == "healthy" && health["FailingStreak"] == 0, "{health:#}");
            ensure!(health["Log"].as_array().is_some_and(|log| log.len() == 5), "{health:#}");
            ensure!(health["Log"][4]["ExitCode"] == 0 && health["Log"][4]["Output"] == "", "{health:#}");
            Ok(())
        })?;
        let command = "echo the-secret-word; head -c 9000 /dev/zero | tr '\\0' x >&2; sleep 60 & exit 3";
        n1.mesh(["service", "update", "--health-cmd", command, "web"])?.ok()?;
        let log = eventually(READY, "it is sick", || {
            let health = health()?;
            ensure!(
                health["Status"] == "unhealthy" && health["FailingStreak"].as_u64() >= Some(2),
                "{health:#}"
            );
            let log = health["Log"].as_array().context("no log")?.clone();
            ensure!(log.len() <= 5 && log.iter().all(|probe| probe["ExitCode"] == 3), "{health:#}");
            Ok(log)
        })?;
        let output = text(&log[0]["Output"]);
        ensure!(output.len() == 4096 && output.starts_with("the-secret-word\nxxx"), "{output}");
        let order =
            log.iter().flat_map(|probe| [text(&probe["Start"]), text(&probe["End"])]).collect::<Vec<_>>();
        ensure!(order.is_sorted(), "{order:?}");
        // Its own node alone knows; others say what the records have.
        let elsewhere = n2.inspect("task", "web.1")?;
        ensure!(elsewhere.get("State").is_none() && elsewhere["Health"] == "unhealthy", "{elsewhere:#}");
        for node in lab.nodes() {
            let log = std::fs::read_to_string(node.log_file())?;
            ensure!(
                !log.lines().any(|line| line.contains("the-secret-word") && !line.contains("head -c")),
                "{}",
                node.name()
            );
            ensure!(!log.contains("xxxxxxxx"), "{} logs what a check printed", node.name());
        }
        n1.mesh(["service", "update", "--health-cmd", "sleep 5", "--health-timeout", "300ms", "web"])?
            .ok()?;
        eventually(READY, "a probe took too long", || {
            let health = health()?;
            let last = health["Log"].as_array().and_then(|log| log.last()).cloned().unwrap_or_default();
            ensure!(last["ExitCode"] == -1, "{health:#}");
            mentions(&text(&last["Output"]), &["no answer within 300ms"])
        })?;
        drop(web);
        Ok(())
    })
}

/// Where no node takes tasks, and where a network has no more addresses.
#[test]
fn what_cannot_be_given_is_shown_at_the_service() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("node update --availability drain n1")?;
        n1.ok("node update --availability pause n2")?;
        n1.mesh([
            "service",
            "create",
            "-d",
            "--name",
            "lost",
            "--network",
            "app",
            "--replicas",
            "2",
            "--cmd",
            "sleep 1000",
        ])?
        .ok()?;
        let parts = [
            "no suitable node for 2 tasks",
            "1 drained",
            "1 paused",
            "mesh node update --availability active",
        ];
        for node in [n1, n2] {
            eventually(READY, "it is told", || {
                let shortages = node.inspect("service", "lost")?["Shortages"].to_string();
                mentions(&shortages, &parts)?;
                mentions(&node.mesh(["service", "ls"])?.stderr, &parts)?;
                mentions(&node.mesh(["service", "ps", "lost"])?.stderr, &parts)?;
                mentions(&node.mesh(["status"])?.stdout, &parts)?;
                mentions(&node.mesh(["service", "inspect", "--pretty", "lost"])?.stdout, &parts)
            })?;
        }
        n1.ok("node update --availability active n1")?;
        n1.ok("node update --availability active n2")?;
        eventually(READY, "both run", || {
            let service = n1.inspect("service", "lost")?;
            ensure!(
                service["ServiceStatus"]["RunningTasks"] == 2 && service.get("Shortages").is_none(),
                "{service:#}"
            );
            Ok(())
        })?;
        ensure!(n1.mesh(["service", "ls"])?.stderr.is_empty());
        // Fifteen tasks find room there.
        n1.ok("network create --subnet 10.99.0.0/26 tiny")?;
        n1.mesh([
            "service",
            "create",
            "-d",
            "--name",
            "many",
            "--network",
            "tiny",
            "--replicas",
            "17",
            "--cmd",
            "sleep 1000",
        ])?
        .ok()?;
        let parts = ["many.", "15 of network tiny (10.99.0.0/26) are taken", "--network-add"];
        eventually(READY, "there is no more room", || {
            mentions(&n2.inspect("service", "many")?["Shortages"].to_string(), &parts)?;
            mentions(&n2.mesh(["status"])?.stdout, &parts)
        })?;
        n1.ok("service scale -d many=3")?;
        eventually(READY, "there is", || {
            let service = n2.inspect("service", "many")?;
            ensure!(service.get("Shortages").is_none(), "{service:#}");
            Ok(())
        })
    })
}
