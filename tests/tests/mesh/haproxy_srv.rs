//! HAProxy in a task by SRV records: ports and weights of tasks that come and go, without a reload. And the blocks of
//! other people's documentation, unchanged.

use std::{collections::BTreeMap, fs, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Node, eventually};

use crate::haproxy::ask;
use crate::haproxy_config::Stats;
use crate::kit::{Cli, READY, Task, answers, dig, mesh, served_by};

/// Servers of a template that are up, with their weights.
fn up(stats: &Stats) -> Result<BTreeMap<SocketAddr, u32>> {
    let servers = stats.rows()?.into_iter().filter(|row| row["status"] == "UP" && row["svname"] != "BACKEND");
    servers.map(|row| Ok((row["addr"].parse()?, row["weight"].parse()?))).collect()
}

/// Waits until HAProxy has exactly these tasks, each at a port and with a weight.
fn comes_to(stats: &Stats, tasks: &[Task<'_>], port: u16, weights: &[u32]) -> Result<()> {
    let weights = weights.iter().copied().chain(std::iter::repeat(1));
    let each = tasks.iter().zip(weights);
    let wanted: BTreeMap<SocketAddr, u32> =
        each.map(|(task, weight)| Ok(((task.address()?, port).into(), weight))).collect::<Result<_>>()?;
    eventually(READY, &format!("HAProxy has {} tasks at port {port}", tasks.len()), || {
        let found = up(stats)?;
        ensure!(found == wanted, "{found:?} instead of {wanted:?}");
        Ok(())
    })
}

/// A server of ports 80 and 9090.
fn at_two_ports<'a>(lab: &Lab, node: &'a Node, options: &str) -> Result<Task<'a>> {
    let (first, second) = (lab.programs().web(80).join(" "), lab.programs().web(9090).join(" "));
    let task = Task::run(node, options, &["sh", "-c", &format!("{first} & exec {second}")])?;
    task.listens("tcp6", 80)?;
    task.listens("tcp6", 9090)?;
    Ok(task)
}

/// From one task to so many and back to two, whose ports and weights then change. `rewrite` is what the user makes of the
/// printed configuration.
fn follows(most: usize, rewrite: impl Fn(&str) -> String) -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app --port-name http=80")?;
        n1.ok("service create --name proxy --network app -p 8000:80")?;
        let mut tasks = vec![at_two_ports(lab, n1, "--service web")?];
        let (file, stats) = Stats::write(n1, "srv", "--way srv --slots 32 web")?;
        fs::write(&file, rewrite(&fs::read_to_string(&file)?))?;
        let proxy = Task::serve(n2, "proxy", &["haproxy", "-db", "-f", &file].map(str::to_owned), "tcp", 80)?;
        comes_to(&stats, &tasks, 80, &[1])?;

        tasks.push(at_two_ports(lab, n2, "--service web --weight 3")?);
        for number in 2..most {
            tasks.push(Task::web(lab, [n1, n2][number % 2], "web")?);
        }
        comes_to(&stats, &tasks, 80, &[1, 3])?;
        // What HAProxy is told without EDNS is not all of it.
        let cut = dig(&proxy, "_http._tcp.web SRV +noedns +ignore")?;
        ensure!(cut.flags.contains(&"tc".to_owned()) && cut.data.len() < most, "{}", cut.text);
        ensure!(dig(&proxy, "_http._tcp.web SRV +tcp")?.data.len() == most);

        while tasks.len() > 2 {
            tasks.pop().context("no task")?.rm()?;
        }
        comes_to(&stats, &tasks, 80, &[1, 3])?;
        served_by(lab.client(), &format!("http://{}:8000/", n1.address()), &[&tasks[0], &tasks[1]])?;
        n1.ok("task update --weight 200 web.1")?;
        comes_to(&stats, &tasks, 80, &[200, 3])?;
        n1.ok("service update --port-name-rm http --port-name-add http=9090 web")?;
        comes_to(&stats, &tasks, 9090, &[200, 3])?;
        answers(&tasks[0], "http://proxy/")?;
        ensure!(Task::find(n2, &proxy.name)?.pid == proxy.pid, "it was started anew");
        Ok(())
    })
}

/// A long answer by EDNS.
#[test]
fn from_one_task_to_thirty() -> Result<()> {
    follows(30, str::to_owned)
}

/// HAProxy asks by TCP, which takes answers of any length.
#[test]
fn by_tcp() -> Result<()> {
    follows(12, |config| {
        config
            .replace("127.0.0.11:53", "tcp@127.0.0.11:53")
            .replace("accepted_payload_size 8192", "accepted_payload_size 65535")
    })
}

/// What an article about Docker shows (`resolvers docker` and `backend whoami`), as it stands there. Its six servers are
/// filled, and empty again.
const DOCKER: &str = "
resolvers docker
    nameserver dns1 127.0.0.11:53
    resolve_retries 3
    timeout resolve 1s
    timeout retry   1s
    hold other      10s
    hold refused    10s
    hold nx         10s
    hold timeout    10s
    hold valid      10s
    hold obsolete   10s

backend whoami
    balance leastconn
    option httpchk
    option redispatch 1
    retry-on all-retryable-errors
    retries 2
    http-request disable-l7-retry if METH_POST
    dynamic-cookie-key MY_SERVICES_HASHED_ADDRESS
    cookie MY_SERVICES_HASHED_ADDRESS insert dynamic
    server-template whoami- 6 whoami:80 check resolvers docker init-addr libc,none
";

/// A web server that answers OPTIONS, as `option httpchk` asks.
fn whoami<'a>(lab: &Lab, node: &'a Node) -> Result<Task<'a>> {
    let dir = lab.dir().join("whoami");
    fs::create_dir_all(&dir)?;
    let file = dir.join("nginx.conf");
    let config = format!(
        "daemon off; pid {0}/pid; error_log stderr; events {{}}
         http {{ access_log off; client_body_temp_path {0}; proxy_temp_path {0}; fastcgi_temp_path {0};
         uwsgi_temp_path {0}; scgi_temp_path {0};
         server {{ listen 80; location / {{ return 200 \"$server_addr from $remote_addr\\n\"; }} }} }}",
        dir.display()
    );
    fs::write(&file, config)?;
    let argv = ["nginx", "-c", &file.to_string_lossy()].map(str::to_owned);
    Task::serve(node, "whoami", &argv, "tcp", 80)
}

/// The blocks of other people's documentation work as they are, with a service that has no VIP.
#[test]
fn the_blocks_for_docker_work_unchanged() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name whoami --network app --endpoint-mode dnsrr")?;
        n1.ok("service create --name proxy --network app -p 8000:8000")?;
        let mut tasks = vec![whoami(lab, n1)?];
        let (file, socket) = (lab.dir().join("docker.cfg"), lab.dir().join("docker.sock"));
        let head = format!(
            "global\n    stats socket {} level admin\ndefaults\n    mode http\n    timeout connect 2s\n    \
             timeout client 10s\n    timeout server 10s\n{DOCKER}\nfrontend in\n    bind :8000\n    \
             default_backend whoami\n",
            socket.display()
        );
        fs::write(&file, head)?;
        let argv = ["haproxy", "-db", "-f", &file.to_string_lossy()].map(str::to_owned);
        let proxy = Task::serve(n2, "proxy", &argv, "tcp", 8000)?;
        let stats = Stats::at(socket);
        comes_to(&stats, &tasks, 80, &[])?;
        for number in 1..6 {
            tasks.push(whoami(lab, [n1, n2][number % 2])?);
        }
        comes_to(&stats, &tasks, 80, &[])?;
        let url = format!("http://{}:8000/", n1.address());
        let said = lab.client().command(["curl", "-sS", "-m", "5", &url]).ok()?;
        let addresses = tasks.iter().map(Task::address).collect::<Result<Vec<_>>>()?;
        ensure!(addresses.iter().any(|address| said.starts_with(&format!("{address} "))), "{said}");
        while tasks.len() > 2 {
            tasks.pop().context("no task")?.rm()?;
        }
        comes_to(&stats, &tasks, 80, &[])?;
        ensure!(Task::find(n2, &proxy.name)?.pid == proxy.pid, "it was started anew");
        eventually(READY, "its socket answers", || ask(stats.socket(), "show info")).map(drop)
    })
}
