//! Where rows lie: their keys, the one way in which evaluation and reads see them, and the store
//! under it.

pub mod keys;

pub mod view;

pub mod waited;

pub mod watch;

pub mod meta;

pub mod order;

pub mod rocks;

pub mod row_cache;

pub mod rows;

pub mod snapshot;
