//! What a connection has agreed with its client: version, authentication, name, namespace.
//!
//! Pure state: no socket here. A session is made anew by RESET.

use super::backend::{Door, SessionView};
use super::batch::Pace;
use super::clients::ClientRecord;
use super::listener::Shared;
use super::transaction::Pending;
use crate::resp::{Protocol, Reply};
use flotilla_topology::ids::NamespaceId;
use std::sync::Arc;

/// The namespace of a connection that has not selected one.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// What of its replies a client wants to see: CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// All of them.
    Off,
    /// None.
    On,
    /// None for the command behind this one.
    Next,
    /// None for this command, and then all again.
    This,
}

/// One connection's state.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) record: Arc<ClientRecord>,
    pub(super) door: Door,
    pub(super) protocol: Protocol,
    pub(super) authenticated: bool,
    pub(super) readonly: bool,
    pub(super) namespace: String,
    pub(super) silence: Silence,
    pub(super) transaction: Pending,
    /// Whether to close when what was answered is written.
    pub(super) closing: bool,
    /// How many of its commands are executed at a time.
    pub(super) pace: Pace,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, record: Arc<ClientRecord>) -> Session {
        let authenticated = shared.config.requirepass.is_none();
        let door = record.door;
        Session {
            shared,
            record,
            door,
            protocol: Protocol::Resp2,
            authenticated,
            readonly: false,
            namespace: DEFAULT_NAMESPACE.to_owned(),
            silence: Silence::Off,
            transaction: Pending::default(),
            closing: false,
            pace: Pace::default(),
        }
    }

    /// RESET: as it was when it began, but for the client's library.
    pub(super) fn reset(&mut self) {
        self.protocol = Protocol::Resp2;
        self.authenticated = self.shared.config.requirepass.is_none();
        self.readonly = false;
        self.namespace = DEFAULT_NAMESPACE.to_owned();
        self.silence = Silence::Off;
        self.transaction = Pending::default();
        self.record.update(|state| {
            state.name.clear();
            state.namespace = DEFAULT_NAMESPACE.to_owned();
            state.protocol = Protocol::Resp2;
            state.readonly = false;
        });
    }

    /// AUTH. The time it takes does not tell how much of the password was right.
    pub(super) fn authenticate(&mut self, user: &[u8], password: &[u8]) -> bool {
        let right = match &self.shared.config.requirepass {
            None => user == b"default",
            Some(wanted) => {
                let wanted = wanted.as_bytes();
                let differs = wanted
                    .iter()
                    .zip(password.iter().chain(std::iter::repeat(&0)))
                    .fold(wanted.len() ^ password.len(), |acc, (a, b)| acc | usize::from(a ^ b));
                std::hint::black_box(differs) == 0 && user == b"default"
            }
        };
        self.authenticated |= right;
        right
    }

    /// What a run of data commands needs to know; an error reply while the namespace is not there.
    pub(super) fn view(&self) -> Result<SessionView, Reply> {
        let Some(namespace) = self.shared.backend.namespace(&self.namespace) else {
            return Err(self.no_namespace(&self.namespace));
        };
        Ok(self.view_of(namespace))
    }

    fn view_of(&self, namespace: NamespaceId) -> SessionView {
        SessionView {
            client: self.record.id,
            namespace,
            door: self.door,
            readonly: self.readonly,
            protocol: self.protocol,
            reply_bytes_max: self.shared.config.output_bytes_max / 2,
        }
    }

    /// Why a namespace cannot be used.
    pub(super) fn no_namespace(&self, name: &str) -> Reply {
        if self.shared.backend.map().is_none() {
            // The prefix with which Redis says that it has just started; clients try again.
            return Reply::error("LOADING this node has not heard of its cluster yet, try again");
        }
        Reply::error(format!(
            "ERR there is no namespace '{name}'; create it (flotilla namespace create) or SELECT \
             another one"
        ))
    }
}
