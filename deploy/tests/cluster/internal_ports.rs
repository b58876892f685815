//! `authentic`: nobody without the right certificate gets an answer on an internal port.

use crate::harness::{Demo, alone};
use bytes::Bytes;
use flotilla_node::tls::Tls;
use flotilla_node::tls::dev::Authority;
use flotilla_node::transport::{Class, Client, Expect, RpcError, kinds};
use flotilla_topology::api::PdRequest;
use flotilla_topology::ids::{ClusterId, Identity, Role};
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

#[test]
fn wrong_certificates_and_none_are_refused_on_every_internal_port() {
    let _alone = alone();
    let demo = Demo::start(&["--datacenters", "east", "--nodes", "1"]);
    let cluster = demo.cluster("east");
    let address = |kind: &str| cluster[kind][0]["rpc"].as_str().unwrap().to_owned();
    let own = {
        let path = |key: &str| cluster["client"][key].as_str().unwrap().into();
        let files =
            flotilla_node::tls::TlsFiles { ca: path("ca"), cert: path("cert"), key: path("key") };
        Tls::load(&files).unwrap()
    };
    let strange = Authority::create("Somebody else", 1).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        ask(&address("pd"), Role::Pd, &own).await.expect("the right certificate is served");
        for (kind, role) in [("nodes", Role::Node), ("pd", Role::Pd)] {
            for who in [client(Role::Client, 1), client(Role::Node, 1)] {
                let tls = strange.tls(who).unwrap();
                let outcome = ask(&address(kind), role, &tls).await;
                assert!(matches!(outcome, Err(RpcError::Unreachable(_))), "{kind}: {outcome:?}");
            }
            without_tls(&address(kind)).await;
        }
    });
    demo.stop();
}
