//! **Effect.** The data plane of any kernel with nf_tables: one owned table, kept as planned.
//!
//! [`render()`] says what the table must be; what differs from that is changed in one transaction. Only
//! `table inet mesh` is ever listed or written. The node's flows are known to conntrack, so neither a change
//! nor the replacement of the whole table touches a flow that runs.

mod fixed;
mod listing;
mod program;
mod render;
mod ruleset;
mod script;
mod slots;
mod stale;
mod values;
mod words;

use mesh_core::plan::Balance;

pub use render::{render, render_gates};
pub use ruleset::{Chain, Change, Ruleset, Set};
pub use script::TABLE;

use self::listing::Listing;
use self::program::NftError;
use self::stale::{Former, Stale};
use crate::dataplane::conntrack;
use crate::plane::{Applied, DIFFERS, Depth, Drift, MISSING, Plane};

/// From so many chains on, one listing of the table is cheaper than one of each chain.
const LIST_SINGLY: usize = 8;

/// Keeps `table inet mesh`.
#[derive(Debug, Default)]
pub struct NftPlane {
    /// Programs balance; the table only lets through, refuses and masquerades.
    gates_only: bool,
    /// None: nothing was applied yet, or it is not known how far the last attempt came.
    known: Option<Known>,
}

/// What was applied last.
#[derive(Debug)]
struct Known {
    ruleset: Ruleset,
    /// How nft prints it.
    printed: Listing,
    former: Former,
}

impl NftPlane {
    /// A plane that knows nothing yet: its first round replaces the table.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that leaves balancing to programs.
    pub fn gates() -> Self {
        Self { gates_only: true, ..Self::default() }
    }

    /// What this plane cannot do, in words for people.
    pub fn limits() -> Vec<String> {
        [
            "a task that serves a published port from another node than the one the client sent to sees the \
             entry node's overlay address instead of the client's",
            "a task of an internal network, and a task that is reached from another mesh network or from the \
             node's localhost, sees its node's overlay address instead of the client's",
            "--return-path tunnel and dsr are not available: answers of a task on another node return as with snat",
            "--idle-timeout is not available: conntrack's own timeouts hold",
            "least-conn spreads flows at random, by weight",
            "client-ip affinity goes by a hash of the address: the timeout has no effect, and a change of \
             backends moves some clients",
            "flows are not seen: there are no counters of backends, no live flows in `mesh explain`, and no \
             `mesh monitor`",
            "tasks that refuse connections or do not answer are not found, --passive-health or not: only a health check \
             finds them",
            "published ports are not reached by ::1 from the node itself; use 127.0.0.1",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Puts a table in the place of whatever is there and learns how nft prints it.
    async fn replace(ruleset: &Ruleset) -> Result<(Listing, usize), NftError> {
        program::commit(&ruleset.replacement()).await?;
        Ok((Self::list().await?.unwrap_or_default(), ruleset.objects()))
    }

    async fn list() -> Result<Option<Listing>, NftError> {
        let json = program::list_table().await?;
        Ok(json.as_deref().map(Listing::parse).transpose()?)
    }

    /// Changes `there`, which is what the kernel has, in one transaction.
    async fn change(
        there: &Ruleset,
        want: &Ruleset,
        mut printed: Listing,
    ) -> Result<(Listing, usize), NftError> {
        let Some(change) = there.change_to(want) else {
            return Self::replace(want).await;
        };
        if change.script.is_empty() {
            return Ok((printed, 0));
        }
        if let Err(error) = program::commit(&change.script).await {
            tracing::warn!(%error, "the table is not as it was left; it is replaced");
            return Self::replace(want).await;
        }
        if change.written.len() > LIST_SINGLY {
            printed = Self::list().await?.unwrap_or_default();
        } else {
            for name in &change.written {
                printed.learn(name, &Listing::parse(&program::list_chain(name).await?)?);
            }
        }
        Ok((printed, change.objects))
    }

    /// Looks at the kernel's table and repairs what drifted.
    async fn sweep(known: Known, want: &Ruleset) -> Result<(Listing, usize), NftError> {
        let Some(now) = Self::list().await? else {
            return Self::replace(want).await;
        };
        match now.in_words_of(&known.ruleset, &known.printed) {
            Some(there) => Self::change(&there, want, known.printed).await,
            None => Self::replace(want).await,
        }
    }
}

/// What a look finds.
async fn look(known: Option<&Known>, want: &Ruleset, drift: &Drift) -> Result<(), NftError> {
    let table = format!("table {TABLE}");
    let Some(known) = known else {
        drift.note(table, "not applied yet");
        return Ok(());
    };
    let Some(now) = NftPlane::list().await? else {
        drift.note(table, MISSING);
        return Ok(());
    };
    match now.in_words_of(&known.ruleset, &known.printed) {
        Some(there) => there.drift(want, drift),
        None => drift.note(table, DIFFERS),
    }
    Ok(())
}

/// Flows that the old rules began are forgotten where the new ones would have decided otherwise, and nothing goes on that
/// could.
async fn forget_stale(before: &Former, want: &Balance, depth: Depth) -> Result<(), String> {
    let stale = Stale::after(before, want, depth, super::addresses()?);
    if stale.is_empty() {
        return Ok(());
    }
    let gone = conntrack::forget(move |flow| stale.is(flow)).await.map_err(|error| error.to_string())?;
    if gone > 0 {
        tracing::debug!(gone, "flows follow the new table");
    }
    Ok(())
}

impl Plane for NftPlane {
    type Want = Balance;
    const NAME: &'static str = "nft";

    async fn reconcile(&mut self, want: &Balance, depth: Depth) -> Applied {
        let mut applied = Applied::default();
        let ruleset = if self.gates_only { render_gates(want) } else { render(want) };
        if let Some(drift) = Drift::of(depth) {
            if let Err(error) = look(self.known.as_ref(), &ruleset, &drift).await {
                applied.errors.insert(format!("table {TABLE}"), error.to_string());
            }
            applied.drift = drift.all();
            return applied;
        }
        let known = self.known.take();
        let depth = if known.is_some() { depth } else { Depth::Sweep };
        let before = known.as_ref().map(|known| known.former.clone()).unwrap_or_default();
        let result = match (known, depth) {
            (None, _) => Self::replace(&ruleset).await,
            (Some(known), Depth::Delta) => Self::change(&known.ruleset, &ruleset, known.printed).await,
            (Some(known), Depth::Sweep | Depth::Look) => Self::sweep(known, &ruleset).await,
        };
        match result {
            Ok((printed, changed)) => {
                applied.changed = changed;
                let mut known = Known { ruleset, printed, former: Former::default() };
                // Gates alone never translated a flow.
                if !self.gates_only {
                    known.former = Former::of(want);
                    if let Err(error) = forget_stale(&before, want, depth).await {
                        applied.errors.insert("flows".to_owned(), error);
                    }
                }
                self.known = Some(known);
            }
            // The next round begins from nothing.
            Err(error) => {
                applied.errors.insert(format!("table {TABLE}"), error.to_string());
            }
        }
        applied
    }

    async fn remove_all(&mut self) -> Applied {
        self.known = None;
        let mut applied = Applied::default();
        match program::delete_table().await {
            Ok(existed) => applied.changed = usize::from(existed),
            Err(error) => {
                applied.errors.insert(format!("table {TABLE}"), error.to_string());
            }
        }
        applied
    }
}
