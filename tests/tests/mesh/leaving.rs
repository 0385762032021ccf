//! What becomes of the flows of a task that leaves, in order or not.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use mesh_tests::{Lab, Node, Process, eventually};

use crate::kit::{
    AT_ONCE, Cli, Datagrams, Place, READY, SOON, Talk, Task, curl, dig, holds, mesh, served_by, url, vip,
};
use crate::tasks::{foreign, web_in};

/// While a task drains, the connections that it has go on, by VIP and by the published port of its own node and of
/// another; new ones go elsewhere. It ends when they do, before the drain timeout.
#[test]
fn a_draining_task_keeps_its_connections_and_gets_no_more() -> Result<()> {
    keeps_its_connections(|lab, n1| Ok((Task::web(lab, n1, "web")?, Vec::new())))
}

/// The same of a task that others run: it is let go when its connections have ended, and not stopped.
#[test]
fn a_task_of_others_is_let_go_when_its_connections_have_ended() -> Result<()> {
    keeps_its_connections(|lab, n1| {
        let process = foreign(n1)?;
        let server = web_in(lab, n1, process.id(), "web.1")?;
        n1.ok(&format!("task add --service web --pid {}", process.id()))?;
        Ok((Task::find(n1, "web.1")?, vec![process, server]))
    })
}

/// Of a task of `web`, with what is to live as long.
fn keeps_its_connections(
    begin: impl for<'a> FnOnce(&Lab, &'a Node) -> Result<(Task<'a>, Vec<Process>)>,
) -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80 --drain-timeout 20s")?;
        let (leaves, mut processes) = begin(lab, n1)?;
        let idle = Task::idle(n3, "app")?;
        let inside = (vip(n1, "web")?, 80);
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&leaves])?;
        }
        served_by(&idle, "http://web/", &[&leaves])?;
        let mut talks = [
            ("by n1", Talk::open(lab.client(), (n1.address(), 8080))?),
            ("by n3", Talk::open(lab.client(), (n3.address(), 8080))?),
            ("by VIP", Talk::open(&idle, inside)?),
        ];
        let stays = Task::web(lab, n2, "web")?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&leaves, &stays])?;
        }
        let begun = Instant::now();
        n1.ok(&format!("task rm --detach {}", leaves.name))?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&stays])?;
        }
        served_by(&idle, "http://web/", &[&stays])?;
        holds(Duration::from_secs(2), || {
            for (way, talk) in &mut talks {
                let answer = talk.ask().with_context(|| way.to_owned())?;
                ensure!(answer.starts_with(&format!("{} from ", leaves.name)), "{way}: {answer}");
            }
            thread::sleep(Duration::from_millis(50));
            Ok(())
        })?;
        drop(talks);
        eventually(SOON, "it ends with its last connection", || {
            ensure!(!n2.names("task")?.contains(&leaves.name), "{:?}", n2.names("task")?);
            Ok(())
        })?;
        ensure!(begun.elapsed() < Duration::from_secs(15), "it took {:?}", begun.elapsed());
        for process in &mut processes {
            ensure!(process.ended()?.is_none(), "what others run is theirs to end");
        }
        Ok(())
    })
}

/// A drained task gets nothing new on any node, is not stopped, and comes back; how many connections it has left is told.
#[test]
fn a_drained_task_keeps_its_connections_and_comes_back() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80 --drain-timeout 3s")?;
        let drained = Task::web(lab, n1, "web")?;
        let mut talk = Talk::open(lab.client(), (n3.address(), 8080))?;
        let stays = Task::web(lab, n2, "web")?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&drained, &stays])?;
        }
        talk.ask()?;
        // From another node than its own.
        let output = n2.mesh(["task", "drain", &drained.name])?;
        let said = output.stderr.clone();
        output.ok()?;
        ensure!(said.contains("3 out of 3 nodes, 1 connection left"), "{said}");
        ensure!(said.contains("verify: Drained"), "{said}");
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&stays])?;
        }
        ensure!(talk.ask()?.starts_with(&drained.name), "the connection is another's");
        drop(talk);
        n3.ok(&format!("task update --availability active {}", drained.name))?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&drained, &stays])?;
        }
        n1.ok(&format!("task update --weight 0 {}", drained.name))?;
        served_by(lab.client(), &url(n3, 8080), &[&stays])
    })
}

/// Cuts the task's wires and kills it: nobody says goodbye.
const POWER_CUT: &str = "for link in $(ip -o link | cut -d: -f2 | cut -d@ -f1 | grep -v lo); do \
                         ip link set $link down; done; kill -9 $1";

/// A connection whose task has died without a word is told so within two seconds, by VIP and by the published port of
/// its own node and of another, when its client says something; new ones go elsewhere.
#[test]
fn the_death_of_a_task_ends_its_connections() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let dies = Task::web(lab, n1, "web")?;
        let idle = Task::idle(n3, "app")?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&dies])?;
        }
        served_by(&idle, "http://web/", &[&dies])?;
        let mut talks = [
            ("by n1", Talk::open(lab.client(), (n1.address(), 8080))?),
            ("by n3", Talk::open(lab.client(), (n3.address(), 8080))?),
            ("by VIP", Talk::open(&idle, (vip(n1, "web")?, 80))?),
        ];
        for (way, talk) in &mut talks {
            talk.ask().with_context(|| way.to_owned())?;
        }
        let stays = Task::web(lab, n2, "web")?;
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&dies, &stays])?;
        }
        dies.command(["sh", "-c", POWER_CUT, "sh", &dies.pid.to_string()]).ok()?;
        let end = Instant::now() + Duration::from_secs(2);
        for (way, talk) in &mut talks {
            // The client's kernel repeats the request until it is told.
            let Err(error) = talk.ask() else { bail!("{way}: the dead answer") };
            let over = format!("{error:#}");
            let over = over.contains("reset") || over.contains("closed") || over.contains("Broken pipe");
            ensure!(over, "{way}: {error:#}");
        }
        ensure!(Instant::now() < end, "it took {:?} too long", end.elapsed());
        for node in lab.nodes() {
            served_by(lab.client(), &url(node, 8080), &[&stays])?;
        }
        served_by(&idle, "http://web/", &[&stays])
    })
}

/// Who answered when.
type Answers = Vec<(Instant, String)>;

/// A UDP client that sends every 20 ms from one socket, until it is told to stop.
fn stream(from: &dyn Place, to: (std::net::Ipv4Addr, u16), stop: &AtomicBool) -> Result<Answers> {
    let client = Datagrams::open(from, to)?;
    client.socket().set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut answers = Answers::new();
    while !stop.load(Ordering::Relaxed) {
        let next = Instant::now() + Duration::from_millis(20);
        // A refusal or a silence in between is one lost datagram, and the next may be answered.
        if let Ok(answer) = client.ask("who are you?") {
            answers.push((Instant::now(), answer.split(" from ").next().unwrap_or_default().to_owned()));
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(answers)
}

/// A UDP client that never pauses is with another task within a second after its own was removed, and is not left
/// without answers for as long meanwhile: by the published port of another node, and by VIP.
#[test]
fn a_udp_stream_moves_within_a_second() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name clock --network app -p 5000:123/udp")?;
        let leaves = Task::udp(lab, n1, "clock", 123)?;
        let idle = Task::idle(n3, "app")?;
        let inside = (vip(n1, "clock")?, 123);
        let port = (n3.address(), 5000);
        let stop = AtomicBool::new(false);
        let begins = |from: &dyn Place, to| {
            eventually(SOON, "it answers", || Datagrams::open(from, to)?.ask("who are you?"))
        };
        begins(lab.client(), port)?;
        begins(&idle, inside)?;
        thread::scope(|scope| {
            let streams = [
                scope.spawn(|| stream(lab.client(), port, &stop)),
                scope.spawn(|| stream(&idle, inside, &stop)),
            ];
            // Both are with the only task; the other one comes, and it goes.
            let changes = (|| {
                thread::sleep(Duration::from_millis(300));
                let stays = Task::udp(lab, n2, "clock", 123)?;
                eventually(SOON, "the other takes part", || {
                    let who = Datagrams::open(&idle, inside)?.ask("who are you?")?;
                    ensure!(who.starts_with(&stays.name), "{who}");
                    Ok(())
                })?;
                leaves.rm()?;
                let removed = Instant::now();
                thread::sleep(AT_ONCE + Duration::from_millis(500));
                Ok::<_, anyhow::Error>((removed, stays.name))
            })();
            stop.store(true, Ordering::Relaxed);
            let streams = streams.map(|stream| stream.join());
            let (removed, stays) = changes?;
            for (way, stream) in ["by n3", "by VIP"].into_iter().zip(streams) {
                let Ok(answers) = stream else { bail!("the client panicked {way}") };
                let answers = answers?;
                let late = answers.iter().find(|(at, who)| *at > removed + AT_ONCE && *who != stays);
                ensure!(late.is_none(), "{way}: {late:?} after the removal at {removed:?}");
                let (last, _) = answers.last().context("no answers")?;
                ensure!(*last > removed + AT_ONCE, "{way}: nothing since {:?}", last.elapsed());
                let pauses = answers.windows(2).map(|pair| pair[1].0 - pair[0].0);
                let longest = pauses.max().unwrap_or_default();
                ensure!(longest < AT_ONCE, "{way}: no answer for {longest:?}");
            }
            Ok(())
        })
    })
}

/// Who was told a task's own address by a name goes by it for as long as the answer holds, and not through a VIP that would
/// lead elsewhere: by whichever node it was told, the task waits. Where nobody asked for such names none waits.
#[test]
fn a_task_whose_address_was_told_serves_while_that_holds() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2, n3] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let idle = Task::idle(n3, "app")?;
        served_by(&idle, "http://web/", &[&tasks[0], &tasks[1], &tasks[2]])?;
        let begun = Instant::now();
        tasks[0].rm()?;
        ensure!(begun.elapsed() < Duration::from_secs(4), "nobody asked: {:?}", begun.elapsed());
        for (name, kind, leaves) in [("tasks.web", "A", &tasks[1]), ("_80._tcp.web", "SRV", &tasks[2])] {
            let address = leaves.address()?;
            // Of an earlier name nothing holds any more.
            thread::sleep(Duration::from_secs(6));
            ensure!(!dig(&idle, &format!("{name} {kind}"))?.data.is_empty(), "{name}");
            n1.ok(&format!("task rm --detach {}", leaves.name))?;
            holds(Duration::from_millis(4500), || {
                let answer = curl(&idle, &format!("http://{address}/")).context(name)?;
                ensure!(answer.starts_with(&leaves.name), "{answer}");
                thread::sleep(Duration::from_millis(50));
                Ok(())
            })?;
            eventually(READY, "it ends", || {
                ensure!(!n1.names("task")?.contains(&leaves.name), "{:?}", n1.names("task")?);
                Ok(())
            })?;
        }
        Ok(())
    })
}
