//! How many requests of each application wait for their bodies.

use std::rc::Rc;

use hashbrown::HashMap;

use crate::guid::Guid;

/// Entries that are kept though their applications have no request waiting.
const SPARE: usize = 64;

/// The requests that are undecided, by application. What is kept of an application goes when none of its
/// requests is.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    by_app: HashMap<Guid, Rc<()>>,
    /// Entries that were there after the last look for those that may go.
    kept: usize,
}

/// One undecided request. It counts for as long as this lives, so that no way of ending is forgotten.
#[derive(Debug)]
pub(super) struct UndecidedSlot(#[expect(dead_code, reason = "its references are counted")] Rc<()>);

impl Undecided {
    /// One more request of an application, if it has fewer than `most`.
    pub(super) fn enter(&mut self, app: Guid, most: usize) -> Option<UndecidedSlot> {
        if self.by_app.len() > self.kept.saturating_mul(2).saturating_add(SPARE) {
            self.by_app.retain(|_, slots| count(slots) > 0);
            self.kept = self.by_app.len();
        }
        let slots = self.by_app.entry(app).or_default();
        (count(slots) < most).then(|| UndecidedSlot(Rc::clone(slots)))
    }
}

/// How many slots there are besides the entry itself.
fn count(slots: &Rc<()>) -> usize {
    Rc::strong_count(slots).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(number: u32) -> Guid {
        Guid::parse(&format!("aaaaaaaa-0000-0000-0000-{number:012}")).unwrap()
    }

    #[test]
    fn l9_each_application_has_so_many_slots_and_those_that_end_are_free() {
        let mut undecided = Undecided::default();
        let mut slots: Vec<_> = (0..3).map(|_| undecided.enter(app(1), 3)).collect();
        assert!(slots.iter().all(Option::is_some));
        assert!(undecided.enter(app(1), 3).is_none());
        assert!(undecided.enter(app(2), 3).is_some());
        slots.pop();
        assert!(undecided.enter(app(1), 3).is_some());
        let last = undecided.enter(app(1), 3);
        assert!(last.is_some() && undecided.enter(app(1), 3).is_none());
    }

    #[test]
    fn l9_applications_without_an_undecided_request_are_forgotten() {
        let mut undecided = Undecided::default();
        let held: Vec<_> = (0..10)
            .map(|number| undecided.enter(app(number), 1))
            .collect();
        for number in 10..10_000 {
            assert!(undecided.enter(app(number), 1).is_some());
            assert!(undecided.by_app.len() <= 2 * 10 + SPARE + 1);
        }
        for number in 0..10 {
            assert!(undecided.enter(app(number), 1).is_none());
        }
        drop(held);
    }
}
