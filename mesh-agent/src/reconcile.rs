//! **Effect.** The loop: whenever the world changes, and every so often anyway, plan this node and have each
//! plane make it so.
//!
//! It also wakes when a plan changes by itself, as during a slow start.
//!
//! A plan that cannot be made, for its decision panics, leaves the kernel as it is and is told to whoever can find the records
//! by which that is (`facts::sync`).
//!
//! Rounds are level-triggered: each is right by itself, whatever was lost or half-done before. Nothing is
//! touched before this node is in the snapshot, so that a start without a store leaves the kernel as it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mesh_core::dns::Zone;
use mesh_core::model::{NetworkId, NodeId, Snapshot, TaskId, Timestamp, Verification, Verified};
use mesh_core::plan::{Desired, Planner, Problem};
use mesh_core::{quarantine, records};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::attempts::{Attempts, guarded};
use crate::control::now;
use crate::dataplane::Dataplane;
use crate::dns::{DnsError, DnsServer};
use crate::facts::sync::Complaint;
use crate::liveness::Masks;
use crate::netns::Netns;
use crate::overlay::OverlayPlane;
use crate::plane::{Applied, DIFFERS, Depth, MISSING, Plane};
use crate::status::{PlaneStatus, Status, StoreHealth};

/// What the loop works with.
pub struct Reconciler {
    /// This node.
    pub node: NodeId,
    /// The newest snapshot.
    pub world: watch::Receiver<Arc<Snapshot>>,
    /// Nodes that do not answer.
    pub masks: watch::Receiver<Masks>,
    /// Devices of the node come and go.
    pub devices: watch::Receiver<()>,
    /// How the store fares; passed on in the status.
    pub store: watch::Receiver<StoreHealth>,
    /// Devices and routes.
    pub overlay: OverlayPlane,
    /// Frontends and backends.
    pub balance: Dataplane,
    /// What DNS answers from.
    pub zone: Arc<ArcSwap<Zone>>,
    /// DNS in tasks.
    pub dns: DnsServer,
    /// Whether the world is what the store says, and not what was known before: at first it is not.
    pub in_step: bool,
    /// Where the status is published.
    pub status: watch::Sender<Arc<Status>>,
    /// Where it is written down that a round is under way.
    pub attempts: Attempts,
    /// Who finds out why no plan can be made.
    pub complaints: watch::Sender<Option<Arc<Complaint>>>,
    /// The last world of which one could be made; at first none.
    pub good: Arc<Snapshot>,
    /// How often the kernel is looked at even if nothing changed.
    pub sweep: Duration,
    /// Tasks' rules of DNS that are being set again.
    pub repair: Repair,
}

/// At work beside the rounds: with many tasks it takes longer than a round may. What came of it is in the next sweep's.
pub type Repair = JoinSet<BTreeMap<TaskId, DnsError>>;

impl Reconciler {
    /// Runs until told to stop. The kernel stays as it is then.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut timer = tokio::time::interval(self.sweep);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut planner = Planner::default();
        let mut named = BTreeMap::new();
        let mut next = None;
        let mut masks = Arc::clone(&self.masks.borrow_and_update());
        let mut answered = String::new();
        // Half of what whoever started the agent waits for; a round that never ends is then not the end.
        let mut watchdog = sd_notify::watchdog_enabled().map(|within| tokio::time::interval(within / 2));
        loop {
            // A closed channel means that the agent is ending; then only the token counts.
            let depth = tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = self.world.changed() => Depth::Delta,
                Ok(()) = self.store.changed() => {
                    self.publish(|_| {});
                    continue;
                }
                Ok(()) = self.masks.changed() => {
                    masks = Arc::clone(&self.masks.borrow_and_update());
                    // Whatever was planned last is planned anew.
                    next = Some(0);
                    Depth::Delta
                }
                Ok(()) = self.devices.changed() => {
                    // Nobody planned that, and what is planned is for all of them.
                    next = Some(0);
                    Depth::Delta
                }
                () = until(next) => Depth::Delta,
                () = tick(watchdog.as_mut()) => {
                    let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
                    continue;
                }
                _ = timer.tick() => Depth::Sweep,
            };
            // Before the world, which may be newer, but not older.
            self.in_step = self.store.borrow().connected;
            let world = Arc::clone(&self.world.borrow_and_update());
            next = if world.nodes.contains_key(&self.node) {
                self.round(&world, &masks, depth, next, &mut planner, &mut named).await
            } else {
                None
            };
            let asked = world.verification.as_ref().filter(|asked| asked.id != answered);
            if let Some(asked) = asked.filter(|_| world.nodes.contains_key(&self.node)) {
                answered.clone_from(&asked.id);
                next = self.answer(asked, &world, &masks, next, &mut planner, &mut named).await;
            }
        }
    }

    /// `next` is when the last plan changes by itself; so is what comes back.
    async fn round(
        &mut self,
        world: &Arc<Snapshot>,
        masks: &Masks,
        depth: Depth,
        next: Option<Timestamp>,
        planner: &mut Planner,
        named: &mut BTreeMap<TaskId, Vec<NetworkId>>,
    ) -> Option<Timestamp> {
        let now = now();
        let known = self.status.borrow().planned;
        if depth == Depth::Delta && known == world.changed && next.is_none_or(|next| now < next) {
            // Only signs of life: the same world for the kernel.
            return next;
        }
        self.attempts.begin();
        let desired = match guarded(|| planner.desired(world, &self.node, masks, now)) {
            Ok(desired) => desired,
            Err(why) => {
                *planner = Planner::default();
                self.complain(world, why);
                self.attempts.end();
                return None;
            }
        };
        self.good = Arc::clone(world);
        let next = desired.next;
        // Routes before rules: what a rule sends somewhere must have a way there.
        let overlay = timed(&mut self.overlay, &desired.overlay, depth).await;
        let balance = timed(&mut self.balance, &desired.balance, depth).await;
        self.zone.store(Arc::new(desired.zone.clone()));
        let dns = self.name(world, &desired, depth, named).await;
        self.finish(desired, masks, overlay, balance, dns);
        self.attempts.end();
        next
    }

    /// No plan can be made of a world. Once for each change: it may be by something else than the records.
    fn complain(&self, world: &Snapshot, why: String) {
        let message = format!(
            "revision {} cannot be planned ({why}): the kernel stays as it was planned last",
            world.changed
        );
        let problem = Problem { about: "plan".to_owned(), message };
        let known = self.status.borrow().problems.contains(&problem);
        if known {
            return;
        }
        warn!(problem.message, "no plan");
        self.publish(|status| {
            status.problems.retain(|other| other.about != problem.about);
            status.problems.push(problem);
        });
        let mut suspects = quarantine::news(&self.good, world);
        // Without this node's own record there is nothing to plan.
        suspects.remove(&*records::node(&self.node));
        self.complaints.send_replace(Some(Arc::new(Complaint {
            good: Arc::clone(&self.good),
            suspects,
            why,
        })));
    }

    /// Compares the kernel with the plan, mends it if that is asked for, and says what was found.
    async fn answer(
        &mut self,
        asked: &Verification,
        world: &Arc<Snapshot>,
        masks: &Masks,
        mut next: Option<Timestamp>,
        planner: &mut Planner,
        named: &mut BTreeMap<TaskId, Vec<NetworkId>>,
    ) -> Option<Timestamp> {
        let found = self.look(world, masks, planner, named).await;
        let mut left = found.len();
        if asked.repair && left > 0 {
            // One that is under way may have passed by what is wrong now.
            while self.repair.join_next().await.is_some() {}
            next = self.round(world, masks, Depth::Sweep, next, planner, named).await;
            while self.repair.join_next().await.is_some() {}
            left = self.look(world, masks, planner, named).await.len();
        }
        self.publish(|status| status.verified = Some(Verified::new(&asked.id, found, left)));
        next
    }

    /// What is not as planned, by object.
    async fn look(
        &mut self,
        world: &Snapshot,
        masks: &Masks,
        planner: &mut Planner,
        named: &BTreeMap<TaskId, Vec<NetworkId>>,
    ) -> BTreeMap<String, String> {
        let desired = match guarded(|| planner.desired(world, &self.node, masks, now())) {
            Ok(desired) => desired,
            Err(why) => {
                *planner = Planner::default();
                return [("plan".to_owned(), why)].into();
            }
        };
        let mut dns = Applied::default();
        let tasks = desired.overlay.endpoints.values().map(|endpoint| &endpoint.task);
        for task in tasks.filter(|task| !named.contains_key(*task)) {
            dns.drift.insert(format!("task {task}"), MISSING.to_owned());
        }
        for (task, is_led) in self.dns.look().await {
            match is_led {
                Ok(true) => {}
                Ok(false) => _ = dns.drift.insert(format!("rules of task {task}"), DIFFERS.to_owned()),
                Err(error) => _ = dns.errors.insert(format!("rules of task {task}"), error.to_string()),
            }
        }
        let planes = [
            (OverlayPlane::NAME, self.overlay.reconcile(&desired.overlay, Depth::Look).await),
            (self.balance.name(), self.balance.reconcile(&desired.balance, Depth::Look).await),
            ("dns", dns),
        ];
        // What cannot be looked at is not known to be as planned.
        let found = planes.into_iter().flat_map(|(plane, Applied { drift, errors, changed: _ })| {
            drift.into_iter().chain(errors).map(move |(object, why)| (format!("{plane}: {object}"), why))
        });
        let aside =
            world.poison.iter().map(|(key, why)| (format!("records: {key}"), format!("set aside: {why}")));
        found.chain(aside).collect()
    }

    /// Gives DNS to every task that is attached, and takes it from those that are gone.
    async fn name(
        &mut self,
        world: &Snapshot,
        desired: &Desired,
        depth: Depth,
        named: &mut BTreeMap<TaskId, Vec<NetworkId>>,
    ) -> (Applied, Duration) {
        let began = Instant::now();
        let mut applied = Applied::default();
        let mut wanted: BTreeMap<TaskId, Vec<NetworkId>> = BTreeMap::new();
        let mut endpoints: Vec<_> = desired.overlay.endpoints.values().collect();
        endpoints.sort_by_key(|endpoint| endpoint.inside.clone());
        for endpoint in endpoints {
            if let Some(network) = world.networks.values().find(|network| network.vni == endpoint.vni) {
                wanted.entry(endpoint.task.clone()).or_default().push(network.id.clone());
            }
        }
        // Also those that the agent before served, and that have gone since.
        let served = self.dns.serving().into_iter().chain(named.keys().cloned());
        for task in served.filter(|task| !wanted.contains_key(task)).collect::<Vec<_>>() {
            self.dns.stop(&task).await;
            named.remove(&task);
        }
        for (id, networks) in wanted {
            let Some(task) = world.tasks.get(&id) else { continue };
            // On a sweep every task again: its namespace may be another one by now.
            if depth == Depth::Delta && named.get(&id) == Some(&networks) {
                continue;
            }
            let result = match Netns::of_origin(&task.origin) {
                Ok(netns) => {
                    let upstreams = task.dns.iter().map(|server| SocketAddr::new(*server, 53)).collect();
                    let served =
                        self.dns.serve(id.clone(), netns.into_file(), networks.clone(), upstreams).await;
                    served.map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            let object = format!("DNS of task {}", world.task_name(task));
            match result {
                Ok(()) if named.insert(id.clone(), networks.clone()) == Some(networks) => {}
                result => applied.record(object, result),
            }
        }
        if self.in_step {
            self.dns.forget_others().await;
        }
        if depth == Depth::Sweep {
            for (id, error) in self.repair.try_join_next().and_then(Result::ok).unwrap_or_default() {
                applied.record(format!("DNS of task {id}"), Err(error));
            }
            if self.repair.is_empty() {
                let dns = self.dns.clone();
                self.repair.spawn(async move { dns.repair().await });
            }
        }
        (applied, began.elapsed())
    }

    fn finish(
        &self,
        desired: Desired,
        masks: &Masks,
        overlay: (Applied, Duration),
        balance: (Applied, Duration),
        dns: (Applied, Duration),
    ) {
        // Without its rules the node does not do what the revision asks for; a task that cannot be attached
        // is that task's trouble.
        let done = balance.0.errors.is_empty();
        let rev = desired.rev;
        self.publish(|status| {
            status.planned = rev;
            status.silent = Arc::clone(masks);
            if done {
                status.applied = rev;
            }
            status.problems = desired.problems;
            status.problems.extend(self.balance.problems());
            status.features = self.balance.features();
            status.limits = self.balance.limits();
            for (name, (applied, took)) in
                [(OverlayPlane::NAME, overlay), (self.balance.name(), balance), ("dns", dns)]
            {
                let plane = status.planes.entry(name).or_default();
                note(name, plane, applied, took);
            }
        });
    }

    fn publish(&self, change: impl FnOnce(&mut Status)) {
        let mut status = Status::clone(&self.status.borrow());
        status.store = self.store.borrow().clone();
        change(&mut status);
        self.status.send_replace(Arc::new(status));
    }
}

/// One line per change and none per round.
fn note(name: &'static str, plane: &mut PlaneStatus, applied: Applied, took: Duration) {
    for (object, error) in &applied.errors {
        if plane.last.errors.get(object) != Some(error) {
            warn!(plane = name, object, error, "cannot apply");
        }
    }
    for object in plane.last.errors.keys().filter(|object| !applied.errors.contains_key(*object)) {
        info!(plane = name, object, "applied at last");
    }
    if applied.changed > 0 {
        debug!(plane = name, changed = applied.changed, ?took, "applied");
    }
    plane.rounds += 1;
    plane.changed += applied.changed as u64;
    plane.micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    plane.total_micros = plane.total_micros.saturating_add(plane.micros);
    plane.last = applied;
}

/// Waits for a moment of the wall clock, which is looked at anew in every round; forever without one.
async fn until(at: Option<Timestamp>) {
    match at {
        Some(at) => tokio::time::sleep(Duration::from_millis(at.saturating_sub(now()))).await,
        None => std::future::pending().await,
    }
}

/// Waits for a timer; forever without one.
async fn tick(timer: Option<&mut tokio::time::Interval>) {
    match timer {
        Some(timer) => _ = timer.tick().await,
        None => std::future::pending().await,
    }
}

async fn timed<P: Plane>(plane: &mut P, want: &P::Want, depth: Depth) -> (Applied, Duration) {
    let began = Instant::now();
    let applied = plane.reconcile(want, depth).await;
    (applied, began.elapsed())
}
