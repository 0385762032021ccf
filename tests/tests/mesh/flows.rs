//! Connections that last longer than what is around them.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Load, Node, Process, eventually};

use crate::kit::{
    Cli, Place, SOON, Talk, Task, answers, answers_udp, everywhere, listens, mesh, served_by, url, vip,
};

/// Waits until a task's port 80 has that many connections.
fn connections(task: &Task<'_>, count: usize) -> Result<()> {
    let file = format!("/proc/{}/net/tcp6", task.pid);
    eventually(SOON, &format!("{} has {count} connections", task.name), || {
        let sockets = fs::read_to_string(&file)?;
        // Established is 01.
        let open = sockets.lines().filter(|line| line.contains(":0050 ") && line.contains(" 01 "));
        ensure!(open.count() == count, "{sockets}");
        Ok(())
    })
}

/// A task that is removed finishes the requests that it has, and gets no new ones.
#[test]
fn a_removed_task_finishes_its_requests() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let leaves = Task::web(lab, n1, "web")?;
        let idle = Task::idle(n2, "app")?;
        for node in [n1, n2] {
            served_by(lab.client(), &url(node, 8080), &[&leaves])?;
        }
        let slow = |name: &str, from: &dyn Fn(&[&str]) -> Result<Process>, url: &str| {
            let slow = format!("{url}slow?2");
            let said = lab.dir().join(name);
            let argv = ["curl", "-sS", "--max-time", "9", "-o", &said.to_string_lossy(), &slow];
            from(&argv).map(|process| (process, said))
        };
        let by_client = |argv: &[&str]| lab.client().spawn_daemon("slow", argv);
        let by_task = |argv: &[&str]| {
            let pid = idle.pid.to_string();
            let enter = ["nsenter", "-t", &pid, "-n", "-m", "--"];
            n2.spawn_daemon("slow", enter.iter().chain(argv))
        };
        let mut requests = [
            slow("far", &by_client, &url(n2, 8080))?,
            slow("near", &by_client, &url(n1, 8080))?,
            slow("inside", &by_task, "http://web/")?,
        ];
        // They are with the task: it has three connections.
        connections(&leaves, 3)?;
        let stays = Task::web(lab, n2, "web")?;
        served_by(&idle, "http://web/", &[&leaves, &stays])?;
        leaves.rm()?;
        for (process, said) in &mut requests {
            let status = process.wait(SOON)?;
            ensure!(status.success(), "{}: {status}: {}", said.display(), process.log_tail(3));
            let said = fs::read_to_string(said)?;
            ensure!(said.starts_with(&format!("{} from ", leaves.name)), "{said}");
        }
        served_by(&idle, "http://web/", &[&stays])
    })
}

/// A server that finishes what it has begun when it is told to end is given the time, and keeps its network meanwhile.
#[test]
fn a_task_is_given_time_to_end() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let server = lab.programs().web(80).join(" ");
        let script = format!("{server} & trap \"sleep 2; kill $!; exit 0\" TERM; while :; do wait; done");
        let task = Task::run(n1, "--service web", &["sh", "-c", &script])?;
        task.listens("tcp6", 80)?;
        served_by(lab.client(), &url(n2, 8080), &[&task])?;
        let slow = url(n2, 8080) + "slow?1.5";
        let mut request = lab.client().spawn_daemon("slow", ["curl", "-sS", "--max-time", "9", &slow])?;
        connections(&task, 1)?;
        let start = Instant::now();
        task.rm()?;
        let took = start.elapsed();
        let status = request.wait(SOON)?;
        ensure!(status.success(), "{status} after {took:?}: {}", request.log_tail(3));
        ensure!(took > Duration::from_secs(1), "it took only {took:?}");
        ensure!(n2.names("task")?.is_empty(), "{:?}", n2.names("task")?);
        Ok(())
    })
}

/// A connection that is open is left alone by whatever else changes: ports, services, other tasks of the same service,
/// its networks.
#[test]
fn an_open_connection_is_left_alone_by_changes() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("network create back")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let first = Task::web(lab, n1, "web")?;
        let idle = Task::idle(n2, "app")?;
        let address = vip(n1, "web")?;
        for node in [n1, n2] {
            served_by(lab.client(), &url(node, 8080), &[&first])?;
        }
        answers(&idle, "http://web/")?;
        let mut talks = [
            ("client to n1", Talk::open(lab.client(), (n1.address(), 8080))?),
            ("client to n2", Talk::open(lab.client(), (n2.address(), 8080))?),
            ("task to VIP", Talk::open(&idle, (address, 80))?),
            ("task to task", Talk::open(&idle, (first.address()?, 80))?),
            ("node to localhost", Talk::open(n2, ([127, 0, 0, 1], 8080))?),
            ("node to VIP", Talk::open(n2, (address, 80))?),
        ];
        let mut go_on = |after: &str| {
            for (name, talk) in &mut talks {
                let answer = talk.ask().with_context(|| format!("{name} after {after}"))?;
                ensure!(answer.starts_with("web.1 from "), "{name} after {after}: {answer}");
            }
            Ok(())
        };
        go_on("nothing")?;
        for change in [
            "service create --name api --network app -p 9090:80",
            "service update --publish-add 8081:80 web",
            "service update --network-add back web",
            "service update --network-rm back web",
            "service rm api",
            "node update --detach --availability drain n1",
            "node update --availability active n1",
        ] {
            n2.ok(change)?;
            go_on(change)?;
        }
        let second = Task::web(lab, n2, "web")?;
        served_by(&idle, "http://web/", &[&first, &second])?;
        go_on("another task")?;
        second.rm()?;
        go_on("its end")
    })
}

/// A UDP client that always uses the same port gets to another task when its own is gone.
#[test]
fn a_udp_client_moves_to_another_task() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name clock --network app -p 5000:123/udp")?;
        let mut tasks = vec![Task::udp(lab, n1, "clock", 123)?, Task::udp(lab, n2, "clock", 123)?];
        let idle = Task::idle(n3, "app")?;
        let inside = (vip(n1, "clock")?, 123).into();
        answers_udp(lab.client(), (n3.address(), 5000))?;
        answers_udp(&idle, inside)?;
        let open = |from: &dyn Place, to: SocketAddr| -> Result<UdpSocket> {
            let socket = from.netns_at()?.run(|| UdpSocket::bind("0.0.0.0:0"))??;
            socket.connect(to)?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok(socket)
        };
        let sockets = [open(lab.client(), (n3.address(), 5000).into())?, open(&idle, inside)?];
        let ask = |socket: &UdpSocket| -> Result<String> {
            socket.send(b"hi")?;
            let mut buffer = [0; 99];
            let read = socket.recv(&mut buffer)?;
            let answer = String::from_utf8_lossy(&buffer[..read]).into_owned();
            Ok(answer.split(" from ").next().unwrap_or_default().to_owned())
        };
        // Each way of ending, until one of both sockets had to move by it.
        for ending in ["task rm", "kill"] {
            let who = eventually(SOON, "it answers", || ask(&sockets[0]))?;
            let leaves = tasks.swap_remove(usize::from(tasks[0].name != who));
            if ending == "kill" {
                leaves.command(["kill", "-9", &leaves.pid.to_string()]).ok()?;
            } else {
                leaves.rm()?;
            }
            for socket in &sockets {
                let start = Instant::now();
                eventually(Duration::from_secs(2), &format!("another task answers after {ending}"), || {
                    let who = ask(socket)?;
                    ensure!(who == tasks[0].name, "it is still {who} after {:?}", start.elapsed());
                    Ok(())
                })?;
            }
            tasks.push(Task::udp(lab, leaves.node, "clock", 123)?);
        }
        Ok(())
    })
}

/// A namespace with a web server that is ready before it is taken in.
fn ready_namespace(lab: &Lab, node: &Node, name: &str) -> Result<(String, Process)> {
    let path = lab.dir().join(name).to_string_lossy().into_owned();
    fs::write(&path, "")?;
    node.exec(["unshare", &format!("--net={path}"), "true"])?.ok()?;
    let mut server: Vec<String> = ["nsenter", &format!("--net={path}"), "--"].map(Into::into).into();
    server.extend(lab.programs().web_named(80, name));
    let server = node.spawn_daemon(name, server)?;
    listens(server.id(), "tcp6", 80)?;
    Ok((path, server))
}

/// Under load, tasks that are ready come and go, as in a deployment: nothing is lost, at any node or inside.
#[test]
fn tasks_come_and_go_without_loss() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let old = Task::web(lab, n1, "web")?;
        let idle = Task::idle(n3, "app")?;
        let (blue, _blue) = ready_namespace(lab, n1, "blue")?;
        let (green, _green) = ready_namespace(lab, n2, "green")?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&old])?;
        }
        served_by(&idle, "http://web/", &[&old])?;
        let load = [
            Load::start(lab.client().netns(), &everywhere(lab, 8080), 150)?,
            Load::start(&idle.netns_at()?, &[(vip(n1, "web")?, 80).into()], 50)?,
        ];
        for _ in 0..2 {
            for (node, path, name) in [(n1, &blue, "blue"), (n2, &green, "green")] {
                n3.names("task")?;
                node.ok(&format!("task add --service web --netns {path}"))?;
                eventually(SOON, "it takes part", || {
                    let seen = crate::kit::spread(&idle, "http://web/", 20)?;
                    ensure!(seen.contains_key(name), "{seen:?}");
                    Ok(())
                })?;
                node.ok("task rm web.2")?;
            }
        }
        for load in load {
            load.stop()?.lossless()?;
        }
        Ok(())
    })
}
