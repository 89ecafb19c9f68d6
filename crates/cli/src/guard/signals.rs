//! Signals that end a process without a word, caught for a last one.
//!
//! The model is mapped: where its file is cut short meanwhile, by a program that writes to it in place, reading on is a bus
//! error. Other faults are defects of this program or of a library in it. The handler prints one line and ends the
//! process. Whatever is unfinished has no name yet, so nothing half is left behind.

#![allow(unsafe_code)]

use std::ptr::null_mut;

use super::last_words::end;
use crate::{BAD_INPUT, DEFECT};

/// What is caught.
const SIGNALS: [i32; 4] = [libc::SIGBUS, libc::SIGSEGV, libc::SIGILL, libc::SIGFPE];

/// Catches these signals from now on. A file that may not grow is an error of writing, not the end of the process.
pub fn install() {
    // SAFETY: to ignore a signal needs no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    for signal in SIGNALS {
        // SAFETY: a zeroed `sigaction` is a valid one; the handler does nothing that a handler must not do, and stays where
        // it is. It runs on the stack that the standard library gives every thread for handlers: an overflow of a
        // thread's own stack is one of the faults.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = caught as extern "C" fn(i32) as usize;
            action.sa_flags = libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(signal, &action, null_mut());
        }
    }
}

extern "C" fn caught(signal: i32) {
    match signal {
        libc::SIGBUS => end(
            format_args!(
                "a file was cut short or could not be read any more while it was in use (bus error); nothing was written"
            ),
            BAD_INPUT,
        ),
        libc::SIGSEGV => {
            end(format_args!("internal error: memory was used wrongly, or a stack is full (signal {signal})"), DEFECT)
        }
        _ => end(format_args!("internal error: signal {signal}"), DEFECT),
    }
}
