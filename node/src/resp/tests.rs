//! The reader against the `redis-protocol` crate's decoder, and the writer against both decoders.

use super::*;
use crate::codec::{Decoder, Encoder};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use redis_protocol::resp2::{self, types::BytesFrame as Frame2};
use redis_protocol::resp3;

type Taken = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

/// Feeds `input` in pieces that end at `cuts`, and takes all requests after each.
fn read_in_pieces(limits: Limits, input: &[u8], cuts: &[usize]) -> Taken {
    let mut reader = RequestReader::new(limits);
    let mut buffer = BytesMut::new();
    let mut requests = Vec::new();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.push(input.len());
    cuts.sort_unstable();
    let mut fed = 0;
    for cut in cuts {
        buffer.extend_from_slice(&input[fed..cut]);
        fed = cut;
        loop {
            match reader.next(&mut buffer) {
                Ok(Some(args)) => requests.push(args.iter().map(|arg| arg.to_vec()).collect()),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(reader.next(&mut buffer), Err(error.clone()), "it stays broken");
                    return (requests, Some(error));
                }
            }
        }
    }
    (requests, None)
}

fn request_bytes(args: &[Vec<u8>]) -> Vec<u8> {
    let frames = args.iter().map(|arg| Frame2::BulkString(arg.clone().into())).collect();
    let mut out = BytesMut::new();
    resp2::encode::extend_encode(&mut out, &Frame2::Array(frames), false).unwrap();
    out.to_vec()
}

fn error_of(limits: Limits, input: &[u8]) -> String {
    let (_, error) = read_in_pieces(limits, input, &[]);
    error.map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn tells_up_to_where_the_argument_at_hand_goes() {
    let whole = request_bytes(&[b"SET".to_vec(), b"k".to_vec(), vec![b'v'; 300]]);
    for cut in 0..whole.len() {
        let mut reader = RequestReader::new(Limits::default());
        let mut buffer = BytesMut::from(&whole[..cut]);
        assert_eq!(reader.next(&mut buffer), Ok(None), "{cut}");
        let needed = reader.needed();
        assert!(needed == 0 || (cut < needed && needed <= whole.len()), "{needed} at {cut}");
        if cut >= whole.len() - 302 {
            assert_eq!(needed, whole.len(), "the value's length is known at {cut}");
        }
        buffer.extend_from_slice(&whole[cut..]);
        assert!(matches!(reader.next(&mut buffer), Ok(Some(_))), "{cut}");
        assert_eq!(reader.needed(), 0, "{cut}");
    }
}

#[test]
fn refuses_with_the_words_of_redis() {
    let cases: [(&[u8], &str); 16] = [
        (b"*abc\r\n", "invalid multibulk length"),
        (b"*\r\n", "invalid multibulk length"),
        (b"*+1\r\n", "invalid multibulk length"),
        (b"* 1\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*1\r\n+PING\r\n", "expected '$', got '+'"),
        (b"*1\r\n*1\r\n", "expected '$', got '*'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$04\r\nPING\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$9223372036854775807\r\n", "invalid bulk length"),
        (b"PING \"a\r\n", "unbalanced quotes in request"),
        (b"ECHO 'a'b\r\n", "unbalanced quotes in request"),
        (b"*3\r\n$536870912\r\n", ""),
    ];
    for (input, text) in cases {
        let expected = if text.is_empty() { "".into() } else { format!("Protocol error: {text}") };
        assert_eq!(error_of(Limits::default(), input), expected, "{input:?}");
    }
    let long = |start: &[u8], fill: u8| [start, &vec![fill; 65_537][..]].concat();
    for (input, text) in [
        (long(b"", b'a'), "too big inline request"),
        (long(b"*", b'1'), "too big mbulk count string"),
        (long(b"*1\r\n$", b'1'), "too big bulk count string"),
    ] {
        assert_eq!(error_of(Limits::default(), &input), format!("Protocol error: {text}"));
    }
    let small = Limits { request_bytes: 20, ..Limits::default() };
    assert_eq!(
        error_of(small, b"*2\r\n$8\r\n12345678\r\n$8\r\n"),
        "Protocol error: too big request"
    );
}

#[test]
fn strangers_send_small_requests() {
    let mut reader = RequestReader::new(Limits::default());
    reader.set_authenticated(false);
    let mut buffer = BytesMut::from(&b"*11\r\n"[..]);
    let error = reader.next(&mut buffer).unwrap_err();
    assert_eq!(error.reply(), {
        Reply::error("ERR Protocol error: unauthenticated multibulk length")
    });
    let mut reader = RequestReader::new(Limits::default());
    reader.set_authenticated(false);
    let mut buffer = BytesMut::from(&b"*1\r\n$16385\r\n"[..]);
    let error = reader.next(&mut buffer).unwrap_err();
    assert_eq!(error.to_string(), "Protocol error: unauthenticated bulk length");
    let mut reader = RequestReader::new(Limits::default());
    reader.set_authenticated(false);
    reader.set_authenticated(true);
    let mut buffer = BytesMut::from(&b"*11\r\n$16385\r\n"[..]);
    assert_eq!(reader.next(&mut buffer), Ok(None));
}

#[test]
fn inline_empty_and_negative_requests() {
    let input =
        b"\r\n\n*0\r\n*-1\r\n*-9\r\nPING\r\nset a \"b c\"\n*1\r\n$4\r\nPINGxx  ECHO  1 \r\n";
    let (requests, error) = read_in_pieces(Limits::default(), input, &[]);
    assert_eq!(error, None);
    let texts: Vec<Vec<String>> = requests
        .iter()
        .map(|args| args.iter().map(|arg| String::from_utf8_lossy(arg).into()).collect())
        .collect();
    assert_eq!(texts, [&["PING"][..], &["set", "a", "b c"], &["PING"], &["ECHO", "1"]]);
}

#[test]
fn no_byte_is_scanned_twice() {
    // 65,536 one-byte pieces of one line: quadratic reading would take seconds, not milliseconds.
    let line = vec![b'a'; 60_000];
    let mut reader = RequestReader::new(Limits::default());
    let mut buffer = BytesMut::new();
    for piece in line.chunks(1) {
        buffer.extend_from_slice(piece);
        assert_eq!(reader.next(&mut buffer), Ok(None));
    }
    buffer.extend_from_slice(b"\r\n");
    assert_eq!(reader.next(&mut buffer).unwrap().unwrap()[0].len(), 60_000);
}

fn args() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..12)
}

/// Bytes that look like requests often enough to reach every branch.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"*".to_vec()),
        Just(b"$".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"'".to_vec()),
        Just(b"*2\r\n$3\r\nGET\r\n".to_vec()),
        Just(b"$1\r\nk\r\n".to_vec()),
        "-?[0-9]{1,20}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..10),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn reads_what_the_oracle_reads(requests in prop::collection::vec(args(), 1..5),
                                   cuts in prop::collection::vec(any::<usize>(), 0..30)) {
        let input: Vec<u8> = requests.iter().flat_map(|args| request_bytes(args)).collect();
        let (read, error) = read_in_pieces(Limits::default(), &input, &cuts);
        prop_assert_eq!(error, None);
        let mut oracle = Vec::new();
        let mut rest = Bytes::from(input);
        while !rest.is_empty() {
            let (frame, used) = resp2::decode::decode_bytes(&rest).unwrap().unwrap();
            let Frame2::Array(frames) = frame else { panic!("an array") };
            let arg = |frame: &Frame2| match frame {
                Frame2::BulkString(bytes) => bytes.to_vec(),
                other => panic!("a bulk string, not {other:?}"),
            };
            oracle.push(frames.iter().map(arg).collect::<Vec<_>>());
            rest = rest.slice(used..);
        }
        prop_assert_eq!(&read, &oracle);
        prop_assert_eq!(read, requests);
    }

    #[test]
    fn garbage_never_panics_and_cuts_do_not_matter(
        input in garbage(), cuts in prop::collection::vec(any::<usize>(), 0..30)) {
        let limits = Limits { args: 100, bulk_bytes: 50, line_bytes: 30, request_bytes: 200 };
        let whole = read_in_pieces(limits, &input, &[]);
        prop_assert_eq!(&read_in_pieces(limits, &input, &cuts), &whole);
        let bytes: Vec<usize> = (0..input.len()).collect();
        prop_assert_eq!(&read_in_pieces(limits, &input, &bytes), &whole);
    }

    #[test]
    fn memory_follows_what_has_come(count in 1usize..1_048_576, len in 0usize..536_870_912) {
        let mut reader = RequestReader::new(Limits::default());
        let mut buffer = BytesMut::from(format!("*{count}\r\n${len}\r\n").as_bytes());
        let room = buffer.capacity();
        let _ = reader.next(&mut buffer);
        prop_assert_eq!(buffer.capacity(), room);
        prop_assert!(reader.spans_capacity() <= 8);
    }

    #[test]
    fn replies_read_back_alike(reply in reply_strategy()) {
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let mut out = BytesMut::new();
            reply.encode(protocol, &mut out);
            let bytes = out.freeze();
            let used = match protocol {
                Protocol::Resp2 => resp2::decode::decode_bytes(&bytes).unwrap().unwrap().1,
                Protocol::Resp3 => resp3::decode::complete::decode_bytes(&bytes).unwrap().unwrap().1,
            };
            prop_assert_eq!(used, bytes.len(), "{:?}", bytes);
        }
    }

    #[test]
    fn replies_survive_the_wire(reply in reply_strategy()) {
        let mut out = Encoder::new();
        reply.to_wire(&mut out);
        let bytes = out.into_bytes();
        let mut input = Decoder::shared(&bytes);
        prop_assert_eq!(&Reply::from_wire(&mut input).unwrap(), &reply);
        input.finish().unwrap();
        for len in 0..bytes.len() {
            prop_assert!(Reply::from_wire(&mut Decoder::new(&bytes[..len])).is_err());
        }
    }

    #[test]
    fn wire_garbage_never_panics(bytes: Vec<u8>) {
        let _ = Reply::from_wire(&mut Decoder::new(&bytes));
    }
}

fn reply_strategy() -> impl Strategy<Value = Reply> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    let text = || "[ -~]{0,20}".prop_map(Bytes::from);
    let leaf = prop_oneof![
        Just(Reply::Ok),
        text().prop_map(Reply::Simple),
        text().prop_map(|t| Reply::error([b"ERR ", &t[..]].concat())),
        any::<i64>().prop_map(Reply::Int),
        bytes().prop_map(Reply::Bulk),
        Just(Reply::Null),
        Just(Reply::NullArray),
        any::<f64>().prop_filter("equal to itself", |f| !f.is_nan()).prop_map(Reply::Double),
        any::<bool>().prop_map(Reply::Bool),
        text().prop_map(Reply::Verbatim),
    ];
    let key = move || bytes().prop_map(Reply::Bulk);
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Reply::Array),
            prop::collection::vec((key(), inner), 0..6).prop_map(Reply::Map),
            prop::collection::btree_set(prop::collection::vec(any::<u8>(), 0..5), 0..6)
                .prop_map(|set| Reply::Set(set.into_iter().map(Reply::bulk).collect())),
        ]
    })
}

fn encoded(reply: &Reply, protocol: Protocol) -> String {
    let mut out = BytesMut::new();
    reply.encode(protocol, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn both_versions_write_as_redis() {
    let pair = (Reply::bulk("k"), Reply::Double(1e300));
    let cases = [
        (Reply::Ok, "+OK\r\n", "+OK\r\n"),
        (Reply::error("ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n"),
        (Reply::Int(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
        (Reply::Int(999_999_999_999_999_999), ":999999999999999999\r\n", ":999999999999999999\r\n"),
        (Reply::Int(0), ":0\r\n", ":0\r\n"),
        (Reply::bulk(""), "$0\r\n\r\n", "$0\r\n\r\n"),
        (Reply::Null, "$-1\r\n", "_\r\n"),
        (Reply::NullArray, "*-1\r\n", "_\r\n"),
        (Reply::Array(vec![]), "*0\r\n", "*0\r\n"),
        (
            Reply::Map(vec![pair]),
            "*2\r\n$1\r\nk\r\n$6\r\n1e+300\r\n",
            "%1\r\n$1\r\nk\r\n,1e+300\r\n",
        ),
        (Reply::words(["a"]), "*1\r\n+a\r\n", "~1\r\n+a\r\n"),
        (Reply::Push(vec![Reply::Int(1)]), "*1\r\n:1\r\n", ">1\r\n:1\r\n"),
        (
            Reply::Pairs(vec![(Reply::Int(1), Reply::Int(2)), (Reply::Int(3), Reply::Null)]),
            "*4\r\n:1\r\n:2\r\n:3\r\n$-1\r\n",
            "*2\r\n*2\r\n:1\r\n:2\r\n*2\r\n:3\r\n_\r\n",
        ),
        (Reply::Bool(true), ":1\r\n", "#t\r\n"),
        (Reply::Bool(false), ":0\r\n", "#f\r\n"),
        (Reply::Double(f64::INFINITY), "$3\r\ninf\r\n", ",inf\r\n"),
        (Reply::Verbatim("some".into()), "$4\r\nsome\r\n", "=8\r\ntxt:some\r\n"),
    ];
    for (reply, resp2, resp3) in cases {
        assert_eq!(encoded(&reply, Protocol::Resp2), resp2);
        assert_eq!(encoded(&reply, Protocol::Resp3), resp3);
    }
}

#[test]
fn bulk_lengths_near_powers_of_ten() {
    for len in [0, 9, 10, 99, 100, 999, 1000, 9_999, 10_000, 99_999, 100_000, 999_999, 1_000_000] {
        let text = encoded(&Reply::bulk(vec![b'x'; len]), Protocol::Resp2);
        assert_eq!(text, format!("${len}\r\n{}\r\n", "x".repeat(len)));
    }
}

#[test]
fn deep_replies_are_refused() {
    let nested =
        |depth: usize| (0..depth).fold(Reply::Int(1), |inner, _| Reply::Array(vec![inner]));
    let read = |reply: &Reply| {
        let mut out = Encoder::new();
        reply.to_wire(&mut out);
        Reply::from_wire(&mut Decoder::new(out.as_slice()))
    };
    assert!(read(&nested(16)).is_ok());
    assert!(read(&nested(17)).is_err());
    let bomb = [7u8, 1].repeat(1_000_000);
    assert!(Reply::from_wire(&mut Decoder::new(&bomb)).is_err());
}
