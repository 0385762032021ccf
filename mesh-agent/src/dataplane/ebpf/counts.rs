//! **Fact.** What programs counted of many backends. One after the other they would be a system call each.

use std::os::fd::AsFd;

use aya::maps::{MapData, MapError};
use mesh_ebpf::abi::{Stats, map};

use super::EbpfError;
use super::maps::map_error;
use super::pinned::Pinned;
use super::syscall;

/// So many are read at once.
const WINDOW: usize = 512;

/// The counters of all backends.
pub(super) struct Counts {
    map: MapData,
    /// Each has counters of its own.
    cpus: usize,
}

/// Those of some, while they are looked at.
pub(super) struct Window<'a> {
    counts: &'a Counts,
    /// The first one's number.
    first: u32,
    values: Vec<Stats>,
    /// How many backends these are of.
    len: usize,
}

impl Counts {
    pub(super) fn open(maps: &Pinned) -> Result<Self, EbpfError> {
        let map = maps.array::<Stats>(map::STATS)?.0;
        let cpus = aya::util::nr_cpus().map_err(|(what, source)| EbpfError::Cpus { what, source })?;
        Ok(Self { map, cpus })
    }

    /// For a look at some, best in the order of their numbers.
    pub(super) fn look(&self) -> Window<'_> {
        Window { counts: self, first: 0, values: Vec::new(), len: 0 }
    }
}

impl Window<'_> {
    /// Those of one.
    pub(super) fn of(&mut self, id: u32) -> Result<Stats, EbpfError> {
        match self.sum(id) {
            Some(sum) => Ok(sum),
            None => self.read(id),
        }
    }

    fn read(&mut self, first: u32) -> Result<Stats, EbpfError> {
        let Counts { map, cpus } = self.counts;
        self.values.resize(WINDOW * cpus, Stats::default());
        let read = syscall::per_cpu_values(map.fd().as_fd(), first, &mut self.values, *cpus);
        let failed = |io_error| {
            let error = aya::sys::SyscallError { call: "bpf_map_lookup_batch", io_error };
            map_error(map::STATS, MapError::SyscallError(error))
        };
        (self.first, self.len) = (first, read.map_err(failed)?);
        self.sum(first).ok_or_else(|| map_error(map::STATS, MapError::KeyNotFound))
    }

    /// None: it is not among those that were read.
    fn sum(&self, id: u32) -> Option<Stats> {
        let at = id.checked_sub(self.first)? as usize;
        if at >= self.len {
            return None;
        }
        let each = self.values.chunks_exact(self.counts.cpus).nth(at)?;
        Some(each.iter().fold(Stats::default(), |sum, one| Stats {
            flows: sum.flows + one.flows,
            packets: sum.packets + one.packets,
            bytes: sum.bytes + one.bytes,
        }))
    }
}
