//! A run in a thread of its own, and the thread that waits for it.

use std::ffi::OsString;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use onnxquant::{Measuring, Phase, Store};
use onnxquant_cli::{Answer, Around, COLUMNS, Failure, Host, Stopped, summary};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use rayon::ThreadPoolBuilder;

/// Stack of the threads: as much as the main thread of a program has.
const STACK_BYTES: usize = 8 << 20;

/// How long a signal to Python may wait.
const PATIENCE: Duration = Duration::from_millis(50);

/// What came of a run: JSON; what was asked for and missed, if so; what the command prints.
pub(crate) type Told = (String, Option<String>, String);

/// What there is in Python, beside who listens.
#[derive(Clone, Copy)]
pub(crate) struct Has {
    pub(crate) metric: bool,
    pub(crate) store: bool,
}

/// What a run tells on its way, and asks.
enum Event {
    Progress(Phase, usize, usize),
    Warning(String),
    /// A model is to be measured, and the figure sent back.
    Metric(PathBuf, Sender<f64>),
    /// A value with this name is asked for.
    Read(String, Sender<Option<Vec<u8>>>),
    Has(String, Sender<bool>),
    Write(String, Vec<u8>, Sender<()>),
    Remove(String, Sender<()>),
    Done(Box<Result<Answer, Failure>>),
}

/// A run on its way.
pub(crate) struct Job {
    /// Waited for without Python's lock, by one thread.
    events: Mutex<Receiver<Event>>,
    stop: Arc<AtomicBool>,
}

impl Job {
    /// Starts a run.
    pub(crate) fn start(args: Vec<OsString>, around: Around, has: Has) -> PyResult<Self> {
        let (sender, events) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        // Threads of its own: those of an earlier run are not there in a process that was forked since.
        let pool = ThreadPoolBuilder::new().stack_size(STACK_BYTES).build();
        let pool = pool.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        thread::Builder::new().spawn(move || {
            let metric = has.metric.then(|| measuring(&sender));
            let store: Option<Arc<dyn Store>> = has.store.then(|| Arc::new(PythonStore(Asking::new(&sender))) as _);
            let answer = pool.install(|| work((&args, &around), &sender, (metric.as_ref(), store.as_ref()), &seen));
            // Nobody waits any more where this fails.
            sender.send(Event::Done(Box::new(answer))).unwrap_or_default();
        })?;
        Ok(Self { events: Mutex::new(events), stop })
    }

    /// Hands what it tells to `listener` until it ends. What Python raises meanwhile ends it.
    pub(crate) fn wait(self, py: Python<'_>, listener: &Bound<'_, PyAny>) -> PyResult<Told> {
        let mut raised: Option<PyErr> = None;
        let answer = loop {
            let event = py.detach(|| lock(&self.events).recv_timeout(PATIENCE));
            let handled = match event {
                Ok(Event::Done(answer)) => break *answer,
                Ok(event) if raised.is_none() => tell(listener, &event),
                Ok(_) | Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(PyRuntimeError::new_err("the run ended unheard")),
            };
            if let Err(error) = py.check_signals().and(handled) {
                self.stop.store(true, Ordering::Relaxed);
                raised.get_or_insert(error);
            }
        };
        match (raised, answer) {
            (Some(error), _) => Err(error),
            (None, Ok(answer)) => shown(answer),
            (None, Err(failure)) => Err(self::raised(&failure, listener)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(
    (args, around): (&[OsString], &Around),
    sender: &Sender<Event>,
    (metric, store): (Option<&Arc<Measuring>>, Option<&Arc<dyn Store>>),
    stop: &AtomicBool,
) -> Result<Answer, Failure> {
    let send = |event: Event| sender.send(event).unwrap_or_default();
    let progress = |phase: Phase, done: usize, total: usize| {
        let is_over = phase == Phase::Write && done == total;
        if stop.load(Ordering::Relaxed) && !is_over {
            resume_unwind(Box::new(Stopped));
        }
        send(Event::Progress(phase, done, total));
    };
    let warn = |text: &str| send(Event::Warning(text.to_owned()));
    onnxquant_cli::run(&Host { args, around, progress: &progress, metric, store, warn: &warn, columns: None })
}

/// Asks Python how good a model is. Where it does not answer, it raised something, which ends the run.
fn measuring(sender: &Sender<Event>) -> Arc<Measuring> {
    let asking = Asking::new(sender);
    Arc::new(move |path: &Path| Ok(asking.ask(|answer| Event::Metric(path.to_owned(), answer))))
}

/// Asks Python. Where it does not answer, it raised something, which ends the run.
#[derive(Debug)]
struct Asking(Mutex<Sender<Event>>);

impl Asking {
    fn new(sender: &Sender<Event>) -> Self {
        Self(Mutex::new(sender.clone()))
    }

    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Event) -> T {
        let (answer, answered) = channel();
        let asked = lock(&self.0).send(question(answer));
        asked.ok().and_then(|()| answered.recv().ok()).unwrap_or_else(|| resume_unwind(Box::new(Stopped)))
    }
}

/// Keeps values in what Python has.
#[derive(Debug)]
struct PythonStore(Asking);

impl Store for PythonStore {
    fn place(&self) -> PathBuf {
        PathBuf::new()
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.ask(|answer| Event::Read(name.to_owned(), answer)))
    }

    fn has(&self, name: &str) -> io::Result<bool> {
        Ok(self.0.ask(|answer| Event::Has(name.to_owned(), answer)))
    }

    fn write(&self, name: &str, value: Vec<u8>, _made_again: bool) -> io::Result<()> {
        self.0.ask(|answer| Event::Write(name.to_owned(), value, answer));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.ask(|answer| Event::Remove(name.to_owned(), answer));
        Ok(())
    }
}

fn tell(listener: &Bound<'_, PyAny>, event: &Event) -> PyResult<()> {
    match event {
        Event::Progress(phase, done, total) => {
            let name = match phase {
                Phase::Calibrate => "calibrate",
                Phase::Quantize => "quantize",
                Phase::Compare => "compare",
                Phase::Write => "write",
            };
            listener.call_method1("progress", (name, done, total)).map(drop)
        }
        Event::Warning(text) => listener.call_method1("warn", (text,)).map(drop),
        Event::Metric(path, answer) => send(answer, listener.call_method1("metric", (path,))?.extract()?),
        Event::Read(name, answer) => {
            let value = store(listener)?.call_method1("read", (name,))?;
            let value: Option<PyBackedBytes> = value.extract()?;
            send(answer, value.map(|value| value.to_vec()))
        }
        Event::Has(name, answer) => send(answer, store(listener)?.call_method1("has", (name,))?.extract()?),
        Event::Write(name, value, answer) => {
            store(listener)?.call_method1("write", (name, PyBytes::new(listener.py(), value)))?;
            send(answer, ())
        }
        Event::Remove(name, answer) => {
            store(listener)?.call_method1("remove", (name,))?;
            send(answer, ())
        }
        Event::Done(_) => Ok(()),
    }
}

/// What keeps values.
fn store<'py>(listener: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    listener.getattr("store")
}

/// Answers a question.
fn send<T>(answer: &Sender<T>, found: T) -> PyResult<()> {
    // Nobody waits any more where this fails.
    answer.send(found).unwrap_or_default();
    Ok(())
}

fn shown(answer: Answer) -> PyResult<Told> {
    match answer {
        Answer::Quantized(report) => {
            let text = serde_json::to_string(&report).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
            let output = Path::new(&report.files.output.name);
            Ok((text, report.missed(), summary(&report, output, COLUMNS)))
        }
        Answer::Compared { text, missed } => Ok((text, missed, String::new())),
        Answer::Text(text) => Ok((text, None, String::new())),
    }
}

/// The exception for a failure.
pub(crate) fn raised(failure: &Failure, listener: &Bound<'_, PyAny>) -> PyErr {
    let kind = match failure {
        Failure::Words(_) | Failure::Input(_) | Failure::Waiting(_) => "input",
        Failure::Defect(_) => "defect",
        Failure::Stopped => "stopped",
    };
    match listener.call_method1("error", (kind, failure.message())) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}
