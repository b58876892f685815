//! A Redis of a hundred lines that can lose connections and lie: what the workloads and scenarios
//! are tested against.

use crate::resp::{self, Value};
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, Clone)]
enum Kept {
    Text(String),
    Hash(BTreeMap<String, String>),
}

/// The server. Clones share the data.
#[derive(Clone, Default)]
pub(crate) struct FakeRedis {
    data: Arc<Mutex<HashMap<String, Kept>>>,
    /// What was deleted, to be brought back.
    removed: Arc<Mutex<HashMap<String, Kept>>>,
    commands: Arc<AtomicU64>,
    /// Every so many commands the connection ends: by turns before and after taking effect.
    pub(crate) drop_every: Arc<AtomicU64>,
    /// Every so many commands a SET is acknowledged without taking effect.
    pub(crate) forget_every: Arc<AtomicU64>,
    /// Every so many commands the answer is TRYAGAIN, and nothing happens.
    pub(crate) refuse_every: Arc<AtomicU64>,
}

impl FakeRedis {
    /// Listens on a free port and returns the address.
    pub(crate) async fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.serve(stream).await });
            }
        });
        address
    }

    /// How many keys there are.
    pub(crate) fn keys(&self) -> u64 {
        self.data.lock().len() as u64
    }

    /// Brings back everything that was ever deleted.
    pub(crate) fn revive(&self) {
        self.data.lock().extend(self.removed.lock().drain());
    }

    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        // Replies that wait for acknowledgements would keep readers behind all writers.
        stream.set_nodelay(true).ok()?;
        let mut input = BytesMut::new();
        loop {
            while let Some((command, used)) = resp::parse(&input, 2).unwrap() {
                input.advance(used);
                let Value::Array(args) = command else { return None };
                let args: Vec<String> = args.iter().filter_map(Value::text).collect();
                let reply = self.answer(&args)?;
                stream.write_all(reply.as_bytes()).await.ok()?;
            }
            if stream.read_buf(&mut input).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// `None` ends the connection.
    fn answer(&self, args: &[String]) -> Option<String> {
        let number = self.commands.fetch_add(1, Relaxed) + 1;
        let every = |period: &AtomicU64| match period.load(Relaxed) {
            0 => None,
            period => number.is_multiple_of(period).then_some(number / period),
        };
        if every(&self.refuse_every).is_some() {
            return Some("-TRYAGAIN no leader\r\n".into());
        }
        if every(&self.forget_every).is_some() && args[0] == "SET" {
            return Some("+OK\r\n".into());
        }
        match every(&self.drop_every) {
            Some(turn) if turn % 2 == 0 => None,
            Some(_) => {
                self.execute(args);
                None
            }
            None => Some(self.execute(args)),
        }
    }

    fn execute(&self, args: &[String]) -> String {
        let mut data = self.data.lock();
        let key = &args[1];
        let old = match data.get(key) {
            Some(Kept::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let bulk = |text: Option<&String>| match text {
            Some(text) => format!("${}\r\n{text}\r\n", text.len()),
            None => "$-1\r\n".into(),
        };
        let condition = args.get(3).map(String::as_str);
        match args[0].as_str() {
            "GET" => bulk(old.as_ref()),
            "SET" if condition == Some("NX") && old.is_some() => bulk(None),
            "SET" if condition == Some("XX") && old.is_none() => bulk(None),
            "SET" if condition == Some("PX") => {
                data.remove(key);
                "+OK\r\n".into()
            }
            "SET" => {
                data.insert(key.clone(), Kept::Text(args[2].clone()));
                "+OK\r\n".into()
            }
            "GETSET" => {
                data.insert(key.clone(), Kept::Text(args[2].clone()));
                bulk(old.as_ref())
            }
            "GETDEL" => {
                data.remove(key);
                bulk(old.as_ref())
            }
            // An expiry passes at once.
            "EXISTS" => format!(":{}\r\n", u8::from(data.contains_key(key))),
            "DEL" | "PEXPIRE" => {
                let removed = data.remove(key);
                let reply = format!(":{}\r\n", u8::from(removed.is_some()));
                self.removed.lock().extend(removed.map(|kept| (key.clone(), kept)));
                reply
            }
            "HDEL" => {
                let Some(Kept::Hash(fields)) = data.get_mut(key) else { return ":0\r\n".into() };
                let whole = Kept::Hash(fields.clone());
                let removed = args[2..].iter().filter_map(|field| fields.remove(field)).count();
                if fields.is_empty() {
                    data.remove(key);
                }
                self.removed.lock().insert(key.clone(), whole);
                format!(":{removed}\r\n")
            }
            "INCR" => {
                let next = old.map_or(0, |text| text.parse::<i64>().unwrap()) + 1;
                data.insert(key.clone(), Kept::Text(next.to_string()));
                format!(":{next}\r\n")
            }
            "HSET" | "HGET" => {
                let fresh = || Kept::Hash(BTreeMap::new());
                let Kept::Hash(fields) = data.entry(key.clone()).or_insert_with(fresh) else {
                    return "-WRONGTYPE\r\n".into();
                };
                match args[2..] {
                    [_, _, ..] => {
                        let pairs = args[2..].chunks(2);
                        let old = pairs.map(|pair| fields.insert(pair[0].clone(), pair[1].clone()));
                        format!(":{}\r\n", old.filter(Option::is_none).count())
                    }
                    _ => {
                        let answer = bulk(fields.get(&args[2]));
                        if fields.is_empty() {
                            data.remove(key);
                        }
                        answer
                    }
                }
            }
            other => format!("-ERR unknown command {other}\r\n"),
        }
    }
}
