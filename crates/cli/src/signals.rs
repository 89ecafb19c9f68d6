//! SIGTERM and SIGINT end the command, with nothing left behind.
//!
//! By default they end any process but the first one of a container (PID 1), which gets those signals only that it has
//! asked for. So the command asks for them, removes what has a temporary name, ends the programs that it waits for, and
//! then ends as it would have: by the signal, as its parent expects, or, as PID 1, with 128 and the signal's number.

/// From now on SIGTERM and SIGINT end the process as described. For the command only: a library leaves signals to the
/// program that it is part of. A signal that is ignored already (`nohup`, a job in the background of a script) stays so.
#[cfg(unix)]
pub fn end_on_signals() {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let ignored = ignored();
    let wanted = [SIGTERM, SIGINT].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    // Where they cannot be had the defaults apply.
    let Ok(mut signals) = Signals::new(wanted) else { return };
    let wait = move || signals.forever().next().map(end);
    drop(std::thread::Builder::new().name("signals".to_owned()).spawn(wait));
}

/// Nothing: Windows ends a process with its console.
#[cfg(not(unix))]
pub fn end_on_signals() {}

#[cfg(unix)]
fn end(signal: i32) {
    use signal_hook::low_level::{emulate_default_handler, exit};

    crate::child::kill_all();
    onnxquant_temporary::remove_all();
    if std::process::id() != 1 {
        // It does not return.
        let _ = emulate_default_handler(signal);
    }
    exit(128 + signal);
}

/// The signals that this process ignores, as bits; none where the system does not tell.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
