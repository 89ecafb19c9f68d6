//! An object, and the stretches of it that were fetched.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use object_store::{Error, GetOptions, ObjectMeta};

use super::held::{held, wait};
use super::spool::{Spool, Stretch};
use super::store::Place;

/// Bytes of a block; stretches are fetched in whole ones.
pub(super) const BLOCK_BYTES: u64 = 256 << 10;
/// Blocks that are fetched at once at most.
pub(super) const MOST_BLOCKS: u64 = 32;

/// An object that is read.
#[derive(Debug)]
pub(super) struct Object {
    place: Place,
    length: u64,
    /// What tells this content from others, where the server says so.
    tag: Option<String>,
    spool: Arc<Spool>,
    /// By number.
    blocks: Mutex<HashMap<u64, Stretch>>,
}

impl Object {
    /// That at an address, with its first block; the one that is kept, where it is.
    pub(super) fn open(path: &Path) -> io::Result<Arc<Self>> {
        match known(path) {
            Some(object) => Ok(object),
            None => wait(Self::opened(path))?,
        }
    }

    /// The same as part of other requests.
    pub(super) async fn opened(path: &Path) -> io::Result<Arc<Self>> {
        let place = Place::of(path)?;
        let (meta, first) = match get(&place, 0..BLOCK_BYTES, None).await {
            Err(error) if is_without_ranges(&error) => get_whole(&place).await,
            found => found,
        }
        .map_err(|error| place.failure(&error))?;
        let spool = match held() {
            Some(mut held) => held.spool()?,
            None => Arc::new(Spool::new()?),
        };
        let blocks = Mutex::new(HashMap::new());
        let object = Arc::new(Self { place, length: meta.size, tag: meta.e_tag, spool, blocks });
        object.keep(0, &first)?;
        if let Some(mut held) = held() {
            held.objects.insert(path.to_owned(), object.clone());
        }
        Ok(object)
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Reads what lies in one block from `at` on; of what is not there yet `ahead` blocks are fetched at once.
    pub(super) fn read(&self, at: u64, ahead: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if at >= self.length || buffer.is_empty() {
            return Ok(0);
        }
        let number = at / BLOCK_BYTES;
        let stretch = match self.stretch(number) {
            Some(stretch) => stretch,
            None => {
                self.fetch(number, ahead)?;
                self.stretch(number).ok_or_else(ends_early)?
            }
        };
        self.spool.read(stretch, at - number * BLOCK_BYTES, buffer)
    }

    /// Whether the block in which `at` lies is still to be fetched.
    pub(super) fn lacks(&self, at: u64) -> bool {
        self.stretch(at / BLOCK_BYTES).is_none()
    }

    fn stretch(&self, number: u64) -> Option<Stretch> {
        locked(&self.blocks).get(&number).copied()
    }

    /// Fetches at most so many blocks that are not there yet.
    fn fetch(&self, first: u64, most: u64) -> io::Result<()> {
        let count = (1..most.clamp(1, MOST_BLOCKS)).take_while(|more| self.stretch(first + more).is_none()).count();
        let start = first * BLOCK_BYTES;
        let end = self.length.min((first + count as u64 + 1) * BLOCK_BYTES);
        let bytes = wait(self.bytes(start..end))??;
        self.keep(first, &bytes)
    }

    /// Fetches a stretch; nothing is kept.
    pub(super) async fn bytes(&self, range: Range<u64>) -> io::Result<Bytes> {
        let wanted = range.end - range.start;
        let (_, bytes) = get(&self.place, range, self.tag.clone()).await.map_err(|error| self.place.failure(&error))?;
        if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(ends_early()) }
    }

    /// Keeps blocks that follow one another.
    fn keep(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        let whole = self.spool.append(bytes)?;
        let mut blocks = locked(&self.blocks);
        let (mut number, mut from) = (first, 0);
        while from < whole.bytes {
            let length = BLOCK_BYTES.min(whole.bytes - from);
            blocks.insert(number, Stretch { at: whole.at + from, bytes: length });
            (number, from) = (number + 1, from + length);
        }
        Ok(())
    }
}

/// An object that is kept.
pub(super) fn known(path: &Path) -> Option<Arc<Object>> {
    let found = held()?.objects.get(path).cloned()?;
    found.downcast().ok()
}

/// A stretch of an object, as far as it goes, and what is known of the whole.
async fn get(place: &Place, range: Range<u64>, tag: Option<String>) -> object_store::Result<(ObjectMeta, Bytes)> {
    let options = GetOptions { range: Some(range.into()), if_match: tag, ..GetOptions::default() };
    let found = place.store.get_opts(&place.key, options).await?;
    let meta = found.meta.clone();
    Ok((meta, found.bytes().await?))
}

/// All of it: of servers that give no stretches, and of objects without a byte.
async fn get_whole(place: &Place) -> object_store::Result<(ObjectMeta, Bytes)> {
    let found = place.store.get_opts(&place.key, GetOptions::default()).await?;
    let meta = found.meta.clone();
    Ok((meta, found.bytes().await?))
}

/// Whether a server refuses stretches, or there is nothing of which it could give one.
fn is_without_ranges(error: &Error) -> bool {
    let text = error.to_string();
    matches!(error, Error::NotSupported { .. }) || text.contains(" 416 ") || text.contains("InvalidRange")
}

fn ends_early() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server sent less than it promised")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
