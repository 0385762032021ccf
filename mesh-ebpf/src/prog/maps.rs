//! The maps. Their names are in `mesh_ebpf::abi`, for the agent to find them by.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap},
};
use mesh_ebpf::abi::{Backend, Frontend, FrontendKey, MAX_BACKENDS, MAX_FRONTENDS, Slots};

#[map]
pub(crate) static FRONTENDS: HashMap<FrontendKey, Frontend> = HashMap::with_max_entries(MAX_FRONTENDS, 0);

#[map]
pub(crate) static SLOTS: Array<Slots> = Array::with_max_entries(MAX_FRONTENDS, 0);

#[map]
pub(crate) static BACKENDS: Array<Backend> = Array::with_max_entries(MAX_BACKENDS, 0);
