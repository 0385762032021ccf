//! Which of a service's tasks get new flows, beside what is said of each of them alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Health, Locality, NodeId, PublishMode, Service, Snapshot, Task, TaskId};

/// What a service's tasks together make of what is known of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turnout {
    /// So few are healthy that it is rather the check that is sick: all serve.
    pub panics: bool,
    /// More are [ejected](Task::ejected) than may be left out at once.
    pub overfull: bool,
    /// Those that are.
    left_out: BTreeSet<TaskId>,
}

impl Turnout {
    /// How many could serve and are left out for what they make of connections.
    pub fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// Whether a task is one of them.
    pub fn leaves_out(&self, task: &Task) -> bool {
        self.left_out.contains(&task.id)
    }
}

impl Snapshot {
    /// Of a service and all of its tasks.
    pub fn turnout(&self, service: &Service, tasks: &[Arc<Task>]) -> Turnout {
        self.turnout_of(service, || tasks.iter())
    }

    /// The same where not all nodes are heard: a task that is sick is better than one of a node that is dead, so those
    /// do not count among the ones that serve in its stead. Where nobody who is heard could serve, all count.
    pub fn turnout_where_heard(
        &self,
        service: &Service,
        tasks: &[Arc<Task>],
        is_heard: impl Fn(&NodeId) -> bool,
    ) -> Turnout {
        let heard = || tasks.iter().filter(|task| is_heard(&task.node));
        let turnout = self.turnout_of(service, heard);
        if heard().any(|task| self.serves(task, &turnout)) { turnout } else { self.turnout(service, tasks) }
    }

    fn turnout_of<'a, I>(&self, service: &Service, tasks: impl Fn() -> I) -> Turnout
    where
        I: Iterator<Item = &'a Arc<Task>>,
    {
        let mut turnout = Turnout { panics: self.panics(service, &tasks), ..Turnout::default() };
        if service.passive_health && tasks().any(|task| task.ejected.is_some()) {
            self.leave_out(service, tasks(), &mut turnout);
        }
        turnout
    }

    /// Of a task's service, as far as that matters to the task.
    pub fn turnout_for(&self, task: &Task) -> Turnout {
        let service = task.service.as_ref().and_then(|id| self.services.get(id));
        let concerned = task.health == Health::Unhealthy || task.ejected.is_some();
        service
            .filter(|_| concerned)
            .map_or_else(Turnout::default, |service| self.turnout(service, self.tasks.of(&service.id)))
    }

    /// Whether a task gets new flows.
    pub fn serves(&self, task: &Task, turnout: &Turnout) -> bool {
        self.could_serve(task, turnout.panics) && !turnout.leaves_out(task)
    }

    /// Whether it is in the balance, or sick where its service panics.
    fn could_serve(&self, task: &Task, panics: bool) -> bool {
        let sick = || task.would_be_ready() && task.health == Health::Unhealthy && self.is_wanted(task);
        self.in_balance(task) || panics && sick()
    }

    /// Whether so few of a service's tasks are healthy that it is rather the check that is sick. Those that are ejected
    /// count as their check finds them.
    fn panics<'a, I: Iterator<Item = &'a Arc<Task>>>(
        &self,
        service: &Service,
        tasks: impl Fn() -> I,
    ) -> bool {
        let Some(least) =
            service.health.as_ref().map(|check| usize::from(check.panic)).filter(|least| *least > 0)
        else {
            return false;
        };
        let judged = |task: &&Arc<Task>| {
            task.would_be_ready() && task.health != Health::Starting && self.is_wanted(task)
        };
        let all = tasks().filter(judged).count();
        let healthy = tasks().filter(|task| self.in_balance(task)).count();
        healthy * 100 < all * least
    }

    /// Half of those that could serve at most, those first that have been sick for longest: what all make wrong may be
    /// their clients', and someone must go on trying. Where a node's tasks alone get what comes to it, half of these.
    fn leave_out<'a>(
        &self,
        service: &Service,
        tasks: impl Iterator<Item = &'a Arc<Task>>,
        turnout: &mut Turnout,
    ) {
        let apart = service.locality == Locality::LocalOnly
            || service.ports.iter().any(|port| port.mode == PublishMode::Host);
        let mut groups: BTreeMap<_, Vec<&Arc<Task>>> = BTreeMap::new();
        for task in tasks.filter(|task| self.could_serve(task, turnout.panics)) {
            groups.entry(apart.then_some(&task.node)).or_default().push(task);
        }
        for group in groups.into_values() {
            let most = group.len() / 2;
            let mut sick: Vec<_> =
                group.into_iter().filter_map(|task| Some((task.ejected?.since, &task.id))).collect();
            sick.sort_unstable();
            turnout.overfull |= sick.len() > most;
            turnout.left_out.extend(sick.into_iter().take(most).map(|(_, id)| id.clone()));
        }
    }
}
