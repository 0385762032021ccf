//! **Fact.** `[store]`: where the records are, and how to get at them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, wrong};
use crate::store::etcd::{Endpoint, EtcdOptions, Known, TlsFiles};

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    pub mode: StoreMode,
    pub listen: String,
    pub gateway: String,
    pub token_file: PathBuf,
    pub endpoints: Vec<String>,
    pub prefix: String,
    pub ca_file: PathBuf,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    pub user: String,
    pub password_file: PathBuf,
}

/// Where the records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreMode {
    /// Here.
    Local,
    /// At another node.
    Gateway,
    /// In an etcd that others run.
    External,
}

impl StoreMode {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Gateway => "gateway",
            Self::External => "external",
        }
    }
}

impl Store {
    /// What must fit together.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.mode == StoreMode::Gateway && self.gateway.is_empty() {
            return wrong(
                "store.gateway",
                "mode \"gateway\" needs the address of the node that keeps the records",
            );
        }
        for (key, address) in [("store.listen", &self.listen), ("store.gateway", &self.gateway)] {
            if !address.is_empty() && address.parse::<SocketAddr>().is_err() {
                return wrong(key, format!("'{address}' is no address with a port, such as 192.0.2.1:7300"));
            }
        }
        let remote = self.mode == StoreMode::Gateway || !self.listen.is_empty();
        if remote && unset(&self.token_file) {
            return wrong(
                "store.token_file",
                "the gateway needs a shared secret: name a file with mode 0600",
            );
        }
        if self.mode == StoreMode::External {
            self.etcd(Known::default())?;
        }
        Ok(())
    }

    /// How to get at etcd, in mode `external`.
    pub fn etcd(&self, known: Known) -> Result<EtcdOptions, ConfigError> {
        let endpoints = self.parsed_endpoints()?;
        let prefix = &self.prefix;
        if !prefix.starts_with('/') || !prefix.ends_with('/') || !(3..=200).contains(&prefix.len()) {
            return wrong(
                "store.prefix",
                format!("'{prefix}' does not begin and end with a slash around a name, as \"/mesh/\" does"),
            );
        }
        let tls = self.tls(endpoints.iter().any(Endpoint::is_secure))?;
        let user = match (self.user.as_str(), unset(&self.password_file)) {
            ("", true) => None,
            ("", false) => return wrong("store.user", "store.password_file is set: name the user, too"),
            (_, true) => {
                return wrong(
                    "store.password_file",
                    "store.user is set: name the file with its password, too",
                );
            }
            (user, false) => Some((user.to_owned(), self.password_file.clone())),
        };
        let engine = self.mode.name();
        Ok(EtcdOptions { engine, endpoints, prefix: prefix.clone(), tls, user, known })
    }

    fn parsed_endpoints(&self) -> Result<Vec<Endpoint>, ConfigError> {
        if self.endpoints.is_empty() {
            return wrong(
                "store.endpoints",
                "mode \"external\" needs the endpoints of etcd, such as https://192.0.2.5:2379",
            );
        }
        let parsed =
            self.endpoints.iter().map(|text| text.parse::<Endpoint>()).collect::<Result<Vec<_>, _>>();
        let endpoints = match parsed {
            Ok(endpoints) => endpoints,
            Err(why) => return wrong("store.endpoints", why),
        };
        if endpoints.iter().any(|endpoint| endpoint.is_secure() != endpoints[0].is_secure()) {
            return wrong("store.endpoints", "either all are https:// or all are http://");
        }
        Ok(endpoints)
    }

    fn tls(&self, secure: bool) -> Result<Option<TlsFiles>, ConfigError> {
        let own = match (unset(&self.cert_file), unset(&self.key_file)) {
            (true, true) => None,
            (false, false) => Some((self.cert_file.clone(), self.key_file.clone())),
            (false, true) => return wrong("store.key_file", "store.cert_file is set: name its key, too"),
            (true, false) => {
                return wrong("store.cert_file", "store.key_file is set: name its certificate, too");
            }
        };
        match (secure, unset(&self.ca_file)) {
            (true, true) => wrong(
                "store.ca_file",
                "https:// needs the certificate of the authority that signed etcd's (PEM)",
            ),
            (true, false) => Ok(Some(TlsFiles { ca: self.ca_file.clone(), own })),
            (false, true) if own.is_none() => Ok(None),
            (false, _) => wrong("store.endpoints", "certificates are set, so write https:// and not http://"),
        }
    }
}

fn unset(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn what_etcd_needs_is_told_key_by_key() {
        let load = |flags: &[&str]| {
            let flags = ["store.mode=external"].iter().chain(flags).map(|flag| (*flag).to_owned());
            Config::load(None, [], &flags.collect::<Vec<_>>()).map_err(|error| error.to_string())
        };
        let http = "store.endpoints=http://192.0.2.5:2379";
        let https = "store.endpoints=https://etcd-1:2379, https://etcd-2:2379";
        for (flags, expected) in [
            (vec![], "store.endpoints: mode \"external\" needs"),
            (vec!["store.endpoints=192.0.2.5:2379"], "store.endpoints: '192.0.2.5:2379' is no endpoint"),
            (vec!["store.endpoints=http://a:1,https://b:1"], "store.endpoints: either all"),
            (vec![https], "store.ca_file: https:// needs"),
            (vec![http, "store.ca_file=/ca"], "store.endpoints: certificates are set"),
            (vec![http, "store.cert_file=/c", "store.key_file=/k"], "store.endpoints: certificates are set"),
            (
                vec![https, "store.ca_file=/ca", "store.cert_file=/c"],
                "store.key_file: store.cert_file is set",
            ),
            (vec![https, "store.ca_file=/ca", "store.key_file=/k"], "store.cert_file: store.key_file is set"),
            (vec![http, "store.user=mesh"], "store.password_file: store.user is set"),
            (vec![http, "store.password_file=/p"], "store.user: store.password_file is set"),
            (vec![http, "store.prefix=mesh"], "store.prefix: 'mesh' does not begin"),
            (vec![http, "store.prefix=/"], "store.prefix: '/' does not begin"),
        ] {
            let message = load(&flags).unwrap_err();
            assert!(message.starts_with(expected), "{message}\n  lacks\n{expected}");
        }
        load(&[http]).unwrap();
        let all = [https, "store.ca_file=/ca", "store.cert_file=/c", "store.key_file=/k", "store.user=u"];
        load(&[&all[..], &["store.password_file=/p", "store.prefix=/a/b/"]].concat()).unwrap();
    }
}
