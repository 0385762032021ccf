//! **Decision.** Nodes are let in, get their next certificate, and lose what they had.

use super::{Change, Fresh, Refusal, token};
use crate::kv::Txn;
use crate::model::{Certificate, Denied, Identity, Name, NodeId, Role, Snapshot, Timestamp};
use crate::records;
use crate::token::{TokenSecret, same};

/// How many certificates a node has at most. It needs one, and two while it renews; whoever asks again and again must not
/// fill the records, and each that is good must be known, so that it can be denied.
const MOST: usize = 64;
/// How many ended denials go with one change.
const AT_ONCE: usize = 16;

/// Who wants to be let in.
#[derive(Debug, Clone)]
pub struct Applicant {
    /// What proves that it may.
    pub secret: TokenSecret,
    /// Its id, which follows from its key, so that nobody can ask for another's.
    pub node: NodeId,
    /// How it wants to be called.
    pub name: Name,
    /// The certificate that it will get.
    pub certificate: Certificate,
}

/// Lets a node in; the result is what the token makes of it. Whoever asks again because the answer got lost is told the
/// same, and uses the token once.
pub fn admit(world: &Snapshot, who: &Applicant, fresh: Fresh) -> Result<Change<Role>, Refusal> {
    let mut txn = Txn::default();
    let hash = who.secret.hash();
    let again = world.identities.get(&who.node).filter(|known| same(&known.token, &hash));
    let (role, mut certificates) = match again {
        Some(known) => (known.role, known.certificates.clone()),
        None => (token::use_token(world, &hash, fresh.now, &mut txn)?, Vec::new()),
    };
    if let Some(other) = world.nodes.values().find(|node| node.name == who.name && node.id != who.node) {
        return Err(Refusal::Conflict(format!(
            "a node named {} is in the mesh already ({}): choose another name, or remove it with 'mesh node rm'",
            other.name,
            other.id.short()
        )));
    }
    certificates.push(who.certificate.clone());
    let identity = Identity { role, certificates, token: hash };
    write(world, &who.node, identity, fresh.now, &mut txn)?;
    Ok(Change { txn, result: role })
}

/// Lets the first manager in, which needs no token: it makes the authority.
pub fn begin(world: &Snapshot, node: &NodeId, certificate: Certificate, fresh: Fresh) -> Change<Role> {
    let mut txn = Txn::default();
    let identity = Identity { role: Role::Manager, certificates: vec![certificate], token: String::new() };
    put(world, node, &identity, &mut txn);
    forget_ended(world, fresh.now, &mut txn);
    Change { txn, result: Role::Manager }
}

/// Gives a node its next certificate; the result is what that says of it.
pub fn renew(
    world: &Snapshot,
    node: &NodeId,
    certificate: Certificate,
    fresh: Fresh,
) -> Result<Change<Role>, Refusal> {
    let mut identity = known(world, node)?.clone();
    let role = identity.role;
    identity.certificates.push(certificate);
    let mut txn = Txn::default();
    write(world, node, identity, fresh.now, &mut txn)?;
    Ok(Change { txn, result: role })
}

/// Makes a worker a manager, or the other way round, from its next certificate on. A manager that becomes a worker
/// has no more of a manager's rights from now on, whatever its certificate says.
pub fn set_role(world: &Snapshot, node: &NodeId, role: Role) -> Result<Change<Role>, Refusal> {
    let identity = known(world, node)?;
    let mut txn = Txn::default();
    if identity.role != role {
        put(world, node, &Identity { role, ..identity.clone() }, &mut txn);
    }
    Ok(Change { txn, result: role })
}

fn known<'a>(world: &'a Snapshot, node: &NodeId) -> Result<&'a Identity, Refusal> {
    world.identities.get(node).ok_or_else(|| {
        Refusal::Conflict(format!(
            "node {} has no identity in this mesh: it was removed; let it join again with a token",
            node.short()
        ))
    })
}

fn write(
    world: &Snapshot,
    node: &NodeId,
    mut identity: Identity,
    now: Timestamp,
    txn: &mut Txn,
) -> Result<(), Refusal> {
    identity.certificates.retain(|certificate| certificate.until >= now);
    if identity.certificates.len() > MOST {
        return Err(Refusal::Exhausted(format!(
            "node {} has {MOST} certificates that have not ended: let it leave the mesh and join again",
            node.short()
        )));
    }
    put(world, node, &identity, txn);
    forget_ended(world, now, txn);
    Ok(())
}

fn put(world: &Snapshot, node: &NodeId, identity: &Identity, txn: &mut Txn) {
    let key = records::identity(node);
    txn.unchanged(&key, world.rev_of(&key));
    txn.put(key, records::to_json(identity));
}

/// A certificate that has ended needs no denial.
fn forget_ended(world: &Snapshot, now: Timestamp, txn: &mut Txn) {
    for (serial, _) in world.denied.iter().filter(|(_, denied)| denied.until < now).take(AT_ONCE) {
        txn.delete(records::denied(serial));
    }
}

/// Takes all certificates from a node, as a part of a transaction.
pub(super) fn deny(world: &Snapshot, node: &NodeId, txn: &mut Txn) {
    let key = records::identity(node);
    // One that is issued meanwhile must not be missed.
    txn.unchanged(&key, world.rev_of(&key));
    let Some(identity) = world.identities.get(node) else { return };
    for Certificate { serial, until } in &identity.certificates {
        txn.put(
            records::denied(serial),
            records::to_json(&Denied { node: node.as_str().to_owned(), until: *until }),
        );
    }
    txn.delete(key);
}

/// Whether a node has a certificate that is good. Then a connection goes on that began with one that has ended since:
/// it is the same node's, and what it would prove anew is known.
pub fn is_certified(world: &Snapshot, node: &NodeId, now: Timestamp) -> bool {
    world.identities.get(node).is_some_and(|known| known.certificates.iter().any(|one| one.until >= now))
}

/// Whether who comes with a certificate is let in, and as what. `Err` says why not.
///
/// A certificate may outlive its node's record, as after a backup was restored: then it counts as it is.
pub fn standing(world: &Snapshot, node: &NodeId, serial: &str, role: Role) -> Result<Role, String> {
    if world.denied.contains_key(serial) {
        return Err(format!(
            "node {} was removed from the mesh, and its certificate {serial} with it: let it join again with a token",
            node.short()
        ));
    }
    let now = world.identities.get(node).map_or(role, |identity| identity.role);
    // More rights come with the next certificate only; fewer at once.
    Ok(now.min(role))
}
