//! The requests of one plugin that wait for keys.

use std::cell::RefCell;
use std::rc::Rc;

use super::stream::Stream;
use crate::time::Time;

/// Most requests that are settled in one call of the host. Envoy carries out answers and resumptions when
/// the call has returned, and the next one from within the callbacks of the last: each nests deeper, and
/// between two and four hundred end the VM for lack of stack.
const MAX_AT_ONCE: usize = 32;

/// A request that waits for an issuer's keys.
pub(super) struct Waiting {
    pub(super) stream: Rc<Stream>,
    pub(super) issuer: usize,
    until: u64,
    patience: u64,
    /// It is to be decided on anew.
    is_due: bool,
}

impl Waiting {
    /// A request that waits for so many milliseconds at most.
    pub(super) fn new(stream: Rc<Stream>, issuer: usize, now: Time, patience: u64) -> Self {
        Self {
            stream,
            issuer,
            until: now.millis().saturating_add(patience),
            patience,
            is_due: false,
        }
    }

    /// The same request, which waits on, now for this issuer.
    pub(super) fn again(self, issuer: usize) -> Self {
        Self {
            issuer,
            is_due: false,
            ..self
        }
    }

    /// Whether the request has waited long enough. More time left than there ever was means that
    /// the clock was set back.
    pub(super) fn is_over(&self, now: Time) -> bool {
        let left = self.until.saturating_sub(now.millis());
        left == 0 || left > self.patience
    }
}

/// All of them, in the order in which they came.
#[derive(Default)]
pub(super) struct WaitingRoom(RefCell<Vec<Waiting>>);

impl WaitingRoom {
    /// `false` when it cannot be entered.
    pub(super) fn enter(&self, entry: Waiting) -> bool {
        let entries = self.0.try_borrow_mut();
        entries.map(|mut entries| entries.push(entry)).is_ok()
    }

    /// Takes over all of another one.
    pub(super) fn inherit(&self, earlier: &Self) {
        if let (Ok(mut mine), Ok(mut theirs)) =
            (self.0.try_borrow_mut(), earlier.0.try_borrow_mut())
        {
            mine.append(&mut theirs);
        }
    }

    /// How many requests wait for one issuer.
    pub(super) fn count(&self, issuer: usize) -> usize {
        let is_of = |entry: &&Waiting| entry.issuer == issuer;
        let entries = self.0.try_borrow();
        entries.map_or(0, |entries| entries.iter().filter(is_of).count())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.try_borrow().is_ok_and(|entries| entries.is_empty())
    }

    /// Whether some could be settled at once.
    pub(super) fn has_due(&self) -> bool {
        let entries = self.0.try_borrow();
        entries.is_ok_and(|entries| entries.iter().any(|entry| entry.is_due))
    }

    /// Something has changed for the requests that wait for such an issuer.
    pub(super) fn mark_due(&self, is_due: impl Fn(usize) -> bool) {
        if let Ok(mut entries) = self.0.try_borrow_mut() {
            for entry in entries.iter_mut() {
                entry.is_due |= is_due(entry.issuer);
            }
        }
    }

    /// Takes out those to settle now: marked before, or out of time.
    pub(super) fn take_due(&self, now: Time) -> Vec<Waiting> {
        self.take(|entry| {
            entry.is_due |= entry.is_over(now);
            entry.is_due
        })
    }

    /// Takes out the first, due or not.
    pub(super) fn take_first(&self) -> Vec<Waiting> {
        self.take(|_| true)
    }

    fn take(&self, mut is_wanted: impl FnMut(&mut Waiting) -> bool) -> Vec<Waiting> {
        let Ok(mut entries) = self.0.try_borrow_mut() else {
            return Vec::new();
        };
        entries.retain(|entry| entry.stream.is_waiting());
        let mut room = MAX_AT_ONCE;
        let taken = entries.extract_if(.., |entry| {
            let is_taken = is_wanted(entry) && room > 0;
            room = room.saturating_sub(usize::from(is_taken));
            is_taken
        });
        taken.collect()
    }
}
