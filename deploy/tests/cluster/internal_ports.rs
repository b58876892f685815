//! `authentic`: nobody without the right certificate gets an answer on an internal port.

use crate::harness::{Demo, alone};
use bytes::Bytes;
use flotilla_node::tls::dev::{Authority, Request};
use flotilla_node::tls::{Tls, TlsFiles};
use flotilla_node::transport::{Class, Client, Expect, RpcError, kinds};
use flotilla_topology::api::PdRequest;
use flotilla_topology::ids::{ClusterId, Identity, Role};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use serde_json::Value as Json;
use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(10);

fn client(role: Role, cluster: u8) -> Identity {
    Identity { cluster: ClusterId(cluster), role, name: "intruder".into() }
}

async fn ask(address: &str, to: Role, tls: &Tls) -> Result<Bytes, RpcError> {
    let expect = Expect { cluster: ClusterId(1), role: to, name: None };
    let payload = serde_json::to_vec(&PdRequest::Status).unwrap();
    let client = Client::new(address.to_owned(), tls, expect);
    client.call(Class::Control, kinds::PD_CALL, payload.into(), DEADLINE).await
}

/// Says something that is no TLS and waits for the end of the connection.
async fn without_tls(address: &str) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await;
    // An alert may come, an answer may not.
    assert!(read.is_ok(), "{address} keeps a connection that speaks no TLS");
    assert!(!bytes.windows(4).any(|window| window == b"PONG"), "{address} answers");
}

/// The command line's certificate for a cluster.
fn own(cluster: &Json) -> Tls {
    let path = |key: &str| cluster["client"][key].as_str().unwrap().into();
    Tls::load(&TlsFiles { ca: path("ca"), cert: path("cert"), key: path("key") }).unwrap()
}

/// The same as text: certificate and key.
fn pem(cluster: &Json) -> (String, String) {
    let text = |key: &str| std::fs::read_to_string(cluster["client"][key].as_str().unwrap());
    (text("cert").unwrap(), text("key").unwrap())
}

/// What a server does with who shows it a certificate, or none.
#[derive(Debug, PartialEq)]
enum Served {
    /// The handshake is done and it waits for more.
    Waits,
    /// It ends the connection.
    Refused,
}

/// Shakes hands as somebody who does not care whom it reaches: our own client would refuse to show
/// such a certificate.
fn shown_certificate(address: &str, pem: Option<&(String, String)>) -> Served {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let config = match pem {
        None => config.with_no_client_auth(),
        Some((cert, key)) => {
            let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tcp = std::net::TcpStream::connect(address).unwrap();
    // Shorter than a server waits for a greeting, longer than it takes to refuse.
    tcp.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut byte = [0];
    match rustls::Stream::new(&mut tls, &mut tcp).read(&mut byte) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Served::Waits
        }
        Ok(1) => Served::Waits,
        _ => Served::Refused,
    }
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let ring = rustls::crypto::ring::default_provider();
        ring.signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn wrong_certificates_and_none_are_refused_on_every_internal_port() {
    let _alone = alone();
    let demo = Demo::start(&["--nodes", "1", "--rtt", "1ms"]);
    let east = demo.cluster("east");
    let address = |kind: &str| east[kind][0]["rpc"].as_str().unwrap().to_owned();
    let (right, neighbour) = (own(&east), own(&demo.cluster("west")));
    for kind in ["nodes", "pd", "syncers"] {
        let served = shown_certificate(&address(kind), Some(&pem(&east)));
        assert_eq!(served, Served::Waits, "{kind}: the right certificate");
        let strange = Authority::create("Somebody else", 1).unwrap();
        for identity in [client(Role::Client, 1), client(Role::Node, 1)] {
            let issued = strange.issue(&Request::of(identity)).unwrap();
            let forged = (issued.cert_pem, issued.key_pem);
            let served = shown_certificate(&address(kind), Some(&forged));
            assert_eq!(served, Served::Refused, "{kind}: another authority's certificate");
        }
        assert_eq!(shown_certificate(&address(kind), None), Served::Refused, "{kind}: none");
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        ask(&address("pd"), Role::Pd, &right).await.expect("the right certificate is served");
        for (kind, role) in [("nodes", Role::Node), ("pd", Role::Pd), ("syncers", Role::Syncer)] {
            // The right authority, but another cluster's.
            let outcome = ask(&address(kind), role, &neighbour).await;
            assert!(matches!(outcome, Err(RpcError::Unreachable(_))), "{kind}: {outcome:?}");
            without_tls(&address(kind)).await;
        }
    });
    demo.stop();
}
