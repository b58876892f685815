//! One Raft group on one node: what its log holds, how its leader evaluates, how its replicas apply
//! and read.

pub mod cursor;

pub mod entry;

pub mod exec;

pub mod remote;
