//! The runtime's threads, and what may hold them up.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Bytes of rows or entries that are decoded and written on the spot. More of them take so long that it
/// is worth giving the thread to others.
pub(crate) const INLINE_BYTES_MAX: usize = 64 << 10;

/// Does what may block, for milliseconds or more: gives this thread's other tasks to another one first.
/// That costs two switches of threads, so it is not for what usually takes less.
pub(crate) fn may_block<T>(what: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(what),
        _ => what(), // a test's runtime of one thread, or none: there is nobody else to hold up
    }
}
