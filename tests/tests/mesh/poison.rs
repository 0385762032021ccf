//! Records that make no sense, written into the store by somebody: they are set aside, and all else goes on.

use std::fs;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Etcd, Lab, Load, Node, eventually};
use serde_json::{Value, json};

use crate::external::on_etcd;
use crate::kit::{Cli, READY, SOON, Task, mentions, served_by, text, url};

/// A record in etcd.
struct Record {
    key: String,
    value: Value,
}

impl Record {
    /// The only one of a kind that holds this word.
    fn of(etcd: &Etcd, kind: &str, word: &str) -> Result<Self> {
        let all = etcd.ctl(["get", "--prefix", &format!("/mesh/records/{kind}/")])?;
        let lines: Vec<_> = all.lines().collect();
        let found = lines.chunks(2).find(|pair| pair.last().is_some_and(|value| value.contains(word)));
        let [key, value] = found.with_context(|| format!("no {kind} with {word} in {all}"))? else {
            anyhow::bail!("a key without a value: {all}");
        };
        Ok(Self { key: (*key).to_owned(), value: serde_json::from_str(value)? })
    }

    /// As agents name it.
    fn name(&self) -> &str {
        self.key.trim_start_matches("/mesh/records/")
    }

    /// Its revision.
    fn revision(&self, etcd: &Etcd) -> Result<u64> {
        let found: Value = serde_json::from_str(&etcd.ctl(["get", &self.key, "--write-out=json"])?)?;
        found["kvs"][0]["mod_revision"].as_u64().with_context(|| found.to_string())
    }

    fn write(&self, etcd: &Etcd, value: &str) -> Result<()> {
        etcd.ctl(["put", &self.key, value]).map(drop)
    }

    fn with(&self, etcd: &Etcd, field: &str, odd: Value) -> Result<()> {
        let mut value = self.value.clone();
        value[field] = odd;
        self.write(etcd, &value.to_string())
    }
}

/// What a node says of itself, healthy or not.
fn status(node: &Node) -> Result<Value> {
    Ok(serde_json::from_str(&node.mesh(["status", "--format", "json"])?.stdout)?)
}

/// Every node has set this record aside, and nothing else is wrong.
fn all_set_aside(lab: &Lab, record: &Record, why: &str) -> Result<()> {
    eventually(SOON, "every node says what is set aside", || {
        for node in lab.nodes() {
            let problems = status(node)?["Problems"].as_array().cloned().unwrap_or_default();
            let [problem] = problems.as_slice() else { anyhow::bail!("{}: {problems:?}", node.name()) };
            ensure!(text(&problem["About"]) == format!("record {}", record.name()), "{problem}");
            mentions(&text(&problem["Message"]), &["set aside", "what it was before stays in force", why])?;
        }
        Ok(())
    })
}

fn all_are_well(lab: &Lab) -> Result<()> {
    eventually(READY, "every node is well", || {
        for node in lab.nodes() {
            let status = status(node)?;
            ensure!(status["Healthy"] == true, "{}: {}", node.name(), status["Problems"]);
        }
        Ok(())
    })
}

fn events(node: &Node) -> Result<String> {
    node.ok("events --since 10m --no-follow --filter type=record")
}

/// No text, a word of a version to come, a number that no agent could carry out: each time the record's last good form is
/// in force on all nodes, also on one that starts anew, no agent ends, what is asked for is done, and nobody's request is
/// lost. It is told of, and all is well when the record makes sense again.
#[test]
fn a_record_that_makes_no_sense_is_set_aside_under_traffic() -> Result<()> {
    on_etcd(|lab, etcd| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let served = || {
            lab.nodes()
                .iter()
                .try_for_each(|node| served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]]))
        };
        served()?;
        let ports = [(n1.address(), 8080).into(), (n2.address(), 8080).into()];
        let load = Load::start(lab.client().netns(), &ports, 100)?;
        let agents = [n1.agent_id()?, n2.agent_id()?];

        let web = Record::of(etcd, "svc", "\"name\":\"web\"")?;
        let program = json!({"version": 1, "run": {"command": ["true"]}, "replicas": u32::MAX, "update": {
            "parallelism": 1, "delay": {"secs": 0, "nanos": 0}, "order": "stop-first", "failure_action": "pause",
            "monitor": {"secs": 5, "nanos": 0}}});
        web.write(etcd, "{")?;
        all_set_aside(lab, &web, "EOF")?;
        web.with(etcd, "balancing", json!("fairest"))?;
        all_set_aside(lab, &web, "fairest")?;
        web.with(etcd, "program", program)?;
        all_set_aside(lab, &web, "too many")?;
        served()?;
        mentions(&n1.mesh(["verify"])?.stdout, &["differs", &format!("records: {}", web.name())])?;
        mentions(&events(n2)?, &[&format!("record set aside {}", web.name()), "fairest"])?;
        ensure!([n1.agent_id()?, n2.agent_id()?] == agents, "no agent ended");
        // Others are not concerned, and who starts now knows what was.
        n2.ok("service create --name other --network app")?;
        n2.stop_agent()?;
        n2.start_agent()?;
        eventually(READY, "it is there again", || {
            ensure!(status(n2)?["Store"]["Connected"] == true, "not yet");
            ensure!(n2.names("service")? == ["other", "web"], "{:?}", n2.names("service")?);
            Ok(())
        })?;
        all_set_aside(lab, &web, "too many")?;
        served()?;
        web.write(etcd, &web.value.to_string())?;
        all_are_well(lab)?;
        mentions(&events(n1)?, &[&format!("record in force {}", web.name())])?;

        // A change that is made of what is in force mends it, too.
        web.write(etcd, "[]")?;
        all_set_aside(lab, &web, "invalid")?;
        n1.ok("service update --detach --label-add mended=yes web")?;
        all_are_well(lab)?;
        // What a node says of its tasks and of itself it says again.
        let owns = Record::of(etcd, "task", &format!("\"pid\":{}", tasks[1].pid))?;
        let node = Record::of(etcd, "node", "\"name\":\"n2\"")?;
        for record in [&owns, &node] {
            record.write(etcd, "null")?;
            eventually(SOON, "its owner has written it anew", || {
                let value = etcd.ctl(["get", "--print-value-only", &record.key])?;
                ensure!(serde_json::from_str::<Value>(&value)?["id"] == record.value["id"], "{value}");
                Ok(())
            })?;
        }
        all_are_well(lab)?;
        served()?;
        load.stop()?.lossless()
    })
}

/// An agent that finds that those before it broke again and again leaves out what was new to them; one that finds that this
/// did not help goes on with a copy that was good. Traffic goes on all the time.
#[test]
fn an_agent_that_broke_again_and_again_comes_up_without_what_was_new() -> Result<()> {
    on_etcd(|lab, etcd| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let task = Task::web(lab, n2, "web")?;
        served_by(lab.client(), &url(n1, 8080), &[&task])?;
        let ports = [(n1.address(), 8080).into(), (n2.address(), 8080).into()];
        let load = Load::start(lab.client().netns(), &ports, 100)?;
        let before = n1.state_dir().join("before");
        n1.stop_agent()?;
        fs::copy(n1.state_dir().join("cache"), &before)?;
        n2.ok("service update --detach --label-add new=yes web")?;
        let web = Record::of(etcd, "svc", "\"name\":\"web\"")?;
        let left = |failures: u32| -> Result<()> {
            fs::copy(&before, n1.state_dir().join("cache.good"))?;
            let suspects = json!({web.name(): web.revision(etcd)?});
            let attempt = json!({"failures": failures, "rev": 7, "suspects": suspects, "why": "it panicked"});
            fs::write(n1.run_dir().join("attempt"), attempt.to_string())?;
            n1.start_agent()
        };
        let is_new =
            || -> Result<bool> { Ok(n1.inspect("service", "web")?["Spec"]["Labels"]["new"] == "yes") };

        left(2)?;
        eventually(READY, "it says what it leaves out", || {
            let status = status(n1)?;
            ensure!(status["Store"]["Connected"] == true, "{status}");
            mentions(&status["Problems"].to_string(), &[web.name(), "broke 3 times", "it panicked"])
        })?;
        ensure!(!is_new()?, "what was before is in force");
        served_by(lab.client(), &url(n1, 8080), &[&task])?;
        n1.ok("service update --detach --label-add newer=yes web")?;
        eventually(SOON, "it is written anew", || {
            ensure!(status(n1)?["Healthy"] == true, "{}", status(n1)?["Problems"]);
            Ok(())
        })?;

        n1.stop_agent()?;
        n2.ok("service update --detach --label-add new=yes web")?;
        left(6)?;
        eventually(READY, "it says that it holds", || {
            mentions(&text(&status(n1)?["Store"]["Problem"]), &["broke 7 times", "tries again"])
        })?;
        ensure!(n1.names("service")? == ["web"] && !is_new()?, "it knows what was good");
        served_by(lab.client(), &url(n1, 8080), &[&task])?;
        n1.stop_agent()?;
        n1.start_agent()?;
        all_are_well(lab)?;
        ensure!(is_new()?, "it is tried when it is started anew");
        load.stop()?.lossless()
    })
}
