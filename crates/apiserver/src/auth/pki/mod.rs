//! The cluster's keys and certificates: its CA, the serving certificate, the ServiceAccount signing key, the
//! front-proxy CA, and client certificates on demand.
//!
//! Owns what is in the PKI folder and how long it lasts. Every key sits in one file with its certificate, written to a
//! temporary name and renamed, so that a crash leaves the old pair or the new one. Certificates that end soon are
//! replaced when the cluster starts; a file that cannot be read is an error, never a reason to replace a CA or a
//! signing key silently. Must not know who is allowed what.

mod shelf;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::danger::ClientCertVerifier;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use shelf::Shelf;

use crate::auth::authenticate::Proved;
use crate::auth::remembered::Remembered;
use crate::auth::tls;
use crate::auth::token::Signer;

/// How long a CA lasts, as kubeadm's.
const CA_LIFE: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// How long every other certificate lasts.
const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);
/// A certificate that ends sooner than this is replaced at start.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Certificates begin a little in the past, for clients whose clock is behind.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// The `issuer` of ServiceAccount tokens, and the audience of those made for the API server.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Common name of the certificate with which the API server speaks to aggregated API servers.
pub const FRONT_PROXY_USER: &str = "front-proxy-client";

/// What the serving certificate answers for.
const SERVING_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];
const SERVING_ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1)),
];

/// Why keys or certificates could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The file system said no.
    #[error("{doing} `{}`", path.display())]
    Io {
        /// What was being done, as a gerund.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// A file is there and is not what we wrote.
    #[error("reading `{}`: {what}; move the file away to get a new one (clients that trust the old one must then be \
             given the new one)", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Making a key or a certificate.
    #[error("making a certificate")]
    Generate(#[from] rcgen::Error),
    /// The ServiceAccount signing key is of no use.
    #[error("loading the ServiceAccount signing key: {0}")]
    SigningKey(String),
    /// More organizations than a certificate of ours can carry.
    #[error("a client certificate carries at most 2 organizations, got {0}")]
    Organizations(usize),
    /// TLS refused what we made.
    #[error("configuring TLS")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A certificate and its private key, PEM (PKCS#8).
#[derive(Clone)]
pub struct CertifiedKey {
    /// The certificate.
    pub cert_pem: String,
    /// Its key.
    pub key_pem: String,
}

impl fmt::Debug for CertifiedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertifiedKey")
            .field("cert_pem", &self.cert_pem)
            .finish_non_exhaustive()
    }
}

/// Everything the API server proves itself, and others, with.
pub struct Pki {
    ca: Authority,
    front_proxy_ca: Authority,
    front_proxy: CertifiedKey,
    serving: CertifiedKey,
    signer: Signer,
    client_verifier: Arc<dyn ClientCertVerifier>,
    /// Client certificates that were verified before.
    certificates: Remembered<Proved>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki")
            .field("key_id", &self.signer.key_id())
            .finish_non_exhaustive()
    }
}

impl Pki {
    /// Loads the keys and certificates in `dir`, makes those that are missing, and replaces those that end within 30
    /// days of `now`. `dir` is made 0700 if it is not there, files are 0600.
    pub fn load_or_create(dir: &Path, now: Timestamp) -> Result<Self, PkiError> {
        Self::build(&Shelf::open(dir)?, now)
    }

    /// Keys and certificates that live as long as the process.
    pub fn in_memory(now: Timestamp) -> Result<Self, PkiError> {
        Self::build(&Shelf::Memory, now)
    }

    fn build(shelf: &Shelf<'_>, now: Timestamp) -> Result<Self, PkiError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let ca = Authority::ensure(shelf, "ca.pem", "kubernetes", now)?;
        let front_proxy_ca = Authority::ensure(shelf, "front-proxy-ca.pem", "front-proxy-ca", now)?;
        let serving = ensure_leaf(shelf, "apiserver.pem", &ca, &serving_params()?, now)?;
        let front_proxy = ensure_leaf(
            shelf,
            "front-proxy-client.pem",
            &front_proxy_ca,
            &client_params(FRONT_PROXY_USER, &[])?,
            now,
        )?;
        let signing_key = match shelf.read("sa.pem")? {
            Some(pem) => pem,
            None => shelf.write("sa.pem", KeyPair::generate()?.serialize_pem())?,
        };
        let signing_key =
            KeyPair::from_pem(&signing_key).map_err(|error| shelf.damaged("sa.pem", error.to_string()))?;
        let signer = Signer::new(
            signing_key.serialized_der(),
            &signing_key.subject_public_key_info(),
            ISSUER,
        )
        .map_err(PkiError::SigningKey)?;
        let client_verifier = tls::client_verifier(&ca.der, provider.clone()).map_err(PkiError::Tls)?;
        Ok(Self {
            ca,
            front_proxy_ca,
            front_proxy,
            serving,
            signer,
            client_verifier,
            certificates: Remembered::default(),
            provider,
        })
    }

    /// The CA's certificate: what a kubeconfig trusts and `kube-root-ca.crt` holds.
    pub fn ca_pem(&self) -> &str {
        &self.ca.pem
    }

    /// The front-proxy CA's certificate: what aggregated API servers trust (`requestheader-client-ca-file`).
    pub fn front_proxy_ca_pem(&self) -> &str {
        &self.front_proxy_ca.pem
    }

    /// With this the API server proves itself to aggregated API servers; its CN is [`FRONT_PROXY_USER`].
    pub fn front_proxy(&self) -> &CertifiedKey {
        &self.front_proxy
    }

    /// A fresh client certificate for `user` in `organizations` (its groups), valid for a year from `now`.
    pub fn issue_client(&self, user: &str, organizations: &[&str], now: Timestamp) -> Result<CertifiedKey, PkiError> {
        self.ca.issue(&client_params(user, organizations)?, now)
    }

    /// Signs and verifies ServiceAccount tokens.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    #[cfg(test)]
    pub(super) fn serving_pem(&self) -> &str {
        &self.serving.cert_pem
    }

    pub(super) fn certificates(&self) -> &Remembered<Proved> {
        &self.certificates
    }

    pub(super) fn client_verifier(&self) -> &dyn ClientCertVerifier {
        &*self.client_verifier
    }

    /// How the API server listens: HTTP/2 and HTTP/1.1, and a client certificate if the client has one. Like
    /// upstream's, the handshake takes any certificate whose key the client holds; [`crate::auth::authenticate()`] then
    /// answers 401 to one that our CA did not sign.
    pub fn server_config(&self) -> Result<rustls::ServerConfig, PkiError> {
        let damaged = |what: &str| PkiError::Tls(what.into());
        let cert = CertificateDer::from_pem_slice(self.serving.cert_pem.as_bytes())
            .map_err(|_| damaged("the serving certificate is not PEM"))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(self.serving.key_pem.as_bytes())
            .map_err(|_| damaged("the serving key is not PKCS#8 PEM"))?;
        tls::server_config(cert, PrivateKeyDer::Pkcs8(key), self.provider.clone()).map_err(PkiError::Tls)
    }
}

/// A certificate authority of ours.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    fn ensure(shelf: &Shelf<'_>, file: &str, name: &str, now: Timestamp) -> Result<Self, PkiError> {
        if let Some(pem) = shelf.read(file)? {
            let (cert, key) = split_pem(&pem).map_err(|what| shelf.damaged(file, what))?;
            let ends = Facts::of(&cert).map_err(|what| shelf.damaged(file, what))?.ends;
            if ends > now + RENEW_BEFORE {
                let pem = pem_of("CERTIFICATE", &pem).unwrap_or_default();
                return Ok(Self {
                    issuer: Issuer::new(ca_params(name), key),
                    der: cert,
                    pem,
                });
            }
        }
        let (key, mut params) = (KeyPair::generate()?, ca_params(name));
        set_validity(&mut params, now, CA_LIFE);
        let cert = params.self_signed(&key)?;
        shelf.write(file, cert.pem() + &key.serialize_pem())?;
        Ok(Self {
            der: cert.der().clone(),
            pem: cert.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    fn issue(&self, params: &CertificateParams, now: Timestamp) -> Result<CertifiedKey, PkiError> {
        let mut params = params.clone();
        set_validity(&mut params, now, LEAF_LIFE);
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(CertifiedKey {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

/// The leaf in `file` if it is ours, answers for the names it should and lasts; else a new one.
fn ensure_leaf(
    shelf: &Shelf<'_>,
    file: &str,
    ca: &Authority,
    params: &CertificateParams,
    now: Timestamp,
) -> Result<CertifiedKey, PkiError> {
    if let Some(pem) = shelf.read(file)? {
        // A leaf is ours to replace, so a damaged one is as good as none.
        let usable = split_pem(&pem)
            .and_then(|(cert, _)| Facts::of(&cert))
            .is_ok_and(|facts| {
                let by_this_ca = Facts::of(&ca.der).is_ok_and(|ca| ca.key_id == facts.authority_key_id);
                by_this_ca && facts.ends > now + RENEW_BEFORE && facts.names == names_of(params)
            });
        if let (true, Some(cert_pem), Some(key_pem)) =
            (usable, pem_of("CERTIFICATE", &pem), pem_of("PRIVATE KEY", &pem))
        {
            return Ok(CertifiedKey { cert_pem, key_pem });
        }
    }
    let leaf = ca.issue(params, now)?;
    shelf.write(file, format!("{}{}", leaf.cert_pem, leaf.key_pem))?;
    Ok(leaf)
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    params
}

fn serving_params() -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(SERVING_NAMES.map(str::to_owned))?;
    params
        .subject_alt_names
        .extend(SERVING_ADDRESSES.map(SanType::IpAddress));
    params.distinguished_name = common_name("kube-apiserver");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn client_params(user: &str, organizations: &[&str]) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    // rcgen keeps one value a type; the same type by its object identifier makes room for a second.
    let types = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    if organizations.len() > types.len() {
        return Err(PkiError::Organizations(organizations.len()));
    }
    for (kind, organization) in types.into_iter().zip(organizations) {
        name.push(kind, *organization);
    }
    name.push(DnType::CommonName, user);
    params.distinguished_name = name;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Makes `params` valid from a little before `now` until `life` after it, in whole seconds.
fn set_validity(params: &mut CertificateParams, now: Timestamp, life: SignedDuration) {
    let at = |by: SignedDuration| {
        let instant = now.saturating_add(by).unwrap_or(Timestamp::MAX).as_second();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(instant.try_into().unwrap_or(0))
    };
    params.not_before = at(-CLOCK_SKEW);
    params.not_after = at(life);
}

/// What we ask of a certificate that we find.
struct Facts {
    ends: Timestamp,
    names: Vec<String>,
    key_id: Option<Vec<u8>>,
    authority_key_id: Option<Vec<u8>>,
}

impl Facts {
    fn of(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let mut facts = Self {
            ends: Timestamp::from_second(cert.validity().not_after.timestamp()).map_err(|error| error.to_string())?,
            names: Vec::new(),
            key_id: None,
            authority_key_id: None,
        };
        for extension in cert.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => facts.key_id = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    facts.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                ParsedExtension::SubjectAlternativeName(alternatives) => {
                    facts.names = alternatives
                        .general_names
                        .iter()
                        .filter_map(|name| match name {
                            GeneralName::DNSName(name) => Some((*name).to_owned()),
                            GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
                                .map(|bytes| IpAddr::from(bytes).to_string())
                                .ok(),
                            _ => None,
                        })
                        .collect();
                }
                _ => {}
            }
        }
        Ok(facts)
    }
}

fn names_of(params: &CertificateParams) -> Vec<String> {
    params
        .subject_alt_names
        .iter()
        .filter_map(|name| match name {
            SanType::DnsName(name) => Some(name.to_string()),
            SanType::IpAddress(address) => Some(address.to_string()),
            _ => None,
        })
        .collect()
}

/// The certificate and the key in one PEM text; they must belong together.
fn split_pem(pem: &str) -> Result<(CertificateDer<'static>, KeyPair), String> {
    let cert = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| "expected a PEM certificate".to_owned())?;
    let key = pem_of("PRIVATE KEY", pem).ok_or("expected a PEM private key")?;
    let key = KeyPair::from_pem(&key).map_err(|error| error.to_string())?;
    let (_, parsed) = X509Certificate::from_der(&cert).map_err(|error| error.to_string())?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err("the certificate belongs to another key".to_owned());
    }
    drop(parsed);
    Ok((cert.into_owned(), key))
}

/// The first PEM block with this label, with its borders.
fn pem_of(label: &str, pem: &str) -> Option<String> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let from = pem.find(&begin)?;
    let to = from + pem[from..].find(&end)? + end.len();
    Some(pem[from..to].to_owned() + "\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::auth::testing::noon;

    #[test]
    fn what_is_there_is_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::load_or_create(&dir.path().join("pki"), noon()).unwrap();
        let second = Pki::load_or_create(&dir.path().join("pki"), noon()).unwrap();
        assert_eq!(first.ca_pem(), second.ca_pem());
        assert_eq!(first.front_proxy_ca_pem(), second.front_proxy_ca_pem());
        assert_eq!(first.serving.cert_pem, second.serving.cert_pem);
        assert_eq!(first.signer().key_id(), second.signer().key_id());
    }

    #[test]
    #[cfg(unix)]
    fn keys_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        Pki::load_or_create(&dir.path().join("pki"), noon()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("pki")), 0o700);
        let files: Vec<_> = fs::read_dir(dir.path().join("pki"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(files.len(), 5, "{files:?}");
        assert!(files.iter().all(|file| mode(file) == 0o600));
    }

    #[test]
    fn what_ends_soon_is_replaced_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::load_or_create(dir.path(), noon()).unwrap();
        let in_eleven_months = noon() + SignedDuration::from_hours(340 * 24);
        let second = Pki::load_or_create(dir.path(), in_eleven_months).unwrap();
        assert_eq!(first.ca_pem(), second.ca_pem());
        assert_ne!(first.serving.cert_pem, second.serving.cert_pem);
        let in_ten_years = noon() + SignedDuration::from_hours(3630 * 24);
        let third = Pki::load_or_create(dir.path(), in_ten_years).unwrap();
        assert_ne!(second.ca_pem(), third.ca_pem());
        assert_ne!(second.serving.cert_pem, third.serving.cert_pem);
        assert_eq!(first.signer().key_id(), third.signer().key_id());
    }

    #[test]
    fn a_damaged_leaf_is_replaced_a_damaged_ca_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::load_or_create(dir.path(), noon()).unwrap();
        fs::write(dir.path().join("apiserver.pem"), "half a cert").unwrap();
        let second = Pki::load_or_create(dir.path(), noon()).unwrap();
        assert_ne!(first.serving.cert_pem, second.serving.cert_pem);
        for file in ["ca.pem", "front-proxy-ca.pem", "sa.pem"] {
            let text = fs::read(dir.path().join(file)).unwrap();
            for length in [0, 10, text.len() / 2, text.len() - 30] {
                fs::write(dir.path().join(file), &text[..length]).unwrap();
                let error = Pki::load_or_create(dir.path(), noon()).unwrap_err().to_string();
                assert!(error.contains(file) && error.contains("move the file away"), "{error}");
            }
            fs::write(dir.path().join(file), &text).unwrap();
        }
        assert!(Pki::load_or_create(dir.path(), noon()).is_ok());
    }

    #[test]
    fn a_certificate_next_to_another_key_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        Pki::load_or_create(dir.path(), noon()).unwrap();
        let other = KeyPair::generate().unwrap().serialize_pem();
        let path = dir.path().join("ca.pem");
        let cert = pem_of("CERTIFICATE", &fs::read_to_string(&path).unwrap()).unwrap();
        fs::write(&path, cert + &other).unwrap();
        let error = Pki::load_or_create(dir.path(), noon()).unwrap_err().to_string();
        assert!(error.contains("the certificate belongs to another key"), "{error}");
    }

    #[test]
    fn the_serving_certificate_answers_for_the_names_clients_use() {
        let pki = Pki::in_memory(noon()).unwrap();
        let der = CertificateDer::from_pem_slice(pki.serving.cert_pem.as_bytes()).unwrap();
        let names = Facts::of(&der).unwrap().names;
        for name in [
            "127.0.0.1",
            "localhost",
            "kubernetes.default.svc.cluster.local",
            "10.96.0.1",
        ] {
            assert!(names.iter().any(|own| own == name), "{name}: {names:?}");
        }
    }

    #[test]
    fn a_client_certificate_has_room_for_two_organizations() {
        let pki = Pki::in_memory(noon()).unwrap();
        assert!(pki.issue_client("ada", &["a", "b"], noon()).is_ok());
        assert!(matches!(
            pki.issue_client("ada", &["a", "b", "c"], noon()),
            Err(PkiError::Organizations(3))
        ));
    }
}
