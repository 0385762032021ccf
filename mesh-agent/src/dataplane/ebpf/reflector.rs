//! **Effect.** What programs answer other nodes' probes with.

use aya::Ebpf;
use aya::maps::{Array, MapData};
use mesh_ebpf::abi::map::STANDING;
use mesh_ebpf::probe::Standing;
use rustix::time::{ClockId, clock_gettime};

use super::EbpfError;
use super::maps::{map_error, take};

/// The map that the answers are made of.
pub struct Reflector(Array<MapData, Standing>);

impl Reflector {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, EbpfError> {
        take(ebpf, STANDING).map(Self)
    }

    /// The node is in this boot, and its agent in this start: said now.
    pub fn tell(&mut self, boot: u64, epoch: u64) -> Result<(), EbpfError> {
        let now = clock_gettime(ClockId::Monotonic);
        let said =
            u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0);
        let written = self.0.set(0, Standing { boot, epoch, said }, 0);
        written.map_err(|source| map_error(STANDING, source))
    }
}
