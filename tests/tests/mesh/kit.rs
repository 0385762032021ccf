//! Words for what people do with a mesh and what they see.

#[path = "kit/cli.rs"]
mod cli;
#[path = "kit/dig.rs"]
mod dig;
#[path = "kit/look.rs"]
mod look;
#[path = "kit/plane.rs"]
mod plane;
#[path = "kit/sick.rs"]
mod sick;
#[path = "kit/talk.rs"]
mod talk;
#[path = "kit/task.rs"]
mod task;

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Host, Lab, LabBuilder, built_mesh, eventually, lab_test};

pub(crate) use self::{
    cli::{Cli, mentions, one_message, text, vip, vips},
    dig::dig,
    look::{Place, answers, answers_udp, ask, comes_to_refuse, curl, refuses, served_by, spread},
    plane::{CLIENT_ADDRESS, on_ebpf, planes, status},
    sick::{Sick, is},
    talk::{Datagrams, Talk, both, refuses_udp, url_at},
    task::{Task, listens},
};

/// How long a start of all agents may take.
pub(crate) const READY: Duration = Duration::from_secs(40);

/// How long a change may take until every node acts on it.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// How long it may take to be refused, or to be heard of.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(1);

/// Makes the network `app`, of both families.
pub(crate) const DUAL: &str = "network create app --subnet 10.30.0.0/16 --subnet fd00:30::/48";

/// A lab that runs the built program.
pub(crate) fn lab() -> Result<LabBuilder> {
    Ok(Lab::builder(built_mesh()?))
}

/// Runs a test in a mesh of that many nodes, whose agents know each other.
pub(crate) fn mesh(nodes: usize, test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    started(lab()?.nodes(nodes), test)
}

/// Runs a test in a lab whose agents know each other.
pub(crate) fn started(lab: LabBuilder, test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    lab_test(lab, |lab| {
        lab.start_agents(READY)?;
        for node in lab.nodes() {
            eventually(READY, "every node knows all nodes", || {
                let known = node.rows("node ls")?.len();
                ensure!(known == lab.nodes().len(), "{} knows {known} nodes", node.name());
                Ok(())
            })?;
        }
        test(lab)
    })
}

/// `http://192.168.77.11:8080/`
pub(crate) fn url(host: &Host, port: u16) -> String {
    format!("http://{}:{port}/", host.address())
}

/// The addresses of a host.
pub(crate) fn addresses(host: &Host) -> [IpAddr; 2] {
    [host.address().into(), host.address6().into()]
}

/// The published port of all nodes.
pub(crate) fn everywhere(lab: &Lab, port: u16) -> Vec<SocketAddr> {
    let nodes = lab.nodes().iter();
    nodes.map(|node| (node.address(), port).into()).collect()
}

/// An error unless `check` holds all the time.
pub(crate) fn holds(time: Duration, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        check().with_context(|| format!("after {:?} of {time:?}", start.elapsed()))?;
    }
    Ok(())
}
