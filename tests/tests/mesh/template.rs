//! `mesh template`: nginx follows the mesh by a file that is rendered anew.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};
use mesh_tests::{Lab, Node, Process, eventually};

use crate::kit::{Cli, READY, Sick, Task, curl, mentions, mesh};

/// What the consul-template job of a reverse proxy looks like.
const TEMPLATE: &str = r#"upstream backend {
{{- range service "whoami" }}
  server {{ .Address }}:{{ .Port }};
{{- else }}
  server 127.0.0.1:1;
{{- end }}
}
"#;

fn file(dir: &Path, name: &str, text: &str) -> Result<String> {
    let file = dir.join(name);
    fs::write(&file, text)?;
    Ok(file.to_string_lossy().into_owned())
}

/// Waits until the file has so many servers, and one address of each task.
fn has(file: &Path, tasks: &[&Task<'_>]) -> Result<()> {
    eventually(READY, "the file follows", || {
        let text = fs::read_to_string(file)?;
        ensure!(text.matches("server ").count() == tasks.len(), "{text}");
        for task in tasks {
            ensure!(text.contains(&format!("server {}:80;", task.address()?)), "{text}");
        }
        Ok(())
    })
}

/// `mesh template` that goes on.
fn follower(lab: &Lab, node: &Node, argv: &[&str]) -> Result<Process> {
    let (mesh, host) = (lab.mesh_program().to_string_lossy(), format!("unix://{}", node.socket().display()));
    let mut words = vec![mesh.as_ref(), "-H", &host, "template"];
    words.extend(argv);
    node.spawn_daemon("template", words)
}

/// nginx in a task is told by SIGHUP; a command that fails is tried again; the agent may be started anew meanwhile.
#[test]
fn nginx_follows_a_service() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name whoami --network app -p 8080:80")?;
        n1.ok("service create --name proxy --network app -p 8000:8000")?;
        let dir = lab.dir().join("nginx");
        fs::create_dir_all(&dir)?;
        let template = file(&dir, "upstream.tpl", TEMPLATE)?;
        let out = dir.join("upstream.conf");
        let once = format!("{template}:{}", out.display());
        n1.mesh(["template", "--once", &once])?.ok()?;
        ensure!(fs::read_to_string(&out)? == "upstream backend {\n  server 127.0.0.1:1;\n}\n");

        let conf = format!(
            "pid {0}/pid; error_log stderr; events {{}}
             http {{ access_log off; client_body_temp_path {0}; proxy_temp_path {0}; fastcgi_temp_path {0};
             uwsgi_temp_path {0}; scgi_temp_path {0}; include {0}/upstream.conf;
             server {{ listen 8000; location / {{ proxy_pass http://backend; }} }} }}",
            dir.display()
        );
        let conf = file(&dir, "nginx.conf", &conf)?;
        let argv = ["nginx", "-g", "daemon off;", "-c", &conf].map(str::to_owned);
        Task::serve(n2, "proxy", &argv, "tcp", 8000)?;
        let reload =
            format!("echo x >> {0}/runs; test -e {0}/good && kill -HUP $(cat {0}/pid)", dir.display());
        let follower = follower(lab, n1, &["--exec", &reload, &once])?;

        let first = Task::web(lab, n1, "whoami")?;
        has(&out, &[&first])?;
        eventually(READY, "what fails is tried again", || {
            let runs = fs::read_to_string(dir.join("runs"))?.lines().count();
            ensure!(runs > 2, "{runs}");
            Ok(())
        })?;
        file(&dir, "good", "")?;
        let url = format!("http://{}:8000/", n1.address());
        let says = |task: &Task<'_>| {
            eventually(READY, &format!("{} answers", task.name), || {
                let said = curl(lab.client(), &url)?;
                ensure!(said.contains(&task.name), "{said}");
                Ok(())
            })
        };
        says(&first)?;

        n1.kill_agent()?;
        n1.start_agent()?;
        n1.wait_ready(READY)?;
        let second = Task::web(lab, n2, "whoami")?;
        has(&out, &[&first, &second])?;
        says(&second)?;
        first.rm()?;
        has(&out, &[&second])?;
        says(&second)?;
        // What does not change is not written, and nobody is told.
        let (runs, written) = (fs::read(dir.join("runs"))?, fs::metadata(&out)?.modified()?);
        n1.ok("service update --label-add a=b whoami")?;
        std::thread::sleep(Duration::from_millis(500));
        ensure!(fs::read(dir.join("runs"))? == runs && fs::metadata(&out)?.modified()? == written);
        drop(follower);
        Ok(())
    })
}

/// Who serves may change though nothing is said of it: its service panics, or its node is not heard.
#[test]
fn a_file_follows_who_serves_for_what_became_of_others() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        let sick = Sick::none(lab);
        let times =
            "--health-interval 200ms --health-retries 1 --health-timeout 2s --health-start-interval 200ms";
        let create =
            format!("service create --name whoami --network app -p 8080:80 {times} --health-panic 50");
        let command = sick.command();
        n1.mesh(create.split_whitespace().chain(["--health-cmd", &command]))?.ok()?;
        let web = |node| Task::web(lab, node, "whoami");
        let tasks = [web(n1)?, web(n1)?, web(n2)?];
        let [a, b, c] = [&tasks[0], &tasks[1], &tasks[2]];
        let (template, out) = (file(lab.dir(), "upstream.tpl", TEMPLATE)?, lab.dir().join("upstream.conf"));
        let follower = follower(lab, n1, &[&format!("{template}:{}", out.display())])?;
        has(&out, &[a, b, c])?;

        sick.fall(a)?;
        has(&out, &[b, c])?;
        sick.fall(b)?;
        has(&out, &[a, b, c])?;
        sick.heal(b)?;
        has(&out, &[b, c])?;
        sick.heal(a)?;
        has(&out, &[a, b, c])?;

        lab.unplug("n2")?;
        has(&out, &[a, b])?;
        eventually(READY, "it is told why", || {
            mentions(&n1.ok("service ps whoami")?, &["its node n2 does not answer this one"])
        })?;
        lab.plug("n2")?;
        has(&out, &[a, b, c])?;
        drop(follower);
        Ok(())
    })
}

/// What is wrong is said at once, and nothing is written.
#[test]
fn wrong_templates_are_told() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        let wrong = file(lab.dir(), "wrong.tpl", "{{range service \"web\"}}{{.Adress}}{{end}}")?;
        let good = file(lab.dir(), "good.tpl", "{{range nodes}}{{.Name}}{{end}}")?;
        for (wish, told) in [
            (format!("template --once {wrong}"), "there is no field .Adress; there are .ID, .Name, .Address"),
            (format!("template --once {good}:/nowhere/x"), "there is no directory /nowhere"),
            (format!("template --once --mode 9 {good}"), "write them in octal"),
            ("template --once /nowhere.tpl".to_owned(), "cannot read the template /nowhere.tpl"),
        ] {
            mentions(&n1.refused(&wish)?, &[told])?;
        }
        ensure!(n1.ok(&format!("template --once {good}"))? == "n1");
        let failed = n1.mesh(["template", "--once", "--exec", "exit 3", &good])?.failed()?;
        mentions(&failed, &["--exec: 'exit 3' failed: exit status: 3"])?;
        n1.kill_agent()?;
        mentions(&n1.refused(&format!("template --once {good}"))?, &["cannot connect to the mesh agent"])
    })
}
