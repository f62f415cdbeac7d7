//! An allocator that counts what each thread holds, so that a test can say what a message made it allocate.
#![allow(unsafe_code, reason = "an allocator cannot be written without; it only passes on to the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    /// Bytes held now, and the most that were; a thread that frees what another has made goes below zero.
    static HELD: Cell<(i64, i64)> = const { Cell::new((0, 0)) };
}

fn count(bytes: i64) {
    // A thread that ends frees things after its locals are gone.
    let _ = HELD.try_with(|held| {
        let now = held.get().0 + bytes;
        held.set((now, held.get().1.max(now)));
    });
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The most bytes that this thread held during `work` beyond what it held before. What C code allocates is not seen.
pub(crate) fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.with(|held| {
        let now = held.get().0;
        held.set((now, now));
        now
    });
    let result = work();
    let most = HELD.with(Cell::get).1;
    (result, usize::try_from(most - before).expect("the most is at least what it was before"))
}

#[test]
fn the_most_that_was_held_is_counted() {
    let ((), most) = peak(|| {
        drop(std::hint::black_box(vec![1u8; 1 << 20]));
        drop(std::hint::black_box(vec![1u8; 3 << 20]));
    });
    assert!((3 << 20..(3 << 20) + 4096).contains(&most), "{most}");
}
