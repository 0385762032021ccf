//! **Effect.** A part of the kernel that we own and keep as planned.

use std::collections::BTreeMap;

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Something changed in the plan: what was applied last may be taken as what is there.
    Delta,
    /// Look at the kernel itself and repair what drifted. The first round is always one.
    Sweep,
}

/// What a round did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many objects were added, changed or removed.
    pub changed: usize,
    /// What went wrong, by object; the other objects were applied all the same.
    pub errors: BTreeMap<String, String>,
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
