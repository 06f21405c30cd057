//! One HTTP request to a container, for probes and lifecycle hooks.
//!
//! Owns how the request looks on the wire and Go's words for what went wrong, because people search for them. Must not
//! know what the answer means.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::dial::Dial;

/// Upstream's `maxRespBodyLength`.
const BODY_LIMIT: usize = 10 << 10;

/// A request to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Get {
    pub(crate) https: bool,
    /// An address, or a name that only the `Host` header and TLS see.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) location: Option<String>,
    /// At most 10 KiB.
    pub(crate) body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("Get \"{url}\": dial tcp {to}: connect: {}", go_words(.cause))]
    Connect {
        url: String,
        to: SocketAddr,
        cause: io::Error,
    },
    /// A server without TLS answered a request over TLS.
    #[error("Get \"{url}\": http: server gave HTTP response to HTTPS client")]
    NotTls { url: String },
    #[error("Get \"{url}\": {cause}")]
    Transport { url: String, cause: String },
    #[error("{0}")]
    Request(String),
}

/// `connection refused` rather than `Connection refused (os error 111)`.
pub(crate) fn go_words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// The number of a port that may be given by name.
pub(crate) fn port_number(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    let number = number.ok_or_else(|| format!("couldn't find port: {port:?} in container `{}`", container.name))?;
    u16::try_from(number)
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

impl Get {
    /// The request that an action of a probe or hook describes; it goes to the pod unless the action names a host.
    pub(crate) fn of(action: &HTTPGetAction, container: &Container, pod_ip: &str) -> Result<Self, String> {
        let path = action.path.as_deref().unwrap_or_default();
        let headers = action
            .http_headers
            .iter()
            .flatten()
            .map(|header| (header.name.clone(), header.value.clone()));
        Ok(Self {
            https: action
                .scheme
                .as_deref()
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case("HTTPS")),
            host: action
                .host
                .clone()
                .filter(|host| !host.is_empty())
                .unwrap_or_else(|| pod_ip.to_owned()),
            port: port_number(&action.port, container)?,
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
            headers: headers.collect(),
        })
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}:{}{}", self.host, self.port, self.path)
    }

    /// Sends it and reads the answer. No time limit: the caller has one.
    pub(crate) async fn send(&self, network: &dyn Dial, agent: &str) -> Result<Answer, Error> {
        let to = self.address().await?;
        let stream = network.dial(to).await.map_err(|cause| Error::Connect {
            url: self.url(),
            to,
            cause,
        })?;
        if !self.https {
            return self.exchange(stream, agent).await;
        }
        let name = ServerName::try_from(self.host.clone()).map_err(|error| Error::Request(error.to_string()))?;
        match tokio_rustls::TlsConnector::from(TRUST_ANYONE.clone())
            .connect(name, stream)
            .await
        {
            Ok(stream) => self.exchange(stream, agent).await,
            Err(error) if speaks_plain(&error) => Err(Error::NotTls { url: self.url() }),
            Err(error) => Err(Error::Transport {
                url: self.url(),
                cause: error.to_string(),
            }),
        }
    }

    async fn address(&self) -> Result<SocketAddr, Error> {
        if let Ok(ip) = self.host.parse() {
            return Ok(SocketAddr::new(ip, self.port));
        }
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let first = found.ok().and_then(|mut found| found.next());
        first.ok_or_else(|| {
            Error::Request(format!(
                "Get \"{}\": dial tcp: lookup {}: no such host",
                self.url(),
                self.host
            ))
        })
    }

    async fn exchange<S>(&self, stream: S, agent: &str) -> Result<Answer, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let failed = |error: hyper::Error| {
            // Go's words for a peer that closes without an answer.
            let cause = if error.is_incomplete_message() {
                "EOF".to_owned()
            } else {
                error.to_string()
            };
            Error::Transport { url: self.url(), cause }
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        let answer = async {
            let response = sender.send_request(self.request(agent)?).await.map_err(failed)?;
            let (head, body) = response.into_parts();
            let location = head
                .headers
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            // A body that is too long or breaks off is no failure: the status has been read.
            let body = Limited::new(body, BODY_LIMIT)
                .collect()
                .await
                .map(|body| body.to_bytes())
                .unwrap_or_default();
            Ok(Answer {
                status: head.status,
                location,
                body,
            })
        };
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        }
    }

    fn request(&self, agent: &str) -> Result<Request<Empty<Bytes>>, Error> {
        let invalid = |error: http::Error| Error::Request(format!("Get \"{}\": {error}", self.url()));
        let mut request = Request::get(self.path.as_str()).body(Empty::new()).map_err(invalid)?;
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name.as_str()).map_err(|error| invalid(error.into()))?;
            let value = HeaderValue::try_from(value.as_str()).map_err(|error| invalid(error.into()))?;
            headers.append(name, value);
        }
        let host = format!("{}:{}", self.host, self.port);
        let defaults = [
            (header::HOST, host.as_str()),
            (header::USER_AGENT, agent),
            (header::ACCEPT, "*/*"),
        ];
        for (name, value) in defaults {
            if !headers.contains_key(&name) {
                headers.insert(
                    name,
                    HeaderValue::try_from(value).map_err(|error| invalid(error.into()))?,
                );
            }
        }
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        Ok(request)
    }
}

fn speaks_plain(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidMessage(_)))
}

/// Probes and hooks over HTTPS do not verify certificates: the documented behaviour of every kubelet.
static TRUST_ANYONE: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(TrustAnyone(provider.clone()));
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| {
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth()
        });
    Arc::new(config.expect("ring knows the default protocol versions"))
});

#[derive(Debug)]
struct TrustAnyone(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
