//! What a load balancer in front of the nodes is told.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use mesh_core::change::{self, NetworkRequest, ServiceRequest, TaskChange};
use mesh_core::liveness::{Masks, Notice, Verdict};
use mesh_core::model::{
    Availability, Ejected, Health, Locality, NodeId, Protocol, PublishMode, PublishedPort, Sickness, Task,
    TaskState,
};
use mesh_core::readiness::{Entry, PortAsked, Readiness};
use sim::Sim;

/// Nodes n1 and n2, and a service `web` at port 8080 with two tasks on n1 and one on n2.
struct Mesh {
    sim: Sim,
    nodes: [NodeId; 2],
    tasks: [Task; 3],
    masks: Masks,
}

fn published(mode: PublishMode) -> PublishedPort {
    PublishedPort {
        published: 8080,
        target: 80,
        protocol: Protocol::Tcp,
        mode,
        host_ip: Vec::new(),
        nodes: Vec::new(),
        allow: Vec::new(),
    }
}

impl Mesh {
    fn new(request: ServiceRequest) -> Self {
        let mut sim = Sim::new();
        let nodes = ["n1", "n2"].map(|name| sim.join(name, &format!("192.0.2.{}", &name[1..])).unwrap());
        let app = NetworkRequest { name: "app".to_owned(), ..NetworkRequest::default() };
        sim.change(|world, fresh| change::create_network(world, app, fresh)).unwrap();
        sim.change(|world, fresh| change::create_service(world, request, fresh)).unwrap();
        let tasks = ["n1", "n1", "n2"].map(|node| sim.task("web", node).unwrap());
        Self { sim, nodes, tasks, masks: Masks::default() }
    }

    fn ingress() -> Self {
        Self::new(ServiceRequest { ports: vec![published(PublishMode::Ingress)], ..sim::service("web") })
    }

    fn set(&mut self, task: usize, change: TaskChange) {
        let node = ["n1", "n1", "n2"][task];
        self.sim.set(node, &self.tasks[task].id, change).unwrap();
    }

    fn drain(&mut self, node: &str) {
        let to = Availability::Drain;
        self.sim.change(|world, fresh| change::set_availability(world, node, to, fresh)).unwrap();
    }

    fn entry(&self, node: usize) -> Entry<'_> {
        Entry { node: &self.nodes[node], masks: &self.masks }
    }

    fn service(&self) -> [Readiness; 2] {
        self.asked(None)
    }

    fn port(&self, port: &str) -> [Readiness; 2] {
        self.asked(Some(port.parse().unwrap()))
    }

    fn asked(&self, port: Option<PortAsked>) -> [Readiness; 2] {
        let world = self.sim.world();
        [0, 1].map(|node| self.entry(node).service(world, world.service("web").unwrap(), port))
    }

    fn task(&self, task: usize) -> Readiness {
        let world = self.sim.world();
        self.entry(0).task(world, &world.tasks[&self.tasks[task].id])
    }
}

fn is_down(readiness: &Readiness) -> bool {
    matches!(readiness, Readiness::Down(_))
}

fn is_draining(readiness: &Readiness) -> bool {
    matches!(readiness, Readiness::Draining(_))
}

fn to(state: TaskState) -> TaskChange {
    TaskChange { state: Some(state), ..TaskChange::default() }
}

fn unhealthy() -> TaskChange {
    TaskChange { health: Some(Health::Unhealthy), ..TaskChange::default() }
}

#[test]
fn a_node_serves_what_has_tasks_anywhere() {
    let mut mesh = Mesh::ingress();
    assert_eq!(mesh.service(), [Readiness::Up(100), Readiness::Up(100)]);
    for task in 0..2 {
        mesh.set(task, unhealthy());
    }
    assert_eq!(mesh.service(), [Readiness::Up(100), Readiness::Up(100)]);
    mesh.set(2, to(TaskState::Failed));
    assert!(mesh.service().iter().all(is_down));
}

#[test]
fn a_drained_node_lets_go_on_what_runs() {
    let mut mesh = Mesh::ingress();
    mesh.drain("n1");
    let [n1, n2] = mesh.service();
    assert!(is_draining(&n1) && n2 == Readiness::Up(100));
    assert!(is_draining(&mesh.entry(0).node(mesh.sim.world())));
    assert!(is_draining(&mesh.task(0)) && mesh.task(2) == Readiness::Up(100));
}

#[test]
fn a_node_that_hears_no_task_is_not_chosen() {
    let mut mesh = Mesh::ingress();
    mesh.set(0, to(TaskState::Failed));
    mesh.set(1, to(TaskState::Failed));
    mesh.masks.nodes.insert(mesh.nodes[1].clone(), Verdict::Dead);
    assert!(is_down(&mesh.service()[0]) && is_down(&mesh.task(2)));
}

#[test]
fn where_tasks_serve_their_own_node_only_it_gets_their_share() {
    let host = ServiceRequest { ports: vec![published(PublishMode::Host)], ..sim::service("web") };
    let local = ServiceRequest {
        ports: vec![published(PublishMode::Ingress)],
        locality: Locality::LocalOnly,
        ..sim::service("web")
    };
    for request in [host, local] {
        let mut mesh = Mesh::new(request);
        assert_eq!(mesh.service(), [Readiness::Up(100), Readiness::Up(50)]);
        mesh.set(2, unhealthy());
        let [n1, n2] = mesh.service();
        assert!(n1 == Readiness::Up(100) && is_down(&n2), "{n2:?}");
    }
}

#[test]
fn each_port_is_judged_by_itself_and_all_by_the_worst() {
    let ports = vec![
        published(PublishMode::Ingress),
        PublishedPort { published: 9090, ..published(PublishMode::Host) },
        PublishedPort {
            published: 53,
            protocol: Protocol::Udp,
            nodes: vec!["n2".parse().unwrap()],
            ..published(PublishMode::Ingress)
        },
    ];
    let mut mesh = Mesh::new(ServiceRequest { ports, ..sim::service("web") });
    assert_eq!(mesh.port("8080"), [Readiness::Up(100), Readiness::Up(100)]);
    assert_eq!(mesh.port("9090/tcp"), [Readiness::Up(100), Readiness::Up(50)]);
    assert_eq!(mesh.service(), [Readiness::Up(100), Readiness::Up(50)]);
    mesh.set(2, unhealthy());
    assert_eq!(mesh.port("8080"), [Readiness::Up(100), Readiness::Up(100)]);
    assert!(is_down(&mesh.port("9090")[1]) && is_down(&mesh.service()[1]));
    assert_eq!(mesh.service()[0], Readiness::Up(100));
    let [n1, n2] = mesh.port("53");
    assert!(is_down(&n1) && n2 == Readiness::Up(100));
    assert!(is_down(&mesh.port("53/tcp")[1]) && is_down(&mesh.port("8081")[0]));
    for wrong in ["", "0", "web", "80/sctp", "65536"] {
        assert!(wrong.parse::<PortAsked>().is_err(), "{wrong}");
    }
}

#[test]
fn a_service_that_is_not_published_here_is_not_served() {
    let mesh = Mesh::new(sim::service("web"));
    assert!(mesh.service().iter().all(is_down));
    let at_n2 = PublishedPort { nodes: vec!["n2".parse().unwrap()], ..published(PublishMode::Ingress) };
    let mesh = Mesh::new(ServiceRequest { ports: vec![at_n2], ..sim::service("web") });
    let [n1, n2] = mesh.service();
    assert!(is_down(&n1) && n2 == Readiness::Up(100));
}

#[test]
fn a_task_has_its_share_of_the_heaviest() {
    let mut mesh = Mesh::ingress();
    let weight = |weight| TaskChange { weight: Some(weight), ..TaskChange::default() };
    mesh.set(0, weight(8));
    mesh.set(1, weight(2));
    assert_eq!([0, 1, 2].map(|task| mesh.task(task)), [100, 25, 12].map(Readiness::Up));
    mesh.set(1, weight(0));
    assert!(is_down(&mesh.task(1)));
}

#[test]
fn a_task_that_leaves_drains_and_a_sick_one_is_down() {
    let mut mesh = Mesh::ingress();
    mesh.set(0, TaskChange { draining: Some(true), ..TaskChange::default() });
    assert!(is_draining(&mesh.task(0)));
    mesh.set(0, unhealthy());
    assert!(is_down(&mesh.task(0)));
    mesh.set(1, to(TaskState::Complete));
    assert!(is_down(&mesh.task(1)));
}

#[test]
fn a_node_that_is_not_of_the_mesh_is_down() {
    let mesh = Mesh::ingress();
    let (stranger, masks) = (NodeId::new("stranger"), Masks::default());
    let entry = Entry { node: &stranger, masks: &masks };
    assert!(is_down(&entry.node(mesh.sim.world())));
}

/// What a task's node says of it counts as its record will.
#[test]
fn a_task_of_which_its_node_says_that_it_cannot_serve_is_down() {
    let mut mesh = Mesh::ingress();
    for task in 0..3 {
        assert!(!is_down(&mesh.task(task)));
        mesh.masks.tasks.insert(mesh.tasks[task].id.clone(), Notice::Sick);
        assert!(is_down(&mesh.task(task)));
        let all = mesh.service().iter().all(is_down);
        assert_eq!(all, task == 2, "after {task}");
    }
}

/// A task that is ejected serves all the same where the others are on nodes that are not heard: what the planner does, and
/// DNS, is what a load balancer is told.
#[test]
fn an_ejected_task_serves_where_nobody_else_is_heard() {
    let mut mesh = Mesh::ingress();
    mesh.set(0, to(TaskState::Failed));
    let ejected = Ejected { since: 1, row: 1, why: Sickness::Silent };
    mesh.set(1, TaskChange { ejected: Some(Some(ejected)), ..TaskChange::default() });
    assert!(is_down(&mesh.task(1)), "the other one serves in its stead");
    mesh.masks.nodes.insert(mesh.nodes[1].clone(), Verdict::Dead);
    assert_eq!(mesh.service()[0], Readiness::Up(100));
    assert_eq!(mesh.task(1), Readiness::Up(100));
    assert!(is_down(&mesh.task(2)));
}
