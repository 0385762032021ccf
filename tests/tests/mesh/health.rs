//! Tasks that cannot serve get no traffic, and are not killed.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, ensure};
use mesh_tests::{Lab, eventually};

use crate::external::on_etcd;
use crate::kit::{
    Cli, DUAL, READY, SOON, Sick, Task, comes_to_refuse, curl, holds, is, mentions, mesh, served_by, text,
    url,
};

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
        let sick = Sick::none(lab);
        n1.ok("service create --name web --network app -p 8080:80 --health-tcp 80 --health-interval 200ms")?;
        n1.ok("service update --health-retries 2 --health-timeout 1s --health-start-interval 200ms web")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let idle = Task::idle(n1, "app")?;
        for task in &tasks {
            is(task, n1, "healthy")?;
        }
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        ensure!(n1.mesh(["service", "update", "--health-cmd", &sick.command(), "web"])?.status.success());
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        for (ill, well) in [(0, 1), (1, 0)] {
            sick.fall(&tasks[ill])?;
            is(&tasks[ill], n2, "unhealthy")?;
            only(lab, &idle, &tasks[well])?;
            sick.heal(&tasks[ill])?;
            is(&tasks[ill], n2, "healthy")?;
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

/// Where most tasks are sick it is rather the check that is, if the service says so: all serve, and that is to be seen.
#[test]
fn when_most_are_sick_all_serve() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        let sick = Sick::none(lab);
        let times =
            "--health-interval 200ms --health-retries 1 --health-timeout 2s --health-start-interval 200ms";
        let create = format!("service create --name web --network app -p 8080:80 {times} --health-panic 50");
        let command = sick.command();
        n1.mesh(create.split_whitespace().chain(["--health-cmd", &command]))?.ok()?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?, Task::web(lab, n2, "web")?];
        for task in &tasks {
            is(task, n1, "healthy")?;
        }
        let [a, b, c] = [&tasks[0], &tasks[1], &tasks[2]];
        let told = "most of its tasks fail their health check";
        let serve = |those: &[&Task<'_>]| {
            for node in [n1, n2] {
                served_by(lab.client(), &url(node, 8080), those)?;
                eventually(READY, "nobody else answers", || {
                    let answers =
                        (0..12).map(|_| curl(lab.client(), &url(node, 8080))).collect::<Result<Vec<_>>>()?;
                    let mut others =
                        answers.iter().filter(|said| !those.iter().any(|one| said.contains(&one.name)));
                    ensure!(others.next().is_none(), "{answers:?}");
                    Ok(())
                })?;
            }
            Ok(())
        };
        sick.fall(a)?;
        is(a, n1, "unhealthy")?;
        serve(&[b, c])?;
        ensure!(!n1.mesh(["status"])?.stdout.contains(told));

        sick.fall(b)?;
        is(b, n1, "unhealthy")?;
        serve(&[a, b, c])?;
        for node in [n1, n2] {
            eventually(READY, "it is told", || {
                mentions(&node.mesh(["status"])?.stdout, &["service web", told])
            })?;
        }
        let listed = n2.ok("service ps web")?;
        ensure!(listed.matches("unhealthy, and gets flows").count() == 2, "{listed}");
        mentions(&n1.ok("service inspect --pretty web")?, &["all serve when fewer than 50% are healthy"])?;

        sick.heal(b)?;
        is(b, n1, "healthy")?;
        serve(&[b, c])?;
        eventually(READY, "it is told no more", || {
            ensure!(!n2.mesh(["status"])?.stdout.contains(told));
            Ok(())
        })?;
        let listed = n2.ok("service ps web")?;
        ensure!(!listed.contains("gets flows") && listed.matches("is unhealthy").count() == 1, "{listed}");
        sick.heal(a)?;
        serve(&[a, b, c])
    })
}

/// nginx with a certificate that it signed itself: a check by https succeeds, fails, and succeeds. It may listen on any of
/// the task's addresses alone.
#[test]
fn a_server_of_tls_is_asked_at_whichever_address_it_has() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok(DUAL)?;
        n1.ok("network create back --subnet 10.31.0.0/16")?;
        let dir = lab.dir().join("nginx");
        fs::create_dir_all(&dir)?;
        let at = dir.display();
        let key = format!(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=web -keyout {at}/key -out {at}/cert"
        );
        n1.exec(std::iter::once("openssl").chain(key.split_whitespace()))?.ok()?;
        let file = dir.join("nginx.conf");
        let write = |listen: &[String]| {
            let listen: String = listen.iter().map(|at| format!("listen {at};")).collect();
            let config = format!(
                "daemon off; pid {at}/pid; error_log stderr; events {{}}
                 http {{ access_log off; client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at};
                 uwsgi_temp_path {at}; scgi_temp_path {at}; ssl_certificate {at}/cert; ssl_certificate_key {at}/key;
                 server {{ {listen} location / {{ if (-e {at}/sick) {{ return 503; }} return 200 \"$ssl_protocol\\n\"; }} }} }}"
            );
            fs::write(&file, config)
        };
        write(&["443 ssl".to_owned()])?;
        n1.ok("service create --name web --network app --network back -p 8443:443 --health-https 443/ready")?;
        n1.ok("service update --health-interval 200ms --health-retries 1 --health-timeout 2s web")?;
        let again = format!("while sleep 0.1; do nginx -c {}; done", file.display());
        let task = Task::serve(n1, "web", &["sh", "-c", &again].map(str::to_owned), "tcp", 443)?;
        is(&task, n1, "healthy")?;
        let url = format!("https://{}:8443/", n1.address());
        let said = lab.client().command(["curl", "-sSk", "-m", "5", &url]).ok()?;
        ensure!(said.starts_with("TLS"), "{said}");

        fs::write(dir.join("sick"), "")?;
        is(&task, n1, "unhealthy")?;
        mentions(&n1.ok("service ps web")?, &["health check https:443/ready: status 503"])?;
        fs::remove_file(dir.join("sick"))?;
        is(&task, n1, "healthy")?;

        // Anew: a socket that is bound to all addresses keeps one from being bound to one.
        let restart = |listen: &[String]| {
            write(listen)?;
            task.command(["nginx", "-s", "stop", "-c", &file.to_string_lossy()]).ok().map(drop)
        };
        let found = n1.inspect("task", &task.name)?;
        let attached = found["NetworksAttachments"].as_array().into_iter().flatten();
        let all = attached.flat_map(|place| place["Addresses"].as_array().into_iter().flatten()).map(text);
        let alone: Vec<_> = all.filter_map(|own| own.split_once('/')?.0.parse().ok()).collect();
        ensure!(alone.len() == 3, "{found:#}");
        let alone = alone.into_iter().map(|own: IpAddr| SocketAddr::new(own, 443).to_string());
        for listen in alone {
            restart(&[format!("{listen} ssl")])?;
            eventually(READY, "it listens there alone", || {
                let open = task.command(["ss", "-Hltn"]).ok()?;
                ensure!(open.contains(&listen) && open.matches(":443 ").count() == 1, "{open}");
                Ok(())
            })?;
            // A probe may have found nobody meanwhile.
            std::thread::sleep(Duration::from_secs(1));
            is(&task, n1, "healthy")?;
            holds(Duration::from_secs(1), || {
                let said = n1.inspect("task", &task.name)?;
                ensure!(said["Health"] == "healthy", "at {listen} alone: {said:#}");
                Ok(())
            })?;
        }
        restart(&["443".to_owned(), "[::]:443".to_owned()])?;
        is(&task, n1, "unhealthy")?;
        eventually(READY, "what is wrong is told", || mentions(&n1.ok("task inspect web.1")?, &["TLS: "]))
    })
}

/// Where no check asks, whoever knows of a task's health says it: the next connection goes elsewhere.
#[test]
fn whoever_knows_reports_a_tasks_health() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let [one, two] = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let idle = Task::idle(n2, "app")?;
        served_by(&idle, "http://web/", &[&one, &two])?;
        n1.mesh(["task", "update", "--health", "unhealthy", "--health-message", "disk is full", "web.1"])?
            .ok()?;
        for node in [n1, n2] {
            for _ in 0..12 {
                let said = curl(lab.client(), &url(node, 8080))? + &curl(&idle, "http://web/")?;
                ensure!(said.contains(&two.name) && !said.contains(&one.name), "{said}");
            }
        }
        mentions(&n2.ok("service ps web")?, &["is unhealthy: disk is full"])?;
        n1.ok("task update --health healthy web.1")?;
        served_by(&idle, "http://web/", &[&one, &two])?;
        let found = n2.inspect("task", "web.1")?;
        ensure!(found["Health"] == "healthy" && found["Status"].get("Message").is_none(), "{found:#}");
        n1.ok("task update --health unhealthy web.1")?;
        is(&one, n2, "unhealthy")?;
        n1.ok("task update --health none web.1")?;
        is(&one, n2, "none")?;
        served_by(&idle, "http://web/", &[&one, &two])?;

        mentions(&n1.refused("task update --health unhealthy web.2")?, &["web.2", "n2"])?;
        mentions(&n1.refused("task update --health-message x web.1")?, &["--health <HEALTH>"])?;
        mentions(&n1.refused("task update --health sick web.1")?, &["healthy, unhealthy, none"])?;
        n1.ok("service update --health-tcp 80 web")?;
        mentions(&n1.refused("task update --health unhealthy web.1")?, &["tcp:80", "--no-healthcheck"])
    })
}

/// What a node knows of its tasks counts at every node while no store takes it: sick tasks leave the balance and the names
/// and are back when they are well, and one that has ended leaves them for good.
#[test]
fn sick_tasks_leave_and_come_back_without_a_store() -> Result<()> {
    on_etcd(|lab, etcd| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        let sick = Sick::none(lab);
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let idle = Task::idle(n1, "app")?;
        let command = sick.command();
        let check = ["--health-cmd", &command, "--health-interval", "200ms", "--health-retries", "2"];
        let update = ["service", "update"].into_iter().chain(check).chain(["--health-rise", "1", "web"]);
        ensure!(n1.mesh(update)?.status.success());
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        for task in &tasks {
            is(task, n1, "healthy")?;
        }
        etcd.kill()?;
        sick.fall(&tasks[1])?;
        only(lab, &idle, &tasks[0])?;
        for node in lab.nodes() {
            eventually(SOON, "the status says so", || {
                let output = node.mesh(["status"])?;
                mentions(&output.stdout, &[&tasks[1].name, "fails its health check"])?;
                mentions(&node.ok("service ps web")?, &["it fails its health check, as its node says"])
            })?;
        }
        sick.heal(&tasks[1])?;
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
