//! **Effect.** The certificates with which members of etcd and managers know each other.
//!
//! Their authority is one of its own: who has a certificate of it may do everything with the records, so only managers
//! have one. Each manager has the authority's key, so that any of them can let another one in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use mesh_core::certificate::AUTHORITY_LIFE;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;

use super::disk;
use super::own::Own;
use crate::control::now;

/// How far back certificates begin: clocks differ.
const BACK: Duration = Duration::from_hours(24);

/// The files of a manager, and what is in them. A member's certificate is good for `life`. Each manager renews its own at
/// half of that: etcd reads the files for each new connection, and ends none that is open.
pub(super) struct Trust<'a> {
    pub(super) own: &'a Own,
    pub(super) life: Duration,
}

impl Trust<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.own.file(name)
    }

    fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.file(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        disk::directory(self.own.dir())?;
        disk::write_bytes(&self.file(name), text.as_bytes())
    }

    /// A new authority.
    pub(super) fn found(&self) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "mesh etcd");
        within(&mut params, AUTHORITY_LIFE)?;
        self.write("ca.key", &key.serialize_pem())?;
        self.write("ca.pem", &params.self_signed(&key)?.pem())
    }

    /// Asks for a certificate; the key stays here.
    pub(super) fn request(&self) -> anyhow::Result<String> {
        let key = match self.read("member.key") {
            Ok(pem) => KeyPair::from_pem(&pem)?,
            Err(_) => {
                let key = KeyPair::generate()?;
                self.write("member.key", &key.serialize_pem())?;
                key
            }
        };
        Ok(CertificateParams::new(Vec::new())?.serialize_request(&key)?.pem()?)
    }

    /// Signs what a node asks for. Who it is and where is ours to say.
    pub(super) fn sign(&self, request: &str, node: &str, address: IpAddr) -> anyhow::Result<String> {
        let asked =
            CertificateSigningRequestParams::from_pem(request).context("no request for a certificate")?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, node);
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        params.subject_alt_names = [address].into_iter().chain(loopback).map(SanType::IpAddress).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        within(&mut params, self.life)?;
        let ca = self.read("ca.pem")?;
        let issuer = Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&self.read("ca.key")?)?)?;
        Ok(params.signed_by(&asked.public_key, &issuer)?.pem())
    }

    /// Takes over what was signed.
    pub(super) fn accept(&self, certificate: &str, authority: &str) -> anyhow::Result<()> {
        self.write("member.pem", certificate)?;
        self.write("ca.pem", authority)
    }

    /// Signs the own certificate anew when half of its life is over; whether it was.
    pub(super) fn renew(&self, node: &str, address: IpAddr) -> anyhow::Result<bool> {
        self.renew_at(node, address, seconds())
    }

    fn renew_at(&self, node: &str, address: IpAddr, now: i64) -> anyhow::Result<bool> {
        if !is_half_over(&self.read("member.pem")?, now)? {
            return Ok(false);
        }
        let certificate = self.sign(&self.request()?, node, address)?;
        self.write("member.pem", &certificate)?;
        Ok(true)
    }

    /// The authority's own certificate.
    pub(super) fn authority(&self) -> anyhow::Result<String> {
        self.read("ca.pem")
    }

    /// The authority's key, to be given to other managers.
    pub(super) fn key(&self) -> anyhow::Result<String> {
        self.read("ca.key")
    }

    /// Takes over the authority's key.
    pub(super) fn accept_key(&self, key: &str) -> anyhow::Result<()> {
        KeyPair::from_pem(key).context("the authority's key makes no sense")?;
        self.write("ca.key", key)
    }
}

fn within(params: &mut CertificateParams, life: Duration) -> anyhow::Result<()> {
    let now = OffsetDateTime::from_unix_timestamp(seconds())?;
    params.not_before = now - BACK;
    params.not_after = now + life;
    Ok(())
}

/// Since 1970.
fn seconds() -> i64 {
    i64::try_from(now() / 1000).unwrap_or(i64::MAX)
}

/// Whether half of a certificate's life is over at a time, seconds since 1970.
fn is_half_over(certificate: &str, now: i64) -> anyhow::Result<bool> {
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).context("the member's certificate is no PEM")?;
    let life = pem.parse_x509().context("the member's certificate makes no sense")?.validity().clone();
    let issued = life.not_before.timestamp() + i64::try_from(BACK.as_secs())?;
    let (from, to) = (issued, life.not_after.timestamp());
    Ok(now >= from + (to - from) / 2)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const YEAR: Duration = Duration::from_hours(365 * 24);

    #[test]
    fn a_second_manager_gets_its_certificate_and_can_give_some() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (Own::at(&dir.path().join("a")), Own::at(&dir.path().join("b")));
        let (first, second) = (Trust { own: &first, life: YEAR }, Trust { own: &second, life: YEAR });
        first.found().unwrap();
        let request = second.request().unwrap();
        assert_eq!(first.sign(&request, "n2", "192.0.2.2".parse().unwrap()).map(drop).ok(), Some(()));
        let certificate = first.sign(&request, "n2", "192.0.2.2".parse().unwrap()).unwrap();
        second.accept(&certificate, &first.authority().unwrap()).unwrap();
        second.accept_key(&first.key().unwrap()).unwrap();
        let third = second.sign(&first.request().unwrap(), "n3", "192.0.2.3".parse().unwrap());
        assert!(third.unwrap().contains("BEGIN CERTIFICATE"));
        assert!(first.sign("hello", "n2", "192.0.2.2".parse().unwrap()).is_err());
        let mode = std::fs::metadata(second.file("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_certificate_is_renewed_at_half_of_its_life_and_its_key_stays() {
        let dir = tempfile::tempdir().unwrap();
        let own = Own::at(dir.path());
        let (trust, address) = (Trust { own: &own, life: YEAR }, "192.0.2.1".parse().unwrap());
        trust.found().unwrap();
        let first = trust.sign(&trust.request().unwrap(), "n1", address).unwrap();
        trust.accept(&first, &trust.authority().unwrap()).unwrap();
        let key = trust.read("member.key").unwrap();
        let day = 24 * 60 * 60;
        assert!(!trust.renew_at("n1", address, seconds() + 182 * day).unwrap());
        assert_eq!(trust.read("member.pem").unwrap(), first);
        assert!(trust.renew_at("n1", address, seconds() + 183 * day).unwrap());
        assert_ne!(trust.read("member.pem").unwrap(), first);
        assert_eq!(trust.read("member.key").unwrap(), key);
    }
}
