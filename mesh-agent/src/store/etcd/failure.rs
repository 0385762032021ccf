//! **Decision.** What an error of etcd's means: whether something may have been done, and whether asking elsewhere
//! may help.
//!
//! etcd's messages are part of its interface (rpctypes/error.go); several have a code in common.

use std::error::Error as _;

use etcd_client::Error;
use tonic::{Code, ConnectError, Status};

use crate::store::StoreError;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing was done, and nothing else would come of asking again.
    Refused(StoreError),
    /// Nothing was done; nobody is there.
    Unreached(String),
    /// Nothing was done; another member may do it, or this one later.
    NotDone(String),
    /// It may have been done.
    Unsure(String),
    /// Nothing was done: there is no such lease (any more).
    NoLease,
    /// The revision that was asked for is no longer in the history.
    Compacted,
}

impl Failure {
    /// In words.
    pub(super) fn why(self) -> String {
        match self {
            Self::Refused(error) => error.to_string(),
            Self::Unreached(why) | Self::NotDone(why) | Self::Unsure(why) => why,
            Self::NoLease => "the lease has ended".to_owned(),
            Self::Compacted => "its history was compacted meanwhile".to_owned(),
        }
    }

    /// What the caller is told when no other member can help.
    pub(super) fn into_error(self, at: &str) -> StoreError {
        match self {
            Self::Refused(error) => error,
            other => StoreError::Unavailable { at: at.to_owned(), why: other.why() },
        }
    }

    /// What an error of the endpoint at `at` means.
    pub(super) fn of(at: &str, error: &Error) -> Self {
        match error {
            Error::GRpcStatus(status) => of_status(at, status),
            Error::LeaseKeepAliveError(why) if why == "lease not found" => Self::NoLease,
            other => Self::Unsure(other.to_string()),
        }
    }
}

fn of_status(at: &str, status: &Status) -> Failure {
    let message = status.message();
    let denied = |why: String| Failure::Refused(StoreError::Denied { at: at.to_owned(), why });
    match message.strip_prefix("etcdserver: ").unwrap_or(message) {
        "requested lease not found" => Failure::NoLease,
        "mvcc: required revision has been compacted" => Failure::Compacted,
        "no leader" => {
            Failure::NotDone("it has no leader, so most members cannot be reached from it".to_owned())
        }
        why @ ("too many requests" | "rpc not supported for learner" | "not capable") => {
            Failure::NotDone(format!("etcd says: {why}"))
        }
        "mvcc: database space exceeded" => denied(full()),
        "too many operations in txn request" => denied(
            "the change has more writes than it takes at once; start etcd with --max-txn-ops=1024".to_owned(),
        ),
        "request is too large" => denied(too_large()),
        "corrupt cluster" => Failure::Refused(StoreError::Corrupt {
            at: at.to_owned(),
            why: "etcd says that its members disagree (alarm CORRUPT); see etcd's manual on data corruption"
                .to_owned(),
        }),
        "permission denied" => {
            denied("the user may not use it; grant its role readwrite on store.prefix".to_owned())
        }
        "user name is empty" => denied("it wants a user; set store.user and store.password_file".to_owned()),
        "authentication failed, invalid user ID or password" | "user name not found" => {
            denied("user or password is wrong; see store.user and store.password_file".to_owned())
        }
        "authentication is not enabled" => {
            denied("it knows no users; leave store.user empty, or enable its authentication".to_owned())
        }
        _ => match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => denied(format!("etcd says: {message}")),
            Code::Unimplemented => denied("what answers there is no etcd 3".to_owned()),
            // gRPC's own limit, which etcd derives from the same flag.
            Code::ResourceExhausted if message.contains("larger than max") => denied(too_large()),
            _ if was_never_sent(status) => Failure::NotDone("the connection was closed".to_owned()),
            code => Failure::Unsure(match innermost(status) {
                Some(cause) => format!("the connection broke: {cause}"),
                None => in_words(code, message),
            }),
        },
    }
}

/// What to do about an etcd that is full.
pub(super) fn full() -> String {
    "its database is full (alarm NOSPACE): compact and defragment it, raise --quota-backend-bytes, and run \
     `etcdctl alarm disarm`"
        .to_owned()
}

fn too_large() -> String {
    "the change is larger than it takes at once; start etcd with --max-request-bytes=8388608".to_owned()
}

fn in_words(code: Code, message: &str) -> String {
    match message.strip_prefix("etcdserver: ") {
        Some(said) => format!("etcd says: {said}"),
        None if message.is_empty() => format!("{code:?}"),
        None => message.to_owned(),
    }
}

/// A request that found no connection to leave by.
fn was_never_sent(status: &Status) -> bool {
    causes(status).any(|error| error.is::<ConnectError>())
}

/// What broke; `None`: it is etcd that says this.
fn innermost(status: &Status) -> Option<String> {
    causes(status).last().map(ToString::to_string)
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(status.source(), |error: &&(dyn std::error::Error + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, message: &str) -> Failure {
        Failure::of("http://e:1", &Error::GRpcStatus(Status::new(code, message)))
    }

    #[test]
    fn what_etcd_says_is_told_apart() {
        assert_eq!(of(Code::NotFound, "etcdserver: requested lease not found"), Failure::NoLease);
        assert_eq!(
            of(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            Failure::Compacted
        );
        assert!(matches!(of(Code::Unavailable, "etcdserver: no leader"), Failure::NotDone(_)));
        for unsure in ["etcdserver: leader changed", "etcdserver: request timed out", "transport error"] {
            assert!(matches!(of(Code::Unavailable, unsure), Failure::Unsure(_)), "{unsure}");
        }
    }

    #[test]
    fn what_will_not_change_says_what_to_do() {
        for (code, message, hint) in [
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", "alarm disarm"),
            (Code::InvalidArgument, "etcdserver: too many operations in txn request", "--max-txn-ops"),
            (Code::InvalidArgument, "etcdserver: request is too large", "--max-request-bytes"),
            (
                Code::ResourceExhausted,
                "grpc: received message larger than max (2 vs. 1)",
                "--max-request-bytes",
            ),
            (Code::PermissionDenied, "etcdserver: permission denied", "store.prefix"),
            (Code::InvalidArgument, "etcdserver: user name is empty", "store.user"),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                "store.password_file",
            ),
            (Code::FailedPrecondition, "etcdserver: authentication is not enabled", "store.user"),
            (Code::Unimplemented, "unknown service", "no etcd"),
        ] {
            let Failure::Refused(error) = of(code, message) else { panic!("{message}") };
            assert!(error.to_string().contains(hint) && error.to_string().contains("http://e:1"), "{error}");
        }
    }
}
