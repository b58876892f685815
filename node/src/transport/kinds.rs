//! The numbers of the requests that processes send each other. A number is never reused for
//! another meaning; the payload's own version byte says how to read it.

/// Raft: append entries, or a heartbeat.
pub const RAFT_APPEND: u16 = 1;
/// Raft: ask for a vote.
pub const RAFT_VOTE: u16 = 2;
/// Raft: ask whether a vote could be won, without raising terms.
pub const RAFT_PRE_VOTE: u16 = 3;
/// Raft: a snapshot begins.
pub const SNAPSHOT_BEGIN: u16 = 4;
/// Raft: one chunk of a snapshot.
pub const SNAPSHOT_CHUNK: u16 = 5;
/// Raft: a snapshot is complete.
pub const SNAPSHOT_END: u16 = 6;
/// Raft: the receiver should take over.
pub const TRANSFER_LEADER: u16 = 7;
/// Raft: these groups of the sender's are parked. Of all groups that both have, in one message.
pub const RAFT_PARKED: u16 = 8;

/// Execute forwarded commands.
pub const EXEC: u16 = 20;
/// Ask the leader for a read index and the group clock.
pub const READ_INDEX: u16 = 21;
/// Ask the leader for an entry that only moves the group clock.
pub const TICK: u16 = 22;
/// Ask a node for read indexes and group clocks of several groups that it leads.
pub const READ_INDEXES: u16 = 25;
/// Ask the leader to watch keys, or to carry out a transaction.
pub const ASK: u16 = 23;
/// Ask the leader to tell when a key is there.
pub const WAIT: u16 = 24;

/// Merge a batch of another cluster's effects.
pub const REMOTE_BATCH: u16 = 30;
/// Ask for the cursors of remote streams.
pub const CURSORS: u16 = 31;
/// Record what a peer cluster has acknowledged.
pub const LINK_FLOOR: u16 = 32;
/// Ask where a link should start.
pub const LINK_SEED: u16 = 33;
/// Ask for digests: of slots, of the keys of a slot, of a replica.
pub const DIGEST: u16 = 34;

/// Take a step of merging another cluster's full state.
pub const MERGE_STEP: u16 = 35;
/// Cut, read, or compare full state.
pub const FULL_STATE: u16 = 36;

/// Count a replica's rows.
pub const CENSUS: u16 = 37;

/// Ask how far a node's replicas of several groups have applied.
pub const APPLIED: u16 = 40;

/// A request to a placement driver.
pub const PD_CALL: u16 = 100;
