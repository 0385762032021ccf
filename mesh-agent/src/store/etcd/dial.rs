//! **Effect.** One connection to one member of etcd.
//!
//! It is never opened anew behind our back: what was found out about a member (which cluster, which version, how far)
//! stays true for as long as the connection lives. Choosing another is `link`'s.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{self, Certificate, ClientTlsConfig, Identity, Uri};

use super::failure::Failure;
use super::options::{Endpoint, EtcdOptions, TlsFiles};
use crate::store::StoreError;
use crate::store::secret::{self, Secret};

/// How long a member may take to take a call.
const CONNECT: Duration = Duration::from_secs(1);

/// Calls a member, and proves who we are.
pub(super) async fn dial(endpoint: &Endpoint, options: &EtcdOptions) -> Result<Client, Failure> {
    let at = endpoint.url();
    let wrong = |why: String| Failure::Refused(StoreError::Denied { at: at.to_owned(), why });
    let mut target =
        transport::Endpoint::from_shared(at.to_owned()).map_err(|error| wrong(in_full(&error)))?;
    if let Some(tls) = options.tls.as_ref().filter(|_| endpoint.is_secure()) {
        let tls = config(tls).await.map_err(wrong)?.domain_name(endpoint.host_and_port().0);
        target = target.tls_config(tls).map_err(|error| wrong(in_full(&error)))?;
    }
    let mut connect = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
    if let Some((user, file)) = &options.user {
        let password = Secret::read(file).map_err(|error| wrong(error.to_string()))?;
        connect = connect.with_user(user, password.expose());
    }
    let unreached = |why: String| Failure::Unreached(why);
    let silent = |_| unreached("it does not take the connection in time".to_owned());
    let stream = timeout(CONNECT, TcpStream::connect(endpoint.host_and_port()));
    let stream = stream.await.map_err(silent)?.map_err(|error| unreached(error.to_string()))?;
    stream.set_nodelay(true).map_err(|error| unreached(error.to_string()))?;

    let only = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = only.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(stream.ok_or_else(|| std::io::Error::other("the connection was closed")))
    });
    let channel = timeout(CONNECT, target.connect_with_connector(connector));
    let channel = channel.await.map_err(silent)?.map_err(|error| unreached(in_full(&error)))?;
    let client = timeout(CONNECT, Client::from_channel(Channel::Tonic(channel), Some(connect)));
    client.await.map_err(silent)?.map_err(|error| Failure::of(at, &error))
}

async fn config(files: &TlsFiles) -> Result<ClientTlsConfig, String> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&files.ca).await?));
    if let Some((certificate, key)) = &files.own {
        tls = tls.identity(Identity::from_pem(
            read(certificate).await?,
            secret::read_key(key).map_err(|error| error.to_string())?,
        ));
    }
    Ok(tls)
}

async fn read(path: &Path) -> Result<Vec<u8>, String> {
    tokio::fs::read(path).await.map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// An error with what caused it; the transport's own words are only "transport error".
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
