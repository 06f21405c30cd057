//! How the API server speaks TLS.
//!
//! Owns rustls' configuration. Must not know where certificates come from.

use std::error::Error;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};

type Boxed = Box<dyn Error + Send + Sync>;

/// Verifies that a client certificate was signed by `ca`, for client authentication, and has not ended.
pub(super) fn client_verifier(
    ca: &CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Boxed> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()?)
}

/// TLS 1.2 and 1.3, ALPN `h2` and `http/1.1`, client certificates asked for and not required.
pub(super) fn server_config(
    cert: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, Boxed> {
    let verifier = Arc::new(AnyClientCertificate(provider.signature_verification_algorithms));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![cert], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Takes every certificate whose key the client proves to hold: Go's `tls.RequestClientCert`, as kube-apiserver uses
/// it. Who signed it is authentication's question, so that a wrong certificate is a 401 and not a broken handshake.
#[derive(Debug)]
struct AnyClientCertificate(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyClientCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::time::Duration;

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::time_provider::TimeProvider;
    use rustls::{ClientConfig, ClientConnection, ServerConnection};

    use super::*;
    use crate::auth::testing::noon;
    use crate::auth::{CertifiedKey, Pki};

    #[derive(Debug)]
    struct AtNoon;

    impl TimeProvider for AtNoon {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_secs(
                noon().as_second().unsigned_abs(),
            )))
        }
    }

    /// A client that trusts `pki` and shows `certificate`.
    fn client(pki: &Pki, name: &'static str, certificate: Option<&CertifiedKey>) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_details(provider, Arc::new(AtNoon))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let cert = CertificateDer::from_pem_slice(own.cert_pem.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap()
    }

    fn shake_hands(pki: &Pki, mut client: ClientConnection) -> Result<ServerConnection, rustls::Error> {
        let mut server = ServerConnection::new(Arc::new(pki.server_config().unwrap())).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            server.read_tls(&mut Cursor::new(wire)).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            client.read_tls(&mut Cursor::new(wire)).unwrap();
            client.process_new_packets()?;
        }
        Ok(server)
    }

    #[test]
    fn a_client_reaches_us_by_name_and_by_address_and_speaks_http2() {
        let pki = Pki::in_memory(noon()).unwrap();
        for name in ["localhost", "127.0.0.1", "10.96.0.1", "kubernetes.default.svc"] {
            let server = shake_hands(&pki, client(&pki, name, None)).unwrap();
            assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
            assert!(server.peer_certificates().is_none());
        }
        assert!(shake_hands(&pki, client(&pki, "example.org", None)).is_err());
    }

    #[test]
    fn any_client_certificate_passes_the_handshake_and_is_handed_on() {
        let (pki, other) = (Pki::in_memory(noon()).unwrap(), Pki::in_memory(noon()).unwrap());
        for issuer in [&pki, &other] {
            let own = issuer.issue_client("ada", &["devs"], noon()).unwrap();
            let server = shake_hands(&pki, client(&pki, "localhost", Some(&own))).unwrap();
            let shown = server.peer_certificates().unwrap();
            assert_eq!(
                shown,
                [CertificateDer::from_pem_slice(own.cert_pem.as_bytes()).unwrap()]
            );
        }
    }
}
