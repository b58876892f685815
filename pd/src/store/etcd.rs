//! The store of several PDs: an etcd. They keep nothing themselves; one leads by holding a key
//! that is bound to a lease.
//!
//! Invariants:
//! * A reign is named by the revision at which its leader key was created. Every commit compares
//!   it in the same transaction, so no PD writes after another one took over.
//! * A reign ends when the lease may have run out by this process's own monotonic clock, counted
//!   from before the last renewal was sent. After a commit with unknown outcome the reign is given
//!   up: a transaction that is still under way then finds another leader key, or none.

use super::{Reign, Store, StoreError};
use crate::state::durable::{CHANGES_MAX, Change, Records};
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, GetOptions, LeaseClient, PutOptions, Txn, TxnOp,
    TxnOpResponse,
};
use flotilla_topology::ids::ClusterId;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::future::Future;
use std::time::{Duration, Instant};

/// One call to etcd. Longer than an election there, so that one is sat out.
const CALL_DEADLINE: Duration = Duration::from_secs(4);

/// Between looks at the leader key, and after an error.
const CAMPAIGN_PAUSE: Duration = Duration::from_millis(300);

/// A renewal is tried this many times in the life of a lease.
const RENEWALS_PER_LEASE: u32 = 3;

/// Largest answer that is taken: the records of the largest cluster many times over.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// See the module.
pub struct EtcdStore {
    endpoints: Vec<String>,
    lease_seconds: i64,
    /// All our keys begin with this.
    prefix: String,
    /// RPC address that is written into the leader key.
    me: String,
    client: Mutex<Option<Client>>,
    leader: Mutex<Option<String>>,
}

impl EtcdStore {
    /// A store of `cluster` in the etcd at `endpoints` (`http://host:port`). `me` is the RPC address
    /// that others are pointed to while this PD leads. Nothing is connected yet.
    pub fn new(
        endpoints: Vec<String>,
        cluster: ClusterId,
        me: String,
        lease_seconds: u16,
    ) -> EtcdStore {
        EtcdStore {
            endpoints,
            lease_seconds: i64::from(lease_seconds),
            prefix: format!("/flotilla/{cluster}/"),
            me,
            client: Mutex::new(None),
            leader: Mutex::new(None),
        }
    }

    fn leader_key(&self) -> String {
        format!("{}leader", self.prefix)
    }

    fn data_prefix(&self) -> String {
        format!("{}data/", self.prefix)
    }

    fn is_mine(&self, reign: &Reign) -> Compare {
        Compare::create_revision(self.leader_key(), CompareOp::Equal, reign.token)
    }

    async fn client(&self) -> Result<Client, StoreError> {
        if let Some(client) = &*self.client.lock() {
            return Ok(client.clone());
        }
        let options = ConnectOptions::new()
            .with_connect_timeout(CALL_DEADLINE)
            .with_keep_alive(Duration::from_secs(1), CALL_DEADLINE)
            .with_require_leader(true);
        let client = call(Client::connect(&self.endpoints, Some(options))).await?;
        *self.client.lock() = Some(client.clone());
        Ok(client)
    }

    /// One look at the leader key: takes it if nobody has it.
    async fn try_to_lead(&self) -> Result<Option<Reign>, StoreError> {
        let mut client = self.client().await?;
        let held = call(client.get(self.leader_key(), None)).await?;
        if let Some(holder) = held.kvs().first() {
            *self.leader.lock() = Some(String::from_utf8_lossy(holder.value()).into_owned());
            return Ok(None);
        }
        *self.leader.lock() = None;
        let asked = Instant::now();
        let lease = call(client.lease_grant(self.lease_seconds, None)).await?;
        let put = PutOptions::new().with_lease(lease.id());
        let free = Compare::create_revision(self.leader_key(), CompareOp::Equal, 0);
        let take = TxnOp::put(self.leader_key(), self.me.clone(), Some(put));
        let won = call(client.txn(Txn::new().when([free]).and_then([take]))).await?;
        if !won.succeeded() {
            // Lost the race: the lease is of no use. If this fails it runs out by itself.
            let _ = call(client.lease_revoke(lease.id())).await;
            return Ok(None);
        }
        let header = won.header().ok_or_else(|| StoreError::Unavailable("no header".into()))?;
        let reign = Reign::new(header.revision(), lease.id());
        *self.leader.lock() = Some(self.me.clone());
        let life = Duration::from_secs(lease.ttl().unsigned_abs());
        tokio::spawn(keep_alive(
            client.lease_client(),
            lease.id(),
            life,
            asked,
            reign.ended.clone(),
        ));
        Ok(Some(reign))
    }

    async fn load_all(&self, reign: &Reign) -> Result<Records, StoreError> {
        let client = self.client().await?;
        let mut kv = client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX);
        let all = TxnOp::get(self.data_prefix(), Some(GetOptions::new().with_prefix()));
        let answer = call(kv.txn(Txn::new().when([self.is_mine(reign)]).and_then([all]))).await?;
        if !answer.succeeded() {
            return Err(StoreError::Deposed);
        }
        let mut records = Records::new();
        for response in answer.op_responses() {
            let TxnOpResponse::Get(rows) = response else { continue };
            for row in rows.kvs() {
                let key = String::from_utf8_lossy(row.key());
                let key = key.strip_prefix(&self.data_prefix()).unwrap_or(&key).to_owned();
                records.insert(key, row.value().to_vec());
            }
        }
        Ok(records)
    }

    async fn write(&self, reign: &Reign, changes: Vec<Change>) -> Result<(), StoreError> {
        assert!(changes.len() <= CHANGES_MAX, "a step must fit one transaction");
        let prefix = self.data_prefix();
        let ops: Vec<TxnOp> = changes
            .into_iter()
            .map(|change| {
                let key = format!("{prefix}{}", change.key);
                match change.value {
                    Some(value) => TxnOp::put(key, value, None),
                    None => TxnOp::delete(key, None),
                }
            })
            .collect();
        let mut client = self.client().await?;
        let done = call(client.txn(Txn::new().when([self.is_mine(reign)]).and_then(ops))).await?;
        if done.succeeded() { Ok(()) } else { Err(StoreError::Deposed) }
    }
}

impl Store for EtcdStore {
    fn campaign(&self) -> BoxFuture<'_, Result<Reign, StoreError>> {
        async {
            let mut told = String::new();
            loop {
                match self.try_to_lead().await {
                    Ok(Some(reign)) => return Ok(reign),
                    Ok(None) => {}
                    Err(error) => {
                        let error = error.to_string();
                        *self.leader.lock() = None;
                        if error != told {
                            tracing::warn!("etcd at {}: {error}", self.endpoints.join(", "));
                            told = error;
                        }
                    }
                }
                tokio::time::sleep(CAMPAIGN_PAUSE).await;
            }
        }
        .boxed()
    }

    fn load<'a>(&'a self, reign: &'a Reign) -> BoxFuture<'a, Result<Records, StoreError>> {
        self.load_all(reign).boxed()
    }

    fn commit<'a>(
        &'a self,
        reign: &'a Reign,
        changes: Vec<Change>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.write(reign, changes).boxed()
    }

    fn resign(&self, reign: Reign) -> BoxFuture<'_, ()> {
        async move {
            *self.leader.lock() = None;
            if let Ok(mut client) = self.client().await {
                // If this fails the lease runs out by itself.
                let _ = call(client.lease_revoke(reign.lease)).await;
            }
        }
        .boxed()
    }

    fn leader(&self) -> Option<String> {
        self.leader.lock().clone()
    }
}

/// Renews a lease until the reign is over; ends the reign when the lease may have run out.
async fn keep_alive(
    mut leases: LeaseClient,
    id: i64,
    life: Duration,
    granted: Instant,
    ended: tokio_util::sync::CancellationToken,
) {
    let pause = life / RENEWALS_PER_LEASE;
    let mut end = granted + life;
    loop {
        let sent = Instant::now();
        let left = end.saturating_duration_since(sent);
        // Opening the stream is one renewal with its answer, on whichever endpoint is up.
        let renewed = tokio::select! {
            () = ended.cancelled() => return,
            renewed = tokio::time::timeout(left, leases.keep_alive(id)) => renewed,
        };
        if let Ok(Ok(_)) = renewed {
            end = sent + life;
        } else if Instant::now() >= end {
            tracing::warn!("lease {id} in etcd could not be renewed: this PD no longer leads");
            ended.cancel();
            return;
        }
        let next = (sent + pause).min(end);
        tokio::select! {
            () = ended.cancelled() => return,
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
}

/// A call with a deadline; every error means that the outcome is unknown.
async fn call<T>(
    work: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(CALL_DEADLINE, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(StoreError::Unavailable(error.to_string())),
        Err(_) => Err(StoreError::Unavailable(format!("no answer in {CALL_DEADLINE:?}"))),
    }
}
