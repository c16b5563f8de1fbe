//! The objects behind the handles.
//!
//! A handle is a slot and its generation, so that the handle of a released object is refused instead of meaning the next one. A slot
//! whose generations are used up is never used again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prefixkv_core::engine::{Engine, Ticket};

const SLOT_BITS: u32 = 20;
const MAX_SLOTS: usize = 1 << SLOT_BITS;
const MAX_GENERATION: u32 = (1 << (u32::BITS - SLOT_BITS)) - 1;

/// The object behind a handle.
#[derive(Clone)]
pub(crate) enum Object {
    Engine(Arc<Engine>),
    Ticket(Arc<Stream>),
}

/// A ticket with the text that its reader had no room for. Who holds the lock is in `pkv_next`.
pub(crate) struct Stream {
    pub(crate) ticket: Ticket,
    pub(crate) unread: Mutex<Option<String>>,
}

struct Slot {
    generation: u32,
    object: Option<Object>,
}

/// A table of objects; the library has one.
pub(crate) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

static TABLE: Mutex<Table> = Mutex::new(Table::new());

/// No code that can panic runs under the lock, so a poisoned table is still whole.
fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle for an object; None when there are too many.
pub(crate) fn insert(object: Object) -> Option<u32> {
    table().insert(object)
}

/// The living object of a handle.
pub(crate) fn get(handle: u32) -> Option<Object> {
    table().get(handle)
}

/// Takes an object out; it is dropped by the caller, without the lock.
pub(crate) fn remove(handle: u32) -> Option<Object> {
    table().remove(handle)
}

impl Table {
    pub(crate) const fn new() -> Self {
        Table { slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, object: Object) -> Option<u32> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < MAX_SLOTS => {
                self.slots.push(Slot { generation: 0, object: None });
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let slot = &mut self.slots[index as usize];
        slot.generation += 1;
        slot.object = Some(object);
        Some(slot.generation << SLOT_BITS | index)
    }

    pub(crate) fn get(&self, handle: u32) -> Option<Object> {
        let slot = self.slots.get(slot_of(handle))?;
        slot.object.clone().filter(|_| slot.generation == generation_of(handle))
    }

    pub(crate) fn remove(&mut self, handle: u32) -> Option<Object> {
        let index = slot_of(handle);
        let slot = self.slots.get_mut(index)?;
        if slot.generation != generation_of(handle) {
            return None;
        }
        let object = slot.object.take()?;
        if slot.generation < MAX_GENERATION {
            self.free.push(index as u32);
        }
        Some(object)
    }
}

fn slot_of(handle: u32) -> usize {
    handle as usize % MAX_SLOTS
}

fn generation_of(handle: u32) -> u32 {
    handle >> SLOT_BITS
}

#[cfg(test)]
mod tests {
    use prefixkv_core::engine::stream;

    use super::*;

    fn object() -> Object {
        Object::Ticket(Arc::new(Stream { ticket: stream().1, unread: Mutex::new(None) }))
    }

    #[test]
    fn a_released_handle_never_means_another_object() {
        let mut table = Table::new();
        let mut old = Vec::new();
        for _ in 0..2 * MAX_GENERATION {
            let handle = table.insert(object()).unwrap();
            assert!(handle != 0 && table.get(handle).is_some() && table.remove(handle).is_some());
            assert!(table.get(handle).is_none() && table.remove(handle).is_none());
            old.push(handle);
        }
        assert_eq!(table.slots.len(), 2);
        old.sort_unstable();
        old.dedup();
        assert_eq!(old.len(), 2 * MAX_GENERATION as usize);
    }

    #[test]
    fn nonsense_is_no_handle() {
        let mut table = Table::new();
        let handle = table.insert(object()).unwrap();
        for nonsense in [0, 1, handle + 1, handle ^ (1 << SLOT_BITS), u32::MAX] {
            assert!(table.get(nonsense).is_none() && table.remove(nonsense).is_none());
        }
        assert!(table.get(handle).is_some());
    }
}
