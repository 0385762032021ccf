//! **Effect.** How nodes prove that they belong to the cluster: a shared secret, which `mesh cluster init` makes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::disk;
use crate::store::gateway::Secret;

/// What a token begins with.
const BEGIN: &str = "MESHTKN-1-";

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("pki").join("token")
}

/// The secret with which this node speaks to gateways, or serves one.
pub fn secret(state_dir: &Path) -> anyhow::Result<Secret> {
    Ok(Secret::read(path(state_dir))?)
}

/// Makes the secret of a new cluster.
pub(super) fn create(state_dir: &Path) -> anyhow::Result<()> {
    disk::directory(&state_dir.join("pki"))?;
    Secret::read_or_create(path(state_dir))?;
    Ok(())
}

/// What other nodes are told, so that they can join.
pub(super) fn show(state_dir: &Path) -> anyhow::Result<String> {
    Ok(format!("{BEGIN}{}", std::fs::read_to_string(path(state_dir))?.trim()))
}

/// Takes over what another node showed.
pub(super) fn accept(state_dir: &Path, secret: &str) -> anyhow::Result<()> {
    disk::directory(&state_dir.join("pki"))?;
    disk::write_bytes(&path(state_dir), format!("{secret}\n").as_bytes())
}

/// Forgets it.
pub(super) fn forget(state_dir: &Path) -> anyhow::Result<()> {
    disk::remove(&path(state_dir))
}

/// `MESHTKN-1-…@192.0.2.1:7300`: the secret and the address.
pub(super) fn parse(text: &str) -> Result<(String, SocketAddr), String> {
    let (token, address) = text.rsplit_once('@').ok_or(
        "a token comes with the address of a manager: TOKEN@HOST:PORT, as 'mesh cluster token worker' prints it",
    )?;
    let secret = token.strip_prefix(BEGIN).filter(|secret| secret.bytes().all(|b| b.is_ascii_alphanumeric()));
    let secret = secret.filter(|secret| !secret.is_empty()).ok_or_else(|| {
        format!("invalid join token: it begins with {BEGIN} and is printed by 'mesh cluster token worker'")
    })?;
    let address = address.parse().map_err(|_| format!("'{address}' is no address with a port"))?;
    Ok((secret.to_owned(), address))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn tokens_are_read_strictly() {
        let (secret, address) = parse("MESHTKN-1-abc@[2001:db8::1]:7300").unwrap();
        assert_eq!((secret.as_str(), address.port()), ("abc", 7300));
        assert!(parse("MESHTKN-1-abc").unwrap_err().contains("TOKEN@HOST:PORT"));
        assert!(parse("SWMTKN-1-abc@192.0.2.1:1").unwrap_err().contains("invalid join token"));
        assert!(parse("MESHTKN-1-@192.0.2.1:1").unwrap_err().contains("invalid join token"));
        assert!(parse("MESHTKN-1-abc@nowhere").unwrap_err().contains("'nowhere'"));
    }
}
