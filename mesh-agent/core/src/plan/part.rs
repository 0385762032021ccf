//! **Decision.** What a plan is put together from: what each service adds with its tasks, and each task without one.
//!
//! A part depends on nothing but its own records and on what all stand on ([`Scene`]). So when a task changes, its own part
//! is made anew, and the others stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::balance::{self, Frontend, Pool, Site};
use super::ground::Base;
use super::overlay::{self, Endpoint, Route};
use super::{Problem, mask, ramp};
use crate::dns::Names;
use crate::liveness::Masks;
use crate::model::{NodeId, Service, ServiceId, Snapshot, Task, TaskId, Timestamp, Vni};

/// Whose part it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unit {
    /// A service, with all tasks that say that they are its.
    Service(ServiceId),
    /// A task that says that it is nobody's.
    Task(TaskId),
}

impl Unit {
    pub(super) fn of(task: &Task) -> Self {
        match &task.service {
            Some(service) => Self::Service(service.clone()),
            None => Self::Task(task.id.clone()),
        }
    }

    /// All of a world.
    pub(super) fn all(world: &Snapshot) -> BTreeSet<Self> {
        let services = world.services.keys().chain(world.tasks.by_service().keys()).cloned();
        let alone = world.tasks.values().filter(|task| task.service.is_none());
        services.map(Self::Service).chain(alone.map(|task| Self::of(task))).collect()
    }
}

/// A world as one node plans it.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) world: &'a Snapshot,
    pub(super) me: &'a NodeId,
    pub(super) base: &'a Base,
    pub(super) masks: &'a Masks,
    pub(super) now: Timestamp,
}

/// What a unit adds to a plan.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) routes: BTreeMap<IpNet, Route>,
    pub(super) endpoints: BTreeMap<String, Endpoint>,
    pub(super) sites: BTreeMap<(Vni, IpAddr), Arc<Site>>,
    pub(super) frontends: BTreeMap<Frontend, Arc<Pool>>,
    pub(super) names: Names,
    pub(super) problems: Vec<Problem>,
    /// When it becomes another by itself.
    pub(super) next: Option<Timestamp>,
}

impl Part {
    pub(super) fn of(scene: Scene<'_>, unit: &Unit) -> Self {
        let world = scene.world;
        let mut part = Self::default();
        match unit {
            Unit::Service(id) => {
                let tasks = &*scene.masks.noted(world.tasks.of(id));
                let service = world.services.get(id);
                tasks.iter().for_each(|task| part.add_task(scene, service.map(AsRef::as_ref), task));
                match service {
                    Some(service) => part.add_service(scene, service, tasks),
                    None => world.tasks.of(id).iter().for_each(|task| part.names.add_alone(world, task)),
                }
            }
            Unit::Task(id) => {
                if let Some(task) = world.tasks.get(id) {
                    part.add_task(scene, None, task);
                    part.names.add_alone(world, task);
                }
            }
        }
        part
    }

    fn add_task(&mut self, scene: Scene<'_>, service: Option<&Service>, task: &Task) {
        self.sites.extend(balance::sites(scene, task));
        if task.node == *scene.me && !task.state.is_terminal() {
            overlay::attach(scene, service, task, &mut self.routes, &mut self.endpoints);
        }
    }

    fn add_service(&mut self, scene: Scene<'_>, service: &Service, tasks: &[Arc<Task>]) {
        let world = scene.world;
        overlay::vips(scene, service, tasks, &mut self.routes);
        let turnout = scene.masks.turnout(world, service, tasks);
        let mut problem = |message: &str| {
            let about = format!("service {}", service.name);
            self.problems.push(Problem { about, message: message.to_owned() });
        };
        if turnout.panics {
            problem("most of its tasks fail their health check: all get flows, as --health-panic has it");
        }
        if turnout.overfull {
            problem(
                "more of its tasks than may be left out refuse connections or do not answer: some get flows all the \
                 same (mesh service ps shows them)",
            );
        }
        let serving: Vec<&Arc<Task>> = tasks.iter().filter(|task| world.serves(task, &turnout)).collect();
        balance::frontends(scene, service, &serving, &mut self.frontends);
        self.next = ramp::apply(world, service.slow_start, scene.now, self.frontends.values_mut());
        mask::apply(&scene.masks.nodes, self.frontends.values_mut());
        self.names = Names::of_service(world, scene.me, service, tasks, &turnout, &scene.masks.nodes);
    }
}
