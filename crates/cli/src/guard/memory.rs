//! An allocator that counts and that never fails in silence.
//!
//! # Problem
//!
//! A program of Rust that gets no memory aborts. A file may ask for more than the machine has; where the system promises
//! memory that it does not have, another process may be ended instead.
//!
//! # Method
//!
//! [`Memory`] hands on to the system's allocator. While there is a [`limit`] it adds up what is allocated and not yet
//! given back. Whoever asks for more than the limit leaves, or than the system gives, ends the process: one line on the
//! standard error, exit code 2.
//!
//! # Guarantee
//!
//! What this program allocates never exceeds the limit. Not counted are files that are mapped (the model and its weights),
//! the stacks of threads, what ONNX Runtime allocates, and what is aligned to whole pages: the library for matrix products
//! reserves twice the processor's largest cache for every thread, and touches what a product needs.
//!
//! # Cost
//!
//! Without a limit the reading of one number an allocation, with one an addition to a number that all threads share.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The allocator of the command.
#[derive(Clone, Copy, Debug)]
pub struct Memory;

/// Bytes that may be allocated; all there are where nobody set a limit.
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Bytes allocated since there is a limit. What was allocated before and is given back makes it wrap around.
static TAKEN: AtomicUsize = AtomicUsize::new(0);
/// What is aligned to so many bytes is not counted.
const PAGE_BYTES: usize = 4096;
/// More than any machine has: such a number is one that wrapped around.
const WRAPPED: usize = usize::MAX / 2;

/// Ends the process where more than `bytes` are allocated from now on. Whether [`Memory`] is the allocator: nothing
/// is counted where it is not.
pub fn limit(bytes: usize) -> bool {
    let most = bytes.min(usize::MAX - 1);
    MOST.store(most, Ordering::Relaxed);
    let before = TAKEN.load(Ordering::Relaxed);
    let tried = black_box(Box::new(0_u64));
    let is_counted = TAKEN.load(Ordering::Relaxed) != before;
    drop(tried);
    is_counted
}

// SAFETY: every call is handed on to the system's allocator unchanged; the counting beside it touches no memory.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(counted(layout));
        // SAFETY: the caller's promise.
        there(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(counted(layout));
        // SAFETY: the caller's promise.
        there(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        give_back(counted(layout));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // For a moment both may be there.
        take(if layout.align() < PAGE_BYTES { bytes } else { 0 });
        // SAFETY: the caller's promise.
        let moved = there(unsafe { System.realloc(place, layout, bytes) }, bytes);
        give_back(counted(layout));
        moved
    }
}

fn counted(layout: Layout) -> usize {
    if layout.align() < PAGE_BYTES { layout.size() } else { 0 }
}

fn take(bytes: usize) {
    let most = MOST.load(Ordering::Relaxed);
    if most == usize::MAX {
        return;
    }
    let taken = TAKEN.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
    if taken > most && taken < WRAPPED {
        end(bytes, Some(most));
    }
}

fn give_back(bytes: usize) {
    if MOST.load(Ordering::Relaxed) != usize::MAX {
        TAKEN.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The same place, if there is one.
fn there(place: *mut u8, bytes: usize) -> *mut u8 {
    if place.is_null() {
        end(bytes, None);
    }
    place
}

/// Tells that `bytes` more cannot be had, and ends the process.
#[cold]
fn end(bytes: usize, most: Option<usize>) -> ! {
    #[cfg(unix)]
    match most {
        Some(most) => super::last_words::end(
            format_args!("out of memory: {bytes} bytes more would exceed the {most} bytes of `--max-memory`"),
            crate::BAD_INPUT,
        ),
        None => super::last_words::end(
            format_args!("out of memory: the system has no {bytes} bytes more for this process"),
            crate::BAD_INPUT,
        ),
    }
    #[cfg(not(unix))]
    {
        let _ = (bytes, most);
        std::process::exit(i32::from(crate::BAD_INPUT))
    }
}
