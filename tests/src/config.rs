//! The configuration files of the lab's agents.

use std::{net::Ipv4Addr, path::Path};

use anyhow::{Context, Result};
use toml::{Table, Value};

/// The port of the store that the first node serves to the others.
pub const STORE_PORT: u16 = 7300;

/// What the configuration of one agent is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AgentConfig<'a> {
    pub(crate) name: &'a str,
    pub(crate) address: Ipv4Addr,
    /// The node that holds the store.
    pub(crate) store: Ipv4Addr,
    pub(crate) upstream: Ipv4Addr,
    pub(crate) state_dir: &'a Path,
    pub(crate) run_dir: &'a Path,
    pub(crate) boot_id: &'a Path,
    pub(crate) cgroup: &'a Path,
    pub(crate) token_file: &'a Path,
    /// The agent's default when `None`.
    pub(crate) dataplane: Option<&'a str>,
}

impl AgentConfig<'_> {
    /// The file's content.
    pub(crate) fn table(&self) -> Table {
        let path = |path: &Path| Value::from(path.to_string_lossy().as_ref());
        let store = format!("{}:{STORE_PORT}", self.store);
        let (mode, place) =
            if self.address == self.store { ("local", "listen") } else { ("gateway", "gateway") };
        let mut config = Table::from_iter([
            table(
                "node",
                [
                    ("name", self.name.into()),
                    ("address", self.address.to_string().into()),
                    ("state_dir", path(self.state_dir)),
                    ("run_dir", path(self.run_dir)),
                    ("boot_id", path(self.boot_id)),
                    ("cgroup", path(self.cgroup)),
                ],
            ),
            table(
                "store",
                [("mode", mode.into()), (place, store.into()), ("token_file", path(self.token_file))],
            ),
            table("dns", [("upstreams", vec![self.upstream.to_string()].into())]),
        ]);
        // The nodes share the machine's file systems.
        let mut dataplane = vec![("pins", path(&self.run_dir.join("bpf")))];
        dataplane.extend(self.dataplane.map(|mode| ("mode", mode.into())));
        config.extend([table("dataplane", dataplane)]);
        config
    }
}

fn table<'a>(name: &str, entries: impl IntoIterator<Item = (&'a str, Value)>) -> (String, Value) {
    let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), value));
    (name.into(), Value::Table(entries.collect()))
}

/// Lays the TOML text `extra` over `config`: tables are merged, anything else is replaced.
pub(crate) fn lay_over(config: &mut Table, extra: &str) -> Result<()> {
    let extra: Table =
        extra.parse().with_context(|| format!("the extra configuration is no TOML:\n{extra}"))?;
    merge(config, extra);
    Ok(())
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => _ = into.insert(key, value),
        }
    }
}
