//! Ends the process with a message, without allocating, locking or unwinding: also from within a signal handler or an
//! allocator.

#![allow(unsafe_code)]

use std::fmt::{self, Write};

/// Bytes of a message, at most.
const MOST_BYTES: usize = 256;

/// A message; what is too long for it is left out.
struct Words {
    bytes: [u8; MOST_BYTES],
    length: usize,
}

impl Write for Words {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            let place = self.bytes.get_mut(self.length).ok_or(fmt::Error)?;
            *place = byte;
            self.length += 1;
        }
        Ok(())
    }
}

/// Prints `error: MESSAGE` to the standard error and ends the process.
pub(super) fn end(message: fmt::Arguments<'_>, code: u8) -> ! {
    let mut words = Words { bytes: [0; MOST_BYTES], length: 0 };
    let _ = writeln!(words, "error: {message}");
    // SAFETY: both are safe to call from a signal handler; the pointer is that of `length` initialized bytes.
    unsafe {
        libc::write(libc::STDERR_FILENO, words.bytes.as_ptr().cast(), words.length);
        libc::_exit(i32::from(code))
    }
}
