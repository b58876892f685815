//! One Raft group on one node: what its log holds, how its leader evaluates, how its replicas apply
//! and read.

pub mod entry;

pub mod remote;
