//! **Effect.** Writes down what happens in the world: which things changed (the journal), and in words what became of
//! them (the events), of which each is a line of the log.

use std::sync::Arc;

use mesh_core::events::{self, Event, Recent};
use mesh_core::journal::Journal;
use mesh_core::kv::Rev;
use mesh_core::model::{NodeId, Snapshot};
use tokio::sync::watch::{self, Receiver, Sender};
use tracing::info;

use crate::liveness::Masks;

/// What is known of the past; see [`record`].
#[derive(Debug, Clone)]
pub struct Past {
    /// What changed lately.
    pub journal: Receiver<Journal>,
    /// What happened lately.
    pub events: Receiver<Recent>,
}

impl Past {
    /// Who gets no new flows, beside what the records say, as far as it is written down.
    pub fn masks(&self) -> mesh_core::liveness::Masks {
        self.journal.borrow().masks().clone()
    }
}

/// What changed and happened lately, and the part of the agent that writes it down.
pub fn record(
    node: NodeId,
    worlds: Receiver<Arc<Snapshot>>,
    masks: Receiver<Masks>,
) -> (Past, impl Future<Output = ()>) {
    let (journal, changes) = watch::channel(Journal::default());
    let (recent, events) = watch::channel(Recent::default());
    (Past { journal: changes, events }, keep(node, worlds, masks, journal, recent))
}

async fn keep(
    node: NodeId,
    mut worlds: Receiver<Arc<Snapshot>>,
    mut masks: Receiver<Masks>,
    journal: Sender<Journal>,
    recent: Sender<Recent>,
) {
    let mut known: Option<Arc<Snapshot>> = None;
    let mut silent = Masks::default();
    worlds.mark_changed();
    loop {
        let happened = tokio::select! {
            changed = worlds.changed() => {
                if changed.is_err() {
                    return;
                }
                let world = Arc::clone(&worlds.borrow_and_update());
                // Before the store was heard there is no world.
                if world.rev == Rev(0) {
                    continue;
                }
                let mut things = Default::default();
                journal.send_modify(|journal| things = journal.note(&world, &silent));
                let former = known.replace(Arc::clone(&world));
                former.map_or_else(Vec::new, |former| events::between(&former, &world, &things))
            }
            Ok(()) = masks.changed() => {
                let now = Arc::clone(&masks.borrow_and_update());
                let was = std::mem::replace(&mut silent, Arc::clone(&now));
                if let Some(world) = &known {
                    journal.send_modify(|journal| _ = journal.note(world, &silent));
                }
                known.as_ref().map_or_else(Vec::new, |world| events::heard(world, &node, &was.nodes, &now.nodes))
            }
        };
        if !happened.is_empty() {
            happened.iter().for_each(tell);
            recent.send_modify(|recent| recent.note(now(), happened));
        }
    }
}

fn tell(event: &Event) {
    let Event { kind, action, id, attributes } = event;
    let of = |name| attributes.get(name).map(String::as_str);
    let (name, service, node) = (of("name"), of("service"), of("node"));
    let (reason, changed) = (of("reason"), of("changed"));
    info!(%kind, action, id, name, service, node, changed, reason, "event");
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
