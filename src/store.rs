//! Shared data: the one thing that all VMs of a process see.

use hashbrown::HashMap;
use std::cell::RefCell;

/// A map that all VMs of a process share, with compare-and-swap and nothing else: no deletion,
/// no expiry, no listing (proxy-wasm `proxy_get_shared_data`, `proxy_set_shared_data`).
pub trait SharedStore {
    /// Reads a value and its version; `None` when there is none.
    ///
    /// # Errors
    /// The host failed.
    fn read(&self, key: &str) -> Result<Option<Versioned>, StoreError>;

    /// Writes a value, if the key is still as expected.
    ///
    /// # Errors
    /// The host failed; whether it wrote is unknown.
    fn write(&self, key: &str, value: &[u8], expected: Expected) -> Result<Written, StoreError>;
}

/// A value and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Vec<u8>,
    /// Changes with every write.
    pub version: u32,
}

/// What a writer expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No value.
    Absent,
    /// The value that was read with this version.
    Version(u32),
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The value is in the store.
    Stored,
    /// Somebody else was first; nothing was written.
    Conflict,
}

/// The host's shared data failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreError;

/// Most tries of one compare-and-swap. Each lost try means that another worker got through, so
/// dozens of workers on one counter stay far below.
const MAX_TRIES: u32 = 64;

/// What became of an [`update`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Updated<T> {
    /// What the step answered the last time it ran.
    pub answer: T,
    /// How many times another worker was first.
    pub retries: u32,
}

/// Reads, computes and writes until nobody else wrote in between.
///
/// `step` gets the value that is there and answers with the new one, or `None` to leave it as
/// it is; it may run several times and must not act by itself.
///
/// # Errors
/// The host failed, or every one of `MAX_TRIES` tries was lost. The store may then hold either value.
pub fn update<T>(
    store: &dyn SharedStore,
    key: &str,
    mut step: impl FnMut(Option<&[u8]>) -> (T, Option<Vec<u8>>),
) -> Result<Updated<T>, StoreError> {
    for retries in 0..MAX_TRIES {
        let found = store.read(key)?;
        let (answer, new) = step(found.as_ref().map(|found| found.value.as_slice()));
        let Some(new) = new else {
            return Ok(Updated { answer, retries });
        };
        let expected = found.map_or(Expected::Absent, |found| Expected::Version(found.version));
        if store.write(key, &new, expected)? == Written::Stored {
            return Ok(Updated { answer, retries });
        }
    }
    Err(StoreError)
}

/// A store of one VM: for tests, and for hosts without shared data.
#[derive(Debug, Default)]
pub struct MemoryStore {
    values: RefCell<HashMap<String, Versioned>>,
}

impl SharedStore for MemoryStore {
    fn read(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        Ok(self
            .values
            .try_borrow()
            .map_err(|_| StoreError)?
            .get(key)
            .cloned())
    }

    fn write(&self, key: &str, value: &[u8], expected: Expected) -> Result<Written, StoreError> {
        let mut values = self.values.try_borrow_mut().map_err(|_| StoreError)?;
        let found = values.get(key).map(|found| found.version);
        let version = match (found, expected) {
            (None, Expected::Absent) => 1,
            (Some(found), Expected::Version(version)) if found == version => {
                version.wrapping_add(1)
            }
            (None | Some(_), _) => return Ok(Written::Conflict),
        };
        values.insert(
            key.to_owned(),
            Versioned {
                value: value.to_vec(),
                version,
            },
        );
        Ok(Written::Stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loses the first `lost` writes to another worker.
    struct Contended {
        inner: MemoryStore,
        lost: RefCell<u32>,
    }

    impl SharedStore for Contended {
        fn read(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
            self.inner.read(key)
        }

        fn write(
            &self,
            key: &str,
            value: &[u8],
            expected: Expected,
        ) -> Result<Written, StoreError> {
            if *self.lost.borrow() > 0 {
                *self.lost.borrow_mut() -= 1;
                return Ok(Written::Conflict);
            }
            self.inner.write(key, value, expected)
        }
    }

    fn increment(store: &dyn SharedStore) -> Result<Updated<u8>, StoreError> {
        update(store, "k", |value| {
            let next = value.map_or(1, |value| value[0] + 1);
            (next, Some(vec![next]))
        })
    }

    #[test]
    fn creates_and_then_changes() {
        let store = MemoryStore::default();
        assert_eq!(
            increment(&store),
            Ok(Updated {
                answer: 1,
                retries: 0
            })
        );
        assert_eq!(
            increment(&store),
            Ok(Updated {
                answer: 2,
                retries: 0
            })
        );
        assert_eq!(
            store.write("k", b"x", Expected::Absent),
            Ok(Written::Conflict)
        );
        assert_eq!(
            store.write("k", b"x", Expected::Version(1)),
            Ok(Written::Conflict)
        );
        assert_eq!(
            store.write("new", b"x", Expected::Version(1)),
            Ok(Written::Conflict)
        );
    }

    #[test]
    fn tries_again_and_gives_up() {
        let store = Contended {
            inner: MemoryStore::default(),
            lost: RefCell::new(5),
        };
        assert_eq!(
            increment(&store),
            Ok(Updated {
                answer: 1,
                retries: 5
            })
        );
        *store.lost.borrow_mut() = 1000;
        assert_eq!(increment(&store), Err(StoreError));
    }
}
