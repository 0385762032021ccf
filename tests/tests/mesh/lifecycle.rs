//! Agents, nodes and wires that come and go.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Load, Node, Output, Process, eventually, lab_test};

use crate::kit::{
    Cli, Place, READY, SOON, Task, answers, curl, dig, everywhere, holds, lab, mentions, mesh, one_message,
    served_by, text, url, vip,
};

/// A service with a task on each of the nodes.
fn web_on<'a>(lab: &'a Lab, nodes: &[&'a Node]) -> Result<Vec<Task<'a>>> {
    nodes[0].ok("network create app")?;
    nodes[0].ok("service create --name web --network app -p 8080:80")?;
    let tasks = nodes.iter().map(|node| Task::web(lab, node, "web"));
    let tasks: Vec<_> = tasks.collect::<Result<_>>()?;
    for node in lab.nodes() {
        served_by(lab.client(), &url(node, 8080), &tasks.iter().collect::<Vec<_>>())?;
    }
    Ok(tasks)
}

/// Everything that a mesh promises about `web`, from every node.
fn is_whole(lab: &Lab, tasks: &[Task<'_>]) -> Result<()> {
    let mut names: Vec<_> = tasks.iter().map(|task| task.name.clone()).collect();
    names.sort_unstable();
    for node in lab.nodes() {
        eventually(SOON, "the tasks are listed", || {
            let listed = node.names("task")?;
            ensure!(listed == names, "{} lists {listed:?}", node.name());
            Ok(())
        })?;
        served_by(lab.client(), &url(node, 8080), &tasks.iter().collect::<Vec<_>>())?;
    }
    for task in tasks {
        eventually(SOON, "names are known", || {
            ensure!(dig(task, "web")?.ip()? == vip(task.node, "web")?);
            let answer = dig(task, "tasks.web")?;
            ensure!(answer.set()?.len() == tasks.len(), "{}", answer.text);
            Ok(())
        })?;
        answers(task, "http://web/")?;
        ensure!(Task::find(task.node, &task.name)?.pid == task.pid);
    }
    Ok(())
}

/// An agent that is killed with -9 and started again, that of the store or another, loses no request, and
/// everything is as it was.
#[test]
fn a_killed_agent_loses_nothing() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        let tasks = web_on(lab, &[n1, n2])?;
        let load = Load::start(lab.client().netns(), &everywhere(lab, 8080), 200)?;
        for node in [n2, n1] {
            node.kill_agent()?;
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
            node.start_agent()?;
            node.wait_ready(READY)?;
            is_whole(lab, &tasks)?;
        }
        load.stop()?.lossless()
    })
}

/// So does one that is asked to end; it ends well.
#[test]
fn a_stopped_agent_loses_nothing() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        let tasks = web_on(lab, &[n1, n2])?;
        let load = Load::start(lab.client().netns(), &everywhere(lab, 8080), 200)?;
        for node in [n2, n1] {
            let status = node.stop_agent()?;
            ensure!(status.success(), "{status}");
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
            node.start_agent()?;
            node.wait_ready(READY)?;
            is_whole(lab, &tasks)?;
        }
        load.stop()?.lossless()
    })
}

/// While the agent is away a task ends and another begins to; its next life knows.
#[test]
fn an_agent_learns_what_happened_while_it_was_away() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        let tasks = web_on(lab, &[n1, n2])?;
        n1.ok("service create --name api --network app")?;
        let api = Task::web(lab, n1, "api")?;
        n2.kill_agent()?;
        // Not waiting for the node that is away.
        n1.ok("service update -d --publish-add 9090:80 api")?;
        n1.ok("service update -d --publish-rm 80 --publish-add 8081:80 web")?;
        tasks[1].command(["kill", "-9", &tasks[1].pid.to_string()]).ok()?;
        n2.start_agent()?;
        n2.wait_ready(READY)?;
        for node in [n1, n2] {
            eventually(SOON, "the dead task is gone", || {
                let listed = node.names("task")?;
                ensure!(listed == ["api.1", "web.1"], "{listed:?}");
                Ok(())
            })?;
            served_by(lab.client(), &url(node, 9090), &[&api])?;
            served_by(lab.client(), &url(node, 8081), &[&tasks[0]])?;
            crate::kit::comes_to_refuse(lab.client(), &url(node, 8080), SOON)?;
        }
        Ok(())
    })
}

/// While the agent with the store is down, traffic and names go on everywhere else; a change is refused with a clear
/// message; all works again when it is back.
#[test]
fn without_the_store_all_goes_on_but_changes() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        let tasks = web_on(lab, &[n2, n3])?;
        let address = vip(n2, "web")?;
        let load = Load::start(lab.client().netns(), &everywhere(lab, 8080), 100)?;
        n1.kill_agent()?;
        for node in [n2, n3] {
            for command in [
                "network create late",
                "service create --name late --network app",
                "service update --publish-add 8081:80 web",
                "service rm web",
            ] {
                let message = node.refused(command)?;
                mentions(&message, &["store"])?;
            }
            let output = node.mesh(["task", "run", "--service", "web", "--", "true"])?;
            mentions(&one_message(output)?, &["store"])?;
            // What is known can be looked at.
            ensure!(node.names("service")? == ["web"]);
        }
        for task in &tasks {
            ensure!(dig(task, "web")?.ip()? == address);
            ensure!(dig(task, "tasks.web")?.set()?.len() == 2);
            served_by(task, "http://web/", &[&tasks[0], &tasks[1]])?;
        }
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        load.stop()?.lossless()?;
        n1.start_agent()?;
        n1.wait_ready(READY)?;
        eventually(READY, "changes are taken again", || n3.ok("service update --publish-add 8081:80 web"))?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8081), &[&tasks[0], &tasks[1]])?;
            ensure!(node.names("network")? == ["app"], "{:?}", node.names("network")?);
        }
        is_whole(lab, &tasks)
    })
}

/// A node is drained and comes back under load without losing a request; drained, it gets no new connections.
#[test]
fn a_node_is_drained_without_loss() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        let tasks = web_on(lab, &[n1, n2])?;
        let availability = || {
            let rows = n1.rows("node ls")?;
            let row = rows.iter().find(|row| text(&row["Hostname"]) == "n2");
            Ok::<_, anyhow::Error>(text(&row.context("no n2")?["Availability"]))
        };
        ensure!(availability()? == "Active", "{}", availability()?);
        let load = Load::start(lab.client().netns(), &everywhere(lab, 8080), 200)?;
        n1.ok("node update --availability drain n2")?;
        ensure!(availability()? == "Drain", "{}", availability()?);
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0]])?;
        }
        n1.ok("node update --availability active n2")?;
        ensure!(availability()? == "Active", "{}", availability()?);
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        load.stop()?.lossless()
    })
}

/// All of a host's network: links, rules, routes, nftables.
pub(crate) fn network_of(node: &Node) -> Result<String> {
    // Without what the kernel itself adds for IPv6 once forwarding is on, which stays on.
    let all = "ip -o link | cut -d: -f2 | sort; ip rule; ip -6 rule; ip -4 route show table all; \
               ip -6 route show table all | grep -v ^anycast; nft list ruleset";
    node.exec(["sh", "-ec", all])?.ok()
}

/// `mesh agent` with more flags, run to its end.
fn agent(node: &Node, flags: &[&str]) -> Result<Output> {
    let config = node.config_file().to_string_lossy().into_owned();
    let mut argv = vec!["agent", "--config", &config];
    argv.extend(flags);
    node.mesh(argv)
}

/// `mesh agent --cleanup` is refused while the agent runs. After its end it removes all that agents made, also in
/// namespaces that were taken in, and nothing else, however alike it looks.
#[test]
fn cleanup_removes_what_is_ours_and_nothing_else() -> Result<()> {
    lab_test(lab()?.nodes(2), |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ip("link add foreign0 type veth peer name foreign1\n\
               link add mesh0123456789a type veth peer name mesh0123456789b\n\
               link set foreign0 up\n\
               address add 203.0.113.1/24 dev foreign0\n\
               route add 203.0.113.128/25 via 192.168.77.1 proto static\n\
               route add local 203.0.113.77 dev lo proto 99\n")?;
        n1.command(["nft", "-f", "-"])
            .stdin("table inet meshed { chain c { tcp dport 7777 drop; }; }; table ip mesh { }")
            .ok()?;
        let before = network_of(n1)?;
        lab.start_agents(READY)?;
        let tasks = web_on(lab, &[n1, n2])?;
        n1.ok("network create back")?;
        n1.ok("service update --network-add back web")?;
        ensure!(network_of(n1)? != before);

        let message = agent(n1, &["--cleanup"])?.failed()?;
        mentions(&message, &[&n1.agent_id()?.to_string()])?;
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;

        n1.stop_agent()?;
        agent(n1, &["--cleanup"])?.ok()?;
        let after = network_of(n1)?;
        ensure!(after == before, "before:\n{before}\nafter:\n{after}");
        let left =
            tasks[0].command(["sh", "-c", "ip -brief link | grep -v '^lo '; nft list tables"]).run()?.stdout;
        ensure!(left.trim().is_empty(), "left in the task: {left}");

        // Cleaning what is clean is no error, and the records are still there.
        agent(n1, &["--cleanup"])?.ok()?;
        n1.start_agent()?;
        n1.wait_ready(READY)?;
        ensure!(n1.names("service")? == ["web"]);
        n1.stop_agent()?;
        agent(n1, &["--cleanup", "--purge"])?.ok()?;
        n1.start_agent()?;
        n1.wait_ready(READY)?;
        ensure!(n1.names("service")?.is_empty(), "{:?}", n1.names("service")?);
        Ok(())
    })
}

/// A second agent on a node is refused and told the first one's process; the first one is not disturbed.
#[test]
fn a_second_agent_is_refused() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        let tasks = web_on(lab, &[n1])?;
        let message = agent(n1, &[])?.failed()?;
        mentions(&message, &[&n1.agent_id()?.to_string()])?;
        ensure!(n1.agent_runs());
        is_whole(lab, &tasks)
    })
}

/// The largest file below a directory.
fn largest(dir: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            } else {
                found.push((entry.metadata()?.len(), entry.path()));
            }
        }
    }
    found.sort();
    Ok(found.pop().context("no file")?.1)
}

/// A store file that is damaged is named and left as it is; the agent does not start on an empty store instead, and
/// traffic goes on.
#[test]
fn a_damaged_store_is_not_touched() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        let tasks = web_on(lab, &[n1])?;
        n1.stop_agent()?;
        let store = largest(&n1.state_dir())?;
        let whole = fs::read(&store)?;
        let mut other_bytes = whole.clone();
        other_bytes[..4096].fill(0xa5);
        let half = whole[..whole.len() / 2].to_vec();
        for damaged in [other_bytes, half, Vec::from("not a store")] {
            fs::write(&store, &damaged)?;
            let output = agent(n1, &[])?;
            ensure!(output.code() == Some(1), "{output:?}");
            mentions(&(output.stderr + &output.stdout), &[&store.to_string_lossy()])?;
            ensure!(fs::read(&store)? == damaged, "the file was changed");
            curl(lab.client(), &url(n1, 8080))?;
        }
        fs::write(&store, &whole)?;
        n1.start_agent()?;
        n1.wait_ready(READY)?;
        is_whole(lab, &tasks)
    })
}

/// A node that is cut off for five seconds goes on serving what it has; then everything is whole again.
#[test]
fn a_cut_wire_heals() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        let mut tasks = web_on(lab, &[n1, n2, n3])?;
        n1.ok("service create --name near --network app -p 9001:80")?;
        n1.ok("service create --name far --network app -p 9003:80")?;
        let near = Task::web(lab, n1, "near")?;
        let far = Task::web(lab, n3, "far")?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 9001), &[&near])?;
            served_by(lab.client(), &url(node, 9003), &[&far])?;
        }
        lab.unplug("n3")?;
        holds(Duration::from_secs(5), || {
            curl(lab.client(), &url(n2, 9001))?;
            curl(n3, "http://127.0.0.1:9003/")?;
            curl(&far, "http://far/").map(drop)
        })?;
        // What changes meanwhile on both sides is known to both in the end.
        n1.ok("service update -d --publish-add 9005:80 near")?;
        let dies = tasks.pop().context("no task")?;
        dies.command(["kill", "-9", &dies.pid.to_string()]).ok()?;
        lab.plug("n3")?;
        let all: Vec<_> = tasks.into_iter().chain([near, far]).collect();
        eventually(READY, "all nodes are back", || {
            for node in lab.nodes() {
                ensure!(node.names("task")?.len() == 4, "{:?}", node.names("task")?);
                let rows = node.rows("node ls")?;
                ensure!(rows.iter().all(|row| text(&row["Status"]) == "Ready"), "{rows:?}");
            }
            Ok(())
        })?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&all[0], &all[1]])?;
            served_by(lab.client(), &url(node, 9005), &[&all[2]])?;
            served_by(lab.client(), &url(node, 9003), &[&all[3]])?;
        }
        for task in &all {
            ensure!(dig(task, "tasks.web")?.set()?.len() == 2);
            ensure!(dig(task, "far")?.ip()? == vip(n1, "far")?);
        }
        // And changes reach it.
        n1.ok("service update --publish-add 9004:80 near")?;
        served_by(lab.client(), &url(n3, 9004), &[&all[2]])
    })
}

/// A connection that is open lives on through the death and the return of the agents of its way.
#[test]
fn an_open_connection_outlives_agents() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        let _tasks = web_on(lab, &[n2])?;
        let from = Instant::now();
        let slow: Process = lab
            .client()
            .spawn_daemon("slow", ["curl", "-sS", "--max-time", "9", &(url(n1, 8080) + "slow?3")])?;
        let mut slow = slow;
        for node in [n1, n2] {
            node.kill_agent()?;
            node.start_agent()?;
        }
        for node in [n1, n2] {
            node.wait_ready(READY)?;
        }
        let status = slow.wait(READY)?;
        ensure!(status.success(), "{status} after {:?}: {}", from.elapsed(), slow.log_tail(5));
        ensure!(slow.log_tail(1).starts_with("web.1 from "), "{}", slow.log_tail(5));
        // The names of the tasks' own netns too.
        ensure!(_tasks[0].netns_at().is_ok());
        Ok(())
    })
}
