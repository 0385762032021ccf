//! Changes that are made at once, by hand, or while something is missing.

use std::{fs, os::unix::fs::PermissionsExt, thread};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Node, Output, eventually, lab_test};

use crate::kit::{
    Cli, READY, SOON, Task, answers, comes_to_refuse, curl, dig, lab, mentions, mesh, one_message, refuses,
    served_by, started, text, url, vip,
};
use crate::lifecycle::network_of;

/// One command per node, all at once.
fn at_once(nodes: &[Node], command: impl Fn(usize) -> String + Sync) -> Result<Vec<Output>> {
    thread::scope(|scope| {
        let all: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(number, node)| {
                let command = command(number);
                scope.spawn(move || node.mesh(command.split_whitespace()))
            })
            .collect();
        all.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?).collect()
    })
}

/// What exists once is given to one: of three nodes that ask for the same name, port or subnet at the same time, one
/// gets it, the others are told who has it; what they choose themselves is different.
#[test]
fn what_exists_once_is_given_to_one() -> Result<()> {
    mesh(3, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        let one_wins = |command: &(dyn Fn(usize) -> String + Sync), part: &str| {
            let outputs = at_once(lab.nodes(), command)?;
            let won = outputs.iter().filter(|output| output.status.success()).count();
            ensure!(won == 1, "{won} of {outputs:?}");
            for output in outputs.iter().filter(|output| !output.status.success()) {
                mentions(&output.stderr, &[part])?;
            }
            Ok::<_, anyhow::Error>(())
        };
        one_wins(&|_| "network create same".into(), "same")?;
        one_wins(&|_| "service create --name web --network app".into(), "web")?;
        one_wins(&|number| format!("service create --name p{number} --network app -p 8080:80"), "8080")?;
        one_wins(&|number| format!("network create s{number} --subnet 10.20.{number}.0/16"), "10.20.")?;

        for round in 0..2 {
            for output in at_once(lab.nodes(), |number| {
                format!("service create --name x{round}{number} --network app")
            })? {
                output.ok()?;
            }
            for output in at_once(lab.nodes(), |number| format!("network create y{round}{number}"))? {
                output.ok()?;
            }
        }
        let mut vips = Vec::new();
        for name in n1.names("service")? {
            vips.push(vip(n1, &name)?);
        }
        let mut subnets = Vec::new();
        for row in n1.rows("network ls")? {
            subnets.push(text(&row["Subnets"]));
        }
        let count = (vips.len(), subnets.len());
        vips.sort();
        vips.dedup();
        subnets.sort();
        subnets.dedup();
        ensure!(count == (vips.len(), subnets.len()), "{count:?}, but {vips:?} and {subnets:?}");
        ensure!(count == (8, 9), "{count:?}");
        // Slots and addresses of tasks, too.
        let outputs = at_once(lab.nodes(), |_| "task run -d --service web -- sleep 1000".into())?;
        let mut names = Vec::new();
        for (node, output) in lab.nodes().iter().zip(outputs) {
            let task = Task::find(node, output.ok()?.trim())?;
            names.push((task.name.clone(), task.address()?));
        }
        names.sort();
        let slots: Vec<_> = names.iter().map(|(name, _)| name.as_str()).collect();
        ensure!(slots == ["web.1", "web.2", "web.3"], "{slots:?}");
        ensure!(names[0].1 != names[1].1 && names[1].1 != names[2].1, "{names:?}");
        Ok(())
    })
}

/// Rules, routes and devices that somebody deletes by hand come back.
#[test]
fn what_is_deleted_by_hand_comes_back() -> Result<()> {
    started(lab()?.nodes(2).config("[dataplane]\nsweep = 1\n"), |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let both = || {
            for node in [n1, n2] {
                served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
                served_by(&tasks[0], "http://web/", &[&tasks[0], &tasks[1]])?;
                served_by(&tasks[1], "http://web/", &[&tasks[0], &tasks[1]])?;
            }
            Ok(())
        };
        both()?;
        for deletion in [
            "nft delete table inet mesh",
            "nft flush table inet mesh",
            "ip route flush table all proto 77",
            "ip link del mesh0",
            "ip link set mesh0 down",
            "sysctl -qw net.ipv4.ip_forward=0",
        ] {
            n1.exec(["sh", "-c", deletion])?.ok()?;
            eventually(READY, &format!("all is back after `{deletion}`"), both)?;
            // What programs balance goes on without the table; the next deletion waits for it all the same.
            eventually(READY, "the table is back", || {
                n1.exec(["sh", "-c", "nft list chain inet mesh guard | grep -q iifname"])?.ok().map(drop)
            })?;
        }
        Ok(())
    })
}

/// Agents may be started in any order: those that come before the one with the store wait for it.
#[test]
fn agents_start_in_any_order() -> Result<()> {
    lab_test(lab()?.nodes(3), |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n3.start_agent()?;
        n2.start_agent()?;
        eventually(READY, "it waits for the store", || mentions(&n3.log_tail(20), &["192.168.77.11:7300"]))?;
        ensure!(n2.agent_runs() && n3.agent_runs());
        n1.start_agent()?;
        for node in lab.nodes() {
            node.wait_ready(READY)?;
        }
        n3.ok("network create app")?;
        n2.ok("service create --name web --network app -p 8080:80")?;
        let web = Task::web(lab, n2, "web")?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&web])?;
        }
        Ok(())
    })
}

/// After a reboot, when nothing is left on a node but its state directory, it is a node of the mesh as before, its
/// former tasks are gone, and their places are free.
#[test]
fn a_node_comes_back_from_a_reboot() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let stays = Task::web(lab, n1, "web")?;
        let dies = Task::web(lab, n2, "web")?;
        served_by(lab.client(), &url(n2, 8080), &[&stays, &dies])?;
        let id = text(&n2.inspect("node", "n2")?["ID"]);

        n2.kill_agent()?;
        n2.cgroup().kill()?;
        let wipe = "nft flush ruleset; ip route flush table all proto 77; \
                    for link in $(ip -o link | cut -d: -f2 | cut -d@ -f1 | grep mesh); do ip link del $link || true; done";
        lab.host("n2")?.exec(["sh", "-c", wipe])?.ok()?;
        // Where the eBPF plane keeps its programs.
        lab.host("n2")?
            .exec(["sh", "-c", &format!("umount {}/bpf || true", n2.run_dir().display())])?
            .ok()?;
        fs::remove_dir_all(n2.run_dir())?;
        fs::create_dir(n2.run_dir())?;
        n2.start_agent()?;
        n2.wait_ready(READY)?;

        ensure!(text(&n2.inspect("node", "n2")?["ID"]) == id);
        for node in [n1, n2] {
            eventually(SOON, "the dead task is gone", || {
                ensure!(node.names("task")? == [&*stays.name], "{:?}", node.names("task")?);
                Ok(())
            })?;
            served_by(lab.client(), &url(node, 8080), &[&stays])?;
        }
        let again = Task::web(lab, n2, "web")?;
        ensure!(again.name == dies.name, "{}", again.name);
        served_by(&again, "http://web/", &[&stays, &again])
    })
}

/// A service that is removed takes its ports, its VIP and its names along, and leaves others alone.
#[test]
fn a_removed_service_is_gone() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        n1.ok("service create --name api --network app -p 8081:80")?;
        let _web = Task::web(lab, n1, "web")?;
        let api = Task::web(lab, n2, "api")?;
        let idle = Task::idle(n2, "app")?;
        let address = vip(n1, "web")?;
        answers(&idle, "http://web/")?;
        n2.ok("service rm web")?;
        for node in [n1, n2] {
            comes_to_refuse(lab.client(), &url(node, 8080), SOON)?;
            served_by(lab.client(), &url(node, 8081), &[&api])?;
            ensure!(node.names("service")? == ["api"], "{:?}", node.names("service")?);
        }
        refuses(&idle, &format!("http://{address}/"))?;
        let answer = dig(&idle, "web")?;
        ensure!(answer.data.is_empty(), "{}", answer.text);
        eventually(SOON, "its tasks are gone", || {
            ensure!(n1.names("task")?.iter().all(|name| !name.starts_with("web.")));
            Ok(())
        })?;
        // The name and the port can be had again.
        n1.ok("service create --name web --network app -p 8080:80")?;
        let web = Task::web(lab, n1, "web")?;
        served_by(lab.client(), &url(n2, 8080), &[&web])
    })
}

/// Who may join: not one with another secret, not one with the name of another node; a secret that everybody can
/// read is refused. The mesh is not disturbed.
#[test]
fn who_may_join() -> Result<()> {
    lab_test(lab()?.nodes(3), |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.start_agent()?;
        n1.wait_ready(READY)?;
        let token = lab.dir().join("other-token");
        fs::write(&token, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")?;
        n2.configure(&format!("[store]\ntoken_file = \"{}\"\n", token.display()))?;
        let config = n2.config_file().to_string_lossy().into_owned();

        fs::set_permissions(&token, fs::Permissions::from_mode(0o644))?;
        let message = n2.mesh(["agent", "--config", &config])?.failed()?;
        mentions(&message, &[&token.to_string_lossy(), "600"])?;

        fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
        n2.start_agent()?;
        eventually(READY, "the secret is refused", || mentions(&n2.log_tail(20), &["token"]))?;
        ensure!(n1.rows("node ls")?.len() == 1);

        n3.configure("[node]\nname = \"n1\"\n")?;
        n3.start_agent()?;
        eventually(READY, "the name is refused", || {
            mentions(&n3.log_tail(20), &["n1"])?;
            mentions(&n3.log_tail(20), &["name"])
        })?;
        let rows = n1.rows("node ls")?;
        ensure!(rows.len() == 1 && text(&rows[0]["Address"]) == "192.168.77.11", "{rows:?}");
        n1.ok("network create app").map(drop)
    })
}

/// `mesh explain` tells what then happens, and `mesh status` that all is well.
#[test]
fn what_is_explained_happens() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("network create other")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let explain = |node: &Node, flow: &str| node.ok(&format!("explain {flow}"));
        let nowhere = explain(n2, "192.168.77.100 192.168.77.12:8080")?;
        mentions(&nowhere, &["web", "refused"])?;
        let web = Task::web(lab, n1, "web")?;
        let idle = Task::idle(n3, "app")?;
        let stranger = Task::idle(n3, "other")?;
        let address = web.address()?.to_string();
        for node in lab.nodes() {
            let flow = format!("192.168.77.100 {}:8080", node.address());
            eventually(SOON, "the way is explained", || {
                mentions(&explain(node, &flow)?, &["web.1", "n1", &address])
            })?;
            curl(lab.client(), &url(node, 8080))?;
        }
        mentions(&explain(n3, &format!("{} web:80", idle.name))?, &["web.1", &address])?;
        answers(&idle, "http://web/")?;
        let vip = vip(n1, "web")?;
        let told = explain(n3, &format!("{} {vip}:80", stranger.name))?;
        ensure!(!told.contains("web.1"), "{told}");
        mentions(&explain(n3, "192.168.77.100 192.168.77.13:9999")?, &["9999"])?;
        for node in lab.nodes() {
            node.ok("status")?;
            let status = node.mesh_json(["status"])?;
            ensure!(status.is_object(), "{status}");
        }
        Ok(())
    })
}

/// A range of ports is published port by port.
#[test]
fn a_range_of_ports_is_published() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 9000-9002:80-82")?;
        let servers: Vec<_> =
            [80, 81, 82].map(|port| lab.programs().web_named(port, &format!("at{port}")).join(" ")).into();
        let task = Task::run(n1, "--service web", &["sh", "-c", &servers.join(" & ")])?;
        for port in [80, 81, 82] {
            task.listens("tcp6", port)?;
        }
        for node in [n1, n2] {
            for (port, name) in [(9000, "at80 "), (9001, "at81 "), (9002, "at82 ")] {
                let answer = answers(lab.client(), &url(node, port))?;
                ensure!(answer.starts_with(name), "{port}: {answer}");
            }
            refuses(lab.client(), &url(node, 9003))?;
        }
        let row = n1.rows("service ls")?.into_iter().next().context("no service")?;
        ensure!(text(&row["Ports"]) == "*:9000-9002->80-82/tcp", "{row}");
        Ok(())
    })
}

/// A paused node keeps the tasks that it has and takes no new ones, until it is active again.
#[test]
fn a_paused_node_takes_no_new_tasks() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let web = Task::web(lab, n2, "web")?;
        n1.ok("node update --availability pause n2")?;
        let output = n2.mesh(["task", "run", "--service", "web", "--", "true"])?;
        mentions(&one_message(output)?, &["n2", "pause"])?;
        ensure!(n1.names("task")? == ["web.1"], "{:?}", n1.names("task")?);
        for node in [n1, n2] {
            served_by(lab.client(), &url(node, 8080), &[&web])?;
        }
        let other = Task::web(lab, n1, "web")?;
        n2.ok("node update --availability active n2")?;
        let third = Task::web(lab, n2, "web")?;
        served_by(lab.client(), &url(n2, 8080), &[&web, &other, &third])
    })
}

/// What is removed leaves nothing behind: after tasks, services and networks are gone, a node is as its agent's start
/// had made it.
#[test]
fn what_is_removed_leaves_nothing() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        let files = || {
            n1.exec([
                "sh",
                "-c",
                // Other labs mount things, too.
                "find $0 | sort; grep -cF \"$0\" /proc/self/mounts || true",
                &n1.run_dir().to_string_lossy(),
            ])?
            .ok()
        };
        let (fresh, fresh_files) = (network_of(n1)?, files()?);
        n1.ok("network create app")?;
        n1.ok("network create back --internal")?;
        n1.ok("service create --name web --network app --network back -p 8080:80")?;
        n1.ok("service create --name rr --network app --endpoint-mode dnsrr")?;
        n1.ok("service rm rr")?;
        let without_tasks = network_of(n1)?;
        ensure!(without_tasks != fresh);
        for _ in 0..2 {
            let here = Task::web(lab, n1, "web")?;
            let there = Task::web(lab, n2, "web")?;
            served_by(lab.client(), &url(n1, 8080), &[&here, &there])?;
            here.rm()?;
            there.rm()?;
            eventually(SOON, "the tasks leave nothing", || {
                let now = network_of(n1)?;
                ensure!(now == without_tasks, "before:\n{without_tasks}\nnow:\n{now}");
                Ok(())
            })?;
        }
        n1.ok("service rm web")?;
        n1.ok("network rm app")?;
        n1.ok("network rm back")?;
        eventually(SOON, "nothing is left", || {
            let now = network_of(n1)?;
            ensure!(now == fresh, "before:\n{fresh}\nnow:\n{now}");
            let now = files()?;
            ensure!(now == fresh_files, "before:\n{fresh_files}\nnow:\n{now}");
            Ok(())
        })
    })
}
