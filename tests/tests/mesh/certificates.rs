//! Certificates that end, and are renewed before, while everything goes on.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Load, Node, eventually};
use nix::sys::signal::{Signal, kill};

use crate::kit::{Cli, READY, SOON, Task, served_by, text, url};
use crate::managed::{clustered_with, etcd, is, leader};

/// How long they are good.
const LIFE: Duration = Duration::from_secs(15);

/// The certificates that there are, by file: of every node, and of every manager's member of etcd.
fn certificates(lab: &Lab) -> Result<BTreeMap<PathBuf, String>> {
    let files = |node: &Node| ["pki/node.pem", "etcd/member.pem"].map(|name| node.state_dir().join(name));
    let there = lab.nodes().iter().flat_map(files).filter(|file| file.exists());
    there.map(|file| Ok((file.clone(), fs::read_to_string(&file).context("no certificate")?))).collect()
}

/// A change by a manager, and until all others know of it.
fn a_change_is_everywhere(lab: &Lab, number: usize) -> Result<()> {
    let by = &lab.nodes()[number % 3];
    by.ok(&format!("service update --detach --label-add turn={number} web"))?;
    eventually(SOON, "every node knows of a change", || {
        for node in lab.nodes() {
            let labels = node.inspect("service", "web")?["Spec"]["Labels"].clone();
            ensure!(text(&labels["turn"]) == number.to_string(), "{} has {labels}", node.name());
        }
        Ok(())
    })
}

/// Nodes, and members of etcd, get their next certificates before those that they have end. Nobody's requests are lost,
/// changes are made and known of everywhere all the time, and a member that comes back afterwards is let in.
#[test]
fn certificates_are_renewed_while_everything_goes_on() -> Result<()> {
    let life = LIFE.as_secs();
    let short = format!("[cluster]\ncertificate_life = {life}\nmember_certificate_life = {life}\n");
    clustered_with(4, 3, &short, |lab| {
        let [n1, n2, .., n4] = lab.nodes() else { anyhow::bail!("too few nodes") };
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n2, "web")?, Task::web(lab, n4, "web")?];
        for node in [n1, n4] {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        let begun = Instant::now();
        let first = certificates(lab)?;
        ensure!(first.len() == 7, "{:?}", first.keys());
        let load = Load::start(
            lab.client().netns(),
            &[(n1.address(), 8080).into(), (n4.address(), 8080).into()],
            50,
        )?;
        let mut number = 0;
        let kept = || -> Result<Vec<PathBuf>> {
            let now = certificates(lab)?.into_iter();
            Ok(now.filter(|(file, text)| first.get(file) == Some(text)).map(|(file, _)| file).collect())
        };
        // Whatever was good at the beginning has ended.
        while begun.elapsed() < LIFE || !kept()?.is_empty() {
            number += 1;
            a_change_is_everywhere(lab, number)?;
            ensure!(begun.elapsed() < READY, "not renewed: {:?}", kept()?);
        }
        let leads = leader(lab, n1)?;
        kill(etcd(leads)?, Signal::SIGKILL)?;
        for node in &lab.nodes()[..3] {
            is(node, "managed")?;
        }
        eventually(READY, "all members are there again", || {
            let status = n1.mesh_json(["cluster", "status"])?;
            ensure!(status["Reachable"] == 3, "{status}");
            Ok(())
        })?;
        a_change_is_everywhere(lab, number + 1)?;
        load.stop()?.lossless()
    })
}
