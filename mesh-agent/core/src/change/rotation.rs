//! **Decision.** The authority of a mesh is replaced: when that begins, how far it is, and when the former one goes.

use super::{Change, Refusal};
use crate::kv::{Rev, Txn};
use crate::model::{Rotation, Snapshot};
use crate::records::{self, ROTATION};

/// Says that nodes need certificates of the authority of this name, for which `former` vouches. Managers have its key
/// already.
pub fn begin_rotation(world: &Snapshot, former: &str, authority: &str) -> Result<Change<()>, Refusal> {
    if world.rotation.as_ref().is_some_and(|rotation| rotation.settled && rotation.authority != former) {
        return Err(replaced_meanwhile());
    }
    if world.rotation.as_ref().is_some_and(|rotation| !rotation.settled) {
        return Err(Refusal::Conflict(
            "the authority is being replaced already: 'mesh cluster ca' says how far that is".to_owned(),
        ));
    }
    Ok(Change { txn: put(world, Rotation { authority: authority.to_owned(), settled: false }), result: () })
}

/// Whoever makes the next authority while another one takes the place of the present comes too late with it.
pub(super) fn replaced_meanwhile() -> Refusal {
    Refusal::Conflict("the authority was replaced by somebody else just now; nothing was changed".to_owned())
}

/// Which secrets nobody will ask for any more, by name and revision: those of authorities that were replaced, and those that
/// were made and never named. `settled` is the revision at which the replacement was; one that was written since may be of the
/// next authority, and the present one's is for managers to come.
pub fn spent(
    secrets: Vec<(String, Rev)>,
    present: &str,
    settled: Rev,
) -> impl Iterator<Item = (String, Rev)> {
    secrets.into_iter().filter(move |(name, written)| *name != present && *written < settled)
}

/// How many nodes there are, and how many of these say that they use a certificate of the present authority. What they
/// were given does not count: an answer may be lost.
pub fn rotated(world: &Snapshot) -> (usize, usize) {
    let Some(rotation) = &world.rotation else { return (0, 0) };
    let uses = |id| world.live.get(id).is_some_and(|live| live.authority == rotation.authority);
    (world.identities.len(), world.identities.keys().filter(|id| uses(*id)).count())
}

/// When all nodes do, the former authority is trusted no longer. A node that is away holds that up until it is back, or
/// removed: it would be locked out.
pub fn settle_rotation(world: &Snapshot) -> Option<Txn> {
    let rotation = world.rotation.as_ref().filter(|rotation| !rotation.settled)?;
    let (nodes, done) = rotated(world);
    (nodes == done).then(|| put(world, Rotation { settled: true, ..rotation.clone() }))
}

/// What a node has to do whose certificate is of that authority, and who trusts so many.
pub fn follow(world: &Snapshot, issuer: &str, trusted: usize) -> Follow {
    match &world.rotation {
        Some(rotation) if issuer != rotation.authority => Follow::Renew,
        Some(rotation) if rotation.settled && trusted > 1 => Follow::Forget,
        _ => Follow::Nothing,
    }
}

/// What the replacement of the authority asks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// It has done all.
    Nothing,
    /// To get a certificate of the next authority.
    Renew,
    /// To trust nobody but the authority of its certificate.
    Forget,
}

fn put(world: &Snapshot, rotation: Rotation) -> Txn {
    let mut txn = Txn::default();
    txn.unchanged(ROTATION, world.rev_of(ROTATION));
    txn.put(ROTATION, records::to_json(&rotation));
    txn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_authoritys_secret_stays_and_so_does_one_to_come() {
        let secret = |name: &str, rev| (format!("authority/{name}"), Rev(rev));
        let all = vec![secret("first", 3), secret("never named", 4), secret("present", 5), secret("next", 9)];
        let spent: Vec<_> = spent(all, "authority/present", Rev(8)).collect();
        assert_eq!(spent, [secret("first", 3), secret("never named", 4)]);
    }
}
