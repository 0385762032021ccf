//! A mesh whose managers keep the records themselves: `mesh cluster …`, with a real etcd on each.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Load, Node, eventually, lab_test};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::kit::{Cli, READY, SOON, Talk, Task, holds, lab, mentions, one_message, served_by, text, url};

/// How long it may take until a node is a manager: etcd wants to see its members well for a while before each.
const PROMOTED: Duration = Duration::from_secs(60);

/// How long it may take until a change is refused that no majority takes.
const REFUSED: Duration = Duration::from_secs(20);

/// A node that has its records to itself.
pub(crate) const APART: &str =
    "[store]\nmode = \"local\"\nlisten = \"\"\ngateway = \"\"\ntoken_file = \"\"\n";

/// Runs a test on nodes of which each is a mesh of its own at first.
fn apart(nodes: usize, test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    apart_with(nodes, "", test)
}

/// The same with more configuration.
fn apart_with(nodes: usize, more: &str, test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    lab_test(lab()?.nodes(nodes).config(APART).config(more), |lab| {
        lab.start_agents(READY)?;
        test(lab)
    })
}

/// Runs a test in a cluster of that many nodes, of which the first ones are managers.
fn clustered(nodes: usize, managers: usize, test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    clustered_with(nodes, managers, "", test)
}

/// The same with more configuration.
pub(crate) fn clustered_with(
    nodes: usize,
    managers: usize,
    more: &str,
    test: impl FnOnce(&Lab) -> Result<()>,
) -> Result<()> {
    apart_with(nodes, more, |lab| {
        let first = &lab.nodes()[0];
        patiently(first, "cluster init")?;
        for (place, node) in lab.nodes().iter().enumerate().skip(1) {
            // The last manager comes as one, the others are promoted.
            let role = if place > 1 && place + 1 == managers { "manager" } else { "worker" };
            let token = first.ok(&format!("cluster token {role} --quiet"))?;
            patiently(node, &format!("cluster join {}", token.trim()))?;
        }
        for node in lab.nodes().iter().take(managers.min(2)).skip(1) {
            patiently(first, &format!("cluster promote {}", node.name()))?;
        }
        for node in lab.nodes() {
            knows(node, nodes)?;
            is(
                node,
                if lab.nodes().iter().position(|n| n.name() == node.name()) < Some(managers) {
                    "managed"
                } else {
                    "gateway"
                },
            )?;
        }
        test(lab)
    })
}

/// A command after which an agent starts anew.
pub(crate) fn patiently(node: &Node, command: &str) -> Result<String> {
    node.mesh_command(command.split_whitespace()).timeout(PROMOTED).run()?.ok()
}

fn token(node: &Node) -> Result<String> {
    Ok(node.ok("cluster token worker --quiet")?.trim().to_owned())
}

fn knows(node: &Node, nodes: usize) -> Result<()> {
    eventually(READY, "every node knows all nodes", || {
        let known = node.rows("node ls")?.len();
        ensure!(known == nodes, "{} knows {known} nodes", node.name());
        Ok(())
    })
}

/// A node has its records by an engine, and is well.
pub(crate) fn is(node: &Node, engine: &str) -> Result<()> {
    eventually(READY, "the node is what it is to be", || {
        let output = node.mesh(["status", "--format", "json"])?;
        let status: Value = serde_json::from_str(&output.stdout)?;
        let store = &status["Store"];
        ensure!(store["Engine"] == engine && store["Connected"] == true, "{}: {store}", node.name());
        Ok(())
    })
}

/// The process of a node's member of etcd.
pub(crate) fn etcd(node: &Node) -> Result<Pid> {
    let file = node.state_dir().join("etcd/lock");
    let text = std::fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
    Ok(Pid::from_raw(text.trim().parse().with_context(|| format!("no process in {}", file.display()))?))
}

fn cluster(node: &Node) -> Result<Value> {
    node.mesh_json(["cluster", "status"])
}

/// The node whose member leads.
pub(crate) fn leader<'a>(lab: &'a Lab, asked: &Node) -> Result<&'a Node> {
    let mut name = String::new();
    eventually(READY, "there is a leader", || {
        name = cluster(asked)?["Leader"].as_str().unwrap_or_default().to_owned();
        ensure!(!name.is_empty(), "none");
        Ok(())
    })?;
    lab.node(&name)
}

/// A mesh of one node becomes a cluster: services, tasks, connections stay; and so it does when its agent is killed, and
/// when it leaves etcd alone.
#[test]
fn a_mesh_moves_into_a_cluster_without_a_loss() -> Result<()> {
    apart(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n1, "web")?];
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        let before = n1.inspect("service", "web")?;
        let mut talk = Talk::open(lab.client(), (n1.address(), 8080))?;
        let first = talk.ask()?;
        let load = Load::start(lab.client().netns(), &[(n1.address(), 8080).into()], 100)?;
        let told = UnixDatagram::bind(n1.notify_socket())?;
        told.set_nonblocking(true)?;

        let said = patiently(n1, "cluster init")?;
        mentions(&said, &["is now a manager", "mesh cluster join MESHTKN-1-", "@192.168.77.11:7300"])?;
        is(n1, "managed")?;
        // Systemd takes who says that it stops at its word, and ends it a little later.
        let (mut words, mut said) = ([0; 64], String::new());
        while let Ok(length) = told.recv(&mut words) {
            said += &String::from_utf8_lossy(&words[..length]);
        }
        ensure!(said.contains("READY=1\n") && !said.contains("STOPPING"), "{said}");
        ensure!(talk.ask()? == first, "the connection goes on");
        ensure!(n1.inspect("service", "web")?["Endpoint"] == before["Endpoint"], "the VIP stays");
        ensure!(n1.rows("task ls")?.len() == 2, "the tasks stay");
        n1.ok("service create --name other --network app")?;

        // The member outlives the agent, and is taken up by the next one.
        let process = etcd(n1)?;
        n1.kill_agent()?;
        ensure!(kill(process, None).is_ok(), "etcd runs on without the agent");
        n1.start_agent()?;
        n1.wait_ready(READY)?;
        is(n1, "managed")?;
        ensure!(etcd(n1)? == process, "it is the same etcd");
        // One that dies is started again.
        kill(process, Signal::SIGKILL)?;
        eventually(READY, "etcd is back", || {
            ensure!(etcd(n1)? != process, "not yet");
            n1.ok("network create again").map(drop)
        })?;
        ensure!(talk.ask()? == first, "the connection goes on");
        load.stop()?.lossless()
    })
}

/// Three managers and a worker: what is made on one is served on all; the leader's death stops changes for a moment and
/// traffic for none.
#[test]
fn three_managers_bear_the_loss_of_one() -> Result<()> {
    clustered(4, 3, |lab| {
        let [n1, n4] = [lab.node("n1")?, lab.node("n4")?];
        let text = n1.ok("cluster status")?;
        mentions(
            &text,
            &["HOSTNAME", "ROLE", "MANAGER STATUS", "Leader", "Reachable", "worker", "3 of 3 reachable"],
        )?;
        mentions(&n4.refused("network create app")?, &["manager"])?;
        lab.node("n2")?.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n4, "web")?];
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        let ports: Vec<_> = lab.nodes().iter().map(|node| (node.address(), 8080).into()).collect();
        let load = Load::start(lab.client().netns(), &ports, 100)?;
        let leader = leader(lab, n1)?;
        let process = etcd(leader)?;
        kill(process, Signal::SIGKILL)?;
        let died = Instant::now();
        // The others choose another; whoever asks waits for that.
        for (place, node) in lab.nodes().iter().take(3).enumerate() {
            node.ok(&format!("network create after{place}"))?;
            println!(
                "a change on {} came through {:?} after the leader's death",
                node.name(),
                died.elapsed()
            );
        }
        eventually(READY, "all three are back", || {
            let seen = cluster(n1)?;
            ensure!(seen["Reachable"] == 3 && seen["Voters"] == 3, "{seen}");
            Ok(())
        })?;
        load.stop()?.lossless()
    })
}

/// What makes no sense gets one message, and changes nothing.
#[test]
fn wrong_usage_is_told() -> Result<()> {
    apart(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        let tell = |node: &Node, command: &str, words: &[&str]| mentions(&node.refused(command)?, words);
        tell(n1, "cluster status", &["not part of a cluster", "mesh cluster init"])?;
        tell(n1, "cluster token worker", &["not a cluster manager"])?;
        tell(n1, "cluster promote n1", &["not a cluster manager"])?;
        tell(n1, "cluster leave", &["not part of a cluster"])?;
        tell(n1, "cluster recover --yes", &["not a cluster manager"])?;
        tell(n1, "cluster join nonsense", &["token"])?;
        tell(n1, "cluster join MESHTKN-1-abc@192.168.77.12:7300", &["token"])?;
        patiently(n1, "cluster init")?;
        let token = token(n1)?;
        tell(n1, "cluster init", &["already part of a cluster"])?;
        tell(n1, "cluster leave", &["participating as a manager", "last manager", "--force"])?;
        tell(n1, "cluster demote n1", &["last manager"])?;
        tell(n1, "cluster promote n1", &["already a manager"])?;
        tell(n1, "cluster promote nobody", &["node nobody not found"])?;
        tell(n1, "cluster recover", &["--yes"])?;
        tell(n1, "cluster recover --yes", &["nothing to recover from"])?;
        n1.ok("cluster token worker --rotate --quiet")?;
        tell(
            n2,
            &format!("cluster join {token}"),
            &["the join token is not known here", "mesh cluster token"],
        )?;
        let token = self::token(n1)?;
        tell(
            n2,
            &format!("cluster join {}", token.replace("192.168.77.11", "192.168.77.13")),
            &["192.168.77.13"],
        )?;
        n2.ok("network create mine")?;
        tell(n2, &format!("cluster join {token}"), &["records of its own", "1 networks"])?;
        n2.ok("network rm mine")?;
        tell(n2, "cluster join -", &["no token in standard input"])?;
        n2.mesh_command(["cluster", "join", "-"]).stdin(format!("{token}\n")).ok()?;
        tell(n2, "cluster promote n2", &["not a cluster manager"])?;
        knows(n1, 2)?;
        patiently(n2, "cluster leave")?;
        is(n2, "local")?;
        knows(n2, 1)?;
        // As with Docker, a manager removes what a node has left. Again, and at once: it has hardly begun to follow
        // its managers.
        for _ in 0..3 {
            n1.ok("node rm --force n2")?;
            patiently(n2, &format!("cluster join {token}"))?;
            patiently(n2, "cluster leave")?;
            is(n2, "local")?;
        }
        n1.ok("node rm --force n2")?;
        knows(n1, 1)?;
        let file = lab.dir().join("token");
        std::fs::write(&file, self::token(n1)?)?;
        patiently(n2, &format!("cluster join --token-file {}", file.display()))?;
        knows(n1, 2)
    })
}

/// Managers go as they came; one that is lost for good, with the majority, is done without.
#[test]
fn managers_go_and_the_last_one_goes_on_alone() -> Result<()> {
    clustered(3, 3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let task = Task::web(lab, n1, "web")?;
        served_by(lab.client(), &url(n1, 8080), &[&task])?;
        patiently(n1, "cluster demote n3")?;
        is(n3, "gateway")?;
        mentions(&n1.ok("cluster status")?, &["two managers"])?;
        eventually(READY, "nothing is left of its member", || {
            ensure!(!n3.state_dir().join("etcd").exists(), "its directory is there");
            Ok(())
        })?;
        n2.ok("network create still")?;

        let load = Load::start(lab.client().netns(), &[(n1.address(), 8080).into()], 100)?;
        // n2 is lost, and its etcd with it.
        n2.kill_agent()?;
        for process in [supervisor(n2)?, etcd(n2)?] {
            kill(process, Signal::SIGKILL)?;
        }
        eventually(READY, "the loss is told", || {
            mentions(&n1.ok("cluster status")?, &["mesh cluster recover"])
        })?;
        let refused = n1.mesh_command(["network", "create", "lost"]).timeout(REFUSED).run()?;
        one_message(refused)?;
        let recovered = patiently(n1, "cluster recover --yes");
        if recovered.is_err() {
            println!("{}", std::fs::read_to_string(n1.state_dir().join("etcd/etcd.log"))?);
        }
        recovered?;
        is(n1, "managed")?;
        // Whoever is lost counts as there until its lease ends.
        patiently(n1, "network create found")?;
        is(n3, "gateway")?;
        eventually(SOON, "the worker follows", || {
            let known = n3.names("network")?;
            ensure!(known == ["app", "found", "still"], "{known:?}");
            Ok(())
        })?;
        served_by(lab.client(), &url(n3, 8080), &[&task])?;
        load.stop()?.lossless()
    })
}

/// The process that watches over a node's etcd.
fn supervisor(node: &Node) -> Result<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", etcd(node)?))?;
    let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
    Ok(Pid::from_raw(parent.context("no parent")?.parse()?))
}

/// A backup is taken over by a node that has nothing, and by those that knew more than it. Other nodes are those that join
/// again; one that was removed since the backup was made does not come back with it.
#[test]
fn a_backup_is_restored() -> Result<()> {
    clustered(3, 1, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n2, "web")?, Task::web(lab, n3, "web")?];
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        let file = lab.dir().join("backup");
        n1.ok(&format!("cluster backup {}", file.display()))?;
        mentions(&n1.refused(&format!("cluster backup {}", file.display()))?, &["cannot make the file"])?;
        for later in 0..30 {
            n1.ok(&format!("network create later{later} --subnet 10.{}.0.0/16", 100 + later))?;
        }
        n1.ok("node rm --force n3")?;
        let broken = lab.dir().join("broken");
        std::fs::write(&broken, &std::fs::read(&file)?[..200])?;

        patiently(n1, "cluster leave --force")?;
        is(n1, "local")?;
        ensure!(n1.names("service")?.is_empty(), "nothing is left");
        mentions(&n1.refused(&format!("cluster restore {}", broken.display()))?, &["cannot be used"])?;
        patiently(n1, &format!("cluster restore {}", file.display()))?;
        is(n1, "managed")?;
        ensure!(n1.names("service")? == ["web"] && n1.names("network")? == ["app"], "as it was then");
        // Certificates are those of the former cluster. Who was removed has still got its own, and tries.
        ensure!(n3.state_dir().join("pki/node.pem").exists(), "n3 has no certificate");
        n3.start_agent()?;
        eventually(SOON, "nothing is left of nodes that have not joined again", || {
            knows(n1, 1)?;
            ensure!(n1.rows("task ls")?.is_empty(), "there are tasks of theirs");
            Ok(())
        })?;
        let stays_out = |node: &Node| -> Result<()> {
            let output = node.mesh(["status", "--format", "json"])?;
            let status: Value = serde_json::from_str(&output.stdout).context(output.stderr)?;
            ensure!(status["Store"]["Connected"] == false, "{} is let in: {}", node.name(), status["Store"]);
            Ok(())
        };
        eventually(READY, "the removed node's agent runs", || stays_out(n3))?;
        holds(Duration::from_secs(3), || {
            knows(n1, 1)?;
            [n2, n3].into_iter().try_for_each(stays_out)
        })?;
        let token = token(n1)?;
        patiently(n2, "cluster leave --force")?;
        is(n2, "local")?;
        n2.ok(&format!("cluster join {token}"))?;
        knows(n2, 2)?;
        holds(Duration::from_secs(1), || {
            ensure!(n2.names("network")? == ["app"], "{:?}", n2.names("network")?);
            Ok(())
        })
    })
}

/// A database that is full is told at once, by whoever changes something and by the status.
#[test]
fn a_full_database_is_told() -> Result<()> {
    clustered(1, 1, |lab| {
        let n1 = lab.node("n1")?;
        let (file, process) = (n1.state_dir().join("etcd/member.json"), etcd(n1)?);
        let mut spec: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
        spec["quota"] = 16384.into();
        std::fs::write(&file, spec.to_string())?;
        eventually(READY, "etcd runs with the other quota", || {
            ensure!(etcd(n1)? != process, "not yet");
            Ok(())
        })?;
        eventually(READY, "a change is refused with the reason", || {
            let refused = n1.mesh_command(["network", "create", "more"]).timeout(REFUSED).run()?;
            mentions(&one_message(refused)?, &["database is full", "NOSPACE"])
        })?;
        eventually(SOON, "the status tells", || {
            mentions(&n1.mesh(["status"])?.stdout, &["NOT HEALTHY", "NOSPACE"])?;
            mentions(&n1.ok("cluster status")?, &["ALARMS:     NOSPACE"])
        })
    })
}

/// A node that leaves says so before it goes, and no connection that is made from then on goes there.
#[test]
fn a_node_that_leaves_takes_no_connection_with_it() -> Result<()> {
    clustered(3, 1, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n2, "web")?, Task::web(lab, n3, "web")?];
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        let load = Load::start(lab.client().netns(), &[(n1.address(), 8080).into()], 200)?;
        std::thread::sleep(Duration::from_secs(1));
        patiently(n3, "cluster leave --force")?;
        eventually(READY, "the others know that it left", || {
            let said = n1.inspect("node", "n3")?;
            mentions(&text(&said["Status"]["State"]), &["down"])?;
            mentions(&text(&said["Status"]["Message"]), &["has left"])
        })?;
        std::thread::sleep(Duration::from_secs(1));
        let report = load.stop()?;
        println!("{} connections, {} failed", report.ok, report.failed.len());
        report.lossless()?;
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0]])
    })
}

/// The only node of a cluster keeps its records itself again: services, tasks and connections stay, and it can begin another
/// cluster. As long as it is not the only one nothing is changed.
#[test]
fn the_records_come_back_from_a_cluster_without_a_loss() -> Result<()> {
    clustered(2, 1, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n1, "web")?];
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        let back = |node: &Node| {
            let config = node.config_file().display().to_string();
            node.mesh_command(["store", "migrate", "--back", "--config", &config]).timeout(PROMOTED).run()
        };
        let refused = |node: &Node, words: &[&str]| mentions(&one_message(back(node)?)?, words);
        refused(n1, &["stop the agent first"])?;
        n1.stop_agent()?;
        refused(n1, &["1 other nodes", "n2: run 'mesh cluster leave' there"])?;
        n2.stop_agent()?;
        refused(n2, &["is a worker", "mesh cluster leave"])?;
        n1.start_agent()?;
        is(n1, "managed")?;
        n1.ok("node rm --force n2")?;
        knows(n1, 1)?;

        let before = n1.inspect("service", "web")?;
        let mut talk = Talk::open(lab.client(), (n1.address(), 8080))?;
        let first = talk.ask()?;
        let load = Load::start(lab.client().netns(), &[(n1.address(), 8080).into()], 100)?;
        n1.stop_agent()?;
        mentions(&back(n1)?.ok()?, &["records are here"])?;
        refused(n1, &["keeps its records itself already"])?;
        ensure!(!n1.state_dir().join("etcd").exists(), "nothing is left of its member of etcd");
        n1.start_agent()?;
        is(n1, "local")?;
        ensure!(talk.ask()? == first, "the connection goes on");
        ensure!(n1.inspect("service", "web")?["Endpoint"] == before["Endpoint"], "the VIP stays");
        ensure!(n1.rows("task ls")?.len() == 2, "the tasks stay");
        mentions(&n1.refused("cluster status")?, &["not part of a cluster"])?;
        n1.ok("service update --label-add changed=yes web")?;
        n1.restart_agent(READY)?;
        is(n1, "local")?;
        patiently(n1, "cluster init")?;
        is(n1, "managed")?;
        ensure!(n1.names("service")? == ["web"] && talk.ask()? == first, "all is as it was");
        load.stop()?.lossless()
    })
}
