//! **Effect.** Runs the commands of services: starts what falls to this node, and has tasks stop that are to go.
//!
//! A command runs under a supervisor of its own, as with `mesh task run`: it outlives the agent. What falls to whom
//! is worked out in [`mesh_core::replicas`]; this can be begun anew at any time.

mod backoff;
mod launch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::change;
use mesh_core::model::{NodeId, ServiceId, Snapshot, TaskId};
use mesh_core::records;
use mesh_core::replicas::{self, Start};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::control::{Control, now};
use crate::logs;
use crate::tasks::Tasks;
use backoff::Backoff;
use launch::Ended;

/// How often to look even if nothing changed: delays pass by themselves.
const LOOK: Duration = Duration::from_millis(500);
/// How often logs of services that are gone are looked for, and how long they are kept.
const TIDY: Duration = Duration::from_secs(3600);
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// A task's record goes before its supervisor is heard to have ended, by less than this.
const ASKED: Duration = Duration::from_secs(60);
/// A node that shows no life for so long is taken for lost, as long as most others do.
const LOST: Duration = Duration::from_secs(60);

/// What the mesh runs on this node.
pub struct Replicas {
    /// The way to the records.
    pub control: Control,
    /// The node's tasks.
    pub tasks: Tasks,
    /// The API's socket.
    pub socket: PathBuf,
    /// Where commands' output goes.
    pub logs: PathBuf,
    /// Whether this node tells tasks to stop, whoever else there is.
    pub janitor: bool,
}

/// What is known beside the records.
#[derive(Default)]
struct Memory {
    /// Started here, and not ended.
    busy: BTreeSet<(ServiceId, u32)>,
    /// Tasks that someone asked to stop, and until when the records said so: their end is no failure.
    asked: BTreeMap<TaskId, Instant>,
    /// Commands that do not run.
    backoff: Backoff,
    /// Nodes without a sign of life, and since when.
    silent: BTreeMap<NodeId, Instant>,
}

impl Replicas {
    /// Runs until told to stop. Commands go on then.
    pub async fn run(self, stop: CancellationToken) {
        let mut worlds = self.control.worlds();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tidied: Option<Instant> = None;
        let mut running: JoinSet<Ended> = JoinSet::new();
        let mut memory = Memory::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = worlds.changed() => if changed.is_err() { return },
                _ = look.tick() => {}
                Some(ended) = running.join_next(), if !running.is_empty() => {
                    if let Ok(ended) = ended {
                        memory.ended(&self.control.world(), ended);
                    }
                }
            }
            let Ok(me) = self.tasks.me() else { continue };
            let world = Arc::clone(&worlds.borrow_and_update());
            if tidied.is_none_or(|last| last.elapsed() > TIDY) {
                tidied = Some(Instant::now());
                self.tidy(&world);
            }
            let lost = memory.look(&world);
            if self.janitor || change::is_first(&world, &me.id) {
                self.conduct(&world, &lost).await;
            }
            for start in replicas::to_start(&world, &me.id, &lost) {
                let key = (start.service.clone(), start.slot);
                if memory.backoff.is_over(&start.service, start.version) && memory.busy.insert(key) {
                    self.start(&world, start, &mut running);
                }
            }
            self.tasks.tell(|told| told.failures = memory.backoff.failures());
        }
    }

    /// Logs of a node that runs for years have an end.
    fn tidy(&self, world: &Snapshot) {
        let exists = |name: &str| world.services.values().any(|service| service.name.as_str() == name);
        if let Err(error) = logs::discard(&self.logs, exists, KEPT) {
            warn!(dir = %self.logs.display(), %error, "cannot remove logs of services that are gone");
        }
    }

    /// Has those tasks stop whose turn it is.
    async fn conduct(&self, world: &Snapshot, lost: &BTreeSet<NodeId>) {
        for (id, service) in world.services.iter().filter(|(_, service)| service.program.is_some()) {
            let next = replicas::conduct(world, id, now(), lost);
            if next.is_ok_and(|change| change.txn.ops.is_empty()) {
                continue;
            }
            let done =
                self.control.change(|world, fresh| replicas::conduct(world, id, fresh.now, lost)).await;
            if let Err(error) = done {
                warn!(service = %service.name, %error, "cannot go on with its tasks; trying again");
            }
        }
    }

    fn start(&self, world: &Snapshot, start: Start, running: &mut JoinSet<Ended>) {
        let Some(service) = world.services.get(&start.service) else { return };
        let Some(program) = &service.program else { return };
        info!(service = %service.name, slot = start.slot, version = start.version, "starting a task");
        let log = logs::file(&self.logs, service.name.as_str(), start.slot);
        let (socket, name, run) = (self.socket.clone(), service.name.clone(), program.run.clone());
        running.spawn(launch::run(socket, name, run, start, log));
    }
}

impl Memory {
    /// Remembers what can be seen now only; the nodes that are lost.
    fn look(&mut self, world: &Snapshot) -> BTreeSet<NodeId> {
        let now = Instant::now();
        self.asked.retain(|_, last| now - *last < ASKED);
        self.asked.extend(world.stops.keys().map(|id| (id.clone(), now)));
        self.backoff.forget(world);
        let mute = |id: &&NodeId| !world.live.contains_key(*id);
        self.silent.retain(|id, _| world.nodes.contains_key(id) && !world.live.contains_key(id));
        for id in world.nodes.keys().filter(mute) {
            self.silent.entry(id.clone()).or_insert(now);
        }
        let silent = self.silent.iter().filter(|(_, since)| now - **since > LOST);
        replicas::lost(world, &silent.map(|(id, _)| id.clone()).collect())
    }

    fn ended(&mut self, world: &Snapshot, ended: Ended) {
        let Ended { start, task, lived, why } = ended;
        self.busy.remove(&(start.service.clone(), start.slot));
        // Another node, or the command before it, has the slot.
        let taken = || world.claims.contains_key(&*records::slot_claim(&start.service, start.slot));
        let meant = match &task {
            Some(id) => self.asked.remove(id).is_some(),
            None => taken(),
        };
        let gone = !world.services.contains_key(&start.service);
        if !meant && !gone {
            let name = world.services.get(&start.service).map(|service| service.name.to_string());
            warn!(service = name, slot = start.slot, "a task ended: {why}");
            self.backoff.failed(start.service, start.version, lived, why);
        }
    }
}
