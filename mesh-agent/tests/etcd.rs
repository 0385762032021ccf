//! **Effect.** The store in a real etcd: held to the same as the other engines, compared with them, and on bad days.
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "etcd/compared.rs"]
mod compared;
#[path = "etcd/copy.rs"]
mod copy;
#[path = "store/cut.rs"]
mod cut;
#[path = "etcd/faults.rs"]
mod faults;
#[path = "store/here.rs"]
mod here;
#[path = "etcd/lists.rs"]
mod lists;
#[path = "etcd/migrate.rs"]
mod migrate;
#[path = "store/random.rs"]
mod random;
#[path = "etcd/refusals.rs"]
mod refusals;
#[path = "etcd/subject.rs"]
mod subject;

mod conformance {
    mesh_agent::store_conformance!(async { super::subject::InEtcd::fresh() });
}
