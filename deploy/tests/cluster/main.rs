//! Tests with real processes: the `flotilla` binary as users run it. One executable, one cluster at
//! a time, free ports, temporary directories, waiting by condition only.

mod audit;
mod blocking;
mod chaos;
mod clients;
mod conflicts;
mod full_state;
mod handover;
mod harness;
mod internal_ports;
mod link_ops;
mod oracle;
mod parked;
mod returns;
mod standalone;
mod stretched;
mod switched_on;
mod syncs;
mod takeover;
mod transactions;
mod two_datacenters;
mod usage;
