//! **Effect.** The directory in a BPF file system that keeps maps and links while no agent runs.
//!
//! `maps/vN` holds the maps of layout N, `maps/former` those that flows are carried over from, `links` what ties
//! programs to devices, `sockets` what ties them to a control group. Links hold their programs, which hold their maps.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mesh_ebpf::abi::LAYOUT;
use nix::mount::{MsFlags, mount, umount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::EbpfError;
use super::pinned::Pinned;

/// The directory, on a BPF file system.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    dir: PathBuf,
}

impl Pins {
    /// Makes it. Where there is no BPF file system yet, one is mounted: on the directory itself, or above it
    /// where nobody can make a directory, as in `/sys/fs`. Only where nothing is that it would hide.
    pub(super) fn make(dir: &Path) -> Result<Self, EbpfError> {
        let pins = Self { dir: dir.to_path_buf() };
        if !is_bpffs(existing(dir)) {
            let place = if fs::create_dir_all(dir).is_ok() { dir } else { existing(dir) };
            let empty = listed(place).next().is_none();
            let mounted =
                if empty { mount_bpffs(place) } else { Err(io::ErrorKind::DirectoryNotEmpty.into()) };
            mounted.map_err(|source| failed("mount a BPF file system on", place, source))?;
        }
        for sub in [pins.maps().dir(), &pins.links(), &pins.sockets()] {
            fs::create_dir_all(sub).map_err(|source| failed("make", sub, source))?;
        }
        Ok(pins)
    }

    /// Where the maps are.
    pub(super) fn maps(&self) -> Pinned {
        Pinned::new(self.all_maps().join(format!("v{LAYOUT}")))
    }

    fn all_maps(&self) -> PathBuf {
        self.dir.join("maps")
    }

    /// Where the links are.
    pub(super) fn links(&self) -> PathBuf {
        self.dir.join("links")
    }

    /// Where the links to a control group are.
    pub(super) fn sockets(&self) -> PathBuf {
        self.dir.join("sockets")
    }

    /// Sets maps aside that do not fit, and those of another layout if there are none of this one. What there is to
    /// carry over from then on, also if somebody else began with it.
    pub(super) fn set_aside(&self, fit: bool) -> Result<Option<Pinned>, EbpfError> {
        let (ours, former) = (self.maps(), self.all_maps().join("former"));
        let mut others: Vec<PathBuf> = listed(&self.all_maps()).collect();
        others.retain(|path| path != ours.dir() && *path != former);
        others.sort_by_key(|path| layout_of(path));
        let is_new = listed(ours.dir()).next().is_none();
        let aside = if !fit { Some(ours.dir().to_path_buf()) } else { others.pop().filter(|_| is_new) };
        if let Some(aside) = aside {
            let _ = fs::remove_dir_all(&former);
            fs::rename(&aside, &former).map_err(|source| failed("set aside", &aside, source))?;
            fs::create_dir_all(ours.dir()).map_err(|source| failed("make", ours.dir(), source))?;
        }
        for other in others {
            let _ = fs::remove_dir_all(other);
        }
        Ok(former.is_dir().then(|| Pinned::new(former)))
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

/// The layout of the maps in a directory.
fn layout_of(dir: &Path) -> Option<u32> {
    dir.file_name()?.to_str()?.strip_prefix('v')?.parse().ok()
}

fn is_bpffs(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

fn mount_bpffs(dir: &Path) -> io::Result<()> {
    mount(Some("bpf"), dir, Some("bpf"), MsFlags::empty(), Some("mode=0700")).map_err(io::Error::from)
}

fn listed(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn count(dir: &Path) -> usize {
    listed(dir).map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> EbpfError {
    EbpfError::Pins { what, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `/proc/pins` would have hidden all of `/proc`.
    #[test]
    fn nothing_is_hidden_by_a_mount() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "here").unwrap();
        for pins in [file.join("pins"), dir.path().to_path_buf()] {
            let made = Pins::make(&pins);
            let hidden = is_bpffs(dir.path());
            if hidden {
                umount(dir.path()).unwrap();
            }
            assert!(made.is_err() && !hidden, "{}", pins.display());
        }
        assert!(file.exists());
    }
}
