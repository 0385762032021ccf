//! **Effect.** Who this node is, where it has a certificate, and what follows: whom it lets in, and its next certificate.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;

use crate::config::Config;
use crate::control::Control;
use crate::pki::renewal::Source;
use crate::pki::{Admission, Files, PORT, Tls};
use crate::store::gateway::{Access, Secret};

/// The node's certificate; `None`: it has none, and a shared secret is used.
pub(super) fn open(state_dir: &Path) -> anyhow::Result<Option<Arc<Tls>>> {
    let files = Files::of(state_dir);
    Ok(if files.exist() { Some(Arc::new(Tls::open(files)?)) } else { None })
}

/// Whom a gateway of this node lets in.
pub(super) fn access(tls: Option<&Arc<Tls>>, control: &Control, config: &Config) -> anyhow::Result<Access> {
    Ok(match tls {
        Some(tls) => Admission::new(Arc::clone(tls), control.clone(), PORT).into(),
        None => secret(config)?.into(),
    })
}

/// The shared secret of nodes without certificates.
pub(super) fn secret(config: &Config) -> anyhow::Result<Secret> {
    if config.store.token_file.as_os_str().is_empty() {
        bail!("store.token_file: the gateway needs a shared secret: name a file with mode 0600");
    }
    Ok(Secret::read(&config.store.token_file)?)
}

/// Where this node gets its next certificate: it makes it itself if it has the authority, or asks managers.
pub(super) fn source(tls: &Arc<Tls>, control: &Control, gateways: Vec<String>) -> anyhow::Result<Source> {
    Ok(match tls.files().authority()? {
        Some(_) => Source::Own(Admission::new(Arc::clone(tls), control.clone(), PORT)),
        None => Source::Managers(gateways, PORT),
    })
}
