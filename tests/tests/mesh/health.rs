//! Tasks that cannot serve get no traffic, and are not killed.

use anyhow::{Result, ensure};
use mesh_tests::{Lab, Node, eventually};

use crate::external::on_etcd;
use crate::kit::{Cli, READY, SOON, Task, comes_to_refuse, curl, mentions, mesh, served_by, url};

/// What the mesh says of a task's health.
fn is(task: &Task<'_>, by: &Node, health: &str) -> Result<()> {
    eventually(READY, &format!("{} is {health}", task.name), || {
        let said = by.inspect("task", &task.name)?;
        ensure!(said["Health"] == health, "{said:#}");
        Ok(())
    })
}

/// Only this task answers, by every node and name.
fn only(lab: &Lab, idle: &Task<'_>, task: &Task<'_>) -> Result<()> {
    for node in lab.nodes() {
        served_by(lab.client(), &url(node, 8080), &[task])?;
        eventually(READY, "nobody else answers", || {
            let answers =
                (0..12).map(|_| curl(lab.client(), &url(node, 8080))).collect::<Result<Vec<_>>>()?;
            ensure!(answers.iter().all(|answer| answer.contains(&task.name)), "{answers:?}");
            Ok(())
        })?;
    }
    eventually(READY, "its name is that task", || {
        let found = idle.command(["dig", "+short", "tasks.web"]).ok()?;
        ensure!(found.trim() == task.address()?.to_string(), "{found}");
        Ok(())
    })
}

/// Whatever the kind of check: sick tasks leave the balance and the names, and come back by themselves.
#[test]
fn sick_tasks_leave_and_come_back() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        let dir = lab.dir().display().to_string();
        let file = |task: &Task<'_>| format!("{dir}/sick-{}", task.name);
        n1.ok("service create --name web --network app -p 8080:80 --health-tcp 80 --health-interval 200ms")?;
        n1.ok("service update --health-retries 2 --health-timeout 1s --health-start-interval 200ms web")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let idle = Task::idle(n1, "app")?;
        for task in &tasks {
            is(task, n1, "healthy")?;
        }
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        // By a command, which knows by the address that it finds in which task's namespace it runs.
        let command = format!(
            "for f in {dir}/sick-*; do [ -e $f ] && ip -o address | grep -qF \" $(cat $f)/\" && exit 1; done; exit 0"
        );
        ensure!(n1.mesh(["service", "update", "--health-cmd", &command, "web"])?.status.success());
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        for (sick, well) in [(0, 1), (1, 0)] {
            std::fs::write(file(&tasks[sick]), tasks[sick].address()?.to_string())?;
            is(&tasks[sick], n2, "unhealthy")?;
            only(lab, &idle, &tasks[well])?;
            std::fs::remove_file(file(&tasks[sick]))?;
            is(&tasks[sick], n2, "healthy")?;
            served_by(lab.client(), &url(n2, 8080), &[&tasks[0], &tasks[1]])?;
        }
        // A page that is there, and one that is not; nothing is killed.
        n1.ok("service update --health-http 80/ web")?;
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        n1.ok("service update --health-https 80/ web")?;
        for task in &tasks {
            is(task, n1, "unhealthy")?;
        }
        comes_to_refuse(lab.client(), &url(n1, 8080), SOON)?;
        mentions(&n1.ok("task ls")?, &["health check https:80/"])?;
        n1.ok("service update --no-healthcheck web")?;
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])
    })
}

/// What a node knows of its tasks counts at every node while no store takes it: sick tasks leave the balance and the names
/// and are back when they are well, and one that has ended leaves them for good.
#[test]
fn sick_tasks_leave_and_come_back_without_a_store() -> Result<()> {
    on_etcd(|lab, etcd| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        let sick = lab.dir().join("sick");
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let idle = Task::idle(n1, "app")?;
        // It finds by its namespace's address which task it is asked of.
        let command = format!("! ip -o address | grep -qFf {} 2>/dev/null", sick.display());
        let check = ["--health-cmd", &command, "--health-interval", "200ms", "--health-retries", "2"];
        let update = ["service", "update"].into_iter().chain(check).chain(["--health-rise", "1", "web"]);
        ensure!(n1.mesh(update)?.status.success());
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        for task in &tasks {
            is(task, n1, "healthy")?;
        }
        etcd.kill()?;
        std::fs::write(&sick, format!(" {}/\n", tasks[1].address()?))?;
        only(lab, &idle, &tasks[0])?;
        for node in lab.nodes() {
            eventually(SOON, "the status says so", || {
                let output = node.mesh(["status"])?;
                mentions(&output.stdout, &[&tasks[1].name, "fails its health check"])
            })?;
        }
        std::fs::remove_file(&sick)?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        n1.exec(["kill", "-9", &tasks[0].pid.to_string()])?.ok()?;
        only(lab, &idle, &tasks[1])?;
        etcd.start()?;
        eventually(READY, "its record is gone", || {
            let left = n2.names("task")?;
            ensure!(!left.contains(&tasks[0].name) && left.contains(&tasks[1].name), "{left:?}");
            Ok(())
        })?;
        only(lab, &idle, &tasks[1])
    })
}
