//! Ports published on nodes.

use std::{net::SocketAddr, time::Instant};

use anyhow::{Result, ensure};
use mesh_tests::{Load, eventually};

use crate::kit::{
    AT_ONCE, Cli, SOON, Task, answers, answers_udp, ask, comes_to_refuse, curl, everywhere, mesh, refuses,
    served_by, spread, url,
};

/// A published port answers on every node, also on one without a task, from wherever it is asked: from another
/// machine, from a node by localhost and by any node's address, from a task on any node. All tasks take part.
#[test]
fn a_published_port_answers_on_every_node_from_everywhere() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("network create other")?;
        n1.ok("service create --name web --network app --publish 8080:80")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let tasks: Vec<_> = tasks.iter().collect();
        let idle = [
            Task::idle(n1, "app")?,
            Task::idle(n3, "app")?,
            Task::idle(n1, "other")?,
            Task::idle(n3, "other")?,
        ];
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &tasks)?;
            served_by(node, "http://127.0.0.1:8080/", &tasks)?;
            curl(node, "http://localhost:8080/")?;
            for other in lab.nodes() {
                answers(node, &url(other, 8080))?;
            }
            for task in tasks.iter().copied().chain(&idle) {
                answers(task, &url(node, 8080))?;
            }
        }
        // A node's port is at its addresses, and not in the loopback of a task.
        refuses(&idle[0], "http://127.0.0.1:8080/")
    })
}

/// A task reaches itself by its own node's published port, by another node's, and by its own service's name, also
/// when it is the only one.
#[test]
fn the_only_task_reaches_itself() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let web = Task::web(lab, n1, "web")?;
        for url in [&url(n1, 8080), &url(n2, 8080), "http://web/"] {
            let answer = answers(&web, url)?;
            ensure!(answer.starts_with("web.1 from "), "{answer}");
        }
        Ok(())
    })
}

/// New connections are spread over all tasks about evenly, at every node.
#[test]
fn connections_are_spread_over_all_tasks() -> Result<()> {
    mesh(3, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [
            Task::web(lab, n1, "web")?,
            Task::web(lab, lab.node("n2")?, "web")?,
            Task::web(lab, lab.node("n2")?, "web")?,
        ];
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &tasks.iter().collect::<Vec<_>>())?;
            let spread = spread(lab.client(), &url(node, 8080), 120)?;
            // 40 expected; five standard deviations of a random choice below it.
            ensure!(spread.values().all(|&share| share >= 14), "{}: {spread:?}", node.name());
        }
        Ok(())
    })
}

/// UDP is published as TCP is, and the same number may be one service's by TCP and another's by UDP.
#[test]
fn udp_is_published_and_shares_a_number_with_tcp() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name clock --network app -p 5000:123/udp")?;
        n1.ok("service create --name web --network app -p 5000:80")?;
        let clock = Task::udp(lab, n1, "clock", 123)?;
        let web = Task::web(lab, n2, "web")?;
        let idle = Task::idle(n3, "app")?;
        for node in lab.nodes() {
            let port = (node.address(), 5000);
            let answer = answers_udp(lab.client(), port)?;
            ensure!(answer.starts_with("clock.1 from "), "{answer}");
            let answer = answers(lab.client(), &url(node, 5000))?;
            ensure!(answer.starts_with("web.1 from "), "{answer}");
            for task in [&clock, &web, &idle] {
                answers_udp(task, port)?;
            }
            answers_udp(node, port)?;
            answers_udp(node, ([127, 0, 0, 1], 5000))?;
        }
        Ok(())
    })
}

/// A port that is published no more is refused on every node within a second. Other ports, of the same service and
/// of others, lose nothing by it, nor by a port that is added.
#[test]
fn ports_come_and_go_and_leave_others_alone() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8081:81")?;
        n1.ok("service create --name api --network app -p 8082:80")?;
        let servers = [80, 81].map(|port| lab.programs().web(port).join(" "));
        let servers = ["sh", "-c", &servers.join(" & exec ")].map(str::to_owned);
        let tasks =
            [Task::serve(n1, "web", &servers, "tcp6", 81)?, Task::serve(n2, "web", &servers, "tcp6", 81)?];
        for task in &tasks {
            task.listens("tcp6", 80)?;
        }
        let _api = Task::web(lab, n3, "api")?;
        let mut targets = everywhere(lab, 8081);
        targets.extend(everywhere(lab, 8082));
        for target in everywhere(lab, 8080).iter().chain(&targets) {
            answers(lab.client(), &format!("http://{target}/"))?;
        }

        let load = Load::start(lab.client().netns(), &targets, 200)?;
        n2.ok("service update --publish-rm 8080:80 web")?;
        for node in lab.nodes() {
            comes_to_refuse(lab.client(), &url(node, 8080), AT_ONCE)?;
            comes_to_refuse(node, "http://127.0.0.1:8080/", AT_ONCE)?;
        }
        n3.ok("service update --publish-add 9090:80 web")?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 9090), &[&tasks[0], &tasks[1]])?;
        }
        // Its task is the same process as before.
        for task in &tasks {
            ensure!(Task::find(task.node, &task.name)?.pid == task.pid);
        }
        load.stop()?.lossless()
    })
}

/// Publishing what is published already changes nothing; a service created twice does not.
#[test]
fn publishing_twice_is_publishing_once() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let _web = Task::web(lab, n1, "web")?;
        let before = n1.inspect("service", "web")?["Endpoint"].clone();
        n1.ok("service update --publish-add 8080:80 web")?;
        n1.ok("service update --publish-add published=8080,target=80,protocol=tcp,mode=ingress web")?;
        let after = n1.inspect("service", "web")?["Endpoint"].clone();
        ensure!(before == after, "{before} became {after}");
        answers(lab.client(), &url(n1, 8080))?;
        n1.ok("service update --publish-rm 80 web")?;
        comes_to_refuse(lab.client(), &url(n1, 8080), AT_ONCE)
    })
}

/// Where nothing serves, a connection is refused at once and never hangs: before there is a task, and after the
/// last one is gone. UDP gets an ICMP error.
#[test]
fn without_a_task_a_port_is_refused_at_once() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8080:53/udp")?;
        let all_refuse = || {
            for node in lab.nodes() {
                refuses(lab.client(), &url(node, 8080))?;
                refuses(node, "http://127.0.0.1:8080/")?;
                let start = Instant::now();
                let silence = ask(lab.client(), (node.address(), 8080));
                ensure!(
                    silence.as_ref().is_err_and(|error| format!("{error:#}").contains("refused")),
                    "{silence:?}"
                );
                ensure!(start.elapsed() < AT_ONCE);
            }
            Ok(())
        };
        all_refuse()?;
        let web = Task::web(lab, n2, "web")?;
        for node in lab.nodes() {
            answers(lab.client(), &url(node, 8080))?;
        }
        web.rm()?;
        eventually(SOON, "the port is refused on all nodes", all_refuse)
    })
}

/// `mode=host` opens the port only where a task is, and leads only to that node's own.
#[test]
fn host_mode_opens_a_port_where_a_task_is() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app --publish published=8080,target=80,mode=host")?;
        let first = Task::web(lab, n1, "web")?;
        let second = Task::web(lab, n2, "web")?;
        for (node, task) in [(n1, &first), (n2, &second)] {
            served_by(lab.client(), &url(node, 8080), &[task])?;
            served_by(node, "http://127.0.0.1:8080/", &[task])?;
        }
        refuses(lab.client(), &url(n3, 8080))?;
        refuses(n3, "http://127.0.0.1:8080/")?;
        second.rm()?;
        comes_to_refuse(lab.client(), &url(n2, 8080), SOON)?;
        served_by(lab.client(), &url(n1, 8080), &[&first])
    })
}

/// `allow=CIDR` lets these addresses in and refuses others at once.
#[test]
fn allow_refuses_others() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app \
               --publish published=8080,target=80,allow=192.168.77.100/32 \
               --publish published=8081,target=80,allow=198.51.100.0/24 \
               --publish published=8082,target=80")?;
        let _web = Task::web(lab, n2, "web")?;
        for node in lab.nodes() {
            answers(lab.client(), &url(node, 8080))?;
            answers(lab.outside(), &url(node, 8081))?;
            answers(lab.outside(), &url(node, 8082))?;
            refuses(lab.outside(), &url(node, 8080))?;
            refuses(lab.client(), &url(node, 8081))?;
        }
        refuses(n2, &url(n1, 8080))
    })
}

/// `host_ip` opens a port at that address of a node only.
#[test]
fn host_ip_opens_a_port_at_one_address() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ip("address add 192.168.77.111/24 dev eth0\n")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app \
               --publish published=8080,target=80,host_ip=192.168.77.111 \
               --publish published=8081,target=80,host_ip=127.0.0.1")?;
        let _web = Task::web(lab, n2, "web")?;
        answers(lab.client(), "http://192.168.77.111:8080/")?;
        refuses(lab.client(), &url(n1, 8080))?;
        refuses(n1, "http://127.0.0.1:8080/")?;
        refuses(lab.client(), &url(n2, 8080))?;
        for node in lab.nodes() {
            answers(node, "http://127.0.0.1:8081/")?;
            refuses(lab.client(), &url(node, 8081))?;
        }
        Ok(())
    })
}

/// `nodes` opens a port on these nodes only; another service may have the same port on others.
#[test]
fn one_port_is_two_services_on_two_nodes() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name blue --network app --publish published=8080,target=80,nodes=n1")?;
        n1.ok("service create --name green --network app --publish published=8080,target=80,nodes=n2")?;
        let blue = Task::web(lab, n3, "blue")?;
        let green = Task::web(lab, n3, "green")?;
        served_by(lab.client(), &url(n1, 8080), &[&blue])?;
        served_by(lab.client(), &url(n2, 8080), &[&green])?;
        refuses(lab.client(), &url(n3, 8080))
    })
}

/// A published port takes nothing from other ports of a node: what listens there by itself goes on, and a free
/// port is refused by the node's own kernel.
#[test]
fn other_ports_of_a_node_are_its_own() -> Result<()> {
    mesh(2, |lab| {
        let n1 = lab.node("n1")?;
        let _own = n1.spawn_daemon("own", lab.programs().web_named(9000, "own"))?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:9000")?;
        let web = Task::serve(n1, "web", &lab.programs().web(9000), "tcp6", 9000)?;
        served_by(lab.client(), &url(n1, 8080), &[&web])?;
        let answer = answers(lab.client(), &url(n1, 9000))?;
        ensure!(answer == "own from 192.168.77.100", "{answer}");
        refuses(lab.client(), &url(n1, 9001))?;
        let six: SocketAddr = (n1.address6(), 9000).into();
        answers(lab.client(), &format!("http://{six}/")).map(drop)
    })
}
