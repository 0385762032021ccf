//! **Effect.** Which member is spoken to: one at a time, for as long as it is good, and then whichever answers first.
//!
//! A balancer over all members would go on giving requests to a frozen one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mesh_core::kv::Rev;
use tokio::time::{Instant, sleep, timeout_at};

use super::failure::Failure;
use super::keys::Keys;
use super::options::{Endpoint, EtcdOptions, Known};
use super::session::{ANSWER, Doubt, Session};
use crate::store::StoreError;

/// How long something is tried before it is an error: longer than it takes the members to choose a new leader.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// How much later the member that was just given up is asked than the others.
const HANDICAP: Duration = Duration::from_millis(300);
/// How long members may take at first to show that they are good, a few times, and then twice as long each time. While
/// they choose a leader, questions get lost, and asking again is sooner than waiting.
const FIRST_LOOK: Duration = Duration::from_millis(500);
/// How often that first wait is enough: a choice takes one to two seconds.
const FIRST_LOOKS: u32 = 3;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Whose answer will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// That of our own mesh, no older than what was seen of it.
    Own,
    /// Of any: the caller looks whose it is.
    Any,
}

/// The way to the members.
#[derive(Debug)]
pub(super) struct Link {
    options: EtcdOptions,
    /// Those of the options at first.
    endpoints: Mutex<Vec<Endpoint>>,
    keys: Keys,
    current: tokio::sync::Mutex<Option<Arc<Session>>>,
    known: Mutex<Known>,
}

impl Link {
    pub(super) fn new(options: EtcdOptions) -> Self {
        let known = Mutex::new(options.known.clone());
        let endpoints = Mutex::new(options.endpoints.clone());
        let keys = Keys::new(&options.prefix);
        Self { keys, options, endpoints, current: tokio::sync::Mutex::new(None), known }
    }

    pub(super) fn options(&self) -> &EtcdOptions {
        &self.options
    }

    /// The members that there are to choose from.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on there are these; a connection that is good is kept all the same.
    pub(super) fn set_endpoints(&self, endpoints: Vec<Endpoint>) {
        *self.endpoints.lock().unwrap_or_else(PoisonError::into_inner) = endpoints;
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn engine(&self) -> &'static str {
        self.options.engine
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which member is spoken to.
    pub(super) async fn member(&self) -> Option<String> {
        let current = self.current.lock().await;
        current.as_ref().filter(|session| !session.is_gone()).map(|session| session.at().to_owned())
    }

    /// The store has come to this revision.
    pub(super) fn saw(&self, rev: Rev) {
        let mut known = self.known();
        known.rev = known.rev.max(rev);
    }

    /// All members, in words.
    pub(super) fn place(&self) -> String {
        self.endpoints().iter().map(Endpoint::url).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn unavailable(&self, why: String) -> StoreError {
        StoreError::Unavailable { at: self.place(), why }
    }

    /// A connection that may be read from.
    pub(super) async fn any(&self, deadline: Instant) -> Result<Arc<Session>, StoreError> {
        let busy = || self.unavailable("no member answers in time".to_owned());
        let mut current = timeout_at(deadline, self.current.lock()).await.map_err(|_| busy())?;
        if let Some(session) = current.as_ref().filter(|session| !session.is_gone()) {
            return Ok(Arc::clone(session));
        }
        let left = current.take();
        let session = Arc::new(self.choose(left.as_ref().map(|session| session.at()), deadline).await?);
        tracing::info!(member = session.at(), rev = %session.rev, "connected to etcd");
        *current = Some(Arc::clone(&session));
        Ok(session)
    }

    /// A connection to our own mesh, no older than what was seen of it.
    pub(super) async fn own(&self, deadline: Instant) -> Result<Arc<Session>, StoreError> {
        let session = self.any(deadline).await?;
        match &session.doubt {
            Some(doubt) => Err(StoreError::Denied { at: session.at().to_owned(), why: doubt.to_string() }),
            None => Ok(session),
        }
    }

    /// Asks what may be asked twice, until some member answers.
    pub(super) async fn ask<T, F>(
        &self,
        whom: Whom,
        request: impl Fn(Arc<Session>) -> F + Send,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let session = match whom {
                Whom::Own => self.own(deadline).await,
                Whom::Any => self.any(deadline).await,
            };
            let session = session.map_err(Failure::Refused)?;
            match request(Arc::clone(&session)).await {
                Err(Failure::Unsure(why) | Failure::NotDone(why) | Failure::Unreached(why)) => {
                    self.lost(&session, &why);
                    if Instant::now() >= deadline {
                        return Err(Failure::Refused(self.unavailable(why)));
                    }
                    sleep(PAUSE).await;
                }
                answered => return answered,
            }
        }
    }

    /// Gives a connection up.
    pub(super) fn lost(&self, session: &Session, why: &str) {
        if !session.is_gone() {
            tracing::warn!(member = session.at(), %why, "leaving a member of etcd");
            session.leave();
        }
    }

    /// The first good member. While there is none, but some could be there again at once, it goes on asking.
    async fn choose(&self, left: Option<&str>, deadline: Instant) -> Result<Session, StoreError> {
        let (mut within, mut looks) = (FIRST_LOOK, 0);
        let mut said = "no member answers in time".to_owned();
        loop {
            let endpoints = self.endpoints();
            let failures = match timeout_at(deadline, self.race(&endpoints, left, within)).await {
                Ok(Ok(session)) => return Ok(self.judge(session)),
                Ok(Err(failures)) => failures,
                Err(_) => return Err(self.unavailable(said)),
            };
            let hopeless = failures.iter().all(|(_, failure)| matches!(failure, Failure::Unreached(_)));
            let mut refused = None;
            let mut reasons = Vec::new();
            for (at, failure) in failures {
                match failure {
                    Failure::Refused(error) => refused = refused.or(Some(error)),
                    other if endpoints.len() == 1 => reasons.push(other.why()),
                    other => reasons.push(format!("{at}: {}", other.why())),
                }
            }
            if let Some(error) = refused {
                return Err(error);
            }
            said = reasons.join("; ");
            if hopeless || Instant::now() + PAUSE >= deadline {
                return Err(self.unavailable(said));
            }
            sleep(PAUSE).await;
            looks += 1;
            if looks >= FIRST_LOOKS {
                within = (within * 2).min(ANSWER);
            }
        }
    }

    /// Calls all members at once; one's own a little sooner.
    async fn race<'a>(
        &self,
        endpoints: &'a [Endpoint],
        left: Option<&str>,
        within: Duration,
    ) -> Result<Session, Vec<(&'a str, Failure)>> {
        let ours = self.known().cluster.clone();
        let several = endpoints.len() > 1;
        let own =
            endpoints.iter().position(|endpoint| endpoint.is_loopback() && left != Some(endpoint.url()));
        let mut calls: FuturesUnordered<_> = endpoints
            .iter()
            .enumerate()
            .map(|(place, endpoint)| {
                let ours = ours.as_deref();
                async move {
                    let is_other = own.is_some_and(|own| own != place);
                    if several && (is_other || left == Some(endpoint.url())) {
                        sleep(HANDICAP).await;
                    }
                    let session = Session::open(endpoint, &self.options, &self.keys, ours, within).await;
                    session.map_err(|failure| (endpoint.url(), failure))
                }
            })
            .collect();
        let mut failures = Vec::new();
        while let Some(called) = calls.next().await {
            match called {
                Ok(session) => return Ok(session),
                Err(failure) => failures.push(failure),
            }
        }
        Err(failures)
    }

    /// Compares a member with what is known. The first mesh that is met is ours from then on.
    fn judge(&self, mut session: Session) -> Session {
        let mut known = self.known();
        let ours = known.cluster.get_or_insert_with(|| session.mesh.clone()).clone();
        if ours != session.mesh {
            session.doubt = Some(Doubt::AnotherMesh { found: session.mesh.clone(), ours });
        } else if session.generation <= known.generation && session.rev < known.rev {
            session.doubt = Some(Doubt::WentBack { found: session.rev, seen: known.rev });
        } else {
            (known.generation, known.rev) = (session.generation.max(known.generation), session.rev);
        }
        session
    }
}
