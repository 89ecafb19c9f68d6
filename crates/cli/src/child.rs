//! Programs that a run waits for; they end with it.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Those that run now.
static RUNNING: Mutex<Vec<Arc<Mutex<Child>>>> = Mutex::new(Vec::new());

/// Starts a program and waits for its end: its status, and what it printed where its standard output is a pipe.
///
/// # Errors
/// It cannot be started, or not be read.
pub(crate) fn finished(command: &mut Command) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut running = locked(&RUNNING);
    let mut child = command.spawn()?;
    let stdout = child.stdout.take();
    let child = Arc::new(Mutex::new(child));
    running.push(Arc::clone(&child));
    drop(running);
    let mut text = Vec::new();
    let read = stdout.map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut text));
    let status = wait(&child);
    locked(&RUNNING).retain(|other| !Arc::ptr_eq(other, &child));
    read.and(status).map(|status| (status, text))
}

/// Waits without keeping the child from [`kill_all`].
fn wait(child: &Mutex<Child>) -> io::Result<ExitStatus> {
    let mut pause = std::time::Duration::from_micros(100);
    loop {
        if let Some(status) = locked(child).try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(std::time::Duration::from_millis(20));
    }
}

/// Kills them all; none is started any more.
#[cfg(unix)]
pub(crate) fn kill_all() {
    let running = locked(&RUNNING);
    for child in running.iter() {
        // One that has ended meanwhile needs nothing.
        let mut child = locked(child);
        let _ = child.kill().and_then(|()| child.wait());
    }
    std::mem::forget(running);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
