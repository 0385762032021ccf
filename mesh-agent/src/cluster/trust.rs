//! **Effect.** The certificates with which members of etcd and managers know each other.
//!
//! Their authority is one of its own: who has a certificate of it may do everything with the records, so only managers
//! have one. Each manager has the authority's key, so that any of them can let another one in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use mesh_core::certificate::AUTHORITY_LIFE;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;

use super::own::Own;
use crate::control::{now, random};
use crate::disk;

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
        let Authority { root, key, .. } = Authority::make()?;
        self.write("ca.key", &key)?;
        self.write("ca.pem", &root)
    }

    /// The authority by which is signed: of those that are trusted, the one whose key is here.
    fn issuer(&self) -> anyhow::Result<(String, KeyPair)> {
        let key = KeyPair::from_pem(&self.read("ca.key")?)?;
        for root in split(&self.authority()?) {
            let (_, pem) = parse_x509_pem(root.as_bytes()).context("ca.pem is no PEM")?;
            let certificate = pem.parse_x509().context("ca.pem makes no sense")?;
            if certificate.public_key().raw == key.subject_public_key_info() {
                return Ok((root, key));
            }
        }
        bail!("the authority's key belongs to none of those that are trusted")
    }

    /// The name of the authority by which is signed, if the own certificate is of it, too; else nothing is called so.
    pub(super) fn signs(&self) -> anyhow::Result<String> {
        let (root, _) = self.issuer()?;
        let (by, own) = (name(&root, false)?, name(&self.read("member.pem")?, true)?);
        Ok(if own == by { by } else { String::new() })
    }

    /// Trusts another authority beside those that are trusted.
    pub(super) fn trust_also(&self, root: &str) -> anyhow::Result<()> {
        let mut all = split(&self.authority()?);
        if !all.iter().any(|one| one.trim() == root.trim()) {
            all.push(root.to_owned());
        }
        self.write("ca.pem", &all.concat())
    }

    /// Trusts nobody but the authority by which is signed.
    pub(super) fn trust_own(&self) -> anyhow::Result<()> {
        let (root, _) = self.issuer()?;
        self.write("ca.pem", &root)
    }

    /// Signs by another authority from now on, and has a certificate of it.
    pub(super) fn take_over(&self, next: &Authority, node: &str, address: IpAddr) -> anyhow::Result<()> {
        self.trust_also(&next.root)?;
        self.accept_key(&next.key)?;
        let certificate = self.sign(&self.request()?, node, address)?;
        self.write("member.pem", &certificate)
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
        let (root, key) = self.issuer()?;
        let issuer = Issuer::from_ca_cert_pem(&root, key)?;
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

    /// The certificates of all authorities that are trusted.
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

/// An authority, as managers hand it on.
#[derive(Serialize, Deserialize)]
pub(super) struct Authority {
    /// What no other is called.
    pub(super) name: String,
    root: String,
    pub(super) key: String,
}

impl Authority {
    /// A new one.
    pub(super) fn make() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let number: String = random().iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("mesh etcd {number}");
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        within(&mut params, AUTHORITY_LIFE)?;
        Ok(Self { name, root: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
    }

    /// Its certificate.
    pub(super) fn root(&self) -> &str {
        &self.root
    }
}

/// The certificates of a file.
fn split(text: &str) -> Vec<String> {
    let all = text.split_inclusive("-----END CERTIFICATE-----").map(|one| format!("{}\n", one.trim()));
    all.filter(|one| one.contains("BEGIN CERTIFICATE")).collect()
}

/// What a certificate's subject, or its issuer, is called.
fn name(certificate: &str, issuer: bool) -> anyhow::Result<String> {
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).context("a certificate is no PEM")?;
    let certificate = pem.parse_x509().context("a certificate makes no sense")?;
    let name = if issuer { certificate.issuer() } else { certificate.subject() };
    Ok(name.iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned())
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

    /// The first manager's, its address and its certificate.
    fn founded(own: &Own) -> (Trust<'_>, IpAddr, String) {
        let (trust, address) = (Trust { own, life: YEAR }, "192.0.2.1".parse().unwrap());
        trust.found().unwrap();
        let first = trust.sign(&trust.request().unwrap(), "n1", address).unwrap();
        trust.accept(&first, &trust.authority().unwrap()).unwrap();
        (trust, address, first)
    }

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
    fn another_authority_takes_the_place_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let own = Own::at(dir.path());
        let (trust, address, _) = founded(&own);
        let (former, next) = (trust.signs().unwrap(), Authority::make().unwrap());
        for _ in 0..2 {
            trust.trust_also(next.root()).unwrap();
            assert_eq!(split(&trust.authority().unwrap()).len(), 2);
        }
        assert_eq!(trust.signs().unwrap(), former);
        trust.accept_key(&next.key).unwrap();
        assert_eq!(trust.signs().unwrap(), "", "it was broken off between two files");
        trust.take_over(&next, "n1", address).unwrap();
        assert_eq!(
            (trust.signs().unwrap(), name(&trust.read("member.pem").unwrap(), true).unwrap()),
            (next.name.clone(), next.name.clone())
        );
        trust.trust_own().unwrap();
        assert_eq!(trust.authority().unwrap(), next.root());
    }

    #[test]
    fn a_certificate_is_renewed_at_half_of_its_life_and_its_key_stays() {
        let dir = tempfile::tempdir().unwrap();
        let own = Own::at(dir.path());
        let (trust, address, first) = founded(&own);
        let key = trust.read("member.key").unwrap();
        let day = 24 * 60 * 60;
        assert!(!trust.renew_at("n1", address, seconds() + 182 * day).unwrap());
        assert_eq!(trust.read("member.pem").unwrap(), first);
        assert!(trust.renew_at("n1", address, seconds() + 183 * day).unwrap());
        assert_ne!(trust.read("member.pem").unwrap(), first);
        assert_eq!(trust.read("member.key").unwrap(), key);
    }
}
