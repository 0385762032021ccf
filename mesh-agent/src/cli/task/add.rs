//! **Effect.** `mesh task add`: registers what already runs, such as a container's network namespace.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;

use super::Switch;
use super::stat::start_time;
use crate::api::types::{Changed, Origin, TaskSpec};
use crate::cli::{OK, Session, converge};

/// Register a network namespace of this node as a task
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct AddArgs {
    /// The service that it serves
    #[arg(long)]
    service: Option<String>,
    /// A name of its own, where it serves nothing [default: task- and the beginning of its ID]
    #[arg(long, conflicts_with = "service")]
    name: Option<String>,
    /// Network to attach to [default: all of the service's]
    #[arg(long, value_name = "NETWORK")]
    network: Vec<String>,
    /// The namespace, as a file: /run/netns/NAME
    #[arg(long, value_name = "PATH", required_unless_present = "pid")]
    netns: Option<PathBuf>,
    /// The namespace, as a process in it
    #[arg(long, conflicts_with = "netns")]
    pid: Option<u32>,
    /// Share of new flows, in relation to the service's other tasks
    #[arg(short, long, default_value_t = 1)]
    weight: u16,
    /// Name server for what is not the mesh's, asked from inside the task [default: those of the node]
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// Whether its sockets may be led to a backend as they connect; off: each packet is balanced
    #[arg(long, value_name = "on|off", default_value = "on", hide_possible_values = true)]
    socket_balancing: Switch,
    /// Exit at once instead of waiting for the mesh to converge
    #[arg(short, long)]
    detach: bool,
}

pub(super) async fn run(args: AddArgs, session: Session) -> anyhow::Result<u8> {
    let AddArgs { service, name, network, netns, pid, weight, dns, socket_balancing, detach } = args;
    // The agent's working directory is another one.
    let netns = netns.map(std::path::absolute).transpose()?;
    let what = match (pid, &netns) {
        (Some(pid), _) => format!("process {pid}"),
        (None, Some(path)) => path.display().to_string(),
        (None, None) => "nothing".to_owned(),
    };
    let start_time = match pid {
        Some(pid) => {
            Some(start_time(&pid.to_string()).with_context(|| format!("there is no process {pid}"))?)
        }
        None => None,
    };
    let spec = TaskSpec {
        service,
        name,
        networks: network,
        origin: Origin { pid, start_time, supervised: false, netns },
        weight: Some(weight),
        dns,
        socket_balancing: socket_balancing.is_off().then_some(false),
        state: None,
        slot: None,
        program: None,
    };
    let changed: Changed =
        session.client.post("/v1/tasks", &spec).await.with_context(|| format!("cannot register {what}"))?;
    session.out.line(&changed.id);
    if !detach {
        converge::wait(&session, "Task", changed.revision).await?;
    }
    Ok(OK)
}
