//! What fits together loads; what does not is refused at start, in one line that says what to do.

use super::dev::{Authority, DAYS_MAX, Issued, Request};
use super::*;
use flotilla_topology::ids::{ClusterId, Role};
use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};
use std::os::unix::fs::PermissionsExt;

fn identity(name: &str) -> Identity {
    Identity { cluster: ClusterId(3), role: Role::Syncer, name: name.to_owned() }
}

fn issue(authority: &Authority) -> Issued {
    authority.issue(&Request::of(identity("east-s1"))).unwrap()
}

fn refusal(result: Result<Tls, TlsError>) -> String {
    let text = result.unwrap_err().to_string();
    assert!(!text.contains('\n') && !text.contains("PRIVATE KEY"), "{text}");
    text
}

#[test]
fn files_are_written_once_and_load_again() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, out) = (dir.path().join("ca"), dir.path().join("certs"));
    Authority::create("test", 10).unwrap().save(&ca).unwrap();
    let authority = Authority::load(&ca).unwrap();
    let files = authority.issue_files(&Request::of(identity("east-s1")), &out).unwrap();
    assert_eq!(Tls::load(&files).unwrap().identity(), &identity("east-s1"));
    let mode = std::fs::metadata(&files.key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    authority.issue_files(&Request::of(identity("east-s2")), &out).unwrap();

    let exists = |result: Result<TlsFiles, TlsError>| {
        assert!(matches!(result, Err(TlsError::Exists { .. })), "{result:?}");
    };
    exists(authority.issue_files(&Request::of(identity("east-s1")), &out));
    assert!(matches!(authority.save(&ca), Err(TlsError::Exists { .. })));
    // A directory serves one authority: the other's certificates would not fit its ca.pem.
    let other = Authority::create("other", 10).unwrap();
    exists(other.issue_files(&Request::of(identity("east-s3")), &out));
    assert!(!out.join("syncer-east-s3.key").exists(), "a refusal leaves nothing behind");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let (authority, other) =
        (Authority::create("a", 10).unwrap(), Authority::create("b", 10).unwrap());
    let (one, two) = (issue(&authority), issue(&authority));
    let ca = authority.cert_pem();
    assert!(Tls::from_pem(ca, &one.cert_pem, &one.key_pem).is_ok());
    let both = format!("{}{ca}", other.cert_pem());
    assert!(Tls::from_pem(&both, &one.cert_pem, &one.key_pem).is_ok());

    let text = refusal(Tls::from_pem(ca, &one.cert_pem, &two.key_pem));
    assert!(text.contains("unusable"), "{text}");
    let text = refusal(Tls::from_pem(other.cert_pem(), &one.cert_pem, &one.key_pem));
    assert!(text.contains("UnknownIssuer"), "{text}");
    let text = refusal(Tls::from_pem(ca, &one.key_pem, &one.key_pem));
    assert!(text.contains("no certificate in PEM form"), "{text}");
    let text = refusal(Tls::from_pem(ca, &one.cert_pem, &one.cert_pem));
    assert!(text.contains("no private key in PEM form"), "{text}");
    refusal(Tls::from_pem("", &one.cert_pem, &one.key_pem));
    refusal(Tls::from_pem(ca, ca, &one.key_pem)); // an authority is nobody

    let missing = TlsFiles { ca: "/nowhere/ca.pem".into(), cert: "c".into(), key: "k".into() };
    let text = refusal(Tls::load(&missing));
    assert!(text.starts_with("cannot read /nowhere/ca.pem"), "{text}");
}

#[test]
fn a_certificate_that_ran_out_is_refused() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    let uri = identity("old").to_string().try_into().unwrap();
    params.subject_alt_names.push(SanType::URI(uri));
    params.not_after = date_time_ymd(2020, 1, 1);
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create("test", 10).unwrap();
    authority.save(dir.path()).unwrap();
    let ca_key = std::fs::read_to_string(dir.path().join("ca.key")).unwrap();
    let ca_key = KeyPair::from_pem(&ca_key).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(authority.cert_pem(), ca_key).unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap();
    let result = Tls::from_pem(authority.cert_pem(), &cert.pem(), &key.serialize_pem());
    let text = refusal(result);
    assert!(text.contains("expired") || text.contains("Expired"), "{text}");
}

fn names(uris: &[&str]) -> Result<Identity, TlsError> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    for uri in uris {
        params.subject_alt_names.push(SanType::URI((*uri).to_owned().try_into().unwrap()));
    }
    Tls::peer_identity(&[params.self_signed(&key).unwrap().der().clone()])
}

#[test]
fn an_identity_is_one_uri_and_well_formed() {
    assert_eq!(names(&["flotilla://3/syncer/east-s1"]).unwrap(), identity("east-s1"));
    let beside = names(&["spiffe://elsewhere/x", "flotilla://3/syncer/east-s1"]);
    assert_eq!(beside.unwrap(), identity("east-s1"));
    for uris in [
        &[][..],
        &["spiffe://elsewhere/x"],
        &["flotilla://3/syncer/a", "flotilla://4/syncer/a"],
        &["flotilla://0/syncer/a"],
        &["flotilla://3/king/a"],
        &["flotilla://3/syncer/"],
        &["flotilla:3/syncer/a"],
    ] {
        assert!(matches!(names(uris), Err(TlsError::Identity(_))), "{uris:?}");
    }
    assert!(Tls::peer_identity(&[]).is_err());
    assert!(Tls::peer_identity(&[vec![0x30, 0x03, 1, 2].into()]).is_err());
}

#[test]
fn an_authority_signs_only_what_can_be_read_back() {
    let authority = Authority::create("test", 10).unwrap();
    let issue = |identity, days| {
        authority.issue(&Request { days, ..Request::of(identity) }).err().map(|e| e.to_string())
    };
    assert!(issue(Identity { cluster: ClusterId(0), ..identity("a") }, 1).is_some());
    assert!(issue(identity(""), 1).is_some());
    assert!(issue(identity("a/b"), 1).is_some());
    assert!(issue(identity("a"), 0).is_some());
    assert!(issue(identity("a"), DAYS_MAX + 1).is_some());
    assert_eq!(issue(identity("a"), DAYS_MAX), None);
}

#[test]
fn links_speak_their_own_protocol() {
    let tls = Authority::create("test", 10).unwrap().tls(identity("a")).unwrap();
    assert_eq!(tls.quic_server().alpn_protocols, [LINK_ALPN]);
    assert_eq!(tls.quic_client().alpn_protocols, [LINK_ALPN]);
    assert!(tls.server().alpn_protocols.is_empty());
    assert_eq!((tls.server().send_tls13_tickets, tls.server().max_early_data_size), (0, 0));
}
