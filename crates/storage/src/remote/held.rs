//! What is kept as long as somebody keeps it: clients and the runtime in which their requests go out, objects, and the
//! stretches of these that were fetched. A process that is forked later begins anew, for the threads of a runtime are not in it.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use object_store::ObjectStore;
use tokio::runtime::{Builder, Runtime};

use super::spool::Spool;
use crate::address::Scheme;

static HELD: Mutex<Option<Held>> = Mutex::new(None);

/// What is kept now.
#[derive(Default)]
pub(super) struct Held {
    /// How many keep it.
    keepers: usize,
    pub(super) stores: HashMap<(Scheme, String), Arc<dyn ObjectStore>>,
    /// By address, what is read of it.
    pub(super) objects: HashMap<PathBuf, Arc<dyn Any + Send + Sync>>,
    spool: Option<Arc<Spool>>,
    runtime: Option<Arc<Runtime>>,
}

/// Keeps what was fetched; when the last one is dropped, that is gone.
#[derive(Debug)]
pub struct Kept(());

/// Keeps from now on what is fetched, so that it is not fetched again.
pub fn keep() -> Kept {
    locked().get_or_insert_default().keepers += 1;
    Kept(())
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut held = locked();
        if let Some(found) = held.as_mut() {
            found.keepers -= 1;
            let gone = if found.keepers == 0 { held.take() } else { None };
            // The runtime waits for its threads.
            drop(held);
            drop(gone);
        }
    }
}

impl Held {
    /// The file for stretches.
    pub(super) fn spool(&mut self) -> io::Result<Arc<Spool>> {
        if let Some(spool) = &self.spool {
            return Ok(Arc::clone(spool));
        }
        let spool = Arc::new(Spool::new()?);
        self.spool = Some(Arc::clone(&spool));
        Ok(spool)
    }

    fn runtime(&mut self) -> io::Result<Arc<Runtime>> {
        if let Some(runtime) = &self.runtime {
            return Ok(Arc::clone(runtime));
        }
        let made = Builder::new_multi_thread().worker_threads(1).enable_all().thread_name("requests").build()?;
        Ok(Arc::clone(self.runtime.insert(Arc::new(made))))
    }
}

/// Waits for a request. Many threads may; somebody must keep what it needs meanwhile.
pub(super) fn wait<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let unkept = || io::Error::other("nobody keeps what requests need");
    let runtime = held().ok_or_else(unkept)?.runtime()?;
    Ok(runtime.block_on(work))
}

/// What is kept now, if anybody keeps anything.
pub(super) fn held() -> Option<impl DerefMut<Target = Held>> {
    let held = locked();
    held.is_some().then_some(Present(held))
}

struct Present(MutexGuard<'static, Option<Held>>);

impl Deref for Present {
    type Target = Held;

    fn deref(&self) -> &Held {
        self.0.as_ref().expect("checked when it was made")
    }
}

impl DerefMut for Present {
    fn deref_mut(&mut self) -> &mut Held {
        self.0.as_mut().expect("checked when it was made")
    }
}

fn locked() -> MutexGuard<'static, Option<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}
