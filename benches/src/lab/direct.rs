//! `direct`: nobody balances. What all others are compared with.

use std::path::Path as File;

use anyhow::Result;
use mesh_tests::Host;

use super::bare::{Bare, SERVER};
use super::mesh::Mesh;
use super::server::WEB;
use super::target::{Entry, Path, Target};

/// From another machine the server's own address, which the node that runs it routes; there is no mesh there, and
/// by whichever node one comes in elsewhere, there is no shorter way. From a task the address of the other task, over
/// the mesh's own overlay.
pub(super) struct Direct<'a> {
    bare: Bare,
    mesh: &'a Mesh,
}

impl<'a> Direct<'a> {
    pub(super) fn build(program: &File, mesh: &'a Mesh) -> Result<Self> {
        Ok(Self { bare: Bare::build(program)?, mesh })
    }
}

impl Target for Direct<'_> {
    fn name(&self) -> &'static str {
        "direct"
    }

    fn path(&self, entry: Entry) -> Option<Path<'_>> {
        Some(match entry {
            Entry::Local | Entry::Remote => self.bare.path(SERVER, WEB),
            Entry::Vip => self.mesh.between_tasks(self.mesh.task()),
        })
    }

    fn outside(&self) -> &Host {
        self.bare.outside()
    }
}
