//! **Effect.** The node's overlay in its kernel: the tunnel device, neighbours, routes, and the tasks' veths.
//!
//! Ours is what carries a mark, and nothing else is looked at: the tunnel device by name and kind, veths by
//! name, kind and MAC, routes by their protocol, addresses on our devices by theirs.
//!
//! A sweep lists what the kernel has; a delta compares with what the last round left. Both go through the same
//! steps, and objects name devices by index, so a device that was made anew takes everything on it along.

mod device;
mod endpoint;
mod inside;
mod kernel;
mod known;
mod neighbour;
mod route;
mod settle;
mod sysctl;
mod vtep;

use std::collections::BTreeMap;

use mesh_core::diff::diff;
use mesh_core::plan::Overlay;
use mesh_core::plan::{Endpoint, VTEP_DEVICE};

use crate::netns::{Netns, NetnsError};
use crate::plane::{Applied, Depth, Drift, Plane};
use device::Device;
use kernel::{Kernel, KernelError};
use known::Known;
use settle::Outcomes;

pub(crate) use route::PROTOCOL;
pub(crate) use sysctl::apply_loopback;

/// Has what is to judge a task's packets be on its device, of which it gets the index and the name, before any come by it.
pub type Guard = Box<dyn Fn(u32, &str) -> Result<(), String> + Send + Sync>;

/// The overlay of the node that one network namespace is.
pub struct OverlayPlane {
    node: Netns,
    known: Option<Known>,
    guard: Guard,
}

/// What stops a whole round.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl OverlayPlane {
    /// Of the namespace in which the calling thread is.
    pub fn new() -> Result<Self, NetnsError> {
        Ok(Self::of_node(Netns::own()?))
    }

    /// Of another namespace; may be used from any thread.
    pub fn of_node(node: Netns) -> Self {
        Self { node, known: None, guard: Box::new(|_, _| Ok(())) }
    }

    /// With something that has to be done for each task's device before that goes up.
    pub fn guarded(self, guard: Guard) -> Self {
        Self { guard, ..self }
    }

    async fn round(&mut self, want: &Overlay, depth: Depth, applied: &mut Applied) -> Result<(), RoundError> {
        let drift = Drift::of(depth);
        let known = if drift.is_some() { None } else { self.known.take().filter(|_| depth == Depth::Delta) };
        let sweep = known.is_none();
        let mut known = known.unwrap_or_default();
        let kernel = Kernel::open(&self.node, drift.clone())?;
        let mut present = BTreeMap::new();
        if sweep {
            note(applied, sysctl::apply_node(&self.node, kernel.drift()));
            let devices = kernel.devices().await?;
            let ours = devices.iter().filter(|device| device.is_vtep() || device.is_endpoint());
            known.devices = ours.map(|device| (device.name.clone(), device.index)).collect();
            present = devices.into_iter().map(|device| (device.name.clone(), device)).collect();
        }
        self.put_vtep(&kernel, want, sweep, &mut known, applied).await;
        // Before others come: a task's namespace may be given to its successor.
        known.remove_endpoints(&kernel, want, applied).await;
        self.put_endpoints(&kernel, want, sweep.then_some(present), &mut known, applied).await;
        if sweep {
            known.observe(&kernel).await?;
        }
        let done = known.settle(&kernel, want, applied).await;
        known.remove_vtep(&kernel, want, applied).await;
        if let Some(drift) = drift {
            applied.drift = drift.all();
            return Ok(());
        }
        // What the kernel refuses may be so because it is not as we think: the next round looks.
        if done {
            self.known = Some(known);
        }
        Ok(())
    }

    async fn put_vtep(
        &self,
        kernel: &Kernel,
        want: &Overlay,
        sweep: bool,
        known: &mut Known,
        applied: &mut Applied,
    ) {
        let Some(vtep) = &want.vtep else { return };
        let settings = sysctl::of_device(VTEP_DEVICE, neighbour::uses_v6(want));
        let prepare = |created: bool| {
            if !created && !sweep {
                return Outcomes::new();
            }
            sysctl::apply(&self.node, &settings, kernel.drift())
        };
        match vtep::apply(kernel, vtep, prepare).await {
            Ok(done) => {
                known.devices.insert(VTEP_DEVICE.to_owned(), done.index);
                note(applied, done.settings);
                applied.changed += usize::from(done.changed);
            }
            Err(error) => applied.record(format!("device {VTEP_DEVICE}"), Err(error)),
        }
    }

    /// All that are wanted when there is a list of what is present; else those that are not as wanted yet.
    async fn put_endpoints(
        &self,
        kernel: &Kernel,
        want: &Overlay,
        mut present: Option<BTreeMap<String, Device>>,
        known: &mut Known,
        applied: &mut Applied,
    ) {
        let changes = diff(&known.endpoints, &want.endpoints);
        known
            .endpoints
            .retain(|name, _| !changes.changed.contains_key(name) && !changes.removed.contains_key(name));
        let mut todo: Vec<_> = changes.added.into_iter().chain(changes.changed).collect();
        // Twice: what was in the way may be the place that another one left meanwhile.
        for last in [false, true] {
            let mut failed = Vec::new();
            for (name, endpoint) in todo {
                let found = match present.as_mut().filter(|_| !last) {
                    Some(present) => Ok(present.remove(&name)),
                    None => kernel.device(&name).await,
                };
                let result = match found {
                    Ok(found) => self.put_endpoint(kernel, &name, &endpoint, found, known, applied).await,
                    Err(error) => Err(error.to_string()),
                };
                match result {
                    Ok(changed) => {
                        applied.changed += usize::from(changed);
                        known.endpoints.insert(name, endpoint);
                    }
                    Err(error) if last => applied.record(format!("endpoint {name}"), Err(error)),
                    Err(_) => failed.push((name, endpoint)),
                }
            }
            todo = failed;
        }
    }

    async fn put_endpoint(
        &self,
        kernel: &Kernel,
        name: &str,
        want: &Endpoint,
        found: Option<Device>,
        known: &mut Known,
        applied: &mut Applied,
    ) -> Result<bool, String> {
        let attached = endpoint::attach(&self.node, kernel, name, want, found, &self.guard, applied).await;
        let attached = attached.map_err(|error| error.to_string())?;
        known.devices.insert(name.to_owned(), attached.host);
        let furnished = inside::furnish(&attached.inside, &attached.netns, want, &attached.end).await;
        furnished
            .map(|changed| changed || attached.changed)
            .map_err(|error| format!("task {}: {error}", want.task))
    }
}

impl Plane for OverlayPlane {
    type Want = Overlay;
    const NAME: &'static str = "overlay";

    async fn reconcile(&mut self, want: &Overlay, depth: Depth) -> Applied {
        let mut applied = Applied::default();
        let result = self.round(want, depth, &mut applied).await;
        if let Err(error) = result {
            applied.record(Self::NAME, Err(error));
        }
        applied
    }

    async fn remove_all(&mut self) -> Applied {
        let mut applied = Applied::default();
        self.known = None;
        let result = async {
            let kernel = Kernel::open(&self.node, None)?;
            let mut known = Known::default();
            let devices = kernel.devices().await?.into_iter();
            let ours = devices.filter(|device| device.is_vtep() || device.is_endpoint());
            known.devices = ours.map(|device| (device.name, device.index)).collect();
            known.observe(&kernel).await?;
            let nothing = Overlay::default();
            known.settle(&kernel, &nothing, &mut applied).await;
            known.remove_endpoints(&kernel, &nothing, &mut applied).await;
            known.remove_vtep(&kernel, &nothing, &mut applied).await;
            Ok::<(), RoundError>(())
        };
        if let Err(error) = result.await {
            applied.record(Self::NAME, Err(error));
        }
        applied
    }
}

fn note(applied: &mut Applied, outcomes: Outcomes) {
    for (object, result) in outcomes {
        applied.record(object, result);
    }
}
