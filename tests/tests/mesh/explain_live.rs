//! What `mesh explain` says of a node's kernel: where a flow would go, and where those that there are went.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Node, eventually};
use serde_json::Value;

use crate::kit::{
    Cli, DUAL, Place, SOON, Talk, Task, both, mentions, mesh, on_ebpf, served_by, status, text, url, vip,
};

/// How `mesh status` on nftables says that it sees nothing of this.
const UNSEEN: &[&str] = &["flows are not seen", "no live flows in `mesh explain`"];

/// What a node says of its kernel.
fn kernel(node: &Node, client: &str, destination: &str) -> Result<Value> {
    let explained = node.mesh_json(["explain", client, destination])?;
    explained.get("Kernel").cloned().with_context(|| format!("nothing of the kernel in {explained:#}"))
}

/// Who answers a client that uses this port of its own.
fn answer_from(place: &impl Place, port: u16, url: &str) -> Result<String> {
    let port = port.to_string();
    let said = place.command_at(&["curl", "-sS", "--max-time", "3", "--local-port", &port, url]).ok()?;
    Ok(said.split(" from ").next().unwrap_or_default().to_owned())
}

/// `web` with a task on each of two nodes, in the balance of both.
fn two<'a>(lab: &'a Lab, options: &str) -> Result<[Task<'a>; 2]> {
    let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
    n1.ok(DUAL)?;
    n1.ok(&format!("service create --name web --network app -p 8080:80 {options}"))?;
    let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
    for node in [n1, n2] {
        served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
    }
    Ok(tasks)
}

/// The task that is foretold for a client's port is the one that answers there.
#[test]
fn a_new_flow_goes_where_it_is_foretold() -> Result<()> {
    mesh(2, |lab| {
        let tasks = two(lab, "")?;
        let n1 = lab.node("n1")?;
        if !on_ebpf(lab, UNSEEN)? {
            let explained = n1.mesh_json(["explain", "198.51.100.1", &format!("{}:8080", n1.address())])?;
            ensure!(explained.get("Kernel").is_none(), "{explained:#}");
            return Ok(());
        }
        let (client, to) = (lab.client().address(), format!("{}:8080", n1.address()));
        let mut seen = Vec::new();
        for port in 21_000..21_008 {
            let foretold = kernel(n1, &format!("{client}:{port}"), &to)?;
            ensure!(
                foretold["Slot"].is_u64() && foretold["Flows"] == Value::Array(Vec::new()),
                "{foretold:#}"
            );
            let who = answer_from(lab.client(), port, &url(n1, 8080))?;
            ensure!(foretold["Task"] == who.as_str(), "{who} answers: {foretold:#}");
            seen.push(who);
        }
        seen.sort_unstable();
        seen.dedup();
        ensure!(seen.len() == 2, "all to {seen:?}");
        // From a task by a VIP, as well.
        let [vip, _] = both(&tasks[0], "web")?;
        let foretold = kernel(n1, &format!("{}:22000", tasks[0].name), &format!("{vip}:80"))?;
        let own = text(&n1.inspect("task", &tasks[0].name)?["NetworksAttachments"][0]["Addresses"][0]);
        let own = own.split('/').next().unwrap_or_default().to_owned();
        let curl = ["curl", "-sS", "--interface", &own, "--local-port", "22000", &format!("http://{vip}/")];
        let said = tasks[0].command(curl).ok()?;
        let who = said.split(" from ").next().unwrap_or_default();
        ensure!(foretold["Task"] == who, "{who} answers: {foretold:#}");
        mentions(&text(&foretold["Verdict"]), &["bound to no address", "slot"])?;
        // Without the port it cannot be known, and that is said.
        let unknown = kernel(n1, &client.to_string(), &to)?;
        ensure!(unknown.get("Slot").is_none() && unknown["Task"] == "", "{unknown:#}");
        mentions(&text(&unknown["Verdict"]), &["CLIENT:PORT"])
    })
}

/// A silent flow of a service that wishes so is forgotten after its time, beside one of a service that wishes nothing.
#[test]
fn a_flow_is_forgotten_after_its_services_idle_timeout() -> Result<()> {
    mesh(2, |lab| {
        let _tasks = two(lab, "--idle-timeout 10s")?;
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("service create --name other --network app -p 8081:80")?;
        let other = Task::web(lab, n2, "other")?;
        served_by(lab.client(), &url(n1, 8081), &[&other])?;
        if !on_ebpf(lab, UNSEEN)? {
            return Ok(());
        }
        let [mut short, mut long] = [
            Talk::open(lab.client(), (n1.address(), 8080))?,
            Talk::open(lab.client(), (n1.address(), 8081))?,
        ];
        short.ask()?;
        long.ask()?;
        let flows = |talk: &Talk, port: u16| -> Result<usize> {
            let found = kernel(n1, &talk.own()?.to_string(), &format!("{}:{port}", n1.address()))?;
            Ok(found["Flows"].as_array().map_or(0, Vec::len))
        };
        ensure!(flows(&short, 8080)? == 1 && flows(&long, 8081)? == 1, "they are there");
        thread::sleep(Duration::from_secs(6));
        ensure!(flows(&short, 8080)? == 1, "its time is not over");
        eventually(Duration::from_secs(10), "it is forgotten", || {
            ensure!(flows(&short, 8080)? == 0, "it is there");
            Ok(())
        })?;
        ensure!(flows(&long, 8081)? == 1, "the other is forgotten, too");
        Ok(())
    })
}

/// A flow that is there is shown at the node that balances it, and at that of its task.
#[test]
fn a_live_flow_is_found_at_both_its_nodes() -> Result<()> {
    mesh(2, |lab| {
        let tasks = two(lab, "")?;
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        if !on_ebpf(lab, UNSEEN)? {
            return Ok(());
        }
        let to = format!("{}:8080", n1.address());
        let mut talks = Vec::new();
        for _ in 0..6 {
            let mut talk = Talk::open(lab.client(), (n1.address(), 8080))?;
            let answer = talk.ask()?;
            let who = answer.split(" from ").next().unwrap_or_default().to_owned();
            let own = talk.own()?;
            let found = kernel(n1, &own.to_string(), &to)?;
            let flow = &found["Flows"][0];
            ensure!(flow["Task"] == who.as_str() && flow["ClientPort"] == own.port(), "{who}: {found:#}");
            ensure!(flow["State"] == "established" && flow["IdleSeconds"].as_u64() < Some(4), "{found:#}");
            ensure!(flow["Translated"] == (who == tasks[0].name), "{found:#}");
            ensure!(flow["Node"] == if who == tasks[0].name { "n1" } else { "n2" }, "{found:#}");
            if who == tasks[1].name {
                let arrived = kernel(n2, &own.to_string(), &to)?;
                mentions(&text(&arrived["Verdict"]), &["begins at node n1"])?;
                let flow = &arrived["Flows"][0];
                ensure!(flow["Task"] == who.as_str() && flow["Entered"] == "n1", "{arrived:#}");
            }
            talks.push(talk);
        }
        // All of a client's, and for people.
        let client = lab.client().address().to_string();
        let all = kernel(n1, &client, &to)?;
        let flows = all["Flows"].as_array().map_or(0, Vec::len);
        ensure!(flows >= talks.len(), "{all:#}");
        let said = n1.ok(&format!("explain {} {to}", talks[0].own()?))?;
        mentions(&said, &["In the kernel: slot ", "PORT", "established"])
    })
}

/// Connects, says from which port, and leaves the connection to a process that stays for a while.
const HOLD: &str = "
import os, socket, sys, time
s = socket.create_connection((sys.argv[1], 80), 3)
print(s.getsockname()[1], flush=True)
if os.fork() == 0:
    [os.close(fd) for fd in (0, 1, 2)]
    time.sleep(30)
";

/// A connection that was led to its task as it was made is shown too, with its port and its task: one of a task's and
/// one of the node's own.
#[test]
fn a_connection_that_was_led_at_its_socket_is_found() -> Result<()> {
    mesh(2, |lab| {
        let tasks = two(lab, "")?;
        let n2 = lab.node("n2")?;
        if !on_ebpf(lab, UNSEEN)? {
            return Ok(());
        }
        let idle = Task::idle(n2, "app")?;
        let [vip, _] = both(&idle, "web")?;
        let to = format!("{vip}:80");
        served_by(&idle, &format!("http://{vip}/"), &[&tasks[0], &tasks[1]])?;
        let clients: [(String, &dyn Place); 2] = [(idle.name.clone(), &idle), (n2.address().to_string(), n2)];
        for (client, place) in clients {
            let port = place.command_at(&["python3", "-c", HOLD, &vip.to_string()]).ok()?.trim().to_owned();
            let found = kernel(n2, &format!("{client}:{port}"), &to)?;
            let flow = &found["Flows"][0];
            ensure!(
                port.parse().ok() == flow["ClientPort"].as_u64() && flow["AtSocket"] == true,
                "{found:#}"
            );
            ensure!(flow["State"] == "established" && text(&flow["Task"]).starts_with("web."), "{found:#}");
            mentions(&n2.ok(&format!("explain {client} {to}"))?, &["led at its socket"])?;
        }
        Ok(())
    })
}

/// One whose answers go straight to the client is shown at the node of its task.
#[test]
fn a_flow_that_is_answered_straight_is_found_at_its_task() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app --return-path dsr -p 8080:80")?;
        let web = Task::web(lab, n2, "web")?;
        if !on_ebpf(lab, UNSEEN)? {
            return Ok(());
        }
        served_by(lab.client(), &url(n1, 8080), &[&web])?;
        let to = format!("{}:8080", n1.address());
        let mut talk = Talk::open(lab.client(), (n1.address(), 8080))?;
        talk.ask()?;
        let own = talk.own()?;
        for (node, entered) in [(n1, Value::Null), (n2, Value::from("n1"))] {
            let found = kernel(node, &own.to_string(), &to)?;
            let flow = &found["Flows"][0];
            ensure!(flow["Task"] == web.name.as_str() && flow["Direct"] == true, "{found:#}");
            ensure!(flow["Entered"] == entered && flow["ClientPort"] == own.port(), "{found:#}");
        }
        Ok(())
    })
}

/// What would be refused is foretold, with the reason that is counted.
#[test]
fn a_refusal_is_foretold() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("network create other")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        if !on_ebpf(lab, UNSEEN)? {
            return Ok(());
        }
        let client = lab.client().address();
        let found = kernel(n1, &format!("{client}:4000"), &format!("{}:8080", n1.address()))?;
        ensure!(found["Events"][0] == "no_backend", "{found:#}");
        mentions(&text(&found["Verdict"]), &["refuses it: no_backend"])?;
        let found = kernel(n1, &format!("{client}:4000"), &format!("{}:8081", n1.address()))?;
        mentions(&text(&found["Verdict"]), &["meets no frontend"])?;
        let idle = Task::idle(n1, "other")?;
        let vip = vip(n1, "web")?;
        let found = kernel(n1, &format!("{}:4000", idle.name), &format!("{vip}:80"))?;
        mentions(&text(&found["Verdict"]), &["refused: prohibited"])
    })
}

/// A client that stays with its task is foretold without its port, before its first flow and after.
#[test]
fn a_client_that_stays_is_foretold_without_its_port() -> Result<()> {
    mesh(2, |lab| {
        let n1 = lab.node("n1")?;
        if !on_ebpf(lab, UNSEEN)? {
            return Ok(());
        }
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80 --affinity client-ip=10m")?;
        let _tasks = [Task::web(lab, n1, "web")?, Task::web(lab, lab.node("n2")?, "web")?];
        let (client, to) = (lab.client().address().to_string(), format!("{}:8080", n1.address()));
        let before = eventually(SOON, "both are in the balance", || {
            let services = n1.rows("service ls")?;
            ensure!(text(&services[0]["Replicas"]) == "2/2", "{services:?}");
            status(n1)?;
            kernel(n1, &client, &to)
        })?;
        ensure!(before["Slot"].is_u64(), "{before:#}");
        let who = answer_from(lab.client(), 23_000, &url(n1, 8080))?;
        ensure!(before["Task"] == who.as_str(), "{who}: {before:#}");
        let after = kernel(n1, &client, &to)?;
        ensure!(after["Task"] == who.as_str(), "{who}: {after:#}");
        mentions(&text(&after["Verdict"]), &["is remembered"])
    })
}

/// What a task can ask for by a name, whoever that leads to; a node; and what became of a node that is not heard.
#[test]
fn what_has_a_name_is_explained_and_who_is_not_heard_gets_nothing() -> Result<()> {
    mesh(2, |lab| {
        let tasks = two(lab, "")?;
        let n1 = lab.node("n1")?;
        let from = |client: &str, to: &str| n1.mesh_json(["explain", client, to]);
        for (name, begin) in [
            ("web", "balanced by node n1 over 2 tasks of web"),
            ("web.app", "balanced by node n1 over 2 tasks of web"),
            ("tasks.web", "goes straight to task "),
            (&*tasks[1].name, "goes straight to task "),
        ] {
            let told = from(&tasks[0].name, &format!("{name}:80"))?;
            ensure!(text(&told["Verdict"]).starts_with(begin), "{name}: {told:#}");
        }
        let told = from("198.51.100.1", "n2:8080")?;
        ensure!(text(&told["Verdict"]) == "balanced by node n2 over 2 tasks of web", "{told:#}");
        lab.unplug("n2")?;
        eventually(SOON, "n2 gets nothing", || {
            let told = from("198.51.100.1", "n1:8080")?;
            let excluded = told["Excluded"].to_string();
            ensure!(told["Backends"].as_array().is_some_and(|all| all.len() == 1), "{told:#}");
            ensure!(excluded.contains("its node n2 does not answer this one"), "{told:#}");
            Ok(())
        })
    })
}
