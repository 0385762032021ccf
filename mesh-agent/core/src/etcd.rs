//! **Decision.** How etcd is started: its flags, from a description of the member that this node is to be.
//!
//! Defaults that are wrong for us are set: etcd 3.4 elects a new leader whenever a member flaps, never compacts its
//! history, and stops for good when that has filled its quota.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Where the gateway of a node listens, TCP.
pub const GATEWAY_PORT: u16 = 7300;
/// Where a member listens for managers, TCP.
pub const CLIENT_PORT: u16 = 7301;
/// Where a member listens for other members, TCP.
pub const PEER_PORT: u16 = 7302;
/// Where a member tells how it fares, TCP, on loopback only.
pub const METRICS_PORT: u16 = 7303;

/// How large the database may grow, bytes.
pub const QUOTA: u64 = 4 << 30;

/// The member of etcd that a node is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberSpec {
    /// The node's id: the member is named so.
    pub node: String,
    /// The node's address.
    pub address: IpAddr,
    /// All members that there are when this one starts for the first time, this one too: name and peer URL.
    pub cluster: Vec<(String, String)>,
    /// It joins members that are there, and does not begin a cluster.
    pub joins: bool,
    /// Unlike any other cluster's, so that members of two never meet.
    pub token: String,
    /// How large the database may grow, bytes.
    pub quota: u64,
    /// Go on alone, without the members that are lost. Done once for each word that stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<String>,
}

/// `https://192.0.2.1:7302`, `https://[2001:db8::1]:7302`
pub fn url(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("https://{address}:{port}"),
        IpAddr::V6(address) => format!("https://[{address}]:{port}"),
    }
}

/// `3.4.23` as numbers.
pub fn version(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split(['.', '-', '+']).map(str::parse);
    match (parts.next()?, parts.next()?, parts.next()?) {
        (Ok(major), Ok(minor), Ok(patch)) => Some((major, minor, patch)),
        _ => None,
    }
}

/// The flags of a member whose files are in a directory, for a version of etcd. `alone`: this time without the others.
pub fn flags(spec: &MemberSpec, dir: &str, version: (u32, u32, u32), alone: bool) -> Vec<String> {
    let MemberSpec { node, address, cluster, joins, token, quota, alone: _ } = spec;
    let cluster: Vec<_> = cluster.iter().map(|(name, peer)| format!("{name}={peer}")).collect();
    let loopback = url([127, 0, 0, 1].into(), CLIENT_PORT);
    let peer = url(*address, PEER_PORT);
    let mut flags = vec![
        ("name", node.clone()),
        ("data-dir", format!("{dir}/data")),
        ("listen-client-urls", format!("{loopback},{}", url(*address, CLIENT_PORT))),
        ("advertise-client-urls", url(*address, CLIENT_PORT)),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer),
        ("listen-metrics-urls", format!("http://127.0.0.1:{METRICS_PORT}")),
        ("initial-cluster", cluster.join(",")),
        ("initial-cluster-state", if *joins { "existing" } else { "new" }.to_owned()),
        ("initial-cluster-token", token.clone()),
        ("strict-reconfig-check", "true".to_owned()),
        ("pre-vote", "true".to_owned()),
        ("auto-compaction-mode", "periodic".to_owned()),
        ("auto-compaction-retention", "15m".to_owned()),
        ("quota-backend-bytes", quota.to_string()),
        ("max-txn-ops", "1024".to_owned()),
        ("max-request-bytes", "8388608".to_owned()),
        ("grpc-keepalive-min-time", "1s".to_owned()),
        ("client-cert-auth", "true".to_owned()),
        ("trusted-ca-file", format!("{dir}/ca.pem")),
        ("cert-file", format!("{dir}/member.pem")),
        ("key-file", format!("{dir}/member.key")),
        ("peer-client-cert-auth", "true".to_owned()),
        ("peer-trusted-ca-file", format!("{dir}/ca.pem")),
        ("peer-cert-file", format!("{dir}/member.pem")),
        ("peer-key-file", format!("{dir}/member.key")),
    ];
    // What 3.7 calls by another name is left to its defaults.
    if ((3, 5, 5)..(3, 7, 0)).contains(&version) {
        flags.push(("experimental-initial-corrupt-check", "true".to_owned()));
        flags.push(("experimental-compact-hash-check-enabled", "true".to_owned()));
    }
    if version < (3, 5, 0) {
        flags.push(("logger", "zap".to_owned()));
    }
    if alone {
        flags.push(("force-new-cluster", "true".to_owned()));
    }
    flags.into_iter().map(|(flag, value)| format!("--{flag}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> MemberSpec {
        MemberSpec {
            node: "a".to_owned(),
            address: "192.0.2.1".parse().unwrap(),
            cluster: vec![("a".to_owned(), "https://192.0.2.1:7302".to_owned())],
            joins: false,
            token: "t".to_owned(),
            quota: QUOTA,
            alone: None,
        }
    }

    #[test]
    fn a_member_is_started_so() {
        let flags = flags(&spec(), "/var/lib/mesh/etcd", (3, 4, 23), false);
        for expected in [
            "--listen-client-urls=https://127.0.0.1:7301,https://192.0.2.1:7301",
            "--initial-cluster=a=https://192.0.2.1:7302",
            "--initial-cluster-state=new",
            "--pre-vote=true",
            "--auto-compaction-retention=15m",
            "--quota-backend-bytes=4294967296",
            "--max-txn-ops=1024",
            "--client-cert-auth=true",
            "--peer-client-cert-auth=true",
            "--strict-reconfig-check=true",
            "--listen-metrics-urls=http://127.0.0.1:7303",
        ] {
            assert!(flags.iter().any(|flag| flag == expected), "{expected} is not in {flags:?}");
        }
        assert!(!flags.iter().any(|flag| flag.contains("corrupt") || flag.contains("force")));
    }

    #[test]
    fn flags_are_those_that_a_version_knows() {
        let has =
            |version, name: &str| flags(&spec(), "/d", version, false).iter().any(|flag| flag.contains(name));
        assert!(has((3, 5, 5), "experimental-initial-corrupt-check"));
        assert!(has((3, 6, 0), "experimental-compact-hash-check-enabled"));
        assert!(!has((3, 5, 3), "experimental") && !has((3, 7, 0), "experimental"));
        assert!(flags(&spec(), "/d", (3, 4, 23), true).contains(&"--force-new-cluster=true".to_owned()));
        assert_eq!(version("3.4.23"), Some((3, 4, 23)));
        assert_eq!((version("3.6.0-rc.1"), version("x")), (Some((3, 6, 0)), None));
    }

    #[test]
    fn a_spec_is_read_as_it_was_written() {
        let spec = MemberSpec { alone: Some("once".to_owned()), ..spec() };
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<MemberSpec>(&text).unwrap(), spec);
        assert_eq!(url("2001:db8::1".parse().unwrap(), 7302), "https://[2001:db8::1]:7302");
    }
}
