//! **Effect.** This node's tasks: registered, attached, watched, stopped, forgotten.
//!
//! What should happen is in the snapshot; this carries it out and can be begun anew at any time.

mod flows;
mod leaving;
mod process;
mod stop;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::change::{self, Me, Refusal, TaskChange, TaskRequest};
use mesh_core::kv::Rev;
use mesh_core::model::{Origin, Program, RunFailure, ServiceId, Snapshot, Task, TaskId, TaskState};
use mesh_core::plan::endpoint_device;
use mesh_core::records;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::control::{Control, ControlError, Done};
use crate::liveness::Bell;
use crate::netns::Netns;
use crate::overlay::OverlayPlane;
use crate::plane::Plane;
use stop::Patience;

/// How long the network of a new task may take.
const ATTACH: Duration = Duration::from_secs(10);
/// How often namespaces that are only paths are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// How long connections of a task may go on whose service was gone before anybody here knew it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What the node tells others of its tasks, beside their records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// See [`mesh_core::model::Live::connections`].
    pub connections: BTreeMap<TaskId, u64>,
    /// See [`mesh_core::model::Live::failures`].
    pub failures: BTreeMap<ServiceId, RunFailure>,
}

/// This node's tasks. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    control: Control,
    me: watch::Receiver<Option<Me>>,
    told: Arc<watch::Sender<Told>>,
    /// How long clients may go on with addresses that they were told.
    ttl: Duration,
    /// What others are to know at once.
    bell: Bell,
}

impl Tasks {
    /// Tasks of the node that `control` speaks for, once it has joined; `ttl` is how long names' answers hold.
    pub fn new(control: Control, me: watch::Receiver<Option<Me>>, ttl: Duration, bell: Bell) -> Self {
        Self { control, me, told: Arc::new(watch::Sender::new(Told::default())), ttl, bell }
    }

    /// What is told of them.
    pub fn told(&self) -> watch::Receiver<Told> {
        self.told.subscribe()
    }

    /// Tells others; nobody is bothered where nothing changed.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Told)) {
        self.told.send_if_modified(|told| {
            let before = told.clone();
            change(told);
            *told != before
        });
    }

    /// This agent as its node's owner.
    pub(crate) fn me(&self) -> Result<Me, ControlError> {
        self.me.borrow().clone().ok_or_else(|| {
            ControlError::Local("this node has not joined the mesh yet: its store does not answer".to_owned())
        })
    }

    /// Registers a task and waits until it is attached to its networks and has DNS.
    pub async fn register(&self, mut request: TaskRequest) -> Result<Done<Task>, ControlError> {
        let me = self.me()?;
        // A namespace that is not there is refused before anything is written.
        usable(&request.origin).map_err(Refusal::Invalid)?;
        let supervised = matches!(request.origin, Origin::Process { supervised: true, .. });
        request.state = TaskState::Preparing;
        let done =
            self.control.change(|world, fresh| change::add_task(world, &me, request.clone(), fresh)).await?;
        let id = done.result.id.clone();
        if let Err(why) = self.attached(&done.result, done.rev).await {
            self.forget(&id).await?;
            return Err(ControlError::Local(format!("the task cannot be attached: {why}")));
        }
        let state = if supervised { TaskState::Starting } else { TaskState::Running };
        self.change(&id, TaskChange { state: Some(state), ..TaskChange::default() }).await
    }

    /// Changes a task of this node.
    pub async fn change(&self, id: &TaskId, change: TaskChange) -> Result<Done<Task>, ControlError> {
        let me = self.me()?;
        self.control.change(|world, fresh| change::change_task(world, &me, id, change.clone(), fresh)).await
    }

    /// Removes all trace of a task of this node.
    pub async fn forget(&self, id: &TaskId) -> Result<Done<Task>, ControlError> {
        let me = self.me()?;
        self.control.change(|world, _| change::forget_task(world, &me, id)).await
    }

    /// Waits for the round that attached a task; `Err` says what stands in its way.
    async fn attached(&self, task: &Task, rev: Rev) -> Result<(), String> {
        let mut status = self.control.statuses();
        let seen = status.wait_for(|status| status.planned >= rev);
        let Ok(Ok(status)) = tokio::time::timeout(ATTACH, seen).await else {
            return Err("the node's kernel was not brought up to date in time; see 'mesh status'".to_owned());
        };
        let name = self.control.world().task_name(task);
        let mut concerned = vec![OverlayPlane::NAME.to_owned(), format!("DNS of task {name}")];
        concerned.extend(task.addresses.keys().map(|network| endpoint_device(&task.id, network)));
        concerned.extend(task.addresses.values().flat_map(|a| a.addresses()).map(|ip| ip.to_string()));
        let mut errors = status.planes.values().flat_map(|plane| &plane.last.errors);
        match errors.find(|(object, _)| concerned.iter().any(|word| object.contains(word.as_str()))) {
            Some((_, error)) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Watches over all tasks of this node until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut worlds = self.control.worlds();
        let mut at_work: JoinSet<TaskId> = JoinSet::new();
        let mut watched = BTreeSet::new();
        let mut stopping = BTreeSet::new();
        let mut patience = BTreeMap::new();
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = worlds.changed() => if changed.is_err() { return },
                _ = look.tick() => {}
                Some(ended) = at_work.join_next(), if !at_work.is_empty() => {
                    if let Ok(id) = ended {
                        watched.remove(&id);
                        stopping.remove(&id);
                    }
                }
            }
            let Ok(me) = self.me() else { continue };
            let world = Arc::clone(&worlds.borrow_and_update());
            patience.retain(|id, _| world.tasks.contains_key(id));
            for task in world.tasks.on(&me.id) {
                // A service that is gone no longer says how long its tasks have.
                if let Some(service) = task.service.as_ref().and_then(|id| world.services.get(id)) {
                    let grace = service.program.as_ref().and_then(|program| program.grace);
                    let known =
                        Patience { drain: service.drain_timeout, grace: grace.unwrap_or(Program::GRACE) };
                    patience.insert(task.id.clone(), known);
                }
                if must_stop(&world, task) && stopping.insert(task.id.clone()) {
                    let unknown = Patience { drain: DRAIN_TIMEOUT, grace: Program::GRACE };
                    let known = patience.get(&task.id).copied().unwrap_or(unknown);
                    at_work.spawn(self.clone().stop(Arc::clone(task), known));
                } else if watched.insert(task.id.clone()) {
                    at_work.spawn(self.clone().watch(Arc::clone(task)));
                }
            }
        }
    }

    /// Waits until a task's namespace is gone, and forgets it then.
    async fn watch(self, task: Arc<Task>) -> TaskId {
        match &task.origin {
            Origin::Process { pid, start, .. } => {
                self.unless_forgotten(&task, process::ended(*pid, *start)).await
            }
            Origin::Netns { .. } => self.unless_forgotten(&task, gone(&task.origin)).await,
        }
        self.ended(&task).await;
        task.id.clone()
    }

    /// Waits for an end, or until there is nothing left to wait for.
    async fn unless_forgotten(&self, task: &Task, end: impl Future<Output = ()>) {
        let mut worlds = self.control.worlds();
        let forgotten = async {
            // Nothing more is learned once the agent ends; that is no news of the task.
            if worlds.wait_for(|world| !world.tasks.contains_key(&task.id)).await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = end => {}
            () = forgotten => {}
        }
    }

    /// By which every node is told at once that a task of this one gets no new flows, whether or not the store can write it
    /// down.
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    async fn ended(&self, task: &Task) {
        self.bell.gone(&task.id);
        let name = self.control.world().task_name(task);
        match self.forget(&task.id).await {
            Ok(_) => info!(task = %name, "task ended"),
            // Whoever ended it was faster.
            Err(ControlError::Refused(Refusal::NotFound { .. })) => {}
            Err(error) => {
                warn!(task = %name, %error, "cannot remove the record of an ended task; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Waits until a namespace is no longer there. Anything else that keeps us from looking says nothing.
async fn gone(origin: &Origin) {
    while !Netns::of_origin(origin).is_err_and(|error| error.is_gone()) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether a task can live there; `Err` says why not.
fn usable(origin: &Origin) -> Result<(), String> {
    let netns = Netns::of_origin(origin).map_err(|error| error.to_string())?;
    let own = Netns::own().map_err(|error| error.to_string())?;
    if netns.is(&own) {
        return Err(format!("{netns} is the node's own network namespace; a task needs one of its own"));
    }
    Ok(())
}

/// Someone asked for it, or its service is gone.
fn must_stop(world: &Snapshot, task: &Task) -> bool {
    // By the key, not the record: a service that cannot be read here is not gone.
    let orphan = task.service.as_ref().is_some_and(|id| world.rev_of(&records::service(id)) == Rev(0));
    orphan || world.stops.contains_key(&task.id)
}
