//! **Effect.** The certificates with which members of etcd and managers know each other.
//!
//! Their authority is one of its own: who has a certificate of it may do everything with the records, so only managers
//! have one. Each manager has the authority's key, so that any of them can let another one in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

use super::disk;
use super::own::Own;

/// How long a certificate holds, years. etcd ends no connection for it; losing a node ends its membership instead.
const YEARS: i32 = 10;

/// The files of a manager, and what is in them.
pub(super) struct Trust<'a>(pub(super) &'a Own);

impl Trust<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.0.file(name)
    }

    fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.file(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        disk::directory(self.0.dir())?;
        disk::write_bytes(&self.file(name), text.as_bytes())
    }

    /// A new authority.
    pub(super) fn found(&self) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "mesh etcd");
        within(&mut params, 2 * YEARS);
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
        within(&mut params, YEARS);
        let ca = self.read("ca.pem")?;
        let issuer = Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&self.read("ca.key")?)?)?;
        Ok(params.signed_by(&asked.public_key, &issuer)?.pem())
    }

    /// Takes over what was signed.
    pub(super) fn accept(&self, certificate: &str, authority: &str) -> anyhow::Result<()> {
        self.write("member.pem", certificate)?;
        self.write("ca.pem", authority)
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

/// Backdated by a day at least: clocks differ.
fn within(params: &mut CertificateParams, years: i32) {
    let year = i32::from(jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).year());
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + years, 12, 31);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_manager_gets_its_certificate_and_can_give_some() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (Own::at(&dir.path().join("a")), Own::at(&dir.path().join("b")));
        let (first, second) = (Trust(&first), Trust(&second));
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
}
