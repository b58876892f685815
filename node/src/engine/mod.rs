//! Where rows lie: their keys, and the one way in which evaluation and reads see them.

pub mod keys;

pub mod view;
