//! **Effect.** Maps that are opened by their pins.

use std::path::{Path, PathBuf};

use aya::Pod;
use aya::maps::{Map, MapData, MapError, MapInfo};

use super::EbpfError;
use super::mapped::{Mapped, Paged};
use super::maps::map_error;

/// A directory of pinned maps.
#[derive(Debug, Clone)]
pub(super) struct Pinned(PathBuf);

impl Pinned {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0
    }

    /// Where a map is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Whether those that are there have these sizes, by name.
    pub(super) fn fit(&self, entries: impl IntoIterator<Item = (&'static str, u32)>) -> bool {
        entries.into_iter().all(|(name, entries)| {
            let path = self.path(name);
            !path.exists() || MapInfo::from_pin(path).is_ok_and(|info| info.max_entries() == entries)
        })
    }

    /// A map of the type that is asked for.
    pub(super) fn open<M: TryFrom<Map, Error = MapError>>(&self, name: &'static str) -> Result<M, EbpfError> {
        let map = self.data(name).map(Map::from_map_data)?.and_then(M::try_from);
        map.map_err(|source| map_error(name, source))
    }

    /// All values of an array map.
    pub(super) fn mapped<T: Pod>(&self, name: &'static str) -> Result<Mapped<T>, EbpfError> {
        let (data, len) = self.array::<T>(name)?;
        Mapped::new(data.fd(), len).map_err(|source| EbpfError::Share { map: name, source })
    }

    /// The values of an array map, to be mapped when they are looked at.
    pub(super) fn paged<T: Pod>(&self, name: &'static str) -> Result<Paged<T>, EbpfError> {
        let (data, len) = self.array::<T>(name)?;
        Paged::new(data.fd(), len).map_err(|source| EbpfError::Share { map: name, source })
    }

    /// An array map, if its values are of that type, and how many it has.
    pub(super) fn array<T: Pod>(&self, name: &'static str) -> Result<(MapData, u32), EbpfError> {
        let data = self.data(name)?;
        let info = data.info().map_err(|source| map_error(name, source))?;
        if info.value_size() as usize != size_of::<T>() {
            let (size, expected) = (size_of::<T>(), info.value_size() as usize);
            return Err(map_error(name, MapError::InvalidValueSize { size, expected }));
        }
        let len = info.max_entries();
        Ok((data, len))
    }

    fn data(&self, name: &'static str) -> Result<MapData, EbpfError> {
        MapData::from_pin(self.path(name)).map_err(|source| map_error(name, source))
    }
}
