//! Panics that are expected: a damaged database may show itself by one, which is caught where the database is used.
//!
//! The panic hook of a program does not know that, and would print a message, and a backtrace, about something that is
//! dealt with. A thread therefore notes when it is in such a place, for a hook that asks.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::thread;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Does something that may panic, and returns the panic; what it leaves behind must not be used then.
pub(crate) fn contained<T>(f: impl FnOnce() -> T) -> thread::Result<T> {
    let before = CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    CONTAINED.set(before);
    result
}

/// Wraps the panic hook of this program so that it keeps silent about panics that are expected and dealt with, as those
/// over a damaged index of [`KnownFiles`](crate::KnownFiles). All others it reports as before. Call it once, at the start.
pub fn hush_contained_panics() {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !CONTAINED.get() {
            hook(info);
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn only_contained_panics_are_hushed() {
        // The hook belongs to all threads of the test program: count our own only.
        let ours = thread::current().id();
        let heard = Arc::new(AtomicUsize::new(0));
        let (count, before) = (Arc::clone(&heard), panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            if thread::current().id() == ours {
                count.fetch_add(1, Ordering::SeqCst);
            } else {
                before(info);
            }
        }));
        hush_contained_panics();
        assert!(contained(|| contained(|| panic!("inner")).is_err() && panic!("outer")).is_err());
        assert_eq!(heard.load(Ordering::SeqCst), 0);
        assert!(catch_unwind(|| panic!("of no one")).is_err());
        assert_eq!(heard.load(Ordering::SeqCst), 1);
        assert_eq!(contained(|| 7).ok(), Some(7));
    }
}
