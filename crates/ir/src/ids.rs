//! Typed ids and the arenas they index.
//!
//! An id is only meaningful for the graph that issued it. Slots are never reused, so an id of a removed
//! node or value stays invalid for ever.

use std::marker::PhantomData;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(u32);

        impl Id for $name {
            fn from_index(index: usize) -> Self {
                Self(u32::try_from(index).expect("an arena holds fewer than 2^32 slots"))
            }

            fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id! {
    /// A node of one graph.
    NodeId
}
id! {
    /// A named value of one graph: input, constant or node output.
    ValueId
}

/// An index with a type.
pub trait Id: Copy {
    /// The id of slot `index`.
    fn from_index(index: usize) -> Self;
    /// The slot this id names.
    fn index(self) -> usize;
}

/// Slots addressed by a typed id; removal leaves a hole.
#[derive(Clone, Debug)]
pub struct Arena<I, T> {
    slots: Vec<Option<T>>,
    id: PhantomData<I>,
}

impl<I, T> Default for Arena<I, T> {
    fn default() -> Self {
        Self { slots: Vec::new(), id: PhantomData }
    }
}

impl<I: Id, T> Arena<I, T> {
    /// Stores `item` and returns its id.
    pub fn push(&mut self, item: T) -> I {
        self.slots.push(Some(item));
        I::from_index(self.slots.len() - 1)
    }

    /// The item, unless it was removed.
    pub fn get(&self, id: I) -> Option<&T> {
        self.slots.get(id.index())?.as_ref()
    }

    /// The item, unless it was removed.
    pub fn get_mut(&mut self, id: I) -> Option<&mut T> {
        self.slots.get_mut(id.index())?.as_mut()
    }

    /// Takes the item out.
    pub fn remove(&mut self, id: I) -> Option<T> {
        self.slots.get_mut(id.index())?.take()
    }

    /// All items in the order they were stored.
    pub fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| Some((I::from_index(index), slot.as_ref()?)))
    }
}

/// A set of the ids that an arena has given: a flag for each.
pub(crate) struct Marks<I> {
    flags: Vec<bool>,
    id: PhantomData<I>,
}

impl<I: Id> Marks<I> {
    /// None of them.
    pub(crate) fn none_of<T>(arena: &Arena<I, T>) -> Self {
        Self { flags: vec![false; arena.slots.len()], id: PhantomData }
    }

    /// Adds an id; whether it is one of the arena's and was not there.
    pub(crate) fn add(&mut self, id: I) -> bool {
        self.flags.get_mut(id.index()).is_some_and(|flag| !std::mem::replace(flag, true))
    }

    /// Whether the id is there.
    pub(crate) fn has(&self, id: I) -> bool {
        self.flags.get(id.index()).copied().unwrap_or(false)
    }
}
