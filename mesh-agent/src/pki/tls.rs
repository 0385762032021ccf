//! **Effect.** TLS 1.3 with a node's files: made ready once, and anew when they change.
//!
//! Connections that are open go on with what they began with.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use mesh_core::model::Timestamp;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::authority::certificates;
use super::verify::{Managers, Verifier, Whom};
use super::{Files, NodeFiles, Peer, PkiError};
use crate::control::now;

/// A node's files as connections need them.
pub struct Tls {
    files: Files,
    loaded: ArcSwap<Loaded>,
    /// Why the next certificate was not to be had when it was asked for last.
    refused: ArcSwapOption<String>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the certificate of node {}", self.me().node)
    }
}

struct Loaded {
    me: Peer,
    text: NodeFiles,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// Reads a node's files.
    pub fn open(files: Files) -> Result<Self, PkiError> {
        let loaded = load(&files)?;
        Ok(Self { files, loaded: ArcSwap::from_pointee(loaded), refused: ArcSwapOption::empty() })
    }

    /// What to tell people while the certificate should have been renewed and has not been, and why it has not.
    pub fn overdue(&self, now: Timestamp) -> Option<String> {
        let warning = self.me().validity.warning(now)?;
        let why = self.refused.load_full();
        Some(why.map_or_else(|| warning.clone(), |why| format!("{warning}: {why}")))
    }

    /// What came of asking for the next certificate.
    pub(super) fn asked(&self, refused: Option<String>) {
        self.refused.store(refused.map(Arc::new));
    }

    /// Where they are.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Takes up what has changed, for new connections; whether anything has. On an error all stays as it was.
    pub fn reload(&self) -> Result<bool, PkiError> {
        let new = load(&self.files)?;
        let old = self.loaded.load();
        let same = (&old.text.certificate, &old.text.roots, &old.text.authority)
            == (&new.text.certificate, &new.text.roots, &new.text.authority);
        if !same {
            self.loaded.store(Arc::new(new));
        }
        Ok(!same)
    }

    /// Who this node is.
    pub fn me(&self) -> Peer {
        self.loaded.load().me.clone()
    }

    /// How many authorities it trusts.
    pub fn trusted(&self) -> usize {
        certificates(&self.loaded.load().text.roots).map_or(0, |all| all.len())
    }

    /// Whom this node trusts (PEM).
    pub fn roots(&self) -> String {
        self.loaded.load().text.roots.clone()
    }

    /// The server's side of a handshake. A client without a certificate is let in as nobody.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> std::io::Result<(server::TlsStream<S>, Option<Peer>)> {
        let config = Arc::clone(&self.loaded.load().server);
        let stream = match TlsAcceptor::from(config).accept(stream).into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                hear_out(stream).await;
                return Err(error);
            }
        };
        let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let peer = peer.map(|der| Peer::read(der)).transpose().map_err(std::io::Error::other)?;
        let ours = self.loaded.load().me.cluster.clone();
        match peer {
            Some(peer) if peer.cluster != ours => {
                Err(std::io::Error::other("its certificate is of another mesh"))
            }
            peer => Ok((stream, peer)),
        }
    }

    /// The client's side of a handshake with a manager; `Err` says why not, in words.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<client::TlsStream<S>, String> {
        connect(&self.client()?, stream).await
    }

    /// For connections to managers; `Err` says why they would refuse.
    pub(super) fn client(&self) -> Result<Arc<ClientConfig>, String> {
        let loaded = self.loaded.load();
        loaded.me.validity.check(now(), "this node")?;
        Ok(Arc::clone(&loaded.client))
    }
}

/// Reads on for a moment: a connection that is closed while something is unread is reset, and what it was told, lost.
async fn hear_out<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let rest = async {
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        for _ in 0..16 {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        Ok::<_, std::io::Error>(())
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
}

/// A handshake as a client.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    config: &Arc<ClientConfig>,
    stream: S,
) -> Result<client::TlsStream<S>, String> {
    // Not looked at: whose certificate it is counts.
    let name = ServerName::try_from("manager").map_err(|error| error.to_string())?;
    let connected = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
    connected.map_err(|error| explain(&error))
}

/// What TLS says broke a connection, if it does.
fn cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let found = error.downcast_ref().or_else(|| inner.and_then(|inner| inner.downcast_ref()));
        if found.is_some() {
            return found;
        }
        cause = error.source();
    }
    None
}

/// Whether the other end did not let this node in, so that nothing that was sent was heard.
pub(crate) fn is_turned_down(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::AlertDescription as Alert;
    let Some(rustls::Error::AlertReceived(alert)) = cause(error) else { return false };
    matches!(
        alert,
        Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::AccessDenied
    )
}

/// What broke a connection, in words.
pub(crate) fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    use rustls::{AlertDescription as Alert, Error};
    match cause(error) {
        None => error.to_string(),
        Some(Error::General(why)) => why.clone(),
        Some(Error::InvalidMessage(_)) => {
            "it does not speak TLS: it is no gateway with certificates".to_owned()
        }
        Some(Error::AlertReceived(Alert::UnknownCA)) => {
            "it does not trust the authority of this node's certificate: it is of another mesh".to_owned()
        }
        Some(Error::AlertReceived(Alert::CertificateExpired)) => {
            "by its clock this node's certificate has ended, or does not begin yet: compare the clocks"
                .to_owned()
        }
        Some(_) if is_turned_down(error) => "it refuses this node's certificate".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn load(files: &Files) -> Result<Loaded, PkiError> {
    let text = files.read()?;
    let wrong = |why: String| PkiError::wrong(files.dir().display(), why);
    let me = files.me()?;
    let roots = store(&text.roots).map_err(wrong)?;
    let chain = certificates(&text.certificate).map_err(wrong)?;
    let key = || PrivateKeyDer::from_pem_slice(text.key.as_bytes()).map_err(|error| wrong(error.to_string()));
    let unfit = |error: &dyn std::fmt::Display| wrong(format!("its files do not fit together: {error}"));

    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| unfit(&error))?;
    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unfit(&error))?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain.clone(), key()?);
    let mut server = server.map_err(|error| unfit(&error))?;
    // A resumed session would not show its certificate again.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let client = clients_of(roots, &me.cluster, Some((chain, key()?))).map_err(wrong)?;
    Ok(Loaded { me, text, server: Arc::new(server), client })
}

fn store(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in certificates(pem)? {
        roots.add(root).map_err(|error| format!("ca.pem holds no authority: {error}"))?;
    }
    if roots.is_empty() { Err("ca.pem holds no certificate".to_owned()) } else { Ok(roots) }
}

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn clients_of(roots: RootCertStore, cluster: &str, own: Option<Own>) -> Result<Arc<ClientConfig>, String> {
    let whom = Whom::Managers(Managers { roots, cluster: cluster.to_owned() });
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { whom, provider: provider() }));
    let mut config = match own {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?,
        None => config.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// For a node that has no certificate yet, with managers of a mesh whose authority is known.
pub(super) fn newcomer(roots: &str, cluster: &str) -> Result<Arc<ClientConfig>, String> {
    clients_of(store(roots)?, cluster, None)
}

/// To ask who is there; nothing secret may be said.
pub(super) fn anybody() -> Result<Arc<ClientConfig>, String> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { whom: Whom::Anybody, provider: provider() }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}
