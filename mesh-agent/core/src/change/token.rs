//! **Decision.** Tokens to join with: made, replaced, and judged.

use std::time::Duration;

use super::{Change, Fresh, Refusal};
use crate::certificate::span;
use crate::kv::Txn;
use crate::model::{Role, Snapshot, StoredToken, Timestamp, Tokens};
use crate::records;
use crate::token::{JoinToken, TokenSecret, same};

/// How long a token is good unless its maker says otherwise.
pub const TOKEN_LIFE: Duration = Duration::from_hours(24);
/// How many tokens of a role there are at most.
const MOST: usize = 64;

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenTerms {
    /// What it makes of a node.
    pub role: Role,
    /// When it ends; `None`: never.
    pub life: Option<Duration>,
    /// How many nodes may join with it; `None`: any number.
    pub uses: Option<u32>,
    /// Whether all earlier ones of the role end now.
    pub rotate: bool,
}

/// Makes a token. `pin` is the SHA-256 of the authority's certificate. The secret is in the result, and nowhere else:
/// it cannot be shown again.
pub fn add_token(
    world: &Snapshot,
    pin: [u8; 32],
    terms: TokenTerms,
    fresh: Fresh,
) -> Result<Change<JoinToken>, Refusal> {
    if terms.uses == Some(0) {
        return Err(Refusal::Invalid(
            "a token that may be used 0 times lets nobody in: at least 1".to_owned(),
        ));
    }
    if terms.life.is_some_and(|life| life < Duration::from_secs(1)) {
        return Err(Refusal::Invalid("a token that ends at once lets nobody in: at least 1s".to_owned()));
    }
    let mut all = world.tokens.get(&terms.role).cloned().unwrap_or_default();
    if terms.rotate {
        all.tokens.clear();
    }
    if all.tokens.len() >= MOST {
        // Those that have ended are kept while there is room, to tell who comes with one what is wrong.
        all.tokens.retain(|token| ended(token, fresh.now).is_none());
    }
    if all.tokens.len() >= MOST {
        return Err(Refusal::Exhausted(format!(
            "there are {MOST} {} tokens that have not ended: replace them all with --rotate",
            terms.role
        )));
    }
    let secret = TokenSecret::from_random(fresh.id);
    let expires =
        terms.life.map(|life| fresh.now.saturating_add(u64::try_from(life.as_millis()).unwrap_or(u64::MAX)));
    all.tokens.push(StoredToken { hash: secret.hash(), created: fresh.now, expires, uses: terms.uses });
    let mut txn = Txn::default();
    write(world, terms.role, &all, &mut txn);
    Ok(Change { txn, result: JoinToken { pin, secret, at: None } })
}

fn write(world: &Snapshot, role: Role, tokens: &Tokens, txn: &mut Txn) {
    let key = records::tokens(role);
    txn.unchanged(&key, world.rev_of(&key));
    txn.put(key, records::to_json(tokens));
}

fn ended(token: &StoredToken, now: Timestamp) -> Option<String> {
    if let Some(expires) = token.expires.filter(|expires| now > *expires) {
        return Some(format!("the join token expired {} ago", span(now - expires)));
    }
    (token.uses == Some(0)).then(|| "as many nodes as the join token is for have joined with it".to_owned())
}

/// What a secret makes of who knows its hash; every stored token is looked at, whichever fits.
fn find<'a>(world: &'a Snapshot, hash: &str) -> Option<(Role, &'a StoredToken)> {
    let all = world.tokens.iter().flat_map(|(role, all)| all.tokens.iter().map(|token| (*role, token)));
    all.fold(None, |found, (role, token)| if same(&token.hash, hash) { Some((role, token)) } else { found })
}

/// Uses a token once, as a part of a transaction; the role is the token's.
pub(super) fn use_token(
    world: &Snapshot,
    hash: &str,
    now: Timestamp,
    txn: &mut Txn,
) -> Result<Role, Refusal> {
    let new = "make a new one with 'mesh cluster token' on a manager";
    let Some((role, token)) = find(world, hash) else {
        return Err(Refusal::Invalid(format!("the join token is not known here: it was replaced; {new}")));
    };
    if let Some(why) = ended(token, now) {
        return Err(Refusal::Invalid(format!("{why}; {new}")));
    }
    let key = records::tokens(role);
    let Some(uses) = token.uses else {
        // Nobody need wait for others who join with it, too.
        txn.unchanged(&key, world.rev_of(&key));
        return Ok(role);
    };
    let mut all = world.tokens.get(&role).cloned().unwrap_or_default();
    for token in all.tokens.iter_mut().filter(|token| token.hash == hash) {
        token.uses = Some(uses.saturating_sub(1));
    }
    write(world, role, &all, txn);
    Ok(role)
}
