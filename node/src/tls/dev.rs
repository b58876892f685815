//! Makes certificates: the authority of an installation, and what it issues to each process.
//!
//! Behind `flotilla cert`, the demo (an authority per run) and the tests. An installation that has
//! an authority of its own may use that instead: all that a process looks at is the chain and the
//! identity URI. Files are never overwritten, and keys are readable by their owner alone.

use super::{Tls, TlsError, TlsFiles};
use crate::clock;
use flotilla_topology::ids::Identity;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer};
use rcgen::{KeyPair, KeyUsagePurpose, SanType, date_time_ymd};
use std::fs::OpenOptions;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Certificates are valid from this long before they are made, since clocks differ.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);

/// Longest life of a certificate, 30 years: beyond it dates leave the form that X.509 parsers agree
/// on, and a wish for more is a typing error.
pub const DAYS_MAX: u32 = 30 * 366;

/// File names inside an authority's directory.
const CA_CERT_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca.key";

/// Signs certificates. Whoever holds its key can be any process of any cluster that trusts it.
pub struct Authority {
    cert_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate should say.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who its owner is.
    pub identity: Identity,
    /// Host names, besides `localhost`: for tools that look at them; Flotilla does not.
    pub dns: Vec<String>,
    /// Addresses, besides loopback.
    pub ips: Vec<IpAddr>,
    /// How long it is valid.
    pub days: u32,
}

impl Request {
    /// For `identity`, with loopback names only, for a year.
    pub fn of(identity: Identity) -> Request {
        Request { identity, dns: Vec::new(), ips: Vec::new(), days: 365 }
    }
}

/// A certificate and its key, both PEM.
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key.
    pub key_pem: String,
}

impl Authority {
    /// A new authority with a key of its own.
    pub fn create(name: &str, days: u32) -> Result<Authority, TlsError> {
        let mut params = CertificateParams::default();
        set_validity(&mut params, days)?;
        params.distinguished_name.push(DnType::CommonName, name);
        // It may sign processes and no further authorities.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(making)?;
        let cert_pem = params.self_signed(&key).map_err(making)?.pem();
        let key_pem = key.serialize_pem();
        Ok(Authority { cert_pem, key_pem, issuer: Issuer::new(params, key) })
    }

    /// Reads the directory that [`Authority::save`] wrote.
    pub fn load(dir: &Path) -> Result<Authority, TlsError> {
        let text = |file: &str| {
            let path = dir.join(file);
            let what = path.display().to_string();
            let bytes = super::read(&path)?;
            let error = TlsError::Pem { what: what.clone(), wanted: "text" };
            Ok((String::from_utf8(bytes).map_err(|_| error)?, what))
        };
        let (cert_pem, cert_file) = text(CA_CERT_FILE)?;
        let (key_pem, key_file) = text(CA_KEY_FILE)?;
        let key = KeyPair::from_pem(&key_pem)
            .map_err(|_| TlsError::Pem { what: key_file, wanted: "private key" })?;
        let issuer = Issuer::from_ca_cert_pem(&cert_pem, key)
            .map_err(|_| TlsError::Pem { what: cert_file, wanted: "authority's certificate" })?;
        Ok(Authority { cert_pem, key_pem, issuer })
    }

    /// Writes `ca.pem` and `ca.key` (mode 0600) into `dir`, which is made when it is missing.
    pub fn save(&self, dir: &Path) -> Result<(), TlsError> {
        make_dir(dir)?;
        let (cert, key) = (dir.join(CA_CERT_FILE), dir.join(CA_KEY_FILE));
        refuse_existing(&[&cert, &key])?;
        write_new(&key, &self.key_pem, 0o600)?;
        write_new(&cert, &self.cert_pem, 0o644)
    }

    /// The authority's own certificate, which every process must be given.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// A certificate with a fresh key.
    pub fn issue(&self, request: &Request) -> Result<Issued, TlsError> {
        // What we cannot read back we must not sign.
        let uri = request.identity.to_string();
        uri.parse::<Identity>().map_err(|error| TlsError::Identity(error.to_string()))?;
        let mut names = vec!["localhost".to_owned()];
        names.extend(request.dns.iter().cloned());
        let mut params = CertificateParams::new(names).map_err(making)?;
        set_validity(&mut params, request.days)?;
        params.distinguished_name.push(DnType::CommonName, request.identity.name.as_str());
        params.subject_alt_names.push(SanType::URI(uri.try_into().map_err(making)?));
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let ips = loopback.iter().chain(&request.ips);
        params.subject_alt_names.extend(ips.map(|&ip| SanType::IpAddress(ip)));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(making)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(making)?;
        Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }

    /// Issues a certificate and writes `<role>-<name>.pem`, `<role>-<name>.key` (mode 0600) and
    /// `ca.pem` into `dir`, which is made when it is missing. An equal `ca.pem` may be there.
    pub fn issue_files(&self, request: &Request, dir: &Path) -> Result<TlsFiles, TlsError> {
        let issued = self.issue(request)?;
        make_dir(dir)?;
        let identity = &request.identity;
        let stem = format!("{}-{}", identity.role.as_str(), identity.name);
        let files = TlsFiles {
            ca: dir.join(CA_CERT_FILE),
            cert: dir.join(format!("{stem}.pem")),
            key: dir.join(format!("{stem}.key")),
        };
        refuse_existing(&[&files.cert, &files.key])?;
        match std::fs::read(&files.ca) {
            Ok(there) if there == self.cert_pem.as_bytes() => {}
            Ok(_) => return Err(TlsError::Exists { path: files.ca.display().to_string() }),
            Err(_) => write_new(&files.ca, &self.cert_pem, 0o644)?,
        }
        write_new(&files.key, &issued.key_pem, 0o600)?;
        write_new(&files.cert, &issued.cert_pem, 0o644)?;
        Ok(files)
    }

    /// Issues a certificate and keeps it in memory.
    pub fn tls(&self, identity: Identity) -> Result<Tls, TlsError> {
        let issued = self.issue(&Request::of(identity))?;
        Tls::from_pem(&self.cert_pem, &issued.cert_pem, &issued.key_pem)
    }
}

fn making(error: rcgen::Error) -> TlsError {
    TlsError::Making(error.to_string())
}

fn set_validity(params: &mut CertificateParams, days: u32) -> Result<(), TlsError> {
    if days == 0 || days > DAYS_MAX {
        return Err(TlsError::Making(format!("{days} days; give 1 to {DAYS_MAX}")));
    }
    let now = date_time_ymd(1970, 1, 1) + Duration::from_millis(clock::wall_ms());
    params.not_before = now - BACKDATE;
    params.not_after = now + Duration::from_secs(u64::from(days) * 24 * 3600);
    Ok(())
}

fn make_dir(dir: &Path) -> Result<(), TlsError> {
    std::fs::create_dir_all(dir).map_err(|source| TlsError::File {
        verb: "make the directory",
        path: dir.display().to_string(),
        source,
    })
}

/// Checked before the first file is written, so that a refusal leaves nothing half done.
fn refuse_existing(paths: &[&PathBuf]) -> Result<(), TlsError> {
    match paths.iter().find(|path| path.exists()) {
        Some(path) => Err(TlsError::Exists { path: path.display().to_string() }),
        None => Ok(()),
    }
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AlreadyExists => TlsError::Exists { path: path.display().to_string() },
        _ => TlsError::File { verb: "write", path: path.display().to_string(), source },
    };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}
