//! What is counted, and where it is seen.

use anyhow::{Context, Result, ensure};
use mesh_tests::{Node, eventually};
use serde_json::Value;

use crate::kit::{
    Cli, DUAL, Datagrams, SOON, Talk, Task, mentions, mesh, on_ebpf, refuses, served_by, spread, status, url,
};

/// How `mesh status` on nftables says that it sees nothing of this.
const UNSEEN: &[&str] = &["flows are not seen", "counters"];

/// What the API of a node answers.
fn get(node: &Node, path: &str) -> Result<Value> {
    let socket = node.socket().display().to_string();
    let said = node.command(["curl", "-sS", "--unix-socket", &socket, &format!("http://mesh{path}")]).ok()?;
    serde_json::from_str(&said).with_context(|| format!("{path} answers {said}"))
}

fn number(value: &Value, path: &str) -> Result<u64> {
    value.pointer(path).and_then(Value::as_u64).with_context(|| format!("no {path} in {value:#}"))
}

/// Flows, packets and bytes are counted by the node that balances them: for each task, each service, and in all.
#[test]
fn flows_are_counted_where_they_are_balanced() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        n1.ok("service create --name web --network app -p 8080:80 -p 8080:80/udp")?;
        n1.ok("service create --name other --network app")?;
        if !on_ebpf(lab, UNSEEN)? {
            let said = get(n1, "/v1/counters")?;
            return mentions(&said.to_string(), &["nft data plane", "no counters", "ebpf"]);
        }
        let tasks = [Task::both(lab, n1, "web")?, Task::both(lab, n2, "web")?];
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        let before = get(n1, "/v1/counters")?;
        let answers = spread(lab.client(), &url(n1, 8080), 20)?;
        let datagrams = Datagrams::open(lab.client(), (n1.address(), 8080))?;
        datagrams.ask("one")?;
        datagrams.ask("two")?;
        let after = get(n1, "/v1/counters")?;
        let grew = |path: &str| -> Result<u64> { Ok(number(&after, path)? - number(&before, path)?) };
        ensure!(grew("/Events/new_flow")? == 21, "{before:#} {after:#}");
        let services = after["Services"].as_array().context("no services")?;
        let names: Vec<_> = services.iter().map(|service| service["Name"].as_str()).collect();
        ensure!(names == [Some("other"), Some("web")], "{after:#}");
        ensure!(grew("/Services/1/Flows")? == 21 && grew("/Services/0/Flows")? == 0, "{after:#}");
        ensure!(grew("/Services/1/Packets")? > 60, "{after:#}");
        ensure!(grew("/Services/1/Bytes")? > 20 * grew("/Services/1/Packets")?, "{after:#}");
        // Each task has an address of each family.
        let backends = after["Services"][1]["Backends"].as_array().context("no backends")?;
        ensure!(backends.len() == 4, "{after:#}");
        for (index, backend) in backends.iter().enumerate() {
            ensure!(backend["State"] == "active" && backend["Network"] == "app", "{backend:#}");
            if backend["Address"].as_str().is_some_and(|address| address.contains(':')) {
                continue;
            }
            let by_tcp = *answers.get(backend["Task"].as_str().unwrap_or_default()).unwrap_or(&0) as u64;
            let flows = grew(&format!("/Services/1/Backends/{index}/Flows"))?;
            ensure!((by_tcp..=by_tcp + 1).contains(&flows), "{flows} flows, {by_tcp} answers: {backend:#}");
        }
        // The other node balanced nothing.
        ensure!(number(&get(n2, "/v1/counters")?, "/Services/1/Flows")? == 0);
        Ok(())
    })
}

/// `mesh status` has what happened so far, and how full the tables of flows are.
#[test]
fn the_status_tells_what_is_counted() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        if !on_ebpf(lab, UNSEEN)? {
            ensure!(status(n1)?.get("Counters").is_none());
            return Ok(());
        }
        refuses(lab.client(), &url(n1, 8080))?;
        let web = Task::web(lab, n1, "web")?;
        served_by(lab.client(), &url(n1, 8080), &[&web])?;
        let mut talk = Talk::open(lab.client(), (n1.address(), 8080))?;
        talk.ask()?;
        let told = status(n1)?;
        ensure!(number(&told, "/Counters/Events/no_backend")? > 0, "{told:#}");
        ensure!(number(&told, "/Counters/Tables/tcp/Established")? >= 2, "{told:#}");
        ensure!(number(&told, "/Counters/Tables/tcp/Slots")? > 1000, "{told:#}");
        ensure!(number(&told, "/Counters/Tables/udp/Live")? == 0, "{told:#}");
        let text = n1.ok("status")?;
        mentions(&text, &["Counters:\n", "  no_backend: ", "  new_flow: ", "Flow tables:\n  tcp: "])?;
        ensure!(!text.contains("table_full"), "{text}");
        Ok(())
    })
}

/// What a task got is not counted for the one that comes after it, and is not lost when the agent starts anew.
#[test]
fn counters_are_of_one_task() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        if !on_ebpf(lab, UNSEEN)? {
            return Ok(());
        }
        let flows = |expected: u64| -> Result<()> {
            eventually(SOON, "the flows of web are counted", || {
                let all = get(n1, "/v1/counters")?;
                ensure!(number(&all, "/Services/0/Flows")? == expected, "not {expected}: {all:#}");
                Ok(())
            })
        };
        let first = Task::web(lab, n1, "web")?;
        eventually(SOON, "it serves", || spread(lab.client(), &url(n1, 8080), 1).map(drop))?;
        spread(lab.client(), &url(n1, 8080), 9)?;
        flows(10)?;
        n1.restart_agent(crate::kit::READY)?;
        flows(10)?;
        first.rm()?;
        let _second = Task::web(lab, n1, "web")?;
        flows(0)
    })
}
