//! Nobody without the right certificate gets a request through, and nobody is fooled by a server.

use super::*;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

struct Stage {
    authority: Authority,
    probe: Arc<Probe>,
    server: Server,
}

async fn stage() -> Stage {
    let (authority, probe) = (authority(), Arc::new(Probe::default()));
    let tls = node(&authority, "a");
    let server = Server::bind("127.0.0.1:0", &tls, nodes_of_1, probe.clone()).await.unwrap();
    Stage { authority, probe, server }
}

impl Stage {
    /// A call by someone with that certificate fails, and the reason says why.
    async fn refuses(&self, tls: &Tls, expect: Expect, why: &str) {
        let client = Client::new(self.server.local_addr().to_string(), tls, expect);
        match echo(&client, Class::Data, "let me in").await {
            Err(RpcError::Unreachable(reason)) => assert!(reason.contains(why), "{reason}"),
            other => panic!("expected no way through, not {other:?}"),
        }
        assert_eq!(self.probe.calls.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn strangers_and_the_wrong_roles_are_refused() {
    let stage = stage().await;
    let issue = |cluster, role| stage.authority.tls(identity(cluster, role, "b")).unwrap();
    let told = "may not connect to this port";
    stage.refuses(&issue(2, Role::Node), any_node(), told).await;
    stage.refuses(&issue(1, Role::Client), any_node(), told).await;
    stage.refuses(&issue(1, Role::Syncer), any_node(), told).await;
    // Another authority: the client does not believe the server, whatever names they use.
    let other = Authority::create("test", 1).unwrap();
    stage.refuses(&node(&other, "b"), any_node(), "invalid peer certificate").await;
}

#[tokio::test]
async fn a_client_goes_on_only_with_whom_it_meant() {
    let stage = stage().await;
    let tls = node(&stage.authority, "b");
    let wrong = [
        Expect { cluster: ClusterId(2), ..any_node() },
        Expect { role: Role::Pd, ..any_node() },
        Expect { name: Some("c".into()), ..any_node() },
    ];
    for expect in wrong {
        stage.refuses(&tls, expect, "found flotilla://1/node/a").await;
    }
    let right = Expect { name: Some("a".into()), ..any_node() };
    let client = Client::new(stage.server.local_addr().to_string(), &tls, right);
    assert_eq!(echo(&client, Class::Data, "x").await.unwrap(), "x");
}

/// A TLS client that is not ours.
async fn raw(
    stage: &Stage,
    config: rustls::ClientConfig,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(stage.server.local_addr()).await?;
    let name = "localhost".try_into().unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

fn stock(
    authority: &str,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
}

async fn is_cut_off(stream: std::io::Result<tokio_rustls::client::TlsStream<TcpStream>>) {
    // In TLS 1.3 the client's side of the handshake may end before the server has refused.
    let Ok(mut stream) = stream else { return };
    let mut byte = [0];
    assert!(matches!(stream.read(&mut byte).await, Err(_) | Ok(0)));
}

#[tokio::test]
async fn a_client_without_certificate_is_cut_off() {
    let stage = stage().await;
    let config = stock(stage.authority.cert_pem()).with_no_client_auth();
    is_cut_off(raw(&stage, config).await).await;
    assert_eq!(stage.probe.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_certificate_without_identity_is_cut_off() {
    let authority = authority();
    let dir = tempfile::tempdir().unwrap();
    authority.save(dir.path()).unwrap();
    let key_pem = std::fs::read_to_string(dir.path().join("ca.key")).unwrap();
    let ca_key = KeyPair::from_pem(&key_pem).unwrap();
    let issuer = Issuer::from_ca_cert_pem(authority.cert_pem(), ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap();

    let refused = Tls::from_pem(authority.cert_pem(), &cert.pem(), &key.serialize_pem());
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("without an identity"), "{refused}");

    let probe = Arc::new(Probe::default());
    let tls = node(&authority, "a");
    let server = Server::bind("127.0.0.1:0", &tls, |_| true, probe.clone()).await.unwrap();
    let stage = Stage { authority, probe, server };
    let config = stock(stage.authority.cert_pem())
        .with_client_auth_cert(
            vec![cert.der().clone()],
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
        )
        .unwrap();
    is_cut_off(raw(&stage, config).await).await;
    assert_eq!(stage.probe.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn no_session_is_ever_resumed() {
    let stage = stage().await;
    let issued = stage.authority.issue(&Request::of(identity(1, Role::Node, "b"))).unwrap();
    let config = stock(stage.authority.cert_pem())
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap(),
        )
        .unwrap(); // with rustls' own defaults: this client would resume if it could
    for _ in 0..2 {
        let mut stream = raw(&stage, config.clone()).await.unwrap();
        frame::write_one(
            &mut stream,
            &frame::Frame::plain(frame::Sort::Hello, 0, frame::hello(Class::Data)),
        )
        .await
        .unwrap();
        let welcome = frame::FrameReader::greeting().one(&mut stream).await.unwrap();
        assert_eq!(welcome.sort, frame::Sort::Welcome);
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
    }
}
