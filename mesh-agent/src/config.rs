//! **Fact.** What the operator wants of this agent: defaults < file < environment < flags.
//!
//! The documented default file (`packaging/mesh.toml`) *is* the defaults and the list of known keys, so it can
//! never be out of date.

mod store;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_core::certificate::{AUTHORITY_LIFE, SHORTEST};
use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

pub use store::{Store, StoreMode};

/// The default file, with every key explained.
pub const DEFAULT_FILE: &str = include_str!("../packaging/mesh.toml");
/// Where the file is looked for.
pub const DEFAULT_PATH: &str = "/etc/mesh/mesh.toml";

/// How many flows there may be room for: a table of more is greater than one gibibyte.
const FLOWS: RangeInclusive<u32> = 1 << 10..=1 << 24;

/// How long certificates may be good at most: as long as their authority's own.
const LONGEST: Duration = AUTHORITY_LIFE;

/// How much etcd may hold, MiB; it advises against more than the most.
const QUOTAS: RangeInclusive<u64> = 16..=8192;

/// The whole configuration. See the default file for what each key means.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub node: Node,
    pub overlay: Overlay,
    pub store: Store,
    pub cluster: Cluster,
    pub dataplane: Dataplane,
    pub dns: Dns,
    pub checks: Checks,
    pub metrics: Metrics,
    pub web: Web,
    pub api: Api,
    pub log: Log,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub name: String,
    pub address: String,
    pub state_dir: PathBuf,
    pub run_dir: PathBuf,
    pub boot_id: PathBuf,
    pub cgroup: PathBuf,
}

/// `[overlay]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    pub port: u16,
}

/// `[cluster]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    pub certificate_life: u64,
    pub member_certificate_life: u64,
    pub quota: u64,
}

/// `[dataplane]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataplane {
    pub mode: DataplaneMode,
    pub without: Vec<KernelFeature>,
    pub pins: PathBuf,
    pub flows: u32,
    pub sweep: u64,
}

/// Which data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataplaneMode {
    /// eBPF where the kernel can, else nftables.
    Auto,
    /// eBPF, or no start.
    Ebpf,
    /// nftables.
    Nft,
}

/// What the eBPF data plane uses where the kernel has it, and does without where it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelFeature {
    /// Programs on devices as links (Linux 6.6), else by tc filters.
    Tcx,
    /// Programs on the sockets of a control group.
    SockLb,
    /// Ending sockets whose backend has gone, without which none is led to one.
    SockDestroy,
    /// A helper that keeps the sum of a whole packet right when an IPv6 address changes.
    CsumV6,
    /// Probes that programs answer, else ICMP.
    Reflector,
}

/// `[dns]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    pub upstreams: Vec<String>,
    pub ttl: u32,
    pub cache: u32,
}

/// `[checks]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checks {
    pub listen: String,
}

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    pub listen: String,
}

/// `[web]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Web {
    pub listen: String,
}

/// `[api]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    pub group: String,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What is wrong with the configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct ConfigError {
    place: String,
    what: String,
}

fn wrong<T>(place: impl Into<String>, what: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError { place: place.into(), what: what.into() })
}

impl Config {
    /// Puts the layers together. `env` are all environment variables, `flags` are `section.key=value`.
    pub fn load(
        file: Option<(&Path, &str)>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &[String],
    ) -> Result<Self, ConfigError> {
        let defaults = parse(Path::new("built-in defaults"), DEFAULT_FILE)?;
        let mut merged = defaults.clone();
        if let Some((path, text)) = file {
            merge_file(&mut merged, &defaults, path, text)?;
        }
        for (variable, value) in env {
            let Some(rest) = variable.strip_prefix("MESH_") else { continue };
            let Some((section, key)) = rest.split_once('_') else { continue };
            let section = section.to_ascii_lowercase();
            // Other variables of the family, such as MESH_HOST or MESH_TASK_NAME, belong to others.
            if defaults.contains_key(&section) {
                let place = format!("environment variable {variable}");
                set(&mut merged, &defaults, &section, &key.to_ascii_lowercase(), &value, &place)?;
            }
        }
        for flag in flags {
            let place = format!("flag --set {flag}");
            let split = flag.split_once('=').and_then(|(key, value)| Some((key.split_once('.')?, value)));
            let Some(((section, key), value)) = split else {
                return wrong(place, "write it as section.key=value, such as node.name=n1");
            };
            set(&mut merged, &defaults, section, key, value, &place)?;
        }
        let config: Self = merged.try_into().map_err(|error: toml::de::Error| ConfigError {
            place: file.map_or_else(|| "configuration".to_owned(), |(path, _)| path.display().to_string()),
            what: error.message().to_owned(),
        })?;
        config.check()?;
        Ok(config)
    }

    /// What must fit together.
    fn check(&self) -> Result<(), ConfigError> {
        self.store.check()?;
        if self.node.address != "auto" && self.node.address.parse::<IpAddr>().is_err() {
            return wrong(
                "node.address",
                format!("'{}' is neither an address nor \"auto\"", self.node.address),
            );
        }
        if self.overlay.port == 0 {
            return wrong("overlay.port", "ports are 1 to 65535");
        }
        if !FLOWS.contains(&self.dataplane.flows) {
            let (least, most) = (FLOWS.start(), FLOWS.end());
            return wrong(
                "dataplane.flows",
                format!("{} is not from {least} to {most}", self.dataplane.flows),
            );
        }
        for (key, listen) in [
            ("checks.listen", &self.checks.listen),
            ("metrics.listen", &self.metrics.listen),
            ("web.listen", &self.web.listen),
        ] {
            if !listen.is_empty() && listen.parse::<SocketAddr>().is_err() {
                return wrong(key, format!("'{listen}' is no address with a port: 127.0.0.1:7305 is one"));
            }
        }
        let shortest = SHORTEST.as_secs();
        let lives = [
            ("cluster.certificate_life", self.cluster.certificate_life),
            ("cluster.member_certificate_life", self.cluster.member_certificate_life),
        ];
        if let Some((key, life)) =
            lives.into_iter().find(|(_, life)| !(shortest..=LONGEST.as_secs()).contains(life))
        {
            let most = LONGEST.as_secs();
            return wrong(key, format!("{life} is not from {shortest} to {most} seconds"));
        }
        if !QUOTAS.contains(&self.cluster.quota) {
            let (least, most) = (QUOTAS.start(), QUOTAS.end());
            return wrong(
                "cluster.quota",
                format!("{} is not from {least} to {most} MiB", self.cluster.quota),
            );
        }
        for upstream in &self.dns.upstreams {
            if upstream.parse::<IpAddr>().is_err() && upstream.parse::<SocketAddr>().is_err() {
                return wrong("dns.upstreams", format!("'{upstream}' is no address"));
            }
        }
        Ok(())
    }

    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.node.run_dir.join("mesh.sock")
    }
}

fn parse(path: &Path, text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        ConfigError { place: format!("{}:{line}", path.display()), what: error.message().to_owned() }
    })
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn merge_file(merged: &mut Table, defaults: &Table, path: &Path, text: &str) -> Result<(), ConfigError> {
    let values = parse(path, text)?;
    let spans = DeTable::parse(text).map_err(|error| ConfigError {
        place: path.display().to_string(),
        what: error.message().to_owned(),
    })?;
    let place = |at: usize| format!("{}:{}", path.display(), line_of(text, at));
    for (section, content) in spans.get_ref() {
        let name = section.get_ref().as_ref();
        let Some(known) = defaults.get(name).and_then(Value::as_table) else {
            let sections: Vec<_> = defaults.keys().map(String::as_str).collect();
            return wrong(
                place(section.span().start),
                format!("unknown section [{name}]; there are {}", sections.join(", ")),
            );
        };
        let DeValue::Table(content) = content.get_ref() else {
            return wrong(place(section.span().start), format!("'{name}' is a section: write [{name}]"));
        };
        for (key, value) in content {
            let misplaced = |what| ConfigError { place: place(key.span().start), what };
            check_key(name, known, key, value).map_err(misplaced)?;
            if let Some(value) = values.get(name).and_then(|section| section.get(key.get_ref().as_ref())) {
                put(merged, name, key.get_ref(), value.clone());
                check_value(defaults, name, key.get_ref(), value.clone()).map_err(misplaced)?;
            }
        }
    }
    Ok(())
}

fn check_key(
    section: &str,
    known: &Table,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
) -> Result<(), String> {
    let key = key.get_ref().as_ref();
    let Some(default) = known.get(key) else { return Err(unknown_key(section, key, known)) };
    let found = value.get_ref().type_str();
    if found == default.type_str() {
        return Ok(());
    }
    Err(format!("'{key}' is a {}, not a {found}", default.type_str()))
}

/// Words and numbers out of range are found by reading the defaults with this one value in them.
fn check_value(defaults: &Table, section: &str, key: &str, value: Value) -> Result<(), String> {
    let mut alone = defaults.clone();
    put(&mut alone, section, key, value);
    match alone.try_into::<Config>() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("'{key}': {}", error.message())),
    }
}

fn unknown_key(section: &str, key: &str, known: &Table) -> String {
    let keys: Vec<_> = known.keys().map(String::as_str).collect();
    format!("unknown key '{key}' in [{section}]; there are {}", keys.join(", "))
}

/// Sets a key from text, which is read as what the default is.
fn set(
    merged: &mut Table,
    defaults: &Table,
    section: &str,
    key: &str,
    text: &str,
    place: &str,
) -> Result<(), ConfigError> {
    let Some(known) = defaults.get(section).and_then(Value::as_table) else {
        return wrong(place, format!("unknown section '{section}'"));
    };
    let Some(default) = known.get(key) else { return wrong(place, unknown_key(section, key, known)) };
    let value = match default {
        Value::Integer(_) => match text.parse() {
            Ok(number) => Value::Integer(number),
            Err(_) => return wrong(place, format!("'{text}' is no number")),
        },
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
        _ => Value::String(text.to_owned()),
    };
    put(merged, section, key, value);
    Ok(())
}

fn put(merged: &mut Table, section: &str, key: &str, value: Value) {
    if let Some(Value::Table(section)) = merged.get_mut(section) {
        section.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, env: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let flags: Vec<_> = flags.iter().map(|f| (*f).to_owned()).collect();
        Config::load(Some((Path::new("/etc/mesh/mesh.toml"), file)), env, &flags)
    }

    #[test]
    fn the_default_file_is_the_defaults() {
        let config = Config::load(None, [], &[]).unwrap();
        assert_eq!(config, load(DEFAULT_FILE, &[], &[]).unwrap());
        assert_eq!(config.overlay.port, 4789);
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let file = "[node]\nname = \"file\"\naddress = \"192.0.2.1\"\n[dns]\nttl = 7\n";
        let env =
            [("MESH_NODE_NAME", "env"), ("MESH_DNS_TTL", "9"), ("MESH_HOST", "unix:///x"), ("HOME", "/")];
        let config = load(file, &env, &["node.name=flag", "dns.upstreams=192.0.2.53, 192.0.2.54"]).unwrap();
        assert_eq!((config.node.name.as_str(), config.dns.ttl), ("flag", 9));
        assert_eq!(config.node.address, "192.0.2.1");
        assert_eq!(config.dns.upstreams, ["192.0.2.53", "192.0.2.54"]);
    }

    #[test]
    fn the_data_plane_is_the_best_that_the_kernel_has_unless_told_otherwise() {
        let config = Config::load(None, [], &[]).unwrap();
        assert_eq!((config.dataplane.mode, config.dataplane.without), (DataplaneMode::Auto, vec![]));
        let config = load("[dataplane]\nmode = \"nft\"\n", &[], &["dataplane.without=tcx,sock_lb"]).unwrap();
        assert_eq!(config.dataplane.mode, DataplaneMode::Nft);
        assert_eq!(config.dataplane.without, [KernelFeature::Tcx, KernelFeature::SockLb]);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let told = |file: &str, env: &[(&str, &str)], flags: &[&str]| {
            load(file, env, flags).unwrap_err().to_string()
        };
        let cases = [
            (
                told("[node]\n\nnmae = \"x\"\n", &[], &[]),
                "/etc/mesh/mesh.toml:3: unknown key 'nmae' in [node]",
            ),
            (told("[nodes]\n", &[], &[]), "/etc/mesh/mesh.toml:1: unknown section [nodes]"),
            (
                told("[dns]\nttl = \"5\"\n", &[], &[]),
                "/etc/mesh/mesh.toml:2: 'ttl' is a integer, not a string",
            ),
            (told("[node\n", &[], &[]), "/etc/mesh/mesh.toml:1: "),
            (
                told("[store]\nmode = \"etcd\"\n", &[], &[]),
                "/etc/mesh/mesh.toml:2: 'mode': unknown variant `etcd`",
            ),
            (
                told("[dataplane]\nmode = \"ipvs\"\n", &[], &[]),
                "/etc/mesh/mesh.toml:2: 'mode': unknown variant `ipvs`, expected one of `auto`, `ebpf`, `nft`",
            ),
            (
                told("[dataplane]\nwithout = [\"tcx\", \"xdp\"]\n", &[], &[]),
                "/etc/mesh/mesh.toml:2: 'without': unknown variant `xdp`, expected one of `tcx`, `sock_lb`, `sock_destroy`",
            ),
            (told("", &[("MESH_DATAPLANE_WITHOUT", "xdp")], &[]), "unknown variant `xdp`"),
            (told("[store]\nmode = \"gateway\"\n", &[], &[]), "store.gateway: mode \"gateway\" needs"),
            (
                told("[store]\nmode = \"external\"\n", &[], &[]),
                "store.endpoints: mode \"external\" needs the endpoints of etcd",
            ),
            (told("", &[("MESH_NODE_NMAE", "x")], &[]), "environment variable MESH_NODE_NMAE: unknown key"),
            (told("", &[("MESH_DNS_TTL", "x")], &[]), "'x' is no number"),
            (told("", &[], &["name=x"]), "flag --set name=x: write it as section.key=value"),
            (told("", &[], &["dataplane.flows=1000"]), "dataplane.flows: 1000 is not from 1024 to 16777216"),
            (told("", &[], &["dataplane.flows=-1"]), "invalid value: integer `-1`, expected u32"),
            (
                told("[dataplane]\nflows = 16777217\n", &[], &[]),
                "dataplane.flows: 16777217 is not from 1024 to 16777216",
            ),
            (told("", &[], &["node.address=nowhere"]), "node.address: 'nowhere' is neither"),
            (told("", &[], &["checks.listen=7304"]), "checks.listen: '7304' is no address with a port"),
            (
                told("", &[], &["web.listen=localhost:7306"]),
                "web.listen: 'localhost:7306' is no address with a port",
            ),
        ];
        for (message, expected) in cases {
            assert!(message.contains(expected), "{message}\n  lacks\n{expected}");
        }
    }
}
