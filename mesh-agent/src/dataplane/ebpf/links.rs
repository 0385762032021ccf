//! **Effect.** Which program is on which device.
//!
//! A link is pinned, so a program stays on its device when the agent ends, and a new agent replaces the program
//! in the link at once: no packet meets a device without one.
//!
//! Before Linux 6.6 there are no such links on devices. There a program is a filter of tc(8), which stays until it is
//! removed, is replaced in place, and is known by its priority and handle.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use aya::Ebpf;
use aya::programs::links::{FdLink, Link, PinnedLink};
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};

use super::{EbpfError, LOOPBACK};
use crate::plane::{Drift, MISSING, UNPLANNED};

/// A device: its index and its name.
pub(super) type Device = (u32, String);

/// Filters of ours are those with this priority and handle, `0x4d` being the mesh's mark.
const PRIORITY: u16 = 0x4d00;
const HANDLE: TcHandle = TcHandle::new(0, 0x4d);

/// How programs are put on devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    /// By links.
    Tcx,
    /// By filters of tc(8).
    Filter,
}

/// Whether programs may be put on devices by links: a kernel that knows of none cannot list any.
pub(super) fn have_tcx() -> Result<(), String> {
    let listed = SchedClassifier::query_tcx(LOOPBACK, TcAttachType::Ingress);
    listed
        .map(drop)
        .map_err(|error| format!("devices have no links of programs, as from Linux 6.6 on: {error}"))
}

/// Programs on devices.
#[derive(Debug)]
pub(super) struct Links {
    hook: Hook,
    dir: PathBuf,
    held: BTreeMap<Device, &'static str>,
}

impl Links {
    /// Those that are pinned in a directory.
    pub(super) fn open(dir: PathBuf, hook: Hook) -> Self {
        Self { hook, dir, held: BTreeMap::new() }
    }

    /// Puts each program on its device and takes ours off all others. How many were changed.
    pub(super) fn settle(
        &mut self,
        ebpf: &mut Ebpf,
        want: &BTreeMap<Device, &'static str>,
        errors: &mut BTreeMap<String, String>,
    ) -> usize {
        let mut changed = 0;
        for (device, program) in want {
            match self.hold(ebpf, device, program) {
                Ok(put) => changed += usize::from(put),
                Err(error) => _ = errors.insert(format!("device {}", device.1), error.in_full()),
            }
        }
        self.held.retain(|device, _| want.contains_key(device));
        changed + self.remove_others(want)
    }

    /// Notes which programs are not where they belong, or elsewhere.
    pub(super) fn look(&self, ebpf: &Ebpf, want: &BTreeMap<Device, &'static str>, drift: &Drift) {
        for (device, program) in want {
            if !self.is_there(ebpf, device, program) {
                drift.note(format!("program {program} on device {}", device.1), MISSING);
            }
        }
        for path in self.others(want) {
            drift.note(format!("link {}", path.display()), UNPLANNED);
        }
    }

    /// What somebody took off a device is no longer held.
    pub(super) fn forget_lost(&mut self, ebpf: &Ebpf) {
        let held = std::mem::take(&mut self.held).into_iter();
        self.held = held.filter(|(device, program)| self.is_there(ebpf, device, program)).collect();
    }

    /// Whether the kernel runs this agent's program for what comes in by the device. Somebody may have taken the link
    /// off, whose pin stays.
    fn is_there(&self, ebpf: &Ebpf, device: &Device, name: &'static str) -> bool {
        if self.hook == Hook::Filter {
            return filter(device).is_some();
        }
        let program = ebpf.program(name).and_then(|program| program.info().ok());
        let Ok((_, there)) = SchedClassifier::query_tcx(&device.1, TcAttachType::Ingress) else {
            return false;
        };
        self.path(device, name).exists()
            && program.is_some_and(|program| there.iter().any(|other| other.id() == program.id()))
    }

    /// Puts a program on a device, unless it is there. Whether it was not.
    pub(super) fn hold(
        &mut self,
        ebpf: &mut Ebpf,
        device: &Device,
        program: &'static str,
    ) -> Result<bool, EbpfError> {
        let kept = || self.hook == Hook::Filter || self.path(device, program).exists();
        if self.held.get(device) == Some(&program) && kept() {
            return Ok(false);
        }
        match self.hook {
            Hook::Tcx => {
                self.put(ebpf, device, program)?;
                remove_filter(device);
            }
            Hook::Filter => put_filter(ebpf, device, program)?,
        }
        self.held.insert(device.clone(), program);
        Ok(true)
    }

    fn path(&self, (index, name): &Device, program: &str) -> PathBuf {
        // bpffs has no dots in names, but devices do.
        self.dir.join(format!("{program}-{index}-{}", name.replace('.', "_")))
    }

    fn put(&self, ebpf: &mut Ebpf, device: &Device, name: &'static str) -> Result<(), EbpfError> {
        let path = self.path(device, name);
        let program = program(ebpf, name)?;
        if let Ok(pinned) = PinnedLink::from_pin(&path) {
            let replaced = SchedClassifierLink::try_from(FdLink::from(pinned))
                .ok()
                .and_then(|link| program.attach_to_link(link).ok())
                .and_then(|id| program.take_link(id).ok());
            if replaced.is_some() {
                // The pin keeps it.
                return Ok(());
            }
            // Its device is gone, and another has its index and name.
            drop(fs::remove_file(&path));
        }
        let failed = |source| EbpfError::Attach { name, device: device.1.clone(), source: Box::new(source) };
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program.attach_with_options(&device.1, TcAttachType::Ingress, options).map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        let Ok(link) = FdLink::try_from(link) else {
            return Err(EbpfError::Incomplete { kind: "pinnable link of", name });
        };
        let kept = link.pin(&path);
        kept.map(drop).map_err(|source| EbpfError::Pin {
            device: device.1.clone(),
            path,
            source: Box::new(source),
        })
    }

    fn remove_others(&self, want: &BTreeMap<Device, &'static str>) -> usize {
        // Removing the pin of a link removes the link.
        self.others(want).filter(|path| fs::remove_file(path).is_ok()).count()
    }

    fn others(&self, want: &BTreeMap<Device, &'static str>) -> impl Iterator<Item = PathBuf> {
        // A link and a filter on one device would do everything twice.
        let none = BTreeMap::new();
        let want = if self.hook == Hook::Tcx { want } else { &none };
        let wanted: Vec<PathBuf> = want.iter().map(|(device, program)| self.path(device, program)).collect();
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(move |path| !wanted.contains(path))
    }
}

/// Replaces our filter on a device, or makes it.
fn put_filter(ebpf: &mut Ebpf, device: &Device, name: &'static str) -> Result<(), EbpfError> {
    let program = program(ebpf, name)?;
    let failed = |source| EbpfError::Attach { name, device: device.1.clone(), source: Box::new(source) };
    // Somebody may have made it before; whatever else is wrong, the next step says.
    let _ = tc::qdisc_add_clsact(&device.1);
    let replaced = filter(device).and_then(|there| program.attach_to_link(there).ok());
    let id = match replaced {
        Some(id) => id,
        None => {
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            let options = TcAttachOptions::Netlink(options);
            program.attach_with_options(&device.1, TcAttachType::Ingress, options).map_err(failed)?
        }
    };
    // The filter stays when the agent ends.
    std::mem::forget(program.take_link(id).map_err(failed)?);
    Ok(())
}

fn filter((_, name): &Device) -> Option<SchedClassifierLink> {
    SchedClassifierLink::attached(name, TcAttachType::Ingress, PRIORITY, HANDLE, None).ok()
}

/// Removes our filter from a device. Whether there was one.
fn remove_filter(device: &Device) -> bool {
    filter(device).is_some_and(|there| there.detach().is_ok())
}

/// Removes our filters from all devices. How many there were.
pub(super) fn remove_filters() -> usize {
    let devices = nix::net::if_::if_nameindex();
    let devices = devices.iter().flat_map(|devices| devices.iter());
    devices
        .filter(|device| remove_filter(&(device.index(), device.name().to_string_lossy().into_owned())))
        .count()
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, EbpfError> {
    let found = ebpf.program_mut(name).ok_or(EbpfError::Incomplete { kind: "program", name })?;
    found.try_into().map_err(|source| EbpfError::Program { name, source: Box::new(source) })
}
