//! nginx as `docs/load-balancers.md` has it, and what is rendered there for Traefik.

use std::{fs, net::Ipv4Addr};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Load};

use crate::kit::{Cli, Task, curl, listens, mesh, served_by};

const PAGE: &str = include_str!("../../../docs/load-balancers.md");

/// A block of the page.
fn block(language: &str, number: usize) -> Result<&'static str> {
    let fence = format!("```{language}\n");
    let after =
        PAGE.split(&fence).nth(number + 1).with_context(|| format!("no {number}th block of {language}"))?;
    after.split("```").next().context("it has no end")
}

/// Writes nginx's file, with what does not matter to the reader.
fn nginx(lab: &Lab, name: &str, block: &str) -> Result<Vec<String>> {
    let dir = lab.dir().join(name);
    fs::create_dir_all(&dir)?;
    let at = dir.display();
    let paths = format!(
        "http {{ access_log off; client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at};
         uwsgi_temp_path {at}; scgi_temp_path {at};"
    );
    let head = format!(
        "include /etc/nginx/modules-enabled/*.conf; daemon off; pid {at}/pid; error_log {at}/log; events {{}}\n"
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, head + &block.replace("http {", &paths))?;
    Ok(["nginx", "-c", &file.to_string_lossy()].map(str::to_owned).into())
}

/// It balances over nodes; one that is drained costs no request, and one that dies none either, but time.
#[test]
fn nginx_in_front_of_the_nodes() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let [one, two] = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let mut config = block("nginx", 0)?.to_owned();
        for (number, node) in lab.nodes().iter().enumerate() {
            let (written, real) = (format!("192.0.2.{}:", number + 1), format!("{}:", node.address()));
            ensure!(config.matches(&written).count() == 2, "{config}");
            config = config.replace(&written, &real);
        }
        let front = lab.client().spawn_daemon("nginx", nginx(lab, "front", &config)?)?;
        for port in [8000, 9000] {
            listens(front.id(), "tcp", port)?;
            served_by(lab.client(), &format!("http://127.0.0.1:{port}/"), &[&one, &two])?;
        }
        let load = Load::start(lab.client().netns(), &[(Ipv4Addr::LOCALHOST, 8000).into()], 50)?;
        n1.ok("node update --availability drain n2")?;
        served_by(lab.client(), "http://127.0.0.1:8000/", &[&one])?;
        n1.ok("node update --availability active n2")?;
        served_by(lab.client(), "http://127.0.0.1:8000/", &[&one, &two])?;
        load.stop()?.lossless()?;

        lab.unplug("n3")?;
        for port in [8000, 9000] {
            for _ in 0..20 {
                curl(lab.client(), &format!("http://127.0.0.1:{port}/"))?;
            }
        }
        lab.plug("n3")
    })
}

/// By the service's name: tasks come and go, and nginx is told nothing.
#[test]
fn nginx_in_a_task() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        n1.ok("service create --name proxy --network app -p 8000:80")?;
        let argv = nginx(lab, "proxy", block("nginx", 1)?)?;
        let proxy = Task::serve(n2, "proxy", &argv, "tcp", 80)?;
        let url = format!("http://{}:8000/", n1.address());
        let one = Task::web(lab, n1, "web")?;
        served_by(lab.client(), &url, &[&one])?;
        let two = Task::web(lab, n2, "web")?;
        served_by(lab.client(), &url, &[&one, &two])?;
        one.rm()?;
        let three = Task::web(lab, n1, "web")?;
        served_by(lab.client(), &url, &[&two, &three])?;
        ensure!(Task::find(n2, &proxy.name)?.pid == proxy.pid, "it was started anew");

        let template = lab.dir().join("web.tpl");
        fs::write(&template, block("yaml template", 0)?)?;
        let rendered = n1.ok(&format!("template --once {}", template.display()))?;
        let servers = rendered.split_once("servers:\n").context("no servers")?.1;
        let mut expected = [&two, &three]
            .map(|task| Ok::<_, anyhow::Error>(format!("          - url: \"http://{}:80\"", task.address()?)))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        expected.sort_unstable();
        let mut found: Vec<_> = servers.lines().collect();
        found.sort_unstable();
        ensure!(found == expected, "{rendered}");
        Ok(())
    })
}
