//! **Decision.** The authority of etcd's members is replaced, which only managers have certificates of.
//!
//! etcd reads its certificate for each new connection, but whom it trusts when it starts. So it is done in steps: all
//! members trust both authorities, all use certificates of the next, all trust that one alone. None of them begins
//! before all managers have done the one before, so any two members know each other at any time. In the first and the
//! last, members start anew: one after the other, each only while all others are well.

use std::collections::BTreeSet;

use super::rotation::replaced_meanwhile;
use super::{Change, Refusal};
use crate::kv::{Rev, Txn};
use crate::model::{MemberRotation, NodeId, Snapshot, TrustStep};
use crate::records::{self, MEMBER_ROTATION};

/// What the replacement asks of a manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustDuty {
    /// Nothing, or not yet.
    Nothing,
    /// To write this down.
    Write(Txn),
    /// To sign by the next authority, and have a certificate of it.
    TakeOver,
    /// To trust these two, or the next alone, and start its member anew; then that is [`done`].
    StartAnew {
        /// What has to be committed before: a copy of the records may lag behind, and the turn be another's by now.
        still: Txn,
        /// Whether the former one is still trusted.
        both: bool,
    },
}

/// Says that members need certificates of the authority of this name. Its key is among etcd's secrets already: since the
/// record was as it was at `seen`.
pub fn begin_member_rotation(world: &Snapshot, seen: Rev, authority: &str) -> Result<Change<()>, Refusal> {
    if world.rev_of(MEMBER_ROTATION) != seen && !is_rotating(world) {
        return Err(replaced_meanwhile());
    }
    if is_rotating(world) {
        return Err(Refusal::Conflict(
            "the authority of etcd's members is being replaced already: 'mesh cluster ca' says how far that is".to_owned(),
        ));
    }
    let rotation = MemberRotation {
        authority: authority.to_owned(),
        step: TrustStep::Both,
        done: BTreeSet::new(),
        turn: None,
    };
    Ok(Change { txn: put(world, &rotation), result: () })
}

/// Whether one takes the place of another now.
pub fn is_rotating(world: &Snapshot) -> bool {
    world.member_rotation.as_ref().is_some_and(|rotation| rotation.step != TrustStep::Settled)
}

/// How many steps there are for all managers together, and how many of these are done.
pub fn member_rotation_progress(world: &Snapshot) -> (usize, usize) {
    let managers = world.manager_ids().count();
    let Some(rotation) = &world.member_rotation else { return (0, 0) };
    let done = world.manager_ids().filter(|id| rotation.done.contains(*id)).count();
    let before = match rotation.step {
        TrustStep::Both => 0,
        TrustStep::Next => managers,
        TrustStep::Alone => 2 * managers,
        TrustStep::Settled => return (3 * managers, 3 * managers),
    };
    (3 * managers, before + done)
}

/// What a manager does next. `signs`: by which authority it does. `others_well`: the members are those that are wanted, and
/// all but its own answer. `well`: its own does, too.
pub fn trust_duty(world: &Snapshot, me: &NodeId, signs: &str, others_well: bool, well: bool) -> TrustDuty {
    let Some(rotation) = &world.member_rotation else { return TrustDuty::Nothing };
    let MemberRotation { authority, step, done, turn } = rotation;
    if *step != TrustStep::Both && signs != authority {
        return TrustDuty::TakeOver;
    }
    let next = match step {
        TrustStep::Settled => return TrustDuty::Nothing,
        TrustStep::Both => TrustStep::Next,
        TrustStep::Next => TrustStep::Alone,
        TrustStep::Alone => TrustStep::Settled,
    };
    if world.manager_ids().all(|manager| done.contains(manager)) {
        let rotation = MemberRotation { step: next, done: BTreeSet::new(), turn: None, ..rotation.clone() };
        return TrustDuty::Write(put(world, &rotation));
    }
    if *step == TrustStep::Next {
        return self::done(world, me).map_or(TrustDuty::Nothing, TrustDuty::Write);
    }
    match turn {
        Some(one) if one == me && others_well => {
            TrustDuty::StartAnew { still: put(world, rotation), both: *step == TrustStep::Both }
        }
        // Who is a manager no more has no turn.
        Some(one) if world.is_manager(one) => TrustDuty::Nothing,
        _ if done.contains(me) || !others_well || !well => TrustDuty::Nothing,
        _ => TrustDuty::Write(put(world, &MemberRotation { turn: Some(me.clone()), ..rotation.clone() })),
    }
}

/// A manager has done what the present step asks for; nothing, if that is known.
pub fn done(world: &Snapshot, me: &NodeId) -> Option<Txn> {
    let rotation = world.member_rotation.as_ref().filter(|rotation| !rotation.done.contains(me))?;
    let mut rotation = rotation.clone();
    rotation.done.insert(me.clone());
    rotation.turn = rotation.turn.filter(|turn| turn != me);
    Some(put(world, &rotation))
}

/// All writers of this record do it under compare-and-set: that is what gives each turn to one manager.
fn put(world: &Snapshot, rotation: &MemberRotation) -> Txn {
    let mut txn = Txn::default();
    txn.unchanged(MEMBER_ROTATION, world.rev_of(MEMBER_ROTATION));
    txn.put(MEMBER_ROTATION, records::to_json(rotation));
    txn
}

#[cfg(test)]
mod tests;
