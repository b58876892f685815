//! All connections of the process, for CLIENT LIST and CLIENT INFO.

use super::backend::Door;
use super::patience::Ended;
use crate::resp::Protocol;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::oneshot;

/// What others may see of a connection.
#[derive(Debug)]
pub(super) struct ClientRecord {
    pub(super) id: u64,
    pub(super) peer: String,
    pub(super) local: String,
    pub(super) door: Door,
    born: Instant,
    state: Mutex<ClientState>,
    /// While it waits: by which its wait is ended.
    waits: Mutex<Option<oneshot::Sender<Ended>>>,
}

/// The part that changes.
#[derive(Debug, Clone)]
pub(super) struct ClientState {
    pub(super) name: Bytes,
    pub(super) lib_name: Bytes,
    pub(super) lib_ver: Bytes,
    pub(super) namespace: String,
    pub(super) protocol: Protocol,
    pub(super) readonly: bool,
    /// Name of the last command, with its subcommand.
    pub(super) command: &'static str,
    pub(super) active: Instant,
    pub(super) input_bytes: usize,
    pub(super) output_bytes: usize,
}

impl ClientRecord {
    /// Changes what others see.
    pub(super) fn update(&self, change: impl FnOnce(&mut ClientState)) {
        change(&mut self.state.lock());
    }

    /// A copy of what others see.
    pub(super) fn state(&self) -> ClientState {
        self.state.lock().clone()
    }

    /// It waits from now on, until the answer says why not.
    pub(super) fn begin_wait(&self) -> oneshot::Receiver<Ended> {
        let (end, told) = oneshot::channel();
        *self.waits.lock() = Some(end);
        told
    }

    /// Ends its wait; whether it waited, and nobody had ended that before. It may be served at this
    /// very moment all the same.
    pub(super) fn end_wait(&self, ended: Ended) -> bool {
        let end = self.waits.lock().take();
        end.is_some_and(|end| end.send(ended).is_ok())
    }

    /// It does not wait any more.
    pub(super) fn leave_wait(&self) {
        *self.waits.lock() = None;
    }

    /// Its flags in Redis' letters.
    fn flags(&self, state: &ClientState) -> String {
        let letters = [(self.waits.lock().is_some(), 'b'), (state.readonly, 'r')];
        let flags: String =
            letters.iter().filter(|(is, _)| *is).map(|(_, letter)| letter).collect();
        if flags.is_empty() { "N".to_owned() } else { flags }
    }

    /// The line of CLIENT LIST, in Redis' form: tools split it at spaces and equal signs.
    pub(super) fn line(&self) -> Vec<u8> {
        let state = self.state();
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db=0 sub=0 psub=0 ssub=0 \
             multi=-1 qbuf={} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={} oll=0 omem=0 \
             tot-mem={} events=r cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={} \
             namespace={} door={}",
            self.id,
            self.peer,
            self.local,
            -1,
            text(&state.name),
            self.born.elapsed().as_secs(),
            state.active.elapsed().as_secs(),
            self.flags(&state),
            state.input_bytes,
            state.output_bytes,
            state.input_bytes + state.output_bytes,
            state.command,
            if state.protocol == Protocol::Resp3 { 3 } else { 2 },
            text(&state.lib_name),
            text(&state.lib_ver),
            state.namespace,
            self.door.as_str(),
        );
        out.into_bytes()
    }
}

/// The registry.
#[derive(Debug, Default)]
pub(super) struct Clients {
    last_id: AtomicU64,
    records: Mutex<BTreeMap<u64, Arc<ClientRecord>>>,
}

impl Clients {
    /// Enters a connection; it leaves when the returned guard is dropped.
    pub(super) fn enter(self: &Arc<Self>, door: Door, peer: String, local: String) -> Entered {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let now = Instant::now();
        let state = ClientState {
            name: Bytes::new(),
            lib_name: Bytes::new(),
            lib_ver: Bytes::new(),
            namespace: super::session::DEFAULT_NAMESPACE.to_owned(),
            protocol: Protocol::Resp2,
            readonly: false,
            command: "NULL",
            active: now,
            input_bytes: 0,
            output_bytes: 0,
        };
        let (state, waits) = (Mutex::new(state), Mutex::default());
        let record = Arc::new(ClientRecord { id, peer, local, door, born: now, state, waits });
        self.records.lock().insert(id, record.clone());
        Entered { clients: self.clone(), record }
    }

    /// The connection of this number.
    pub(super) fn find(&self, id: u64) -> Option<Arc<ClientRecord>> {
        self.records.lock().get(&id).cloned()
    }

    /// All connections, by age.
    pub(super) fn all(&self) -> Vec<Arc<ClientRecord>> {
        self.records.lock().values().cloned().collect()
    }
}

/// A connection's place in the registry.
#[derive(Debug)]
pub(super) struct Entered {
    clients: Arc<Clients>,
    pub(super) record: Arc<ClientRecord>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.clients.records.lock().remove(&self.record.id);
    }
}
