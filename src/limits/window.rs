//! The state of one limit, and how it moves: pure arithmetic on time and counts.
//!
//! **Sliding windows.** The window is cut into [`SLOTS`] slots, and a call counts in the slot of
//! its admission until that slot has left the window whole. So in no span of the window's
//! length do more than N pass, and room comes back at most one slot (1/64 of the window) after
//! it could.
//!
//! **Calendar quotas.** One count, and the start of the period it belongs to.
//!
//! **Clocks that jump.** Back by a little (two workers read the clock before one of them
//! writes): the newer time counts. Back by more: what was counted moves along, so that a jump
//! neither opens a free window nor locks anybody out for longer than one.

use crate::policy::{Period, Window};
use crate::time::{Date, Time};

/// Slots of a window; one more is kept, for the slot that is partly out of it.
pub const SLOTS: usize = 64;
const KEPT: usize = SLOTS + 1;

/// Clock differences up to this, in milliseconds, are two workers and not a jump.
const TOLERANCE_MILLIS: u64 = 2_000;

const MILLIS_PER_HOUR: u64 = 3_600_000;
const MILLIS_PER_DAY: u64 = 86_400_000;
const DAYS_PER_WEEK: u64 = 7;
/// 1970-01-01 was a Thursday: the Monday before is three days earlier.
const DAYS_FROM_MONDAY_TO_EPOCH: u64 = 3;

/// What one limit has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A sliding window.
    Sliding(Sliding),
    /// A calendar quota.
    Calendar(Calendar),
}

/// How the slots of a window are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// All of them, in four bytes each.
    Dense,
    /// Those that are not empty, each with its age: few, mostly.
    Sparse,
}

/// Where a call was counted, to give it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u64);

/// How a limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// What is counted in the window.
    pub(super) used: u64,
    /// Milliseconds until there is room; 0 when there is.
    pub(super) room_in: u64,
    /// Milliseconds until nothing is counted any more.
    pub(super) reset_in: u64,
}

/// The slots of a window that are not empty, newest first: most are, and every one of them would be read and
/// written with every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sliding {
    newest: u64,
    slots: Vec<Slot>,
}

/// What one slot counts, and how many slots before the newest it lies: below [`KEPT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    age: u8,
    count: u64,
}

/// A count and its period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    start: u64,
    count: u64,
}

impl State {
    /// Nothing counted yet.
    #[must_use]
    pub(super) fn new(window: Window) -> Self {
        match window {
            Window::Sliding { .. } => Self::Sliding(Sliding {
                newest: 0,
                slots: Vec::new(),
            }),
            Window::Calendar(_) => Self::Calendar(Calendar { start: 0, count: 0 }),
        }
    }

    /// Whether something was counted after this moment: by a worker whose clock was read later.
    #[must_use]
    pub(super) fn is_ahead_of(&self, window: Window, now: Time) -> bool {
        match (self, window) {
            (Self::Sliding(state), Window::Sliding { millis }) => {
                state.newest > slot_of(millis, now)
            }
            (Self::Calendar(state), Window::Calendar(_)) => state.start > now.millis(),
            (Self::Sliding(_) | Self::Calendar(_), _) => false,
        }
    }

    /// Lets time pass. A state of the other kind is begun anew. Answers whether the clock was
    /// set back, so that what was counted moved along.
    pub(super) fn advance(&mut self, window: Window, now: Time) -> bool {
        match (&mut *self, window) {
            (Self::Sliding(state), Window::Sliding { millis }) => state.advance(millis, now),
            (Self::Calendar(state), Window::Calendar(period)) => state.advance(period, now),
            (Self::Sliding(_) | Self::Calendar(_), _) => {
                *self = Self::new(window);
                self.advance(window, now)
            }
        }
    }

    /// How a limit stands for a call that needs so much of it, after [`State::advance`].
    #[must_use]
    pub(super) fn standing(&self, window: Window, limit: u64, needed: u64, now: Time) -> Standing {
        // What may be there at most when so much more is to fit in.
        let most = limit.saturating_sub(needed);
        match (self, window) {
            (Self::Sliding(state), Window::Sliding { millis }) => state.standing(millis, most, now),
            (Self::Calendar(state), Window::Calendar(period)) => state.standing(period, most, now),
            (Self::Sliding(_) | Self::Calendar(_), _) => Standing {
                used: 0,
                room_in: 0,
                reset_in: 0,
            },
        }
    }

    /// Counts so much now, after [`State::advance`].
    pub(super) fn take(&mut self, amount: u64) -> Place {
        match self {
            Self::Sliding(state) => {
                state.take(amount);
                Place(state.newest)
            }
            Self::Calendar(state) => {
                state.count = state.count.saturating_add(amount);
                Place(state.start)
            }
        }
    }

    /// Counts so much where another state has counted it, and moves on to there.
    pub(super) fn take_at(&mut self, place: Place, amount: u64) {
        match self {
            Self::Sliding(state) => {
                state.age_by(place.0.saturating_sub(state.newest));
                state.newest = place.0;
                state.take(amount);
            }
            Self::Calendar(state) => {
                if state.start != place.0 {
                    *state = Calendar {
                        start: place.0,
                        count: 0,
                    };
                }
                state.count = state.count.saturating_add(amount);
            }
        }
    }

    /// What is left of it without what another state counts in the same places.
    #[must_use]
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        match (&mut rest, other) {
            (Self::Sliding(rest), Self::Sliding(other)) => {
                for slot in &other.slots {
                    let place = other.newest.saturating_sub(slot.age.into());
                    rest.give_back(Place(place), slot.count);
                }
            }
            (Self::Calendar(rest), Self::Calendar(other)) if rest.start == other.start => {
                rest.count = rest.count.saturating_sub(other.count);
            }
            (Self::Sliding(_) | Self::Calendar(_), _) => {}
        }
        rest
    }

    /// Gives so much back, if it still counts.
    pub(super) fn give_back(&mut self, place: Place, amount: u64) {
        match self {
            Self::Sliding(state) => state.give_back(place, amount),
            Self::Calendar(state) if state.start == place.0 => {
                state.count = state.count.saturating_sub(amount);
            }
            Self::Calendar(_) => {}
        }
    }

    /// Whether nothing is counted.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Sliding(state) => state.slots.is_empty(),
            Self::Calendar(state) => state.count == 0,
        }
    }

    /// How many bytes [`Self::encode`] appends.
    #[must_use]
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Sliding(state) => state.slots.len().saturating_mul(9).saturating_add(9),
            Self::Calendar(_) => 16,
        }
    }

    /// Appends the state's bytes, in [`Layout::Sparse`].
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Sliding(state) => {
                bytes.extend_from_slice(&state.newest.to_le_bytes());
                state.encode_slots(bytes);
            }
            Self::Calendar(state) => {
                bytes.extend_from_slice(&state.start.to_le_bytes());
                bytes.extend_from_slice(&state.count.to_le_bytes());
            }
        }
    }

    /// Reads a state of this kind of window from the front of `bytes`; answers what is left.
    #[must_use]
    pub(super) fn decode(window: Window, layout: Layout, bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (first, rest) = bytes.split_first_chunk::<8>()?;
        let first = u64::from_le_bytes(*first);
        match window {
            Window::Sliding { .. } => {
                let (slots, rest) = match layout {
                    Layout::Dense => decode_dense(rest)?,
                    Layout::Sparse => decode_sparse(rest)?,
                };
                let newest = first;
                Some((Self::Sliding(Sliding { newest, slots }), rest))
            }
            Window::Calendar(_) => {
                let (count, rest) = rest.split_first_chunk::<8>()?;
                let count = u64::from_le_bytes(*count);
                Some((
                    Self::Calendar(Calendar {
                        start: first,
                        count,
                    }),
                    rest,
                ))
            }
        }
    }
}

fn decode_dense(mut bytes: &[u8]) -> Option<(Vec<Slot>, &[u8])> {
    let mut slots = Vec::new();
    for age in (0..=u8::MAX).take(KEPT) {
        let (count, rest) = bytes.split_first_chunk::<4>()?;
        let count = u32::from_le_bytes(*count).into();
        if count > 0 {
            slots.push(Slot { age, count });
        }
        bytes = rest;
    }
    Some((slots, bytes))
}

fn decode_sparse(bytes: &[u8]) -> Option<(Vec<Slot>, &[u8])> {
    let (used, mut rest) = bytes.split_first()?;
    // Room for the one that the next call begins.
    let mut slots = Vec::with_capacity(usize::from(*used).saturating_add(1).min(KEPT));
    let mut from = 0;
    for _ in 0..*used {
        let (age, left) = rest.split_first()?;
        let (count, left) = left.split_first_chunk::<8>()?;
        let (age, count) = (*age, u64::from_le_bytes(*count));
        if age < from || usize::from(age) >= KEPT || count == 0 {
            return None;
        }
        slots.push(Slot { age, count });
        from = age.saturating_add(1);
        rest = left;
    }
    Some((slots, rest))
}

/// Length of a slot in nanoseconds, rounded up so that the slots cover the window.
fn slot_nanos(window_millis: u64) -> u64 {
    let slots = u64::try_from(SLOTS).unwrap_or(u64::MAX);
    window_millis
        .saturating_mul(1_000_000)
        .div_ceil(slots)
        .max(1)
}

/// The slot that holds a moment, counted from 1970.
fn slot_of(window_millis: u64, now: Time) -> u64 {
    let slot_nanos = slot_nanos(window_millis);
    now.nanos().checked_div(slot_nanos).unwrap_or(0)
}

/// Nanoseconds to milliseconds, rounded up.
fn millis_up(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000)
}

impl Sliding {
    fn advance(&mut self, window_millis: u64, now: Time) -> bool {
        let slot = slot_of(window_millis, now);
        if slot >= self.newest {
            self.age_by(slot.saturating_sub(self.newest));
            self.newest = slot;
            return false;
        }
        let ahead = self.newest.saturating_sub(slot);
        let tolerance = TOLERANCE_MILLIS
            .min(window_millis / 2)
            .saturating_mul(1_000_000);
        let set_back = ahead > 1 && ahead.saturating_mul(slot_nanos(window_millis)) > tolerance;
        if set_back {
            self.newest = slot;
        }
        set_back
    }

    /// Moves every slot on, and drops those that have left.
    fn age_by(&mut self, passed: u64) {
        if passed == 0 {
            return;
        }
        let passed = u8::try_from(passed).unwrap_or(u8::MAX);
        self.slots.retain_mut(|slot| {
            slot.age = slot.age.saturating_add(passed);
            usize::from(slot.age) < KEPT
        });
    }

    fn take(&mut self, amount: u64) {
        match self.slots.first_mut() {
            Some(newest) if newest.age == 0 => newest.count = newest.count.saturating_add(amount),
            Some(_) | None if amount > 0 => self.slots.insert(
                0,
                Slot {
                    age: 0,
                    count: amount,
                },
            ),
            Some(_) | None => {}
        }
    }

    fn encode_slots(&self, bytes: &mut Vec<u8>) {
        // No more than KEPT.
        bytes.push(u8::try_from(self.slots.len()).unwrap_or(u8::MAX));
        for slot in &self.slots {
            bytes.push(slot.age);
            bytes.extend_from_slice(&slot.count.to_le_bytes());
        }
    }

    fn used(&self) -> u64 {
        let counts = self.slots.iter().map(|slot| slot.count);
        counts.fold(0, u64::saturating_add)
    }

    fn standing(&self, window_millis: u64, most: u64, now: Time) -> Standing {
        let used = self.used();
        let slot_nanos = slot_nanos(window_millis);
        // The slot at `age` leaves when the newest slot is KEPT - age slots further on.
        let leaves_in = |slot: &Slot| {
            let age = usize::from(slot.age);
            let slots = u64::try_from(KEPT.saturating_sub(age)).unwrap_or(u64::MAX);
            let at = self.newest.saturating_add(slots).saturating_mul(slot_nanos);
            millis_up(at.saturating_sub(now.nanos()))
        };
        let mut left = used;
        let mut room_in = 0;
        for slot in self.slots.iter().rev() {
            if left <= most {
                break;
            }
            left = left.saturating_sub(slot.count);
            room_in = leaves_in(slot);
        }
        let reset_in = self.slots.first().map_or(0, leaves_in);
        Standing {
            used,
            room_in,
            reset_in,
        }
    }

    /// A place that has left the window counts no more; one ahead of it (the clock was set
    /// back) counts in the newest slot.
    fn give_back(&mut self, place: Place, amount: u64) {
        let age = self.newest.saturating_sub(place.0);
        self.slots.retain_mut(|slot| {
            if u64::from(slot.age) == age {
                slot.count = slot.count.saturating_sub(amount);
            }
            slot.count > 0
        });
    }
}

impl Calendar {
    fn advance(&mut self, period: Period, now: Time) -> bool {
        let current = period_start(period, now.millis());
        if current > self.start {
            *self = Self {
                start: current,
                count: 0,
            };
            return false;
        }
        let set_back = self.start.saturating_sub(now.millis()) > TOLERANCE_MILLIS;
        if set_back {
            // Into an earlier period: the count moves along.
            self.start = current;
        }
        set_back
    }

    fn standing(&self, period: Period, most: u64, now: Time) -> Standing {
        let reset_in = period_end(period, self.start).saturating_sub(now.millis());
        let room_in = if self.count > most {
            reset_in.max(1)
        } else {
            0
        };
        Standing {
            used: self.count,
            room_in,
            reset_in,
        }
    }
}

/// Start of the period that holds a moment, in milliseconds since 1970.
fn period_start(period: Period, millis: u64) -> u64 {
    let day = millis / MILLIS_PER_DAY;
    let start_day = match period {
        Period::Hour => return millis.saturating_sub(millis % MILLIS_PER_HOUR),
        Period::Day => day,
        Period::Week => {
            day.saturating_sub(day.saturating_add(DAYS_FROM_MONDAY_TO_EPOCH) % DAYS_PER_WEEK)
        }
        Period::Month => Date {
            day: 1,
            ..Date::from_days(day)
        }
        .to_days(),
    };
    start_day.saturating_mul(MILLIS_PER_DAY)
}

/// End of the period that begins at `start`, in milliseconds since 1970.
fn period_end(period: Period, start: u64) -> u64 {
    let length = match period {
        Period::Hour => MILLIS_PER_HOUR,
        Period::Day => MILLIS_PER_DAY,
        Period::Week => DAYS_PER_WEEK.saturating_mul(MILLIS_PER_DAY),
        Period::Month => {
            let Date { year, month, .. } = Date::from_days(start / MILLIS_PER_DAY);
            let next = if month == 12 {
                Date {
                    year: year.saturating_add(1),
                    month: 1,
                    day: 1,
                }
            } else {
                Date {
                    year,
                    month: month.saturating_add(1),
                    day: 1,
                }
            };
            return next.to_days().saturating_mul(MILLIS_PER_DAY);
        }
    };
    start.saturating_add(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Window = Window::Sliding { millis: 60_000 };
    /// 2026-03-01T12:00:00Z, a Sunday.
    const NOON: u64 = 1_772_366_400_000;

    struct Counter {
        state: State,
        window: Window,
        limit: u64,
    }

    impl Counter {
        fn new(window: Window, limit: u64) -> Self {
            Self {
                state: State::new(window),
                window,
                limit,
            }
        }

        /// Takes a place at a moment, or says how long to wait.
        fn call(&mut self, millis: u64) -> Result<Place, u64> {
            let now = Time::from_millis(millis);
            self.state.advance(self.window, now);
            let standing = self.state.standing(self.window, self.limit, 1, now);
            if standing.used < self.limit {
                assert_eq!(standing.room_in, 0);
                return Ok(self.state.take(1));
            }
            assert!(standing.room_in > 0 && standing.room_in <= standing.reset_in);
            Err(standing.room_in)
        }
    }

    #[test]
    fn a_state_is_ahead_of_what_comes_before_it() {
        let at = |millis| Time::from_millis(NOON + millis);
        let calendar = Window::Calendar(Period::Hour);
        for (window, length) in [(MINUTE, 1_000), (calendar, 3_600_000)] {
            let mut state = State::new(window);
            state.advance(window, at(0));
            state.take(1);
            assert!(!state.is_ahead_of(window, at(0)));
            assert!(!state.is_ahead_of(window, at(length)));
            assert!(state.is_ahead_of(window, Time::from_millis(NOON - length - 1)));
        }
        let other = State::new(MINUTE);
        assert!(!other.is_ahead_of(calendar, Time::from_millis(0)));
    }

    #[test]
    fn a_clock_is_set_back_when_it_is_further_behind_than_workers_are() {
        const DAYS: u64 = 31 * MILLIS_PER_DAY;
        let hour = Window::Calendar(Period::Hour);
        // A window, a moment that begins a slot of it, and the most that is not set back.
        for (window, at, most) in [
            // Slots of a second, and as many as two of them.
            (Window::Sliding { millis: 64_000 }, NOON, 2_000),
            // Half a window.
            (Window::Sliding { millis: 1_000 }, NOON, 500),
            // The slot before, however long it is.
            (Window::Sliding { millis: DAYS }, DAYS * 600, DAYS / 64),
            (hour, NOON, 2_000),
        ] {
            for (behind, expected) in [(0, false), (1, false), (most, false), (most + 1, true)] {
                let mut state = State::new(window);
                assert!(!state.advance(window, Time::from_millis(at)));
                let back = state.advance(window, Time::from_millis(at - behind));
                assert_eq!(back, expected, "{window:?} {behind}");
            }
        }
    }

    #[test]
    fn records_that_are_none_are_not_read() {
        let slot = |age: u8, count: u64| [&[age][..], &count.to_le_bytes()].concat();
        let of = |slots: &[Vec<u8>]| {
            let count = u8::try_from(slots.len()).unwrap();
            [&[count][..], &slots.concat()].concat()
        };
        let last = u8::try_from(KEPT).unwrap() - 1;
        let good = of(&[slot(0, 1), slot(last, 2)]);
        assert!(
            decode_sparse(&good).is_some_and(|(slots, rest)| slots.len() == 2 && rest.is_empty())
        );
        for bad in [
            of(&[slot(1, 1), slot(1, 2)]),
            of(&[slot(2, 1), slot(1, 2)]),
            of(&[slot(last + 1, 1)]),
            of(&[slot(0, 0)]),
            good[..good.len() - 1].to_vec(),
            Vec::new(),
        ] {
            assert!(decode_sparse(&bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn no_window_holds_more_than_the_limit_and_room_comes_back_in_time() {
        // A fixed sequence of odd steps instead of a random one.
        for (millis, limit) in [
            (1_000, 3),
            (60_000, 10),
            (60_000, 1),
            (7_777, 5),
            (86_400_000, 4),
        ] {
            let mut counter = Counter::new(Window::Sliding { millis }, limit);
            let mut admitted: Vec<u64> = Vec::new();
            let (mut now, mut seed) = (NOON, 1_u64);
            for _ in 0..5_000 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                now += (seed >> 33) % (millis / limit / 2);
                let in_window = admitted.iter().filter(|at| **at + millis > now).count() as u64;
                match counter.call(now) {
                    Ok(_) => {
                        assert!(in_window < limit, "over the limit");
                        admitted.push(now);
                    }
                    Err(room_in) => {
                        let nth = admitted[admitted.len() - limit as usize];
                        let could = nth + millis;
                        assert!(now < could + millis.div_ceil(60), "held back too long");
                        assert!(
                            now + room_in <= could + millis.div_ceil(60),
                            "room promised late"
                        );
                        assert!(
                            counter.clone_call(now + room_in).is_ok(),
                            "promise not kept"
                        );
                        assert!(
                            counter.clone_call(now + room_in - 1).is_err(),
                            "promise too late"
                        );
                    }
                }
            }
        }
    }

    impl Counter {
        fn clone_call(&self, millis: u64) -> Result<Place, u64> {
            let copy = Self {
                state: self.state.clone(),
                window: self.window,
                limit: self.limit,
            };
            { copy }.call(millis)
        }
    }

    #[test]
    fn what_is_given_back_is_room_again() {
        let mut counter = Counter::new(MINUTE, 1);
        let place = counter.call(NOON).unwrap();
        assert!(counter.call(NOON + 10_000).is_err());
        counter.state.give_back(place, 1);
        let place = counter.call(NOON + 10_000).unwrap();
        // Too late: the call has left the window, and giving it back must not free another's.
        let other = counter.call(NOON + 80_000).unwrap();
        counter.state.give_back(place, 1);
        assert!(counter.call(NOON + 80_000).is_err());
        counter.state.give_back(other, 1);
        counter.state.give_back(other, 1);
        assert!(counter.state.is_empty());
    }

    #[test]
    fn a_clock_set_back_frees_nothing_and_locks_out_for_one_window_at_most() {
        for jump in [3_000_u64, 60_000, 3_600_000] {
            let mut counter = Counter::new(MINUTE, 2);
            counter.call(NOON).unwrap();
            counter.call(NOON).unwrap();
            let now = NOON - jump;
            let room_in = counter.call(now).unwrap_err();
            assert!(room_in <= 61_000, "{jump}: {room_in}");
            assert!(counter.call(now + 61_000).is_ok());
        }
        // Two workers, one of which read the clock a little earlier.
        let mut counter = Counter::new(MINUTE, 2);
        counter.call(NOON).unwrap();
        counter.call(NOON - 1_500).unwrap();
        assert!(counter.call(NOON + 59_000).is_err());
        let mut counter = Counter::new(MINUTE, 2);
        counter.call(NOON).unwrap();
        assert!(counter.call(NOON + MILLIS_PER_DAY).is_ok());
    }

    #[test]
    fn quotas_follow_the_calendar() {
        let day = |year, month, day| Date { year, month, day }.to_days() * MILLIS_PER_DAY;
        for (period, start, end) in [
            (Period::Hour, NOON, NOON + MILLIS_PER_HOUR),
            (Period::Day, day(2026, 3, 1), day(2026, 3, 2)),
            (Period::Week, day(2026, 2, 23), day(2026, 3, 2)),
            (Period::Month, day(2026, 3, 1), day(2026, 4, 1)),
        ] {
            assert_eq!(period_start(period, NOON), start, "{period:?}");
            assert_eq!(period_start(period, end - 1), start, "{period:?}");
            assert_eq!(period_start(period, end), end, "{period:?}");
            assert_eq!(period_end(period, start), end, "{period:?}");
            let mut counter = Counter::new(Window::Calendar(period), 1);
            counter.call(start).unwrap();
            assert_eq!(counter.call(end - 1), Err(1));
            assert!(counter.call(end).is_ok());
        }
        assert_eq!(period_end(Period::Month, day(2026, 12, 1)), day(2027, 1, 1));
        assert_eq!(period_end(Period::Month, day(2028, 2, 1)), day(2028, 3, 1));
    }

    #[test]
    fn a_quota_survives_a_clock_set_back() {
        let mut counter = Counter::new(Window::Calendar(Period::Hour), 1);
        let place = counter.call(NOON).unwrap();
        // Just over the edge, by a worker that read the clock before: same period.
        assert!(counter.call(NOON - 1_000).is_err());
        // An hour back: still used up, and free at the end of that hour.
        let room_in = counter.call(NOON - MILLIS_PER_HOUR / 2).unwrap_err();
        assert_eq!(room_in, MILLIS_PER_HOUR / 2);
        counter.state.give_back(place, 1);
        assert!(counter.call(NOON).is_ok());
    }

    #[test]
    fn a_state_of_the_other_kind_is_begun_anew() {
        let windows = [
            Window::Sliding { millis: 60_000 },
            Window::Calendar(Period::Day),
        ];
        let now = Time::from_millis(NOON);
        for (one, other) in [(windows[0], windows[1]), (windows[1], windows[0])] {
            let mut state = State::new(one);
            state.advance(one, now);
            state.take(7);
            assert_eq!(state.standing(one, 9, 1, now).used, 7);
            assert_eq!(state.standing(other, 9, 1, now).used, 0);
            assert!(!state.advance(other, now));
            assert!(state.is_empty());
            state.take(2);
            assert_eq!(state.standing(other, 9, 1, now).used, 2);
        }
    }

    #[test]
    fn bytes_are_read_back_and_garbage_is_not() {
        for window in [MINUTE, Window::Calendar(Period::Day)] {
            let mut counter = Counter::new(window, 9);
            for call in 0..5 {
                counter.call(NOON + call * 7_000).unwrap();
            }
            let mut bytes = Vec::new();
            counter.state.encode(&mut bytes);
            assert_eq!(bytes.len(), counter.state.size());
            bytes.push(7);
            assert_eq!(
                State::decode(window, Layout::Sparse, &bytes),
                Some((counter.state.clone(), &[7][..]))
            );
            for end in 0..bytes.len() - 1 {
                assert_eq!(State::decode(window, Layout::Sparse, &bytes[..end]), None);
            }
        }
        assert_eq!(State::decode(MINUTE, Layout::Sparse, &[0xff; 1000]), None);
        assert_eq!(State::decode(MINUTE, Layout::Dense, &[0xff; 267]), None);
        let full = [&[0xff; 8][..], &[1, 64], &[0xff; 8]].concat();
        let (mut state, _) = State::decode(MINUTE, Layout::Sparse, &full).unwrap();
        state.advance(MINUTE, Time::from_millis(NOON));
        let _ = state.standing(MINUTE, 1, 1, Time::from_millis(NOON));
        state.take(1);
        assert!(!state.is_empty());
    }
}
