//! See README.md.

pub mod clock;

pub mod codec;

pub mod resp;

pub mod command;

pub mod group;
