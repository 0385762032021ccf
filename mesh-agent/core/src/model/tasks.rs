//! All tasks, with whose they are and where they run.

use std::borrow::Borrow;
use std::ops::Deref;
use std::sync::Arc;

use super::{NodeId, ServiceId, SharedMap, Task, TaskId};

/// Those of one service or on one node, by slot. As long as none of them changes it is the same one in each copy.
pub type Group = Arc<Vec<Arc<Task>>>;

/// An ordered map of tasks that also finds those of a service and those on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tasks {
    all: SharedMap<TaskId, Arc<Task>>,
    by_service: SharedMap<ServiceId, Group>,
    by_node: SharedMap<NodeId, Group>,
}

impl Tasks {
    /// Puts a task in at its id; the one that was there comes back.
    pub fn insert(&mut self, id: TaskId, task: Arc<Task>) -> Option<Arc<Task>> {
        let former = self.remove(&id);
        if let Some(service) = &task.service {
            put(&mut self.by_service, service, &task);
        }
        put(&mut self.by_node, &task.node, &task);
        self.all.insert(id, task);
        former
    }

    /// Takes a task out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, id: &Q) -> Option<Arc<Task>>
    where
        TaskId: Borrow<Q>,
    {
        let task = self.all.remove(id)?;
        if let Some(service) = &task.service {
            take(&mut self.by_service, service, &task);
        }
        take(&mut self.by_node, &task.node, &task);
        Some(task)
    }

    /// A service's tasks, by slot.
    pub fn of(&self, service: &ServiceId) -> &[Arc<Task>] {
        self.by_service.get(service).map_or(&[], |group| group.as_slice())
    }

    /// A node's tasks, by slot.
    pub fn on(&self, node: &NodeId) -> &[Arc<Task>] {
        self.by_node.get(node).map_or(&[], |group| group.as_slice())
    }

    /// All nodes that have tasks, whether or not there are such nodes.
    pub fn by_node(&self) -> &SharedMap<NodeId, Group> {
        &self.by_node
    }

    /// All services that have tasks, whether or not there are such services.
    pub fn by_service(&self) -> &SharedMap<ServiceId, Group> {
        &self.by_service
    }
}

/// All of them, by id.
impl Deref for Tasks {
    type Target = SharedMap<TaskId, Arc<Task>>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

fn place(group: &Group, task: &Task) -> Result<usize, usize> {
    group.binary_search_by(|other| (other.slot, &other.id).cmp(&(task.slot, &task.id)))
}

fn put<K: Ord + Clone>(groups: &mut SharedMap<K, Group>, key: &K, task: &Arc<Task>) {
    match groups.get_mut(key) {
        Some(group) => {
            let (Ok(at) | Err(at)) = place(group, task);
            Arc::make_mut(group).insert(at, Arc::clone(task));
        }
        None => _ = groups.insert(key.clone(), Arc::new(vec![Arc::clone(task)])),
    }
}

fn take<K: Ord + Clone>(groups: &mut SharedMap<K, Group>, key: &K, task: &Task) {
    let Some(group) = groups.get_mut(key) else { return };
    if let Ok(at) = place(group, task) {
        Arc::make_mut(group).remove(at);
    }
    if group.is_empty() {
        groups.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Few, Health, Origin, TaskState};

    fn task(id: u8, service: Option<u8>, node: u8, slot: u32) -> Arc<Task> {
        Arc::new(Task {
            id: TaskId::new(format!("t{id}")),
            service: service.map(|service| ServiceId::new(format!("s{service}"))),
            slot,
            name: None,
            node: NodeId::new(format!("n{node}")),
            epoch: 1,
            addresses: Few::default(),
            state: TaskState::Running,
            health: Health::None,
            checked: false,
            ejected: None,
            weight: 1,
            draining: false,
            message: String::new(),
            origin: Origin::Netns { path: "/".into() },
            dns: Vec::new(),
            packets_only: false,
            program: None,
            ready_since: 0,
            created: 0,
            updated: 0,
        })
    }

    proptest! {
        #[test]
        fn groups_are_those_of_all(
            steps in prop::collection::vec(
                (0u8..40, prop::option::of((prop::option::of(0u8..4), 0u8..3, 0u32..3))), 0..200,
            ),
        ) {
            let mut tasks = Tasks::default();
            for (id, put) in steps {
                let kept = tasks.clone();
                let others: Vec<_> = kept.by_service().iter().map(|(_, group)| Arc::clone(group)).collect();
                match put {
                    Some((service, node, slot)) => {
                        let task = task(id, service, node, slot);
                        prop_assert_eq!(tasks.insert(task.id.clone(), task), kept.get(&TaskId::new(format!("t{id}"))).cloned());
                    }
                    None => drop(tasks.remove(&TaskId::new(format!("t{id}")))),
                }
                let shared = tasks.by_service().values().filter(|group| others.iter().any(|other| Arc::ptr_eq(group, other)));
                prop_assert!(shared.count() + 2 >= others.len(), "two services are concerned at most");
            }
            for group in tasks.by_service().values().chain(tasks.by_node().values()) {
                prop_assert!(!group.is_empty() && group.is_sorted_by_key(|task| (task.slot, task.id.clone())));
            }
            for number in 0u8..4 {
                let (service, node) = (ServiceId::new(format!("s{number}")), NodeId::new(format!("n{number}")));
                let count = |is: &dyn Fn(&Task) -> bool| tasks.values().filter(|task| is(task)).count();
                prop_assert_eq!(tasks.of(&service).len(), count(&|task| task.service.as_ref() == Some(&service)));
                prop_assert!(tasks.of(&service).iter().all(|task| task.service.as_ref() == Some(&service)));
                prop_assert_eq!(tasks.on(&node).len(), count(&|task| task.node == node));
                prop_assert!(tasks.on(&node).iter().all(|task| task.node == node));
            }
        }
    }
}
