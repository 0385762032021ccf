//! **Fact.** Which etcd, and how to get in.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use mesh_core::kv::Rev;
use tonic::transport::Uri;

/// Where one member of etcd listens for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: String,
    host: String,
    port: u16,
    secure: bool,
}

impl Endpoint {
    /// Whether it is spoken to by TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether it is on this machine, at the usual address.
    pub(super) fn is_loopback(&self) -> bool {
        ["127.0.0.1", "::1", "localhost"].contains(&self.host.as_str())
    }

    /// Its address, if it is not a name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// As it was written.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Name or address, and port.
    pub(super) fn host_and_port(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is no endpoint of etcd: write https://HOST:PORT, or http://HOST:PORT without TLS"
            )
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else { return Err(wrong()) };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('@') {
            return Err(wrong());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { url: text.trim_end_matches('/').to_owned(), host, port, secure })
    }
}

/// The files of TLS, PEM. They are read for each connection, so that renewed ones are taken up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Whom to trust.
    pub ca: PathBuf,
    /// Our certificate and its key, for an etcd that asks for one.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// What this node knows of its mesh already; another one or an older one is not written to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// Which mesh; `None`: it belongs to none yet, and may begin one where there is none.
    pub cluster: Option<String>,
    /// Which generation of its records.
    pub generation: u64,
    /// The newest revision of that generation that was seen.
    pub rev: Rev,
}

/// Which etcd, and how to get in.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// What the engine is called in a status.
    pub engine: &'static str,
    /// Members of one cluster, at least one.
    pub endpoints: Vec<Endpoint>,
    /// What all keys begin with; it begins and ends with a slash.
    pub prefix: String,
    /// Needed for endpoints that are secure.
    pub tls: Option<TlsFiles>,
    /// A user of etcd, and the file with the password.
    pub user: Option<(String, PathBuf)>,
    /// What is known already.
    pub known: Known,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_with_a_port() {
        let endpoint: Endpoint = "https://[fd00::1]:2379/".parse().unwrap();
        assert_eq!((endpoint.host_and_port(), endpoint.is_secure()), (("fd00::1", 2379), true));
        assert_eq!(endpoint.url(), "https://[fd00::1]:2379");
        assert!(!"http://etcd-1.lan:2379".parse::<Endpoint>().unwrap().is_secure());
        for wrong in [
            "",
            "etcd:2379",
            "http://etcd",
            "ftp://etcd:1",
            "http://etcd:1/x",
            "http://u:p@etcd:1",
            "http://e:99999",
        ] {
            let message = wrong.parse::<Endpoint>().unwrap_err();
            assert!(message.contains("https://HOST:PORT"), "{message}");
        }
    }
}
