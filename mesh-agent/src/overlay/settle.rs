//! **Effect.** From what is there to what is wanted, in an order that leaves no gap.
//!
//! What is there (`have`) follows each success, so that what failed is tried again. First everything that is
//! new or changed, a change by replacement and not by removal; what is not wanted any more goes last.

use std::collections::BTreeMap;

use mesh_core::diff::diff;
use mesh_core::plan::Mac;
use nix::errno::Errno;

use super::kernel::{Kernel, KernelError};
use super::neighbour;
use super::route::{self, Path};

/// What happened to each object, by its name.
pub(super) type Outcomes = Vec<(String, Result<(), String>)>;

type Routes = BTreeMap<route::Key, Path>;
type Neighbours = BTreeMap<neighbour::Key, Mac>;

pub(super) async fn put_routes(kernel: &Kernel, have: &mut Routes, want: &Routes) -> Outcomes {
    let changes = diff(&*have, want);
    let added = changes.added.into_iter().map(|(key, path)| (key, path, false));
    let mut todo: Vec<_> =
        added.chain(changes.changed.into_iter().map(|(key, path)| (key, path, true))).collect();
    // A source must be an address before a route can name it; and a network that leads nowhere must do so before
    // parts of it lead somewhere, or packets to the rest would leave by the default route.
    todo.sort_by_key(|(key, path, _)| (path.source.is_some(), key.net.prefix_len()));
    let mut outcomes = Vec::new();
    for (key, path, replace) in todo {
        let result = put_route(kernel, &key, &path, replace).await;
        if result.is_ok() {
            have.insert(key, path);
        }
        outcomes.push((object(&key), result));
    }
    outcomes
}

async fn put_route(kernel: &Kernel, key: &route::Key, path: &Path, replace: bool) -> Result<(), String> {
    let message = route::encode(key, path);
    let error = match kernel.put_route(key, message.clone(), replace).await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    if !error.is(&[Errno::EEXIST]) {
        return Err(error.to_string());
    }
    // Ours, and we did not know? Or somebody else's, which stays.
    let routes = kernel.routes().await.map_err(|error| error.to_string())?;
    if routes.iter().filter_map(route::decode).any(|(there, _)| there == *key) {
        return kernel.put_route(key, message, true).await.map_err(|error| error.to_string());
    }
    Err(format!(
        "{error}; a route to {} that is not the mesh's is already there: remove it, or use another subnet",
        key.net
    ))
}

pub(super) async fn remove_routes(kernel: &Kernel, have: &mut Routes, want: &Routes) -> Outcomes {
    let mut todo: Vec<_> = diff(&*have, want).removed.into_keys().collect();
    // Parts of a network before the whole, for the same reason.
    todo.sort_by_key(|key| std::cmp::Reverse(key.net.prefix_len()));
    let mut outcomes = Vec::new();
    for key in todo {
        let result = kernel.remove_route(&key).await;
        if result.is_ok() {
            have.remove(&key);
        }
        outcomes.push((object(&key), text(result)));
    }
    outcomes
}

pub(super) async fn put_neighbours(kernel: &Kernel, have: &mut Neighbours, want: &Neighbours) -> Outcomes {
    let changes = diff(&*have, want);
    let mut outcomes = Vec::new();
    for (key, mac) in changes.added.into_iter().chain(changes.changed) {
        let result = kernel.put_neighbour(&key, mac).await;
        if result.is_ok() {
            have.insert(key, mac);
        }
        outcomes.push((format!("neighbour {}", key.address), text(result)));
    }
    outcomes
}

pub(super) async fn remove_neighbours(kernel: &Kernel, have: &mut Neighbours, want: &Neighbours) -> Outcomes {
    let mut outcomes = Vec::new();
    for key in diff(&*have, want).removed.into_keys() {
        let result = kernel.remove_neighbour(&key).await;
        if result.is_ok() {
            have.remove(&key);
        }
        outcomes.push((format!("neighbour {}", key.address), text(result)));
    }
    outcomes
}

fn object(key: &route::Key) -> String {
    format!("route {}", key.net)
}

fn text(result: Result<(), KernelError>) -> Result<(), String> {
    result.map_err(|error| error.to_string())
}
