//! **Effect.** A part of the kernel that we own and keep as planned.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Something changed in the plan: what was applied last may be taken as what is there.
    Delta,
    /// Look at the kernel itself and repair what drifted. The first round is always one.
    Sweep,
    /// Look at the kernel itself and write nothing: what a sweep would write is told.
    Look,
}

/// It is planned and not there.
pub const MISSING: &str = "missing";
/// It is there, and another one than is planned.
pub const DIFFERS: &str = "not as planned";
/// It is there and not planned.
pub const UNPLANNED: &str = "not planned";

/// How the kernel differs from the plan, by object, in words. A clone is another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Drift {
    all: Arc<Mutex<BTreeMap<String, String>>>,
    /// What the objects of this handle are in.
    place: String,
}

impl Drift {
    /// Where a look notes what it finds; none: differences are mended.
    pub fn of(depth: Depth) -> Option<Self> {
        (depth == Depth::Look).then(Self::default)
    }

    /// A handle for what is inside of something.
    #[must_use]
    pub fn within(&self, place: &str) -> Self {
        Self { place: format!("{place}: "), ..self.clone() }
    }

    /// Notes a difference.
    pub fn note(&self, object: impl std::fmt::Display, why: impl Into<String>) {
        let object = format!("{}{object}", self.place);
        self.all.lock().unwrap_or_else(PoisonError::into_inner).insert(object, why.into());
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a round did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many objects were added, changed or removed.
    pub changed: usize,
    /// What went wrong, by object; the other objects were applied all the same.
    pub errors: BTreeMap<String, String>,
    /// How the kernel differs from the plan, by object: what a look finds.
    pub drift: BTreeMap<String, String>,
}

impl Applied {
    /// Notes a failure and goes on.
    pub fn record(&mut self, object: impl Into<String>, result: Result<(), impl std::fmt::Display>) {
        match result {
            Ok(()) => self.changed += 1,
            Err(error) => {
                self.errors.insert(object.into(), error.to_string());
            }
        }
    }
}

/// Observe, compare, apply; nothing is decided here, and one object's failure never stops another.
///
/// Whatever an implementation makes carries the mesh's mark; it never touches what does not.
pub trait Plane: Send {
    /// What the kernel must be like: plain data of `mesh_core::plan`.
    type Want: Send + Sync;
    /// For logs and status.
    const NAME: &'static str;

    /// Makes the kernel as wanted. Idempotent: a second round with the same plan changes nothing.
    fn reconcile(&mut self, want: &Self::Want, depth: Depth) -> impl Future<Output = Applied> + Send;

    /// Removes everything that carries the mesh's mark, whoever made it.
    fn remove_all(&mut self) -> impl Future<Output = Applied> + Send;
}
