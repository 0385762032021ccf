//! **Effect.** Who nodes are, proven: the mesh's authority, nodes' keys and certificates, and TLS with them.
//!
//! What there is to call, in the order in which a mesh comes to be:
//!
//! 1. [`Files::of`]: where all of it is, under the agent's state directory. [`Files::tls_files`] names the same files
//!    to whoever wants paths.
//! 2. [`create_ca`] makes an authority; [`Authority::found`] makes the first manager with it, and writes its files. It
//!    returns the certificate for `mesh_core::change::begin`, which makes it known to others.
//! 3. `mesh_core::change::add_token` with [`Authority::pin`] makes a token; [`join`](join::join) turns it into a node's
//!    files. A manager's gateway answers it by [`Admission`].
//! 4. [`Tls`] holds a node's files as connections need them, and takes up new ones; [`renewal::run`] gets them in time.
//! 5. [`Authority::issue`] signs for other programs of a manager's, such as etcd. Whose authority is trusted there,
//!    lets in whoever has any certificate of it: let etcd trust an authority of its own.
//!
//! A node's certificate names it in a URI, `spiffe://<mesh>/node/<id>`, and its role in the subject's organization.
//! Names and addresses say nothing: a manager is whoever has a manager's certificate. See docs/adr/0024.

mod admission;
mod authority;
mod call;
mod files;
pub mod join;
mod peer;
pub mod renewal;
mod tls;
mod verify;

pub use admission::{Admission, Issued, JoinRequest, RenewRequest, Turned};
pub use authority::{Authority, Founded, Subject, create_ca, new_request, new_serial, node_of};
pub use call::CallError;
pub use files::{Files, NodeFiles};
pub use join::{JoinError, Joined, join};
pub use peer::Peer;
pub use tls::Tls;
pub(crate) use tls::{explain, is_turned_down};
pub(crate) use verify::{Verifier, Whom};

use std::path::PathBuf;

/// The port at which managers answer other nodes.
pub const PORT: u16 = 7300;

/// Why something that has to do with certificates cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// What is there makes no sense.
    #[error("{at}: {why}")]
    Wrong {
        /// Which file, or what else.
        at: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// A private key that others can read.
    #[error(transparent)]
    Secret(#[from] crate::store::gateway::SecretError),
    /// Keys and certificates cannot be made.
    #[error("cannot make a certificate: {0}")]
    Making(#[from] rcgen::Error),
}

impl PkiError {
    fn wrong(at: impl std::fmt::Display, why: impl Into<String>) -> Self {
        Self::Wrong { at: at.to_string(), why: why.into() }
    }
}
