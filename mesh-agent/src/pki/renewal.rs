//! **Effect.** A node's next certificate, in time.
//!
//! Between half and four fifths of a certificate's life the node asks for the next one, and again, at longer and longer
//! intervals, until it has it. New connections use it; those that are open are not cut. When what the node is to be has
//! changed, it asks at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use mesh_core::certificate::pause;
use mesh_core::change::{self, Follow};
use mesh_core::model::{Role, Snapshot};
use mesh_core::records::to_json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Issued, RenewRequest};
use super::authority::new_request;
use super::call::{CallError, call};
use super::join::{JoinError, check};
use super::{NodeFiles, Tls};
use crate::control::{now, random};

/// How often the clock is looked at, and whether another program has changed the files.
const LOOK: Duration = Duration::from_secs(30);

/// Between the first two attempts to get a certificate of the next authority.
const AGAIN: Duration = Duration::from_secs(1);

/// Who gives this node its next certificate.
#[derive(Clone)]
pub enum Source {
    /// It does itself: it is a manager.
    Own(Admission),
    /// Managers, at these addresses and those that the records name; all answer at one port.
    Managers(Vec<String>, u16),
}

/// Renews until told to stop.
pub async fn run(
    tls: Arc<Tls>,
    source: Source,
    mut world: watch::Receiver<Arc<Snapshot>>,
    stop: CancellationToken,
) {
    let (mut due, mut serial) = (0, String::new());
    let mut failures = 0;
    loop {
        if let Err(error) = tls.reload() {
            tracing::warn!("cannot take up new certificates: {error}");
        }
        let me = tls.me();
        if me.serial != serial {
            (due, serial) = (me.validity.renewal(number()), me.serial.clone());
        }
        if follows(&world.borrow_and_update(), &tls) == Follow::Forget {
            forget_former(&tls);
        }
        let wanted = follows(&world.borrow(), &tls) == Follow::Renew;
        let role = world.borrow().identities.get(&me.node).map(|identity| identity.role);
        let wait = if now() >= due || role.is_some_and(|role| role != me.role) || wanted {
            let known = managers(&source, &world.borrow());
            match renew(&tls, &source, &known).await {
                // A manager may not have got the next authority yet.
                Ok(_) if wanted && follows(&world.borrow(), &tls) == Follow::Renew => {
                    failures += 1;
                    AGAIN * 2_u32.pow(failures.min(6))
                }
                Ok(role) => {
                    tls.asked(None);
                    tracing::info!(%role, "this node has its next certificate");
                    failures = 0;
                    continue;
                }
                Err(error) => {
                    failures += 1;
                    tls.asked(Some(error.to_string()));
                    let worse = me.validity.warning(now());
                    tracing::warn!("{}cannot renew: {error}", worse.map(|w| w + ": ").unwrap_or_default());
                    pause(failures, number())
                }
            }
        } else {
            LOOK.min(Duration::from_millis(due.saturating_sub(now())))
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = changes(&mut world, &tls), if failures == 0 => {}
        }
    }
}

/// Returns when what this node is to be differs from what it is.
async fn changes(world: &mut watch::Receiver<Arc<Snapshot>>, tls: &Tls) {
    let me = tls.me();
    let differs = |world: &Arc<Snapshot>| {
        let role = world.identities.get(&me.node).is_some_and(|identity| identity.role != me.role);
        role || follows(world, tls) != Follow::Nothing
    };
    if world.wait_for(differs).await.is_err() {
        std::future::pending().await
    }
}

fn follows(world: &Snapshot, tls: &Tls) -> Follow {
    change::follow(world, &tls.me().issuer, tls.trusted())
}

/// Trusts nobody any more but the authority of the own certificate.
fn forget_former(tls: &Tls) {
    let done = tls.files().trust_only(&tls.me().issuer).and_then(|()| tls.reload());
    match done {
        Ok(_) => tracing::info!("this node trusts the former authority no longer"),
        Err(error) => tracing::warn!("cannot forget the former authority: {error}"),
    }
}

fn number() -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = random();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn managers(source: &Source, world: &Snapshot) -> Vec<String> {
    let Source::Managers(named, port) = source else { return Vec::new() };
    let mut all = named.clone();
    all.extend(world.managers().map(|manager| SocketAddr::new(manager.address, *port).to_string()));
    all
}

/// Gets the next certificate now; the result is what the node is with it.
async fn renew(tls: &Tls, source: &Source, managers: &[String]) -> Result<Role, JoinError> {
    let (csr, key) = new_request()?;
    let request = RenewRequest { csr };
    let me = tls.me();
    let issued = match source {
        Source::Own(admission) => admission
            .renew(&me, &request)
            .await
            .map_err(|turned| JoinError::Call(CallError::Refused { at: "this node".to_owned(), turned }))?,
        Source::Managers(..) => ask(tls, managers, &to_json(&request)).await?,
    };
    check(&issued, &key, &me.node, &me.cluster, "its address")?;
    let Issued { role, certificate, roots, authority, .. } = issued;
    tls.files().write(&NodeFiles { roots, certificate, key, authority })?;
    tls.reload()?;
    Ok(role)
}

/// The first answer; the last refusal if there is none.
async fn ask(tls: &Tls, managers: &[String], request: &str) -> Result<Issued, JoinError> {
    let config = tls.client().map_err(JoinError::Clock)?;
    let mut last = JoinError::Nowhere;
    for at in managers {
        match call(at, &config, Method::POST, "/cluster/v1/renew", request.to_owned()).await {
            Ok(issued) => return Ok(issued),
            Err(error @ CallError::Refused { .. }) => return Err(error.into()),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}
