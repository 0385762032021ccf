//! More flows than there is room for.

use std::{net::SocketAddrV4, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Flood, Load, eventually};

use crate::kit::{
    Cli, READY, SOON, Talk, Task, answers, curl, lab, mentions, mesh, on_ebpf, served_by, started, status,
    url,
};

/// What a node with little room remembers. The smallest number that there may be.
const SMALL: &str = "dataplane.flows = 1024\ndataplane.sweep = 1\n";
/// SYNs a second: each place is asked for eight times a second.
const RATE: u32 = 2000;

/// How `mesh status` on nftables says that it has no such table.
const UNSEEN: &[&str] = &["flows are not seen", "counters"];

/// Who answers on each connection.
fn go_on(talks: &mut [Talk], when: &str) -> Result<Vec<String>> {
    let said: Result<Vec<_>> = talks.iter_mut().map(Talk::ask).collect();
    said.with_context(|| format!("{when}: a connection was cut"))
}

/// While somebody sends SYNs without end to a node whose table is full of connections, those go on, with their own
/// tasks, also when others come; new ones are served although there is no room for them; and people are told.
#[test]
fn a_full_table_cuts_nobody_and_refuses_nobody() -> Result<()> {
    started(lab()?.nodes(2).config_of("n1", SMALL), |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n2, "web")?, Task::web(lab, n2, "web")?];
        let idle = Task::idle(n1, "app")?;
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        answers(&idle, "http://web/")?;

        let target = SocketAddrV4::new(n1.address(), 8080);
        let open = |count: usize| -> Result<Vec<Talk>> {
            (0..count).map(|_| Talk::open(lab.client(), target)).collect()
        };
        let mut first = open(40)?;
        let own = go_on(&mut first, "before")?;
        // Too many for some places of the table, so that others are full.
        let mut all = open(400)?;
        let others = go_on(&mut all, "before")?;

        let flood = Flood::start(lab.client().netns(), target, RATE)?;
        let load = Load::start(lab.client().netns(), &[target.into()], 50)?;
        thread::sleep(Duration::from_secs(2));
        ensure!(go_on(&mut first, "in the flood")? == own, "connections have other tasks");
        ensure!(go_on(&mut all, "in the flood")? == others, "connections have other tasks");
        (0..20).try_for_each(|_| curl(&idle, "http://web/").map(drop))?;
        load.stop()?.lossless()?;
        let floods = flood.sent();
        ensure!(floods > 2000, "a flood of {floods} SYNs is none");

        if !on_ebpf(lab, UNSEEN)? {
            return Ok(());
        }
        let third = Task::web(lab, n2, "web")?;
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1], &third])?;
        ensure!(go_on(&mut first, "after a new task")? == own, "connections have other tasks");

        eventually(SOON, "the node says that its table is full", || {
            // It fails: not all is well.
            let told = n1.mesh(["status"])?;
            ensure!(told.code() == Some(1), "{}", told.stdout);
            mentions(&told.stdout, &["flow tables: are full in places", "  table_full: ", " of 1024"])
        })
    })
}

/// Another size takes effect when the agent starts anew; connections stay with tasks that no hash would lead them to.
#[test]
fn a_table_of_another_size_knows_the_same_connections() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let first = Task::web(lab, n1, "web")?;
        served_by(lab.client(), &url(n1, 8080), &[&first])?;
        let open = |_| Talk::open(lab.client(), (n1.address(), 8080));
        let mut talks: Vec<_> = (0..20).map(open).collect::<Result<_>>()?;
        let before = go_on(&mut talks, "before")?;
        let second = Task::web(lab, n1, "web")?;
        served_by(lab.client(), &url(n1, 8080), &[&first, &second])?;
        for (flows, slots) in [(5000, 8192), (1024, 1024)] {
            n1.stop_agent()?;
            n1.configure(&format!("dataplane.flows = {flows}"))?;
            n1.start_agent()?;
            n1.wait_ready(READY)?;
            if on_ebpf(lab, UNSEEN)? {
                let told = status(n1)?;
                ensure!(told["Counters"]["Tables"]["tcp"]["Slots"] == slots, "{told:#}");
            }
            ensure!(go_on(&mut talks, "after")? == before, "connections have other tasks");
        }
        Ok(())
    })
}
