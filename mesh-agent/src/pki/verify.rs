//! **Decision.** Whose certificates a node accepts: as a rule, those of managers.
//!
//! Neither name nor address counts, but that an authority that is trusted says so, for the mesh that is meant.

use std::sync::Arc;

use mesh_core::certificate::Validity;
use mesh_core::model::Role;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::Peer;

/// Whose certificates are accepted.
#[derive(Debug)]
pub(crate) enum Whom {
    /// Everybody's: nothing secret may be said, or something else tells who it is.
    Anybody,
    /// Those of managers of one mesh.
    Managers(Managers),
}

/// Managers of one mesh.
#[derive(Debug)]
pub(crate) struct Managers {
    pub(super) roots: RootCertStore,
    pub(super) cluster: String,
}

/// Has there be proof of a certificate's key, whoever's it is.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) whom: Whom,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl Managers {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        provider: &CryptoProvider,
    ) -> Result<(), Error> {
        let algorithms = provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let verified =
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms);
        match verified {
            Ok(()) => {}
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                return Err(Error::General(
                    "it has a certificate of another authority than this node trusts: it is of another mesh, or its \
                     authority was replaced"
                        .to_owned(),
                ));
            }
            Err(error) => return Err(untimely(end_entity, now).map_or(error, Error::General)),
        }
        let peer = Peer::read(end_entity).map_err(Error::General)?;
        if peer.cluster != self.cluster {
            return Err(Error::General(format!("it is of mesh {}, not of {}", peer.cluster, self.cluster)));
        }
        if peer.role != Role::Manager {
            return Err(Error::General(format!("node {} is a {}, no manager", peer.node.short(), peer.role)));
        }
        Ok(())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Whom::Managers(managers) = &self.whom {
            managers.check(end_entity, intermediates, now, &self.provider)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.whom {
            Whom::Anybody => {
                verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
            }
            Whom::Managers(_) => Err(Error::General("only TLS 1.3 is spoken here".to_owned())),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What is wrong with a certificate's time, in words.
fn untimely(der: &CertificateDer<'_>, now: UnixTime) -> Option<String> {
    let Peer { node, validity, .. } = Peer::read(der).ok()?;
    let check: Result<(), String> =
        Validity::check(&validity, now.as_secs() * 1000, &format!("node {}", node.short()));
    check.err()
}
