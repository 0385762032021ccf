//! HAProxy as `mesh haproxy config` sets it up, for each way in, and what nodes tell it of themselves.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Load, Node, eventually};

use crate::haproxy::ask;
use crate::kit::{Cli, DUAL, READY, Task, lab, listens, mentions, served_by, started};

/// A running HAProxy's socket.
pub(crate) struct Stats(PathBuf);

impl Stats {
    /// Writes what the mesh prints to a file, with a socket to look into it.
    pub(crate) fn write(node: &Node, name: &str, options: &str) -> Result<(String, Self)> {
        let printed = node.ok(&format!("haproxy config {options}"))?;
        let dir = node.run_dir().with_extension(name);
        fs::create_dir_all(&dir)?;
        let (file, socket) = (dir.join("haproxy.cfg"), dir.join("stats.sock"));
        fs::write(&file, format!("global\n    stats socket {} level admin\n{printed}", socket.display()))?;
        let file = file.to_string_lossy().into_owned();
        node.command(["haproxy", "-c", "-f", &file]).ok().context(printed)?;
        Ok((file, Self(socket)))
    }

    /// Of an HAProxy whose socket is there.
    pub(crate) fn at(socket: PathBuf) -> Self {
        Self(socket)
    }

    /// Where it is.
    pub(crate) fn socket(&self) -> &Path {
        &self.0
    }

    /// All servers, as `show stat` has them, by column.
    pub(crate) fn rows(&self) -> Result<Vec<BTreeMap<String, String>>> {
        let table = ask(&self.0, "show stat -1 4 -1")?;
        let mut lines = table.lines();
        let names: Vec<_> = lines.next().context("no columns")?.split(',').map(str::to_owned).collect();
        let row = |line: &str| names.iter().cloned().zip(line.split(',').map(str::to_owned)).collect();
        Ok(lines.filter(|line| !line.is_empty()).map(row).collect())
    }

    /// Status and weight of a server: `UP`, `DRAIN (agent)`, `DOWN`.
    fn server(&self, name: &str) -> Result<(String, u32)> {
        let rows = self.rows()?;
        let row = rows.iter().find(|row| row["svname"] == name);
        let row = row.with_context(|| format!("no server {name} in {rows:#?}"))?;
        Ok((row["status"].clone(), row["weight"].parse()?))
    }

    /// Waits until a server is so.
    fn comes_to(&self, name: &str, wanted: &str) -> Result<()> {
        eventually(READY, &format!("{name} is {wanted}"), || {
            let (status, _) = self.server(name)?;
            ensure!(status.starts_with(wanted), "{status}: {}", ask(&self.0, "show servers state")?);
            Ok(())
        })
    }
}

/// A mesh of that many nodes that tell of themselves.
fn telling(nodes: usize, test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    started(lab()?.nodes(nodes).config("[checks]\nlisten = \"0.0.0.0:7304\"\n"), test)
}

/// What a node answers a load balancer that asks by HTTP.
fn told(lab: &Lab, node: &Node, path: &str) -> Result<(String, String)> {
    let url = format!("http://{}:7304{path}", node.address());
    let said = lab.client().command(["curl", "-sS", "-m", "5", "-w", "%{http_code}", &url]).ok()?;
    let (text, code) = said.split_at(said.len().saturating_sub(3));
    Ok((code.to_owned(), text.trim().to_owned()))
}

/// A node that is drained lets go on what runs; no request fails, and nothing new comes.
#[test]
fn in_front_of_nodes_that_tell_whether_they_can_serve() -> Result<()> {
    telling(3, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        ensure!(told(lab, n1, "/web")? == ("503".into(), "down: no task of service web can serve".into()));
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let (file, stats) = Stats::write(n1, "front", "--checks 7304 web")?;
        let proxy = lab.client().spawn_daemon("haproxy", ["haproxy", "-db", "-f", &file])?;
        listens(proxy.id(), "tcp", 8080)?;
        let front = "http://127.0.0.1:8080/";
        served_by(lab.client(), front, &[&tasks[0], &tasks[1]])?;
        for node in lab.nodes() {
            stats.comes_to(node.name(), "UP")?;
        }

        let load = Load::start(lab.client().netns(), &[(std::net::Ipv4Addr::LOCALHOST, 8080).into()], 50)?;
        n1.ok("node update --availability drain n2")?;
        // By its agent, or by 404 to its check.
        eventually(READY, "n2 gets nothing new", || {
            let (status, _) = stats.server("n2")?;
            ensure!(status.starts_with("DRAIN") || status.starts_with("NOLB"), "{status}");
            Ok(())
        })?;
        ensure!(told(lab, n2, "/")?.0 == "404" && told(lab, n2, "/web.1")?.0 == "200");
        ensure!(told(lab, n2, "/web.2")?.0 == "404");
        served_by(lab.client(), front, &[&tasks[0]])?;
        n1.ok("node update --availability active n2")?;
        stats.comes_to("n2", "UP")?;
        served_by(lab.client(), front, &[&tasks[0], &tasks[1]])?;
        load.stop()?.lossless()?;

        tasks[0].rm()?;
        tasks[1].rm()?;
        for node in lab.nodes() {
            stats.comes_to(node.name(), "DOWN")?;
        }
        ensure!(told(lab, n1, "/shop")? == ("503".into(), "down: there is no such service".into()));
        Ok(())
    })
}

/// HAProxy in a task, to each task with its own weight; a sick one is told of by its node.
#[test]
fn inside_with_a_weight_for_each_task() -> Result<()> {
    telling(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        let sick = lab.dir().join("sick");
        let check = format!("test ! -e {}", sick.display());
        n1.ok("service create --name web --network app -p 8080:80")?;
        n1.ok("service create --name proxy --network app")?;
        let web = lab.programs().web(80);
        let heavy = Task::run(n1, "--service web --weight 8", &web)?;
        let light = Task::run(n2, "--service web --weight 2", &web)?;
        for task in [&heavy, &light] {
            task.listens("tcp6", 80)?;
        }
        let (file, stats) = Stats::write(n1, "tasks", "--way tasks --checks 7304 web")?;
        let argv = ["haproxy", "-db", "-f", &file].map(str::to_owned);
        Task::serve(n2, "proxy", &argv, "tcp", 80)?;
        let weighs = |task: &str, wanted| {
            eventually(READY, &format!("{task} weighs {wanted}"), || {
                let found = stats.server(task)?;
                ensure!(found.0.starts_with("UP") && found.1 == wanted, "{found:?}");
                Ok(())
            })
        };
        weighs("web.1", 100)?;
        weighs("web.2", 25)?;
        n1.mesh(["service", "update", "--health-cmd", &check, "--health-interval", "200ms", "web"])?.ok()?;
        fs::write(&sick, "")?;
        eventually(READY, "its node says that it is sick", || {
            let (code, said) = told(lab, n1, "/web.1")?;
            ensure!(code == "503" && said.starts_with("down: is unhealthy"), "{code} {said}");
            Ok(())
        })?;
        stats.comes_to("web.1", "DOWN")?;
        fs::remove_file(&sick)?;
        weighs("web.1", 100)
    })
}

/// By name, from one task to thirty and back to two: a long answer of DNS, and no reload.
#[test]
fn inside_by_name_from_one_task_to_thirty() -> Result<()> {
    telling(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        n1.ok("service create --name proxy --network app")?;
        let mut tasks = vec![Task::web(lab, n1, "web")?];
        let (file, stats) = Stats::write(n1, "names", "--way names --slots 32 --port 80 web")?;
        let argv = ["haproxy", "-db", "-f", &file].map(str::to_owned);
        let proxy = Task::serve(n2, "proxy", &argv, "tcp", 80)?;
        let up = |wanted: usize| {
            eventually(READY, &format!("{wanted} are up"), || {
                let servers = (1..=32).map(|number| stats.server(&format!("server-{number}")));
                let all = servers.collect::<Result<Vec<_>>>()?;
                let up = all.iter().filter(|(status, _)| status == "UP").count();
                ensure!(up == wanted, "{up}");
                Ok(())
            })
        };
        up(1)?;
        for number in 1..30 {
            tasks.push(Task::web(lab, [n1, n2][number % 2], "web")?);
        }
        up(30)?;
        while tasks.len() > 2 {
            tasks.pop().context("no task")?.rm()?;
        }
        up(2)?;
        ensure!(Task::find(n2, &proxy.name)?.pid == proxy.pid, "it was started anew");
        Ok(())
    })
}

/// Services whose tasks listen at the same port, or that publish one at different addresses, do not get each other's
/// connections; and HAProxy takes what is printed of many.
#[test]
fn services_that_share_a_port_are_told_apart() -> Result<()> {
    started(lab()?.nodes(2).config("[checks]\nlisten = \"[::]:7304\"\n"), |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        let publish = |node: &Node, v6: &Node| {
            let (a, b) = (node.address(), v6.address6());
            format!("-p published=8080,target=80,host_ip={a} -p published=8090,target=80,host_ip={b}")
        };
        n1.ok(&format!("service create --name web --network app {}", publish(n1, n2)))?;
        n1.ok(&format!("service create --name shop --network app {} -p 53:53/udp", publish(n2, n1)))?;
        n1.ok("service create --name local --network app -p published=9000,target=80,host_ip=127.0.0.1")?;
        n1.ok("service create --name proxy --network app")?;
        let (web, shop) = (Task::web(lab, n1, "web")?, Task::web(lab, n2, "shop")?);
        let printed = n1.ok("haproxy config")?;
        mentions(
            &printed,
            &["service shop: port 53/udp is left out", "service local: port 9000 is left out"],
        )?;
        mentions(&n1.refused("haproxy config local")?, &["port 9000 is left out"])?;

        let (file, _) = Stats::write(n1, "outside", "--checks 7304 web shop")?;
        let proxy = lab.client().spawn_daemon("haproxy", ["haproxy", "-db", "-f", &file])?;
        for (port, task) in [(8080, &web), (8090, &web), (8081, &shop), (8091, &shop)] {
            listens(proxy.id(), "tcp", port)?;
            served_by(lab.client(), &format!("http://127.0.0.1:{port}/"), &[task])?;
        }

        let (file, _) = Stats::write(n1, "inside", "--way names web shop web")?;
        let argv = ["haproxy", "-db", "-f", &file].map(str::to_owned);
        let proxy = Task::serve(n2, "proxy", &argv, "tcp", 80)?;
        served_by(&proxy, "http://127.0.0.1:80/", &[&web])?;
        served_by(&proxy, "http://127.0.0.1:8080/", &[&shop])?;

        for number in 0..30 {
            n1.ok(&format!(
                "service create -q --name many-{number} --network app -p {}:80",
                10_000 + number
            ))?;
        }
        for way in ["nodes", "nodes --checks 7304", "names", "srv --slots 3", "tasks --checks 7304"] {
            Stats::write(n1, "many", &format!("--way {way}"))?;
        }
        Ok(())
    })
}

/// What HAProxy says of the client by the PROXY protocol reaches nginx behind a published port as it was.
#[test]
fn the_proxy_protocol_passes_through() -> Result<()> {
    telling(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let dir = lab.dir().join("nginx");
        fs::create_dir_all(&dir)?;
        let nginx = format!(
            "daemon off; pid {0}/pid; error_log stderr; events {{}}
             http {{ access_log off; client_body_temp_path {0}; proxy_temp_path {0}; fastcgi_temp_path {0};
             uwsgi_temp_path {0}; scgi_temp_path {0};
             server {{ listen 80 proxy_protocol; location / {{ return 200 \"$proxy_protocol_addr\\n\"; }} }} }}",
            dir.display()
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, nginx)?;
        let argv = ["nginx", "-c", &file.to_string_lossy()].map(str::to_owned);
        Task::serve(n2, "web", &argv, "tcp", 80)?;
        let (file, _) = Stats::write(n1, "proxied", "--send-proxy web")?;
        let proxy = lab.client().spawn_daemon("haproxy", ["haproxy", "-db", "-f", &file])?;
        listens(proxy.id(), "tcp", 8080)?;
        let url = format!("http://{}:8080/", lab.client().address());
        eventually(READY, "nginx is told the client's address", || {
            let said = lab.outside().command(["curl", "-sS", "-m", "5", &url]).ok()?;
            ensure!(said.trim() == lab.outside().address().to_string(), "{said}");
            Ok(())
        })
    })
}

/// What cannot be done is said.
#[test]
fn wrong_wishes_are_told() -> Result<()> {
    telling(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name db --network app")?;
        for (wish, told) in [
            ("haproxy config", "no service publishes a TCP port"),
            ("haproxy config db", "service db publishes no TCP port"),
            ("haproxy config --way names db", "--port"),
            ("haproxy config shop", "service shop not found"),
        ] {
            mentions(&n1.refused(wish)?, &[told])?;
        }
        // Whoever says nothing, or nonsense, to a node's checks is answered, too.
        let asks = |words: &str| {
            let script =
                format!("exec 3<>/dev/tcp/{}/7304; printf '{words}' >&3; timeout 3 cat <&3", n1.address());
            lab.client().command(["bash", "-c", &script]).ok()
        };
        ensure!(asks("")?.trim() == "ready up 100%");
        ensure!(asks("db\\n")?.trim() == "ready down #service db publishes no port on node n1");
        ensure!(asks("\\xff\\xfe\\n").is_ok(), "it takes what is no text for nothing");
        ensure!(asks(&"x".repeat(4_000))?.starts_with("ready down #"));
        std::thread::sleep(Duration::from_millis(10));
        ensure!(told(lab, n1, "/%00/../etc")?.0 == "503");
        Ok(())
    })
}
