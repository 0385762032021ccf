//! One task changes, in the store; and then the kernel.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mesh_agent::store::Store;
use mesh_agent::store::gateway::{GatewayStore, Secret};
use mesh_core::kv::{Txn, TxnOutcome};
use mesh_core::model::{Health, Task};
use mesh_core::records::{self, Claim, to_json};
use mesh_tests::{Lab, Node, STORE_PORT};

use super::agent::Agent;
use super::millis;
use super::records::{Records, TASKS};

/// Between two changes: no round is for two of them.
const PAUSE: Duration = Duration::from_millis(150);

/// What becomes of a task, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Sick,
    Well,
    Removed,
    Added,
}

impl Change {
    /// Each task goes through all of them, and is as it was in the end.
    pub(super) const ALL: [Self; 4] = [Self::Sick, Self::Well, Self::Removed, Self::Added];

    pub(super) fn txn(self, task: &Task) -> Txn {
        let mut txn = Txn::default();
        let slot = task.service.as_ref().map(|service| records::slot_claim(service, task.slot));
        let key = records::task(&task.id);
        match self {
            Self::Sick => txn.put(key, to_json(&Task { health: Health::Unhealthy, ..task.clone() })),
            Self::Well => txn.put(key, to_json(task)),
            Self::Removed => {
                txn.delete(key);
                slot.into_iter().for_each(|slot| txn.delete(slot));
            }
            Self::Added => {
                txn.put(key, to_json(task));
                slot.into_iter().for_each(|slot| txn.claim(slot, Claim::held(task.id.as_str())));
            }
        }
        txn
    }

    /// How many of its service's tasks serve then.
    fn serving(self) -> u32 {
        match self {
            Self::Sick | Self::Removed => TASKS - 1,
            Self::Well | Self::Added => TASKS,
        }
    }
}

/// What came of all changes.
pub(super) struct Changes {
    /// From just before the transaction until the kernel has it, ms.
    pub(super) until_kernel: Vec<f64>,
    /// Of that, until the transaction was acknowledged, ms.
    pub(super) until_stored: Vec<f64>,
    /// Rounds of each plane, ms for each change.
    pub(super) rounds: BTreeMap<String, f64>,
    /// Processor time of the whole agent for each change, ms.
    pub(super) processor: f64,
}

/// Tasks all over the mesh.
pub(super) fn some(records: &Records, count: usize) -> impl Iterator<Item = (u16, &Task, Change)> {
    let all = records.services.len();
    (0..count).filter_map(move |number| {
        let service = (number / Change::ALL.len()) * 7919 % all;
        let (_, tasks) = records.services.get(service)?;
        let task = tasks.get(number / Change::ALL.len() % tasks.len())?;
        Some((u16::try_from(service).ok()?, task, Change::ALL[number % Change::ALL.len()]))
    })
}

pub(super) fn measure(
    lab: &Lab,
    node: &Node,
    agent: &Agent,
    records: &Records,
    count: usize,
    idle: f64,
) -> Result<Changes> {
    let secret = Secret::read(lab.dir().join("token"))?;
    let (began, processor, rounds) = (Instant::now(), agent.processor()?, agent.metrics()?.rounds());
    let (mut until_kernel, mut until_stored) = (Vec::new(), Vec::new());
    // A thread of its own, for it must be inside of the lab.
    lab.client().netns().run(|| -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let store = GatewayStore::connect(format!("{}:{STORE_PORT}", node.address()), secret);
        for (service, task, change) in some(records, count) {
            thread::sleep(PAUSE);
            let txn = change.txn(task);
            let before = Instant::now();
            let outcome = runtime.block_on(store.txn(txn))?;
            ensure!(matches!(outcome, TxnOutcome::Committed { .. }), "not committed: {outcome:?}");
            until_stored.push(millis(before.elapsed()));
            until_kernel.push(millis(agent.reaches(service, change.serving())? - before));
        }
        Ok(())
    })??;
    let each = |all: f64| all / count.max(1) as f64;
    let busy = agent.processor()?.saturating_sub(processor);
    let processor = each(millis(busy) - millis(began.elapsed()) * idle);
    let after = agent.metrics()?.rounds();
    let of = |(plane, ms): (String, f64)| {
        let before = rounds.get(&plane).copied().unwrap_or_default();
        (plane, each(ms - before))
    };
    Ok(Changes { until_kernel, until_stored, rounds: after.into_iter().map(of).collect(), processor })
}
