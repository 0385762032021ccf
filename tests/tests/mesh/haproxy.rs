//! HAProxy in front of the nodes, and inside a task by names alone.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Load, eventually};

use crate::kit::{Cli, READY, SOON, Task, listens, mesh, served_by};

/// What all of the configurations begin with.
fn config(stats: &Path, rest: &str) -> String {
    format!(
        "global
    stats socket {} mode 600 level admin
defaults
    mode http
    timeout connect 2s
    timeout client 10s
    timeout server 10s
    retries 2
    option redispatch 1
    retry-on all-retryable-errors
{rest}",
        stats.display()
    )
}

/// HAProxy in front of all nodes' published port: everything is served, and a task that is stopped is not noticed.
#[test]
fn in_front_of_all_nodes() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let mut servers = String::new();
        for node in lab.nodes() {
            servers += &format!("    server {} {}:8080 check inter 200ms\n", node.name(), node.address());
        }
        let file = lab.dir().join("front.cfg");
        let rest = format!(
            "listen web\n    bind :8000\n    balance roundrobin\n    option http-server-close\n{servers}"
        );
        fs::write(&file, config(&lab.dir().join("front.sock"), &rest))?;
        let proxy =
            lab.client().spawn_daemon("haproxy", ["haproxy", "-db", "-f", &file.to_string_lossy()])?;
        listens(proxy.id(), "tcp", 8000)?;
        let front = "http://127.0.0.1:8000/";
        served_by(lab.client(), front, &[&tasks[0], &tasks[1]])?;

        let load = Load::start(lab.client().netns(), &[(Ipv4Addr::LOCALHOST, 8000).into()], 100)?;
        tasks[0].rm()?;
        served_by(lab.client(), front, &[&tasks[1]])?;
        load.stop()?.lossless()?;
        let again = Task::web(lab, n1, "web")?;
        served_by(lab.client(), front, &[&tasks[1], &again])
    })
}

/// What HAProxy's own socket answers.
pub(crate) fn ask(stats: &Path, question: &str) -> Result<String> {
    let mut socket = UnixStream::connect(stats)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    writeln!(socket, "{question}")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The addresses of the servers that are up in a backend.
fn servers_up(stats: &Path, backend: &str) -> Result<BTreeSet<IpAddr>> {
    let state = ask(stats, &format!("show servers state {backend}"))?;
    let mut up = BTreeSet::new();
    // The first line is the format's version, the second names the columns; the first column is the backend's number.
    for line in state.lines().skip(2) {
        up.extend(server_up(line));
    }
    Ok(up)
}

/// Its address when it is running: the fifth and sixth of the columns.
fn server_up(line: &str) -> Option<IpAddr> {
    let fields: Vec<_> = line.split_whitespace().collect();
    (*fields.get(5)? == "2").then(|| fields[4].parse().ok())?
}

/// HAProxy inside a task follows tasks that come and go by names alone, without a reload.
fn follows(mode: &str, name: &str) -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok(&format!("service create --name whoami --network app --endpoint-mode {mode}"))?;
        n1.ok("service create --name proxy --network app -p 8000:8000")?;
        let mut tasks = vec![Task::web(lab, n1, "whoami")?, Task::web(lab, n2, "whoami")?];

        let stats = lab.dir().join("inside.sock");
        let rest = format!(
            "resolvers docker
    nameserver dns1 127.0.0.11:53
    resolve_retries 3
    timeout resolve 500ms
    timeout retry 500ms
    hold other 1s
    hold refused 1s
    hold nx 1s
    hold timeout 1s
    hold valid 500ms
    hold obsolete 500ms
frontend in
    bind :8000
    default_backend whoami
backend whoami
    balance leastconn
    option httpchk GET /healthz
    default-server inter 200ms fastinter 100ms
    dynamic-cookie-key phrase
    cookie SRVID insert dynamic
    server-template whoami- 6 {name}:80 check resolvers docker init-addr libc,none
"
        );
        let file = lab.dir().join("inside.cfg");
        fs::write(&file, config(&stats, &rest))?;
        let argv = ["haproxy", "-db", "-f", &file.to_string_lossy()].map(str::to_owned);
        let proxy = Task::serve(n3, "proxy", &argv, "tcp", 8000)?;

        let follows = |tasks: &[Task<'_>]| {
            let expected: BTreeSet<IpAddr> =
                tasks.iter().map(|task| Ok(task.address()?.into())).collect::<Result<_>>()?;
            eventually(READY, &format!("HAProxy serves {} tasks", tasks.len()), || {
                let up = servers_up(&stats, "whoami")?;
                ensure!(up == expected, "{expected:?}, but {up:?}");
                Ok(())
            })?;
            for node in lab.nodes() {
                let url = format!("http://{}:8000/", node.address());
                served_by(lab.client(), &url, &tasks.iter().collect::<Vec<_>>())?;
            }
            Ok::<_, anyhow::Error>(())
        };
        follows(&tasks)?;
        tasks.push(Task::web(lab, n2, "whoami")?);
        tasks.push(Task::web(lab, n3, "whoami")?);
        follows(&tasks)?;
        while tasks.len() > 1 {
            tasks.pop().context("no task")?.rm()?;
        }
        follows(&tasks)?;
        // The same process all along.
        ensure!(Task::find(n3, &proxy.name)?.pid == proxy.pid);
        eventually(SOON, "its socket answers", || ask(&stats, "show info")).map(drop)
    })
}

/// By the name of a service without a VIP.
#[test]
fn inside_by_the_name_of_a_service_without_a_vip() -> Result<()> {
    follows("dnsrr", "whoami")
}

/// By `tasks.`, next to a VIP.
#[test]
fn inside_by_the_name_of_all_tasks() -> Result<()> {
    follows("vip", "tasks.whoami")
}
