//! See README.md.

pub mod clock;

pub mod codec;

pub mod group;
