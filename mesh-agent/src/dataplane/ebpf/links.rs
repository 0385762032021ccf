//! **Effect.** Which program is on which device.
//!
//! A link is pinned, so a program stays on its device when the agent ends, and a new agent replaces the program
//! in the link at once: no packet meets a device without one.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};

use super::EbpfError;

/// A device: its index and its name.
pub(super) type Device = (u32, String);

/// Programs on devices.
#[derive(Debug)]
pub(super) struct Links {
    dir: PathBuf,
    held: BTreeMap<Device, &'static str>,
}

impl Links {
    /// Those that are pinned in a directory.
    pub(super) fn open(dir: PathBuf) -> Self {
        Self { dir, held: BTreeMap::new() }
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
            let there = self.held.get(device) == Some(program) && self.path(device, program).exists();
            if there {
                continue;
            }
            match self.put(ebpf, device, program) {
                Ok(()) => {
                    changed += 1;
                    self.held.insert(device.clone(), program);
                }
                Err(error) => _ = errors.insert(format!("device {}", device.1), error.in_full()),
            }
        }
        self.held.retain(|device, _| want.contains_key(device));
        changed + self.remove_others(want)
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
        let wanted: Vec<PathBuf> = want.iter().map(|(device, program)| self.path(device, program)).collect();
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path());
        // Removing the pin of a link removes the link.
        entries.filter(|path| !wanted.contains(path) && fs::remove_file(path).is_ok()).count()
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, EbpfError> {
    let found = ebpf.program_mut(name).ok_or(EbpfError::Incomplete { kind: "program", name })?;
    found.try_into().map_err(|source| EbpfError::Program { name, source: Box::new(source) })
}
