//! The Lab: a real network of nodes on one machine, in kernel namespaces, that runs the real `mesh` program.
//!
//! ```no_run
//! use std::time::Duration;
//! use mesh_tests::Lab;
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::builder("target/debug/mesh").node("n1").node("n2").node("n3").build()?;
//! lab.start_agents(Duration::from_secs(10))?;
//! println!("{}", lab.node("n2")?.mesh(["node", "ls"])?.ok()?);
//! println!("{}", lab.client().exec(["curl", "-s", "http://192.168.77.11:8080/"])?.ok()?);
//! # Ok(())
//! # }
//! ```
//!
//! It needs root, `ip` and `sh`. Nothing in it has a name that another lab could have, so labs run in parallel.
//! Nothing stays behind: namespaces are held by file descriptors, every process is in the lab's control group,
//! and a small process outlives the lab's own to kill and remove what is left, even after `kill -9`.
//!
//! Tests wrap themselves in [`lab_test`], which shows the state of all hosts when they fail.

#![forbid(unsafe_code)]

mod browser;
mod cgroup;
pub mod chaos;
mod config;
mod descriptors;
mod diagnose;
mod etcd;
mod exec;
mod fabric;
mod flood;
mod host;
mod info;
mod janitor;
mod lab;
mod load;
pub mod lossless;
mod netns;
mod node;
mod process;
mod programs;
mod terminal;
mod wait;

pub use browser::Browser;
pub use cgroup::Cgroup;
pub use config::STORE_PORT;
pub use diagnose::{built_mesh, lab_test};
pub use etcd::{Etcd, EtcdTls, Member};
pub use exec::{DEFAULT_TIMEOUT, Exec, Output};
pub use flood::Flood;
pub use host::Host;
pub use info::{HostInfo, LabInfo};
pub use lab::{Lab, LabBuilder};
pub use load::{Failure, Load, Report};
pub use netns::Netns;
pub use node::Node;
pub use process::Process;
pub use programs::Programs;
pub use terminal::Terminal;
pub use wait::eventually;
