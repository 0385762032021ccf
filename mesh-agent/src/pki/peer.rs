//! **Fact.** What a certificate says of who has it.

use mesh_core::certificate::Validity;
use mesh_core::model::{NodeId, Role};
use mesh_core::token::hex;
use x509_parser::prelude::{GeneralName, ParsedExtension, X509Certificate, X509Name};

/// Who has a certificate, as that says. It is true if an authority that is trusted signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Which mesh.
    pub cluster: String,
    /// Which node.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// The certificate's number, 32 hexadecimal digits.
    pub serial: String,
    /// The name of the authority that issued it.
    pub issuer: String,
    /// From when to when it is good.
    pub validity: Validity,
}

impl Peer {
    /// Reads a node's certificate (DER); `Err` says why it is none.
    pub fn read(der: &[u8]) -> Result<Self, String> {
        let certificate = parse(der)?;
        let wrong = |why: &str| format!("the certificate is no node's: {why}");
        let uri = uri(&certificate).ok_or_else(|| wrong("it has no name that begins with spiffe://"))?;
        let (cluster, node) =
            uri.split_once("/node/").ok_or_else(|| wrong(&format!("it is for spiffe://{uri}")))?;
        let sound = |text: &str| {
            (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !sound(cluster) || !sound(node) {
            return Err(wrong("its name makes no sense"));
        }
        let role = certificate.subject().iter_organization().next().and_then(|role| role.as_str().ok());
        let role = role.and_then(|role| role.parse().ok()).ok_or_else(|| wrong("it says no role"))?;
        Ok(Self {
            cluster: cluster.to_owned(),
            node: NodeId::new(node),
            role,
            serial: hex(certificate.raw_serial()),
            issuer: common_name(certificate.issuer()),
            validity: validity(&certificate),
        })
    }
}

/// What an authority's certificate (DER) says that it is called.
pub(super) fn name(der: &[u8]) -> Result<String, String> {
    Ok(common_name(parse(der)?.subject()))
}

fn common_name(name: &X509Name<'_>) -> String {
    name.iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned()
}

/// Which mesh an authority's certificate (DER) is of, and from when to when it is good.
pub(super) fn authority(der: &[u8]) -> Result<(String, Validity), String> {
    let certificate = parse(der)?;
    let cluster = uri(&certificate).filter(|_| certificate.is_ca());
    let cluster = cluster.ok_or("the certificate is no mesh's authority")?;
    Ok((cluster.to_owned(), validity(&certificate)))
}

/// The public key in a certificate (DER), as it stands there.
pub(super) fn public_key(der: &[u8]) -> Result<Vec<u8>, String> {
    Ok(parse(der)?.public_key().subject_public_key.data.to_vec())
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err("something follows the certificate".to_owned()),
        Err(error) => Err(format!("this is no certificate: {error}")),
    }
}

/// What comes after `spiffe://`. A certificate has exactly one (SPIFFE X.509-SVID §2).
fn uri<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let names = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    let mut uris = names.flatten().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("spiffe://"),
        _ => None,
    });
    let uri = uris.next()?;
    uris.next().is_none().then_some(uri)
}

fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let millis = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    let validity = certificate.validity();
    Validity { from: millis(validity.not_before.timestamp()), until: millis(validity.not_after.timestamp()) }
}
