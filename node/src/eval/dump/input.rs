//! Bytes of a payload that are not read yet. Nothing is taken that is not there.

use super::super::args::Stop;
use bytes::Bytes;

/// The answer of Redis to everything in a payload that cannot be.
pub(super) fn bad() -> Stop {
    Stop::error("ERR Bad data format".to_owned())
}

/// What is left of some bytes. What is taken shares them.
pub(super) struct Input(Bytes);

impl Input {
    pub(super) fn new(bytes: Bytes) -> Input {
        Input(bytes)
    }

    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    pub(super) fn take(&mut self, many: u64) -> Result<Bytes, Stop> {
        let many = usize::try_from(many).ok().filter(|many| *many <= self.0.len());
        Ok(self.0.split_to(many.ok_or_else(bad)?))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let array = *self.0.first_chunk::<N>().ok_or_else(bad)?;
        self.0 = self.0.slice(N..);
        Ok(array)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Stop> {
        Ok(self.array::<1>()?[0])
    }
}
