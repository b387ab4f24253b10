//! What calls in flight hold of a limit with `reserve`.
//!
//! A window counts what was used and what is held alike. Held tokens mostly come back when their calls end, long before
//! they would leave the window, so a caller who waits for the window waits for too long. What is held is kept in a
//! section of its own next to the limit's, in the same slots: a call that never gives back leaves it with the window. It
//! decides nothing but how soon a refused call may try again.

use super::LimitId;
use super::record::Record;
use super::window::Place;
use crate::limits::NamedLimit;
use crate::policy::Window;
use crate::time::Time;

/// When to try again, in milliseconds, where calls in flight hold enough room: nobody knows when they end.
pub(super) const SOON: u64 = 2_000;

/// The section's name: no other limit has it, as far as digests differ.
fn id_of(LimitId(bytes): LimitId) -> LimitId {
    LimitId(bytes.map(|byte| !byte))
}

/// Notes what a call holds from its admission on.
pub(super) fn take(record: &mut Record, id: LimitId, window: Window, place: Place, amount: u64) {
    if amount > 0 {
        record.state(id_of(id), window).take_at(place, amount);
    }
}

/// The call has ended.
pub(super) fn give_back(record: &mut Record, id: LimitId, place: Place, amount: u64) {
    if let Some(held) = record.known(id_of(id)) {
        held.give_back(place, amount);
    }
}

/// Milliseconds until there may be room for so much, if every call in flight gives back all that it holds; `None`
/// where nothing is held.
pub(super) fn room_in(
    record: &mut Record,
    NamedLimit { id, limit }: &NamedLimit,
    needed: u64,
    now: Time,
) -> Option<u64> {
    let held = record
        .known(id_of(*id))
        .filter(|held| !held.is_empty())?
        .clone();
    let rest = record.known(*id)?.without(&held);
    let standing = rest.standing(limit.window, limit.amount, needed, now);
    Some(standing.room_in.max(SOON))
}
