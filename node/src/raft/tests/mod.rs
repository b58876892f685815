//! Groups of several replicas in one process, over real logs on disk and a network that tests cut.

mod cluster;
mod harness;
mod hunt;
mod net;
mod parking;
mod real;
mod recovery;
mod suite;
mod wire;
