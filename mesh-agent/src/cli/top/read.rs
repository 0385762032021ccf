//! **Fact.** What the agent's answer says, in the words of what is shown.

use std::time::Duration;

use mesh_core::top::{self, Counted, Counts, Look, Node, Service, Task, Teller};

use crate::api::client::{Client, ClientError};
use crate::api::types::{
    Condition, EndpointMode, Health, PublishMode, Top, TopCounted, TopCounts, WebNode, WebPort, WebSelf,
    WebService, WebState, WebTask,
};

/// Asks the agent.
pub(super) async fn look(client: &Client) -> Result<Look, ClientError> {
    Ok(read(client.get("/v1/top").await?))
}

fn read(Top { state, counted }: Top) -> Look {
    let WebState { node, nodes, services, tasks, tasks_left_out } = state;
    Look {
        teller: teller(node, tasks_left_out),
        services: services.into_iter().map(service).collect(),
        tasks: tasks.into_iter().map(task).collect(),
        nodes: nodes.into_iter().map(self::node).collect(),
        counted: counted.map(self::counted),
    }
}

fn teller(node: WebSelf, left_out: usize) -> Teller {
    let WebSelf { name, version, counts, store_connected, problems, failing } = node;
    let problems = problems.into_iter().map(|problem| format!("{}: {}", problem.about, problem.message));
    Teller { name, version, counts, store_connected, problems: problems.collect(), failing, left_out }
}

fn counted(TopCounted { at, tasks }: TopCounted) -> Counted {
    let counts = |(id, counts)| {
        let TopCounts { flows, packets, bytes, active } = counts;
        (id, Counts { flows, packets, bytes, active })
    };
    Counted { at: Duration::from_micros(at), tasks: tasks.into_iter().map(counts).collect() }
}

fn service(service: WebService) -> Service {
    let WebService { id, name, mode, networks, virtual_ips, ports, running_tasks, desired_tasks, update } =
        service;
    let none = mode == EndpointMode::Dnsrr && virtual_ips.is_empty();
    Service {
        id,
        name,
        running: running_tasks,
        desired: desired_tasks,
        update,
        ports: ports.iter().map(port).collect(),
        addresses: if none { vec!["names only".to_owned()] } else { virtual_ips },
        networks,
    }
}

/// `8080->80/tcp`
fn port(WebPort { published, target, protocol, mode }: &WebPort) -> String {
    let host = if *mode == PublishMode::Host { "(host)" } else { "" };
    format!("{published}->{target}/{}{host}", protocol.as_str())
}

fn task(task: WebTask) -> Task {
    let WebTask {
        id,
        name,
        service_id,
        node_id,
        condition,
        reason,
        state: _,
        health,
        weight,
        addresses,
        connections,
        updated_at: _,
    } = task;
    let health = match health {
        Health::None => "",
        checked => checked.as_str(),
    };
    Task {
        id,
        name,
        service: service_id,
        node: node_id,
        condition: self::condition(condition),
        reason,
        health: health.to_owned(),
        weight: weight.into(),
        addresses,
        left: connections,
    }
}

fn condition(condition: Condition) -> top::Condition {
    match condition {
        Condition::Serving => top::Condition::Serving,
        Condition::Running => top::Condition::Running,
        Condition::Starting => top::Condition::Starting,
        Condition::Unhealthy => top::Condition::Unhealthy,
        Condition::Ejected => top::Condition::Ejected,
        Condition::Draining => top::Condition::Draining,
        Condition::Idle => top::Condition::Idle,
        Condition::Unreachable => top::Condition::Unreachable,
        Condition::Failed => top::Condition::Failed,
        Condition::Ended => top::Condition::Ended,
    }
}

fn node(node: WebNode) -> Node {
    let WebNode { id, name, addr, state, message, availability, role, this, problems } = node;
    Node {
        id,
        name,
        address: addr,
        state,
        message,
        availability: availability.as_str().to_owned(),
        role,
        this,
        problems: problems as u64,
    }
}
