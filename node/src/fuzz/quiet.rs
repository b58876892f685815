//! Panics that are looked for: caught, and told to whoever looks instead of to standard error.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether this thread's panics are looked for.
    static LOOKED_FOR: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Runs something; its panic, with the place, is the error. Panics of other threads are told as ever.
pub fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if LOOKED_FOR.get() {
                LAST.set(Some(panic.to_string().replace('\n', " ")));
            } else {
                tell(panic);
            }
        }));
    });
    LOOKED_FOR.set(true);
    // What a decoder leaves behind when it panics is dropped with its input.
    let ended = panic::catch_unwind(AssertUnwindSafe(run));
    LOOKED_FOR.set(false);
    ended.map_err(|_| LAST.take().unwrap_or_default())
}
