//! Real PDs in this process, with certificates, ports and stores, and nodes and syncers that are
//! played by the tests.

mod world;

mod embedded;

mod etcd;

mod page;
