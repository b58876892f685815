//! Who a process is and whom it believes: mutual TLS 1.3 on every internal port, over TCP and QUIC.
//!
//! The identity of a process is a URI in its certificate, `flotilla://<cluster>/<role>/<name>`.
//! Host names in certificates mean nothing here: processes move between addresses, and a name that
//! resolves proves less than the cluster's own authority does. What must always hold:
//! * Both sides show a certificate that chains to the configured authorities and carries exactly
//!   one identity. Which identities are welcome is the port's business, after the handshake.
//! * TLS 1.3 only, one crypto provider (`ring`), handed over explicitly and not by process default.
//! * No tickets, no resumption, no early data: a resumed session would skip the verifier, so a
//!   certificate that ran out could live on.
//! * Private keys never appear in errors or logs.
//!
//! Certificates are made by [`dev::Authority`], which stands behind `flotilla cert` and the demo.

pub mod dev;
#[cfg(test)]
mod tests;

use crate::clock;
use flotilla_topology::ids::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls::{ClientConfig, PeerMisbehaved, ServerConfig};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The protocol that links speak over QUIC.
pub const LINK_ALPN: &[u8] = b"flotilla-link/1";

/// Largest PEM file that is read: far above any chain, far below harm.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Where a process finds its certificates, all PEM.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The authorities whose certificates are believed, one or more.
    pub ca: PathBuf,
    /// This process's certificate, and intermediates if there are any.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Certificates that cannot be used; each message is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot {verb} {path}: {source}")]
    File {
        /// What was tried.
        verb: &'static str,
        /// Which file.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file stands where a new one should be written.
    #[error("{path} exists already: remove it first, or give another --out")]
    Exists {
        /// Which file.
        path: String,
    },
    /// The text is not the PEM that is needed.
    #[error("{what} has no {wanted} in PEM form: make one with `flotilla cert`")]
    Pem {
        /// Which file or argument.
        what: String,
        /// What it should hold.
        wanted: &'static str,
    },
    /// The certificate does not say who its owner is.
    #[error("certificate without an identity ({0}): issue it with `flotilla cert issue`")]
    Identity(String),
    /// Certificate, key and authority do not fit together.
    #[error("unusable certificate: {0}; issue a new one with `flotilla cert issue`")]
    Unusable(String),
    /// A certificate could not be made.
    #[error("cannot make the certificate: {0}")]
    Making(String),
}

/// Everything a process needs to prove itself and to check others. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls {
    identity: Arc<Identity>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// Reads the three files and checks that they fit together.
    pub fn load(files: &TlsFiles) -> Result<Tls, TlsError> {
        let (ca, cert, key) = (read(&files.ca)?, read(&files.cert)?, read(&files.key)?);
        let name = |path: &Path| path.display().to_string();
        warn_if_others_read(&files.key);
        Tls::build(
            authorities(&ca, &name(&files.ca))?,
            chain(&cert, &name(&files.cert))?,
            private_key(&key, &name(&files.key))?,
        )
    }

    /// As [`Tls::load`], from PEM in memory.
    pub fn from_pem(ca: &str, cert: &str, key: &str) -> Result<Tls, TlsError> {
        Tls::build(
            authorities(ca.as_bytes(), "the authority's text")?,
            chain(cert.as_bytes(), "the certificate's text")?,
            private_key(key.as_bytes(), "the key's text")?,
        )
    }

    fn build(
        roots: Arc<RootCertStore>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Tls, TlsError> {
        let identity = Arc::new(Tls::peer_identity(&chain)?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // Fail at start, not at the first connection, when our own certificate is not of the
        // authority that we believe: then no peer would believe us either.
        let verifier = Arc::new(LinkedToAuthority { roots: roots.clone(), provider });
        verifier.check(&chain[0], &chain[1..], now()).map_err(unusable)?;
        let server = server_config(&verifier.provider, roots, chain.clone(), key.clone_key())?;
        let client = client_config(verifier, chain, key)?;
        Ok(Tls { identity, server: Arc::new(server), client: Arc::new(client) })
    }

    /// Who this process is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// For accepting TCP connections. Clients must show a certificate.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// For dialing TCP connections.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// For accepting QUIC links: as [`Tls::server`], with [`LINK_ALPN`].
    pub fn quic_server(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.server);
        config.alpn_protocols = vec![LINK_ALPN.to_vec()];
        Arc::new(config)
    }

    /// For dialing QUIC links: as [`Tls::client`], with [`LINK_ALPN`].
    pub fn quic_client(&self) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.client);
        config.alpn_protocols = vec![LINK_ALPN.to_vec()];
        Arc::new(config)
    }

    /// Who the owner of a verified chain is: exactly one identity, in the first certificate.
    pub fn peer_identity(certs: &[CertificateDer<'_>]) -> Result<Identity, TlsError> {
        let problem = |what: &str| TlsError::Identity(what.to_owned());
        let first = certs.first().ok_or_else(|| problem("none was shown"))?;
        let (_, cert) = X509Certificate::from_der(first).map_err(|_| problem("not X.509"))?;
        let names = cert
            .subject_alternative_name()
            .map_err(|_| problem("its alternative names are not valid"))?
            .ok_or_else(|| problem("it has no alternative names"))?;
        let mut identities = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with("flotilla:") => Some(uri),
            _ => None,
        });
        let uri = identities.next().ok_or_else(|| problem("it has no flotilla:// URI"))?;
        if identities.next().is_some() {
            return Err(problem("it has several flotilla:// URIs"));
        }
        uri.parse().map_err(|error| TlsError::Identity(format!("{error}")))
    }

    /// The name for dialing. Verification ignores it; the protocol wants one.
    pub fn server_name() -> ServerName<'static> {
        ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into())
    }
}

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(clock::wall_ms()))
}

fn unusable(error: impl std::fmt::Display) -> TlsError {
    TlsError::Unusable(error.to_string())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::File { verb: "read", path: path.display().to_string(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > PEM_BYTES_MAX {
        return Err(TlsError::Pem {
            what: path.display().to_string(),
            wanted: "certificate or key",
        });
    }
    std::fs::read(path).map_err(failed)
}

/// A warning and no refusal: some systems hand keys to containers with wider modes.
fn warn_if_others_read(key: &Path) {
    let mode = std::fs::metadata(key).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o007 != 0 {
        tracing::warn!("{} can be read by everybody here: chmod 600 it", key.display());
    }
}

fn chain(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certs {
        Ok(certs) if !certs.is_empty() => Ok(certs),
        _ => Err(TlsError::Pem { what: what.to_owned(), wanted: "certificate" }),
    }
}

fn private_key(pem: &[u8], what: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    // The parser's error is dropped: it could quote the key.
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| TlsError::Pem { what: what.to_owned(), wanted: "private key" })
}

fn authorities(pem: &[u8], what: &str) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in chain(pem, what)? {
        roots.add(cert).map_err(unusable)?;
    }
    Ok(Arc::new(roots))
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(unusable)?;
    let mut config = ServerConfig::builder_with_details(provider.clone(), Arc::new(WallClock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

fn client_config(
    verifier: Arc<LinkedToAuthority>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, TlsError> {
    let provider = verifier.provider.clone();
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(WallClock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .dangerous() // rustls' word for a verifier of our own; see `LinkedToAuthority`
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(unusable)?;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(config)
}

/// Certificates run out by the clock of [`clock`], as everything else does.
#[derive(Debug)]
struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(now())
    }
}

/// Verifies a server: its chain leads to an authority of ours and it has an identity. It does all
/// that the stock verifier does except for comparing the host name.
#[derive(Debug)]
struct LinkedToAuthority {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl LinkedToAuthority {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let cert = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &cert,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        Tls::peer_identity(std::slice::from_ref(end_entity))
            .map_err(|_| CertificateError::ApplicationVerificationFailure)?;
        Ok(())
    }
}

impl ServerCertVerifier for LinkedToAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into()) // TLS 1.3 only
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
