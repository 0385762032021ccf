//! What others would use instead, on nodes without a mesh. Their configurations are in `benches/peers`.

use std::fs;
use std::path::Path as File;

use anyhow::{Context, Result};
use mesh_tests::{Host, Node, Process};

use super::bare::{Bare, SERVER};
use super::load::Load;
use super::server::{SINK, WEB};
use super::target::{Entry, Path, Target};

/// Where each has the web server.
const PUBLISHED: u16 = 8080;

/// Which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The rules of kube-proxy's nftables mode.
    KubeproxyNft,
    /// Those of its iptables mode.
    Iptables,
    /// A proxy for TCP.
    Haproxy,
    /// Another, for UDP as well.
    Nginx,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::KubeproxyNft, Self::Iptables, Self::Haproxy, Self::Nginx];

    const fn name(self) -> &'static str {
        match self {
            Self::KubeproxyNft => "kubeproxy-nft",
            Self::Iptables => "iptables",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    const fn config(self) -> &'static str {
        match self {
            Self::KubeproxyNft => include_str!("../../peers/kubeproxy.nft"),
            Self::Iptables => include_str!("../../peers/iptables.rules"),
            Self::Haproxy => include_str!("../../peers/haproxy.cfg"),
            Self::Nginx => include_str!("../../peers/nginx.conf"),
        }
    }

    /// The command that has a node do it, and whether it goes on.
    fn command(self, file: &str) -> (Vec<&str>, bool) {
        match self {
            Self::KubeproxyNft => (vec!["nft", "-f", file], false),
            Self::Iptables => (vec!["iptables-legacy-restore", file], false),
            Self::Haproxy => (vec!["haproxy", "-db", "-f", file], true),
            Self::Nginx => (vec!["nginx", "-e", "stderr", "-c", file], true),
        }
    }
}

/// Two nodes that both do the same.
pub(super) struct Peer {
    kind: Kind,
    bare: Bare,
    _proxies: Vec<Process>,
}

impl Peer {
    pub(super) fn build(program: &File, kind: Kind) -> Result<Self> {
        let bare = Bare::build(program)?;
        let mut proxies = Vec::new();
        for node in bare.nodes() {
            proxies.extend(start(node, &bare, kind).with_context(|| format!("{} on a node", kind.name()))?);
        }
        Ok(Self { kind, bare, _proxies: proxies })
    }
}

/// Has a node do it. What goes on, if something does.
fn start(node: &Node, bare: &Bare, kind: Kind) -> Result<Option<Process>> {
    // As the manuals of proxies advise: each connection of a client's costs a port of the node's own, too.
    node.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
    node.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
    node.sysctl("net/core/somaxconn", "4096")?;
    let dir = bare.dir().join(format!("{}-{}", kind.name(), node.address()));
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let filled = [
        ("{dir}", dir.display().to_string()),
        ("{node}", node.address().to_string()),
        ("{server}", SERVER.to_string()),
        ("{web}", WEB.to_string()),
        ("{sink}", SINK.to_string()),
    ];
    let config =
        filled.iter().fold(kind.config().to_owned(), |text, (name, value)| text.replace(name, value));
    let file = dir.join("config");
    fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
    let file = file.display().to_string();
    let (command, goes_on) = kind.command(&file);
    if goes_on {
        return node.spawn_daemon(kind.name(), command).map(Some);
    }
    node.exec(command)?.ok()?;
    Ok(None)
}

impl Target for Peer {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Its VIPs would need an overlay, which is somebody else's.
    fn path(&self, entry: Entry) -> Option<Path<'_>> {
        let [remote, local] = self.bare.nodes() else { return None };
        match entry {
            Entry::Local => Some(self.bare.path(local.address(), PUBLISHED)),
            Entry::Remote => Some(self.bare.path(remote.address(), PUBLISHED)),
            Entry::Vip => None,
        }
    }

    fn carries(&self, load: Load) -> bool {
        self.kind != Kind::Haproxy || load != Load::Datagrams
    }

    fn outside(&self) -> &Host {
        self.bare.outside()
    }
}
