//! Services whose command the mesh itself runs.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Load, Node, eventually};
use serde_json::Value;

use crate::kit::{Cli, Place, READY, SOON, Task, everywhere, mentions, mesh, text, vip};

/// A service with a web server that the mesh runs.
fn create(lab: &Lab, node: &Node, options: &str) -> Result<()> {
    let server = lab.programs().web(80).join(" ");
    let words = format!("service create --name web --network app -p 8080:80 {options} --cmd");
    let create: Vec<_> = words.split_whitespace().chain([server.as_str()]).collect();
    node.mesh(create)?.ok().map(drop)
}

fn tasks(node: &Node) -> Result<Vec<Value>> {
    node.rows("service ps web")
}

fn replicas(node: &Node) -> Result<String> {
    Ok(node.rows("service ls")?.first().map(|row| text(&row["Replicas"])).unwrap_or_default())
}

fn settles(node: &Node, wanted: &str) -> Result<()> {
    eventually(READY, "as many serve as should", || {
        let found = replicas(node)?;
        ensure!(found == wanted, "{found}");
        Ok(())
    })
}

/// They are spread, come back when they end, follow the number that is wanted, and go with their service.
#[test]
fn the_mesh_runs_as_many_as_are_wanted() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        create(lab, n1, "--replicas 3")?;
        ensure!(replicas(n2)? == "3/3", "{}", replicas(n2)?);
        let mut nodes: Vec<_> = tasks(n1)?.iter().map(|task| text(&task["Node"])).collect();
        nodes.sort_unstable();
        ensure!(nodes == ["n1", "n2", "n3"], "{nodes:?}");
        let id = text(&tasks(n1)?[0]["ID"]);
        let pid = n1.inspect("task", &id)?["Origin"]["Pid"].as_u64().context("no pid")?;
        n1.exec(["kill", "-9", &pid.to_string()])?.ok()?;
        eventually(READY, "another one is there", || {
            let all = tasks(n1)?;
            ensure!(all.len() == 3 && all.iter().all(|task| text(&task["ID"]) != id), "{all:?}");
            Ok(())
        })?;
        settles(n1, "3/3")?;
        n2.ok("service scale web=5")?;
        settles(n1, "5/5")?;
        n2.ok("service scale web=1")?;
        ensure!(tasks(n1)?.len() == 1, "{:?}", tasks(n1)?);
        n1.ok("service rm web")?;
        ensure!(n1.rows("task ls")?.is_empty(), "{:?}", n1.rows("task ls")?);
        Ok(())
    })
}

/// A command that does not run replaces nothing for long: the update stops, or goes back.
#[test]
fn a_bad_update_stops_or_goes_back() -> Result<()> {
    mesh(2, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        create(lab, n1, "--replicas 2 --update-order start-first --update-monitor 1s")?;
        let said = n1.mesh(["service", "update", "--cmd", "false", "web"])?.failed()?;
        mentions(&said, &["update paused due to failure"])?;
        settles(n1, "2/2")?;
        let said = n1.mesh([
            "service",
            "update",
            "--cmd",
            "sh -c 'exit 3'",
            "--update-failure-action",
            "rollback",
            "web",
        ])?;
        let _ = said.failed()?;
        let found = n1.inspect("service", "web")?;
        let state = text(&found["UpdateStatus"]["State"]);
        ensure!(state.starts_with("rollback"), "{state}");
        Ok(())
    })
}

/// A task is asked to end by the signal that it wants, has the time that its service gives it, and is killed then.
#[test]
fn tasks_end_by_their_signal_or_when_their_grace_is_over() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        let server = lab.programs().web(80).join(" ");
        let deaf = format!("sh -c 'trap \"\" TERM; {server} & while :; do sleep 1; done'");
        let create = |options: &str| {
            let words = format!("service create --name web --network app -p 8080:80 {options} --cmd");
            n1.mesh(words.split_whitespace().chain([deaf.as_str()]))?.ok()
        };
        let takes = |command: &str| {
            let start = Instant::now();
            n1.mesh_command(command.split(' ')).timeout(READY).ok()?;
            ensure!(n1.rows("task ls")?.is_empty(), "they have ended");
            Ok(start.elapsed().as_secs_f64())
        };
        create("--stop-grace-period 3s")?;
        let took = takes("service rm web")?;
        ensure!((3.0..9.0).contains(&took), "a grace of 3 s, also of a service that is gone: {took}");

        create("")?;
        let spec =
            |node: &Node| Ok::<_, anyhow::Error>(node.inspect("service", "web")?["Spec"]["Program"].clone());
        ensure!(
            spec(n1)?["StopGracePeriod"] == "10s" && spec(n1)?["StopSignal"] == "SIGTERM",
            "{}",
            spec(n1)?
        );
        let id = text(&tasks(n1)?[0]["ID"]);
        n1.ok("service update --stop-grace-period 13s web")?;
        ensure!(
            spec(n1)?["StopGracePeriod"] == "13s" && text(&tasks(n1)?[0]["ID"]) == id,
            "no task is replaced"
        );
        let took = takes("service scale web=0")?;
        ensure!((13.0..19.0).contains(&took), "a grace of 13 s: {took}");

        let heard = lab.dir().join("heard");
        let told =
            format!("trap \"echo quit > {}; exit 0\" QUIT; trap \"\" TERM; {server} & wait", heard.display());
        n1.mesh(["service", "update", "--stop-signal", "quit", "--cmd", &format!("sh -c '{told}'"), "web"])?
            .ok()?;
        n1.ok("service scale web=1")?;
        let pretty = n1.ok("service inspect --pretty web")?;
        mentions(&pretty, &["Stop Signal:\tSIGQUIT", "Stop Grace Period:\t13s"])?;
        let took = takes("service scale web=0")?;
        ensure!(took < 9.0 && heard.exists(), "it ended by its signal: {took}");
        mentions(
            &n1.refused("service update --stop-signal nonsense web")?,
            &["there is no signal 'nonsense'"],
        )?;
        mentions(&n1.refused("service create --name db --network app --stop-grace-period 5s")?, &["--cmd"])
    })
}

/// Tasks get traffic once they listen, also where no port is published: on the port that is named, or on any at all. Clients of
/// the VIP lose nothing while all are replaced by ones that take their time.
#[test]
fn a_replacement_by_the_vip_loses_nothing() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        let server = format!("sh -c 'sleep 1; exec {}'", lab.programs().web(80).join(" "));
        let idle = Task::idle(n2, "app")?;
        for (name, options) in [("plain", ""), ("named", "--port-name http=80")] {
            let words = format!(
                "service create --name {name} --network app --replicas 2 --update-order start-first \
                 --update-monitor 0s {options} --cmd"
            );
            n1.mesh(words.split_whitespace().chain([server.as_str()]))?.ok()?;
            let to = (vip(n1, name)?, 80).into();
            let load = Load::start(&idle.netns_at()?, &[to], 100)?;
            n1.mesh_command(["service", "update", "--env-add", "NEXT=1", name]).timeout(READY).ok()?;
            load.stop()?.lossless().with_context(|| name.to_owned())?;
        }
        Ok(())
    })
}

/// Whoever asks for the former command gets it, and no error; nor is it one for what is changed later.
#[test]
fn a_rollback_that_is_asked_for_succeeds() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        create(lab, n1, "--replicas 2 --update-monitor 0s")?;
        n1.ok("service update --env-add NEXT=1 web")?;
        n1.ok("service update --rollback web")?;
        let state = text(&n1.inspect("service", "web")?["UpdateStatus"]["State"]);
        ensure!(state == "rollback_completed", "{state}");
        n1.ok("service scale web=1")?;
        settles(n1, "1/1")
    })
}

/// One that is stopped before it serves has not failed: nobody waits longer for the next one, and no update stops.
#[test]
fn a_task_that_is_stopped_while_it_starts_has_not_failed() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        let create = "service create -d --name web --network app -p 8080:80 --replicas 1 --cmd";
        n1.mesh(create.split(' ').chain(["sleep 1000"]))?.ok()?;
        eventually(SOON, "it has begun", || {
            let found = tasks(n1)?;
            ensure!(
                found.iter().any(|task| text(&task["CurrentState"]).starts_with("Starting")),
                "{found:?}"
            );
            Ok(())
        })?;
        n1.ok("service scale -d web=0")?;
        eventually(READY, "it is gone", || {
            ensure!(tasks(n1)?.is_empty());
            Ok(())
        })?;
        let said = n1.log_tail(200);
        ensure!(said.contains("asked to stop") && !said.contains("a task ended"), "{said}");
        Ok(())
    })
}

/// Drains a node, which takes as long as a start elsewhere.
fn drain(by: &Node, node: &str) -> Result<()> {
    by.mesh_command(["node", "update", "--availability", "drain", node]).timeout(READY).ok().map(drop)
}

/// The only task of a service goes from a drained node when another serves elsewhere, and no request is lost; whoever
/// said that there must not be two has it stop first.
#[test]
fn a_drained_node_serves_until_another_does() -> Result<()> {
    mesh(3, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        create(lab, n1, "--replicas 1")?;
        settles(n1, "1/1")?;
        // What has ended is listed for a moment.
        let place = |by: &Node| {
            eventually(SOON, "there is one task", || {
                let all = tasks(by)?;
                ensure!(all.len() == 1, "{all:?}");
                Ok((text(&all[0]["ID"]), text(&all[0]["Node"])))
            })
        };
        let load = Load::start(lab.client().netns(), &everywhere(lab, 8080), 100)?;
        for from_itself in [true, false, true] {
            let (old, node) = place(n1)?;
            let by = if from_itself { lab.node(&node)? } else { n1 };
            drain(by, &node)?;
            let (new, elsewhere) = place(by)?;
            ensure!(new != old && elsewhere != node, "{old} on {node}, now {new} on {elsewhere}");
            by.ok(&format!("node update --availability active {node}"))?;
        }
        load.stop()?.lossless()?;
        let (_, node) = place(n1)?;
        n1.ok("service update --update-order stop-first web")?;
        drain(n1, &node)?;
        settles(n1, "1/1")?;
        ensure!(place(n1)?.1 != node);
        Ok(())
    })
}

/// Where no other node could serve, the operator's will counts.
#[test]
fn the_last_node_can_be_drained() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        create(lab, n1, "--replicas 1")?;
        settles(n1, "1/1")?;
        drain(n1, "n1")?;
        ensure!(tasks(n1)?.is_empty(), "{:?}", tasks(n1)?);
        n1.ok("node update --availability active n1")?;
        settles(n1, "1/1")
    })
}
