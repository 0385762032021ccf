//! **Effect.** The authority of a mesh: what signs nodes' certificates. Managers have its key.

use std::net::IpAddr;
use std::time::Duration;

use mesh_core::certificate::{AUTHORITY_LIFE, Validity};
use mesh_core::model::{Certificate, NodeId, Role, Timestamp};
use mesh_core::token::{hex, sha256};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;

use super::{Files, NodeFiles, PkiError, peer};
use crate::control::random;

/// Longer requests are none.
const LONGEST: usize = 8 << 10;

/// What an authority's certificate is to say of who gets it. It is never taken from the request.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The node.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// At which addresses it is met by programs that look at those.
    pub addresses: Vec<IpAddr>,
}

/// The authority of a mesh, with its key.
pub struct Authority {
    /// Whose certificates nodes trust: its own first, then one that it takes the place of.
    roots: Vec<CertificateDer<'static>>,
    /// Its own key, vouched for by the one that it takes the place of.
    cross: Option<CertificateDer<'static>>,
    cluster: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the authority of mesh {}", self.cluster)
    }
}

/// Makes an authority for a mesh, whose id is of letters, digits and hyphens.
pub fn create_ca(cluster: &str, now: Timestamp) -> Result<Authority, PkiError> {
    let (params, key) = (root(cluster, now)?, key()?);
    let der = params.self_signed(&key)?.der().clone();
    Ok(Authority {
        roots: vec![der],
        cross: None,
        cluster: cluster.to_owned(),
        issuer: Issuer::new(params, key),
    })
}

/// What became of the first manager.
#[derive(Debug, Clone)]
pub struct Founded {
    /// What is to be made known with `mesh_core::change::begin`.
    pub certificate: Certificate,
}

impl Authority {
    /// Reads one from the texts of `ca.pem` and `ca.key`.
    pub fn from_pem(roots: &str, key: &str) -> Result<Self, PkiError> {
        let roots = certificates(roots).map_err(|why| PkiError::wrong("the authority's certificate", why))?;
        let first =
            roots.first().ok_or_else(|| PkiError::wrong("the authority's certificate", "there is none"))?;
        let (cluster, _) =
            peer::authority(first).map_err(|why| PkiError::wrong("the authority's certificate", why))?;
        let pair = KeyPair::from_pem(key)?;
        let own =
            peer::public_key(first).map_err(|why| PkiError::wrong("the authority's certificate", why))?;
        if own != pair.der_bytes() {
            return Err(PkiError::wrong(
                "the authority's key",
                "it is not the key of the first certificate in ca.pem",
            ));
        }
        let cross = certificates(key).map_err(|why| PkiError::wrong("the authority's key", why))?.pop();
        let issuer = Issuer::from_ca_cert_der(first, pair)?;
        Ok(Self { cross, cluster, issuer, roots })
    }

    /// The certificates to trust, as `ca.pem` has them.
    pub fn roots_pem(&self) -> String {
        self.roots.iter().map(|der| pem("CERTIFICATE", der)).collect()
    }

    /// What it signs with, as `ca.key` has it. A secret.
    pub fn key_pem(&self) -> String {
        let cross = self.cross.iter().map(|der| pem("CERTIFICATE", der)).collect::<String>();
        self.issuer.key().serialize_pem() + &cross
    }

    /// Which mesh it is of.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// What it is called: no other authority is.
    pub fn name(&self) -> Result<String, PkiError> {
        let own = self.roots.first().map_or(&[][..], AsRef::as_ref);
        peer::name(own).map_err(|why| PkiError::wrong("the authority's certificate", why))
    }

    /// What join tokens carry, so that who joins knows whom to trust.
    pub fn pin(&self) -> [u8; 32] {
        sha256(self.roots.first().map_or(&[][..], AsRef::as_ref))
    }

    /// Signs a request (PEM): of it only the key counts, which must be ECDSA P-256, and that whoever asks has it. The
    /// result is PEM: the certificate, then whatever is needed to trust it.
    pub fn issue(
        &self,
        request: &str,
        subject: &Subject,
        serial: [u8; 16],
        validity: Validity,
    ) -> Result<String, PkiError> {
        let public_key = read_request(request)?;
        let mut params = params(validity, serial)?;
        params.distinguished_name.push(DnType::CommonName, subject.node.as_str());
        params.distinguished_name.push(DnType::OrganizationName, subject.role.as_str());
        params.subject_alt_names = vec![uri(&format!("{}/node/{}", self.cluster, subject.node))?];
        params.subject_alt_names.extend(subject.addresses.iter().copied().map(SanType::IpAddress));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let signed = CertificateSigningRequestParams { params, public_key }.signed_by(&self.issuer)?;
        let cross = self.cross.iter().map(|der| pem("CERTIFICATE", der)).collect::<String>();
        Ok(pem("CERTIFICATE", signed.der()) + &cross)
    }

    /// Makes this node the first manager, for the life of a certificate: its files are written, and the authority's.
    pub fn found(
        &self,
        node: &NodeId,
        now: Timestamp,
        life: Duration,
        files: &Files,
    ) -> Result<Founded, PkiError> {
        let (request, key) = new_request()?;
        let (serial, validity) = (new_serial(), Validity::begin(now, life));
        let subject = Subject { node: node.clone(), role: Role::Manager, addresses: Vec::new() };
        let certificate = self.issue(&request, &subject, serial, validity)?;
        files.write(&NodeFiles {
            roots: self.roots_pem(),
            certificate,
            key,
            authority: Some(self.key_pem()),
        })?;
        Ok(Founded { certificate: Certificate { serial: hex(&serial), until: validity.until } })
    }

    /// Begins to replace the authority: a new key and certificate, vouched for by the present one. Nodes that trust either
    /// accept what it issues; when all have renewed, [`Authority::settle`] drops the former one.
    pub fn rotate(&self, now: Timestamp) -> Result<Self, PkiError> {
        if self.roots.len() > 1 {
            let why = "it is being replaced already: finish that first";
            return Err(PkiError::wrong(format!("the authority of mesh {}", self.cluster), why));
        }
        let (params, key) = (root(&self.cluster, now)?, key()?);
        let own = params.self_signed(&key)?.der().clone();
        let cross = params.signed_by(&key, &self.issuer)?.der().clone();
        let roots = std::iter::once(own).chain(self.roots.iter().cloned()).collect();
        let issuer = Issuer::new(params, key);
        Ok(Self { roots, cross: Some(cross), cluster: self.cluster.clone(), issuer })
    }

    /// Ends a replacement: the former authority is trusted no longer.
    #[must_use]
    pub fn settle(mut self) -> Self {
        self.roots.truncate(1);
        self.cross = None;
        self
    }
}

/// A new key, and a request (PEM) that proves that one has it: (request, key).
pub fn new_request() -> Result<(String, String), PkiError> {
    let key = key()?;
    Ok((request_for(&key)?, key.serialize_pem()))
}

/// A request (PEM) for a key (PEM) that there is already.
pub(super) fn request_of(key: &str) -> Result<String, PkiError> {
    request_for(&KeyPair::from_pem(key)?)
}

fn request_for(key: &KeyPair) -> Result<String, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.pem()?)
}

/// The id of a node that joins with a request: it follows from its key, so that nobody can ask for another's.
pub fn node_of(request: &str) -> Result<NodeId, PkiError> {
    let digest = sha256(read_request(request)?.der_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    Ok(NodeId::from_random(id))
}

/// The key in a request, as a certificate has it.
pub(super) fn key_of(request: &str) -> Result<Vec<u8>, PkiError> {
    Ok(read_request(request)?.der_bytes().to_vec())
}

/// Random, and as many digits as any other.
pub fn new_serial() -> [u8; 16] {
    let mut serial = random();
    // Neither negative nor shorter: a leading zero would be left out.
    serial[0] = (serial[0] & 0x3f) | 0x40;
    serial
}

fn read_request(request: &str) -> Result<rcgen::PublicKey, PkiError> {
    let wrong = |why: &str| PkiError::wrong("the signing request", why);
    if request.len() > LONGEST {
        return Err(wrong("it is longer than 8 KiB"));
    }
    let read = CertificateSigningRequestParams::from_pem(request)
        .map_err(|error| wrong(&format!("it cannot be read: {error}")))?;
    if *read.public_key.algorithm() != PKCS_ECDSA_P256_SHA256 {
        return Err(wrong("its key must be ECDSA P-256"));
    }
    Ok(read.public_key)
}

fn key() -> Result<KeyPair, PkiError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

fn uri(rest: &str) -> Result<SanType, PkiError> {
    Ok(SanType::URI(format!("spiffe://{rest}").try_into()?))
}

fn root(cluster: &str, now: Timestamp) -> Result<CertificateParams, PkiError> {
    let mut params = params(Validity::begin(now, AUTHORITY_LIFE), new_serial())?;
    // Two authorities of one mesh have different names, so that a chain leads to one of them.
    let name = format!("mesh authority {}", hex(&random()[..4]));
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![uri(cluster)?];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params(validity: Validity, serial: [u8; 16]) -> Result<CertificateParams, PkiError> {
    let date = |at: Timestamp| {
        let seconds = i64::try_from(Duration::from_millis(at).as_secs()).unwrap_or(i64::MAX);
        let date = OffsetDateTime::from_unix_timestamp(seconds);
        date.map_err(|_| PkiError::wrong("this machine's clock", "it is beyond all dates: set it"))
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    (params.not_before, params.not_after) = (date(validity.from)?, date(validity.until)?);
    Ok(params)
}

/// All certificates of a text.
pub(super) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    all.map_err(|error| format!("it is no PEM: {error}"))
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), lines)
}
