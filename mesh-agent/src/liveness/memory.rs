//! **Effect.** Who does not answer, on disk: the agent that comes next goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mesh_core::liveness::Verdict;
use mesh_core::model::NodeId;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Masks;
use crate::disk;

/// The file, in the directory of the node's state.
pub const FILE: &str = "silent";

/// Whom the agent before did not hear. What cannot be read is found again within a second.
pub fn remembered(state_dir: &Path) -> BTreeSet<NodeId> {
    disk::read(&state_dir.join(FILE))
        .unwrap_or_else(|error| {
            warn!("{error:#}: who does not answer is found anew");
            None
        })
        .unwrap_or_default()
}

/// What follows, until probes say more.
pub fn first(remembered: &BTreeSet<NodeId>) -> Masks {
    let dead: BTreeMap<_, _> = remembered.iter().map(|id| (id.clone(), Verdict::Dead)).collect();
    Masks::new(dead.into())
}

/// Writes down who does not answer, whenever that changes, until told to stop.
pub async fn remember(
    state_dir: PathBuf,
    mut written: BTreeSet<NodeId>,
    mut masks: watch::Receiver<Masks>,
    stop: CancellationToken,
) {
    while let Some(Ok(())) = stop.run_until_cancelled(masks.changed()).await {
        let silent = silent(&masks.borrow_and_update());
        if silent == written {
            continue;
        }
        let (path, now) = (state_dir.join(FILE), silent.clone());
        match spawn_blocking(move || disk::write(&path, &now)).await {
            Ok(Ok(())) => written = silent,
            // It is tried again with the next change; until then the next agent takes a second longer.
            Ok(Err(error)) => {
                warn!("{error:#}: an agent that starts has to find out anew who does not answer")
            }
            Err(_) => return,
        }
    }
}

/// What is the node's own finding; the rest is said anew by those who said it.
fn silent(masks: &Masks) -> BTreeSet<NodeId> {
    let own = masks.nodes.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Dead | Verdict::PathDown));
    own.map(|(id, _)| id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn who_does_not_answer_is_known_to_the_next_agent() {
        let dir = tempfile::tempdir().unwrap();
        assert!(remembered(dir.path()).is_empty());
        let (tell, masks) = watch::channel(Masks::default());
        let stop = CancellationToken::new();
        let tracker = tokio_util::task::TaskTracker::new();
        let task = tracker.spawn(remember(dir.path().to_owned(), BTreeSet::new(), masks, stop.clone()));
        let verdicts = [
            ("dead", Verdict::Dead),
            ("cut", Verdict::PathDown),
            ("leaving", Verdict::Leaving),
            ("agreed", Verdict::AgreedDown),
        ];
        let nodes: BTreeMap<_, _> = verdicts.into_iter().map(|(id, v)| (NodeId::new(id), v)).collect();
        let expect = |ids: &[&str]| -> BTreeSet<NodeId> { ids.iter().map(|id| NodeId::new(*id)).collect() };
        let known = async |wanted: BTreeSet<NodeId>| {
            while remembered(dir.path()) != wanted {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tell.send(Arc::new(nodes.into())).unwrap();
        known(expect(&["cut", "dead"])).await;
        assert_eq!(silent(&first(&remembered(dir.path()))), expect(&["cut", "dead"]));
        tell.send(Masks::default()).unwrap();
        known(expect(&[])).await;
        stop.cancel();
        task.await.unwrap();
        std::fs::write(dir.path().join(FILE), "noise").unwrap();
        assert!(remembered(dir.path()).is_empty(), "what makes no sense is nothing");
    }
}
