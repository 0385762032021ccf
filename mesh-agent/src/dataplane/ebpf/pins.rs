//! **Effect.** The directory in a BPF file system that keeps maps and links while no agent runs.
//!
//! `maps/vN` holds the maps of layout N, `links` what ties programs to devices. Links hold their programs, which
//! hold their maps.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mesh_ebpf::abi::LAYOUT;
use nix::mount::{MsFlags, mount, umount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::EbpfError;

/// The directory, on a BPF file system.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    dir: PathBuf,
}

impl Pins {
    /// Makes it. Where there is no BPF file system yet, one is mounted: on the directory itself, or above it
    /// where nobody can make a directory, as in `/sys/fs`.
    pub(super) fn make(dir: &Path) -> Result<Self, EbpfError> {
        let pins = Self { dir: dir.to_path_buf() };
        if !is_bpffs(existing(dir)) {
            let place = if fs::create_dir_all(dir).is_ok() { dir } else { existing(dir) };
            mount_bpffs(place).map_err(|source| failed("mount a BPF file system on", place, source))?;
        }
        for sub in [pins.maps(), pins.links()] {
            fs::create_dir_all(&sub).map_err(|source| failed("make", &sub, source))?;
        }
        pins.forget_other_layouts();
        Ok(pins)
    }

    /// Where the maps are.
    pub(super) fn maps(&self) -> PathBuf {
        self.dir.join("maps").join(format!("v{LAYOUT}"))
    }

    /// Where the links are.
    pub(super) fn links(&self) -> PathBuf {
        self.dir.join("links")
    }

    /// Forgets all maps: the next load makes new ones.
    pub(super) fn forget_maps(&self) -> Result<(), EbpfError> {
        let maps = self.maps();
        empty(&maps).map_err(|source| failed("empty", &maps, source))
    }

    /// Maps that only another version's programs use. They live on until their links are given other programs.
    fn forget_other_layouts(&self) {
        let maps = self.maps();
        for entry in fs::read_dir(self.dir.join("maps")).into_iter().flatten().flatten() {
            if entry.path() != maps {
                let _ = empty(&entry.path()).and_then(|()| fs::remove_dir(entry.path()));
            }
        }
    }

    /// Removes everything, and the mount if it is the mesh's own. How many objects there were.
    pub(super) fn remove(dir: &Path) -> Result<usize, EbpfError> {
        let Ok(metadata) = fs::metadata(dir) else { return Ok(0) };
        if !metadata.is_dir() || !is_bpffs(dir) {
            return Ok(0);
        }
        let removed = count(dir);
        if dir.parent().is_some_and(is_bpffs) {
            fs::remove_dir_all(dir).map_err(|source| failed("remove", dir, source))?;
            return Ok(removed);
        }
        // With the mount goes what is in it.
        umount(dir).map_err(|errno| failed("unmount", dir, errno.into()))?;
        fs::remove_dir(dir).map_err(|source| failed("remove", dir, source))?;
        Ok(removed)
    }
}

/// The directory, or the nearest one above it that exists.
fn existing(dir: &Path) -> &Path {
    dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(dir)
}

fn is_bpffs(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

fn mount_bpffs(dir: &Path) -> io::Result<()> {
    mount(Some("bpf"), dir, Some("bpf"), MsFlags::empty(), Some("mode=0700")).map_err(io::Error::from)
}

fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    Ok(())
}

fn count(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> EbpfError {
    EbpfError::Pins { what, path: path.to_path_buf(), source }
}
