//! See README.md.

pub mod clock;

pub mod codec;

pub mod model;

pub mod engine;

pub mod group;
