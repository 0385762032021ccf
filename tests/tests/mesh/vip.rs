//! The one stable address of a service, inside.

use std::time::Instant;

use anyhow::{Result, ensure};
use mesh_tests::{Load, eventually};
use serde_json::json;

use crate::kit::{
    AT_ONCE, Cli, Place, SOON, Task, answers, answers_udp, comes_to_refuse, curl, dig, mesh, refuses,
    served_by, text, url, vip, vips,
};

/// A name is one address, which leads to all tasks from a task on any node, on every port that they listen on, by
/// TCP and UDP; a port that they do not listen on is refused. The nodes themselves reach it, too.
#[test]
fn a_name_is_one_address_for_every_port_of_all_tasks() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let programs = lab.programs();
        let servers = format!(
            "{} & {} & exec {}",
            programs.web(80).join(" "),
            programs.web(9090).join(" "),
            programs.udp(5353).join(" ")
        );
        let start = |node| -> Result<_> {
            let task = Task::run(node, "--service web", &["sh", "-c", &servers])?;
            task.listens("tcp6", 80)?;
            task.listens("tcp6", 9090)?;
            task.listens("udp6", 5353)?;
            Ok(task)
        };
        let tasks = [start(n1)?, start(n2)?];
        let address = vip(n1, "web")?;
        for node in lab.nodes() {
            let idle = Task::idle(node, "app")?;
            let answer = dig(&idle, "web")?;
            ensure!(answer.ip()? == address, "{address}, but:\n{}", answer.text);
            served_by(&idle, "http://web/", &[&tasks[0], &tasks[1]])?;
            served_by(&idle, "http://web:9090/", &[&tasks[0], &tasks[1]])?;
            answers_udp(&idle, (address, 5353))?;
            refuses(&idle, "http://web:81/")?;
            answers(node, &format!("http://{address}/"))?;
        }
        for task in &tasks {
            served_by(task, "http://web/", &[&tasks[0], &tasks[1]])?;
        }
        Ok(())
    })
}

/// A VIP answers ping exactly while the service has a task; without one, ping and connections fail at once.
#[test]
fn a_vip_answers_ping_while_it_has_a_task() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let idle = [Task::idle(n1, "app")?, Task::idle(n2, "app")?];
        let dead = || {
            for task in &idle {
                let start = Instant::now();
                task.command(["ping", "-c1", "-W5", "web"]).run()?.failed()?;
                ensure!(start.elapsed() < AT_ONCE, "ping took {:?}", start.elapsed());
                refuses(task, "http://web/")?;
            }
            Ok(())
        };
        dead()?;
        let web = Task::web(lab, n1, "web")?;
        for task in &idle {
            answers(task, "http://web/")?;
            let ping = task.command(["ping", "-c2", "-i0.1", "-W1", "web"]).ok()?;
            ensure!(ping.contains("2 received") && ping.contains("ttl=64"), "{ping}");
        }
        web.rm()?;
        eventually(SOON, "the VIP is dead", dead)
    })
}

/// `service inspect --format '{{json .Endpoint…}}'` tells what Docker's tells, in its words and order.
#[test]
fn an_endpoint_is_told_in_dockers_words() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("network create proxy --subnet 10.77.0.0/16")?;
        n1.ok("service create --name web --network app --network proxy --publish 8080:80")?;
        let format = |of: &str| {
            let told = n1.mesh(["service", "inspect", "--format", of, "web"])?.ok()?;
            Ok::<_, anyhow::Error>(told.trim_end().to_owned())
        };
        let ports = r#"[{"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"ingress"}]"#;
        let told = format("{{json .Endpoint.Spec.Ports}}")?;
        ensure!(told == ports, "{told}");
        let told = format("{{json .Endpoint.Ports}}")?;
        ensure!(told == ports, "{told}");

        let endpoint: serde_json::Value = serde_json::from_str(&format("{{json .Endpoint}}")?)?;
        ensure!(endpoint["Spec"]["Mode"] == "vip", "{endpoint}");
        ensure!(endpoint["Spec"]["Ports"] == serde_json::from_str::<serde_json::Value>(ports)?, "{endpoint}");
        let told: serde_json::Value = serde_json::from_str(&format("{{json .Endpoint.VirtualIPs}}")?)?;
        ensure!(told == endpoint["VirtualIPs"], "{told} is not in {endpoint}");
        let vips = vips(n1, "web")?;
        let ids = ["app", "proxy"].map(|name| Ok(text(&n1.inspect("network", name)?["ID"])));
        let [app, proxy]: [Result<String>; 2] = ids;
        let expected = json!([
            {"NetworkID": app?, "Addr": format!("{}/16", vips["app"])},
            {"NetworkID": proxy?, "Addr": format!("{}/16", vips["proxy"])},
        ]);
        ensure!(told == expected, "{told} is not {expected}");
        ensure!(vips["proxy"].octets()[..2] == [10, 77], "{vips:?}");
        Ok(())
    })
}

/// A VIP is the service's for life, however many tasks it has; a task that is removed loses no request.
#[test]
fn a_vip_stays_while_tasks_come_and_go() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let address = vip(n1, "web")?;
        let idle = Task::idle(n2, "app")?;
        let first = Task::web(lab, n1, "web")?;
        served_by(&idle, "http://web/", &[&first])?;
        let second = Task::web(lab, n2, "web")?;
        served_by(&idle, "http://web/", &[&first, &second])?;
        let load = Load::start(&idle.netns_at()?, &[(address, 80).into()], 100)?;
        first.rm()?;
        served_by(&idle, "http://web/", &[&second])?;
        load.stop()?.lossless()?;
        second.rm()?;
        comes_to_refuse(&idle, "http://web/", SOON)?;
        let third = Task::web(lab, n1, "web")?;
        served_by(&idle, "http://web/", &[&third])?;
        ensure!(vip(n2, "web")? == address);
        ensure!(dig(&idle, "web")?.ip()? == address);
        Ok(())
    })
}

/// A client that has had a port towards a VIP, and takes it again to go straight to the same task, is answered from there.
#[test]
fn a_port_that_was_used_for_a_vip_may_be_used_without_it() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let idle = Task::idle(n2, "app")?;
        let (own, vip) = (idle.address()?, vip(n1, "web")?);
        for (node, first) in [(n1, 20_000), (n2, 21_000)] {
            let web = Task::web(lab, node, "web")?;
            served_by(&idle, "http://web/", &[&web])?;
            // Bound to an address its packets are balanced, not its sockets. The client closes first, and waits until the
            // server has: else the port is still known there.
            let script = format!(
                "import socket\n\
                 def talk(port, to):\n\
                 \x20   with socket.socket() as s:\n\
                 \x20       s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
                 \x20       s.settimeout(3)\n\
                 \x20       s.bind(('{own}', port))\n\
                 \x20       s.connect((to, 80))\n\
                 \x20       s.sendall(b'GET / HTTP/1.1\\r\\nHost: web\\r\\n\\r\\n')\n\
                 \x20       assert b'200 OK' in s.recv(4096)\n\
                 \x20       s.shutdown(socket.SHUT_WR)\n\
                 \x20       while s.recv(4096): pass\n\
                 for port in range({first}, {first} + 20):\n\
                 \x20   talk(port, '{vip}')\n\
                 \x20   talk(port, '{}')\n",
                web.address()?
            );
            idle.command(["python3", "-c", &script]).ok()?;
            web.rm()?;
        }
        Ok(())
    })
}

/// A service on two networks has a VIP in each; both serve, and each network's tasks know theirs.
#[test]
fn a_service_on_two_networks_has_two_vips() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create front")?;
        n1.ok("network create back")?;
        n1.ok("service create --name web --network front --network back")?;
        let web = Task::web(lab, n1, "web")?;
        ensure!(web.addresses()?.len() == 2, "{:?}", web.addresses()?);
        let vips = vips(n2, "web")?;
        ensure!(vips.len() == 2, "{vips:?}");
        for (network, vip) in &vips {
            for node in lab.nodes() {
                let idle = Task::idle(node, network)?;
                served_by(&idle, "http://web/", &[&web])?;
                ensure!(dig(&idle, "web")?.ip()? == *vip);
            }
        }
        // A task on both networks reaches both.
        for vip in vips.values() {
            answers(&web, &format!("http://{vip}/"))?;
        }
        Ok(())
    })
}

/// With `--endpoint-mode dnsrr` the name is the addresses of all tasks; there is no VIP, and a port may be published.
#[test]
fn without_a_vip_a_name_is_all_tasks() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app --endpoint-mode dnsrr -p 8080:80")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let addresses = [tasks[0].address()?, tasks[1].address()?].into();
        for node in lab.nodes() {
            let idle = Task::idle(node, "app")?;
            eventually(SOON, "the name is all tasks", || {
                let answer = dig(&idle, "web")?;
                ensure!(answer.set()? == addresses, "{addresses:?}, but:\n{}", answer.text);
                Ok(())
            })?;
            for address in &addresses {
                answers(&idle, &format!("http://{address}/"))?;
            }
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        let endpoint = &n2.inspect("service", "web")?["Endpoint"];
        ensure!(endpoint["Spec"]["Mode"] == "dnsrr", "{endpoint}");
        ensure!(vips(n2, "web")?.is_empty(), "{endpoint}");
        Ok(())
    })
}

/// A service joins and leaves a network in place: its running tasks get an address there, their processes are not
/// touched, and its other network loses nothing.
#[test]
fn a_service_joins_and_leaves_a_network_in_place() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create front")?;
        n1.ok("network create back")?;
        n1.ok("service create --name web --network front")?;
        let web = Task::web(lab, n1, "web")?;
        let own = web.address()?;
        let address = vip(n1, "web")?;
        let front = Task::idle(n2, "front")?;
        let back = Task::idle(n2, "back")?;
        served_by(&front, "http://web/", &[&web])?;

        let load = Load::start(&front.netns_at()?, &[(address, 80).into()], 100)?;
        n2.ok("service update --network-add back web")?;
        served_by(&back, "http://web/", &[&web])?;
        let both = vips(n1, "web")?;
        ensure!(both.len() == 2 && both["front"] == address, "{both:?}");
        ensure!(web.addresses()?.len() == 2 && web.addresses()?.contains(&own));
        let inside = web.command(["ip", "-brief", "-4", "address"]).ok()?;
        for address in web.addresses()? {
            ensure!(inside.contains(&format!(" {address}/32")), "no {address} in:\n{inside}");
        }
        n2.ok("service update --network-rm back web")?;
        comes_to_refuse(&back, &format!("http://{}/", both["back"]), SOON)?;
        eventually(SOON, "the task has left the network", || {
            ensure!(web.address()? == own);
            let inside = web.command(["ip", "-brief", "-4", "address"]).ok()?;
            ensure!(inside.matches("/32").count() == 1, "{inside}");
            Ok(())
        })?;
        served_by(&front, "http://web/", &[&web])?;
        load.stop()?.lossless()?;
        ensure!(vip(n1, "web")? == address);
        ensure!(Task::find(n1, "web.1")?.pid == web.pid);
        Ok(())
    })
}

/// A network with two families: both VIPs and both published addresses serve, and names have both.
#[test]
fn a_network_of_two_families() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create dual --subnet 10.30.0.0/16 --subnet fd00:30::/48")?;
        n1.ok("service create --name web --network dual -p 8080:80 -p 5000:53/udp")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        for node in lab.nodes() {
            let idle = Task::idle(node, "dual")?;
            let answer = dig(&idle, "web AAAA")?;
            ensure!(answer.data.len() == 1 && answer.data[0].starts_with("fd00:30:"), "{}", answer.text);
            served_by(&idle, "http://web/", &[&tasks[0], &tasks[1]])?;
            served_by(&idle, &format!("http://[{}]/", answer.data[0]), &[&tasks[0], &tasks[1]])?;
            idle.command(["ping", "-6", "-c1", "-W2", "web"]).ok()?;
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
            let url6 = format!("http://[{}]:8080/", node.address6());
            served_by(lab.client(), &url6, &[&tasks[0], &tasks[1]])?;
            answers(node, &url6)?;
            answers(&idle, &url6)?;
        }
        for task in tasks {
            task.rm()?;
        }
        for node in [n1, n3] {
            comes_to_refuse(lab.client(), &format!("http://[{}]:8080/", node.address6()), SOON)?;
        }
        Ok(())
    })
}

/// A port that is published for a network without IPv6 does not hang by IPv6: it answers or is refused at once.
#[test]
fn a_port_without_ipv6_does_not_hang() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let web = Task::web(lab, n1, "web")?;
        for node in [n1, n2] {
            served_by(lab.client(), &url(node, 8080), &[&web])?;
            let url6 = format!("http://[{}]:8080/", node.address6());
            for (from, url) in [(lab.client(), &*url6), (node, "http://[::1]:8080/")] {
                refuses(from, url).or_else(|_| curl(from, url).map(drop))?;
            }
            curl(node, "http://localhost:8080/")?;
        }
        Ok(())
    })
}
