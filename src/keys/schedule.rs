//! When keys are fetched: pure rules of time over a record that all workers share.
//!
//! - At start, and whenever no set can be used: at once, then with a short back-off, because
//!   every request is waiting for it.
//! - In the background every `every`, a little earlier by chance so that gateways spread out.
//! - For an unknown `kid`, or after a failure with a usable set: when `at_most_every` has passed
//!   since the last attempt, whatever callers send.
//! - To confirm that a key is gone which the last good answer lacked: when `at_most_every` has passed since that
//!   answer.
//! - One at a time: whoever begins a fetch holds a lease, which ends by itself in case the VM
//!   that holds it goes away.
//!
//! A clock that is set back makes stamps lie in the future; such a stamp counts as long past.

use crate::policy::Refresh;

/// Shortest wait after a failure while there is no usable set.
const COLD_RETRY_MIN_MILLIS: u64 = 250;
/// Longest wait after a failure while there is no usable set: with a fetch and a tick on top, the
/// first good answer comes within two seconds of the provider's return.
const COLD_RETRY_MAX_MILLIS: u64 = 1_500;
/// Stamps this far in the future are clock skew between readings; beyond, the clock was set back.
const TOLERANCE_MILLIS: u64 = 2_000;
/// Longest time limit of a callout that a policy may set.
const MAX_TIMEOUT_MILLIS: u64 = 30_000;
/// What a lease lasts beyond the two callouts of a fetch.
const LEASE_MARGIN_MILLIS: u64 = 1_000;

/// The state of one issuer's fetches, as it stands in shared data. Times in milliseconds since
/// 1970; 0 is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Counts the key sets that differ; 0 while there was none.
    pub generation: u64,
    /// Tells equal key sets from others.
    pub digest: u64,
    /// When the last good set came.
    pub fetched_at: u64,
    /// When the next background fetch is due.
    pub next_at: u64,
    /// When the last attempt began.
    pub attempted_at: u64,
    /// Counts attempts: the lease's name.
    pub attempt: u64,
    /// Until when an attempt may be in flight; 0 when none is.
    pub lease_until: u64,
    /// Attempts that failed since the last good one.
    pub failures: u64,
}

const VERSION: u8 = 1;
const FIELDS: usize = 8;

impl Schedule {
    /// Reads the record; bytes that are none begin anew.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        Self::try_decode(bytes).unwrap_or_default()
    }

    fn try_decode(bytes: &[u8]) -> Option<Self> {
        let (version, mut rest) = bytes.split_first()?;
        let mut fields = [0; FIELDS];
        for field in &mut fields {
            let (bytes, left) = rest.split_first_chunk::<8>()?;
            *field = u64::from_le_bytes(*bytes);
            rest = left;
        }
        if *version != VERSION || !rest.is_empty() {
            return None;
        }
        let [
            generation,
            digest,
            fetched_at,
            next_at,
            attempted_at,
            attempt,
            lease_until,
            failures,
        ] = fields;
        Some(Self {
            generation,
            digest,
            fetched_at,
            next_at,
            attempted_at,
            attempt,
            lease_until,
            failures,
        })
    }

    /// Writes the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let fields: [u64; FIELDS] = [
            self.generation,
            self.digest,
            self.fetched_at,
            self.next_at,
            self.attempted_at,
            self.attempt,
            self.lease_until,
            self.failures,
        ];
        let mut bytes = vec![VERSION];
        for field in fields {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// Whether the last good set may serve now.
    #[must_use]
    pub fn usable(&self, now: u64, refresh: &Refresh) -> bool {
        let lifetime = refresh.every.saturating_add(refresh.keep_stale_for);
        self.generation > 0 && now.saturating_sub(self.fetched_at) <= lifetime
    }

    /// Whether an attempt is in flight somewhere in the process.
    #[must_use]
    pub fn in_flight(&self, now: u64) -> bool {
        // A lease longer than any lease is one from before the clock was set back. Longer than any,
        // not than one's own: a policy with another time limit may have taken it.
        let left = self.lease_until.saturating_sub(now);
        left > 0 && left <= lease_millis(MAX_TIMEOUT_MILLIS).saturating_add(TOLERANCE_MILLIS)
    }

    /// Whether a fetch is to begin now. `wanted`: a request named a `kid` that is not known.
    #[must_use]
    pub fn due(&self, now: u64, refresh: &Refresh, wanted: bool) -> bool {
        if self.in_flight(now) {
            return false;
        }
        if !self.usable(now, refresh) {
            return elapsed(self.attempted_at, now) >= self.cold_retry();
        }
        // A policy with a shorter interval may have come since.
        let is_old = elapsed(self.fetched_at, now) >= refresh.every;
        let refresh_due = self.failures > 0 || now >= self.next_at || is_old;
        self.floor_passed(now, refresh) && (refresh_due || wanted)
    }

    /// Whether an unknown `kid` may begin a fetch now. A set that took longer to come than the floor still
    /// answers for who waited for it.
    #[must_use]
    pub fn floor_passed(&self, now: u64, refresh: &Refresh) -> bool {
        self.since_last(now) >= refresh.at_most_every
    }

    /// Milliseconds since the last attempt began, or a good set came.
    fn since_last(&self, now: u64) -> u64 {
        elapsed(self.attempted_at, now).min(elapsed(self.fetched_at, now))
    }

    /// Milliseconds until the next attempt may begin.
    #[must_use]
    pub fn next_attempt_in(&self, now: u64, refresh: &Refresh) -> u64 {
        if self.usable(now, refresh) {
            refresh.at_most_every.saturating_sub(self.since_last(now))
        } else {
            let waited = elapsed(self.attempted_at, now);
            self.cold_retry().saturating_sub(waited)
        }
    }

    fn cold_retry(&self) -> u64 {
        let doublings = u32::try_from(self.failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        COLD_RETRY_MIN_MILLIS
            .saturating_mul(factor)
            .min(COLD_RETRY_MAX_MILLIS)
    }

    /// Begins an attempt.
    pub fn begin(&mut self, now: u64, refresh: &Refresh) {
        self.attempted_at = now;
        self.attempt = self.attempt.wrapping_add(1);
        self.lease_until = now.saturating_add(lease_millis(refresh.timeout));
    }

    /// Ends an attempt with a good set. `seed` spreads the next one, unless a key is `missing` in this one: then
    /// the next is asked for as soon as it may be.
    pub fn succeed(&mut self, now: u64, refresh: &Refresh, good: GoodSet) {
        let GoodSet {
            digest,
            missing,
            seed,
        } = good;
        *self = self.after_set(digest);
        self.fetched_at = now;
        let interval = if missing {
            refresh.at_most_every
        } else {
            jittered(refresh.every, seed)
        };
        self.next_at = now.saturating_add(interval);
        self.lease_until = 0;
        self.failures = 0;
    }

    /// The same with another set, if it is another.
    pub(super) fn after_set(mut self, digest: u64) -> Self {
        if self.generation == 0 || self.digest != digest {
            self.generation = self.generation.saturating_add(1);
            self.digest = digest;
        }
        self
    }

    /// Ends an attempt without one.
    pub fn fail(&mut self) {
        self.lease_until = 0;
        self.failures = self.failures.saturating_add(1);
    }
}

/// What a schedule keeps of a good set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GoodSet {
    /// Tells equal key sets from others.
    pub digest: u64,
    /// Whether a key serves that the answer lacks.
    pub missing: bool,
    /// Chance.
    pub seed: u64,
}

/// Whether a key that the newest answer lacks has served long enough: for twice `at_most_every`.
pub(super) fn is_departed(missing_since: u64, now: u64, refresh: &Refresh) -> bool {
    elapsed(missing_since, now) >= refresh.at_most_every.saturating_mul(2)
}

/// Whether an answer that was asked for at `began` and has come confirms that a key is gone. One that was asked for
/// before the key was first missing confirms nothing, however long it took.
pub(super) fn confirms(missing_since: u64, began: u64, now: u64, refresh: &Refresh) -> bool {
    is_ahead(missing_since, now) || began >= missing_since.saturating_add(refresh.at_most_every)
}

/// Whether a stamp is from before the clock was set back.
fn is_ahead(stamp: u64, now: u64) -> bool {
    stamp > now.saturating_add(TOLERANCE_MILLIS)
}

/// Milliseconds since a stamp; a stamp from the future is long past.
fn elapsed(stamp: u64, now: u64) -> u64 {
    if is_ahead(stamp, now) {
        u64::MAX
    } else {
        now.saturating_sub(stamp)
    }
}

fn lease_millis(timeout: u64) -> u64 {
    timeout
        .saturating_mul(2)
        .saturating_add(LEASE_MARGIN_MILLIS)
}

/// Nine to ten tenths of an interval.
fn jittered(interval: u64, seed: u64) -> u64 {
    // A multiplier from Knuth; its high bits are well mixed.
    let mixed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) >> 54;
    let tenth = interval / 10;
    interval.saturating_sub(tenth.saturating_mul(mixed) / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Refresh = Refresh {
        every: 3_600_000,
        at_most_every: 300_000,
        keep_stale_for: 86_400_000,
        timeout: 5_000,
    };
    const T: u64 = 1_772_366_400_000;

    fn set(digest: u64, seed: u64) -> GoodSet {
        GoodSet {
            digest,
            missing: false,
            seed,
        }
    }

    #[test]
    fn k1_a_missing_key_is_asked_for_after_the_floor_and_serves_for_two() {
        let mut schedule = loaded();
        let came = T + 3_600_000;
        schedule.begin(came, &REFRESH);
        let good = GoodSet {
            missing: true,
            ..set(8, 0)
        };
        schedule.succeed(came, &REFRESH, good);
        assert!(!schedule.due(came + 299_999, &REFRESH, true));
        assert!(schedule.due(came + 300_000, &REFRESH, false));
        let asked = |began| confirms(came, began, came + 301_000, &REFRESH);
        assert!(!asked(came + 299_999) && asked(came + 300_000));
        // Asked for before the answer that lacked it came, and late.
        assert!(!asked(came - 10_000));
        assert!(confirms(came, came - 3_601_000, came - 3_600_000, &REFRESH));
        assert!(!is_departed(came, came + 599_999, &REFRESH));
        assert!(is_departed(came, came + 600_000, &REFRESH));
        // A clock that was set back makes no key serve longer.
        assert!(is_departed(came, came - 3_600_000, &REFRESH));
        assert!(!is_departed(came, came - 1, &REFRESH));
    }

    fn loaded() -> Schedule {
        let mut schedule = Schedule::default();
        assert!(schedule.due(T, &REFRESH, false));
        schedule.begin(T, &REFRESH);
        schedule.succeed(T, &REFRESH, set(7, 0));
        schedule
    }

    #[test]
    fn a_lease_of_a_longer_time_limit_is_a_lease() {
        let patient = Refresh {
            timeout: 30_000,
            ..REFRESH
        };
        let hasty = Refresh {
            timeout: 500,
            ..REFRESH
        };
        let mut schedule = Schedule::default();
        schedule.begin(T, &patient);
        assert!(!schedule.due(T + 60_000, &hasty, true));
        assert!(schedule.due(T + 61_000, &hasty, false));
    }

    #[test]
    fn the_floor_holds_in_the_background_too() {
        let equal = Refresh {
            every: 5_000,
            at_most_every: 5_000,
            ..REFRESH
        };
        for seed in 0..100 {
            let mut schedule = Schedule::default();
            schedule.begin(T, &equal);
            schedule.succeed(T, &equal, set(7, seed * 1_000_003));
            assert!(!schedule.due(T + 4_999, &equal, true));
            assert!(schedule.due(T + 5_000, &equal, false));
        }
    }

    #[test]
    fn one_fetch_at_a_time_until_the_lease_ends() {
        let mut schedule = Schedule::default();
        schedule.begin(T, &REFRESH);
        assert!(!schedule.due(T + 1, &REFRESH, true));
        assert!(!schedule.due(T + 10_999, &REFRESH, true));
        assert!(schedule.due(T + 11_000, &REFRESH, false));
    }

    #[test]
    fn without_a_set_it_retries_soon_and_forever() {
        let mut schedule = Schedule::default();
        let mut now = T;
        let mut waits = Vec::new();
        for _ in 0..100 {
            schedule.begin(now, &REFRESH);
            schedule.fail();
            let wait = schedule.next_attempt_in(now, &REFRESH);
            assert!(!schedule.due(now + wait - 1, &REFRESH, true));
            now += wait;
            assert!(schedule.due(now, &REFRESH, false));
            waits.push(wait);
        }
        assert_eq!(waits[..5], [250, 500, 1000, 1500, 1500]);
    }

    #[test]
    fn in_the_background_within_the_interval() {
        let mut waits: Vec<u64> = (0..1000)
            .map(|seed| {
                let mut schedule = Schedule::default();
                schedule.succeed(T, &REFRESH, set(7, seed * 1_000_003));
                schedule.next_at - T
            })
            .collect();
        waits.sort_unstable();
        let (first, last) = (waits[0], waits[999]);
        assert!((3_240_000..3_250_000).contains(&first), "{first}");
        assert!((3_590_000..=3_600_000).contains(&last), "{last}");
        let schedule = loaded();
        assert!(!schedule.due(T + 3_239_999, &REFRESH, false));
        assert!(schedule.due(T + 3_600_000, &REFRESH, false));
    }

    #[test]
    fn a_shorter_interval_holds_for_the_set_that_is_there() {
        let schedule = loaded();
        let hasty = Refresh {
            every: 600_000,
            ..REFRESH
        };
        assert!(!schedule.due(T + 599_999, &hasty, false));
        assert!(schedule.due(T + 600_000, &hasty, false));
        assert!(!schedule.due(T + 600_000, &REFRESH, false));
    }

    #[test]
    fn unknown_kids_wait_for_the_floor() {
        let schedule = loaded();
        assert!(!schedule.due(T + 299_999, &REFRESH, true));
        assert!(schedule.due(T + 300_000, &REFRESH, true));
        assert!(!schedule.due(T + 300_000, &REFRESH, false));
        assert_eq!(schedule.next_attempt_in(T + 100_000, &REFRESH), 200_000);
    }

    #[test]
    fn a_set_that_took_longer_than_the_floor_is_an_answer() {
        let hasty = Refresh {
            at_most_every: 1_000,
            ..REFRESH
        };
        let mut schedule = loaded();
        let began = T + 60_000;
        assert!(schedule.due(began, &hasty, true));
        schedule.begin(began, &hasty);
        let came = began + 3_000;
        schedule.succeed(came, &hasty, set(7, 0));
        assert!(!schedule.floor_passed(came, &hasty));
        assert!(!schedule.due(came + 999, &hasty, true));
        assert_eq!(schedule.next_attempt_in(came + 400, &hasty), 600);
        assert!(schedule.due(came + 1_000, &hasty, true));
    }

    #[test]
    fn failures_keep_the_floor_and_the_old_set_until_it_is_too_old() {
        let mut schedule = loaded();
        // For a key that was not known, and in the background.
        for began in [T + 300_000, T + 3_600_000] {
            schedule.begin(began, &REFRESH);
            schedule.fail();
            assert!(!schedule.due(began + 299_999, &REFRESH, true));
            assert!(schedule.due(began + 300_000, &REFRESH, false));
        }
        let end = T + 3_600_000 + 86_400_000;
        assert!(schedule.usable(end, &REFRESH));
        assert!(!schedule.usable(end + 1, &REFRESH));
        assert!(schedule.due(end + 1, &REFRESH, false));
    }

    #[test]
    fn a_set_that_never_came_is_none_at_any_time() {
        for now in [0, 1, T] {
            assert!(!Schedule::default().usable(now, &REFRESH));
        }
    }

    #[test]
    fn a_stamp_a_little_ahead_is_of_now() {
        assert_eq!(elapsed(T, T + 5), 5);
        assert_eq!(elapsed(T + TOLERANCE_MILLIS, T), 0);
        assert_eq!(elapsed(T + TOLERANCE_MILLIS + 1, T), u64::MAX);
    }

    #[test]
    fn equal_sets_keep_the_generation() {
        let mut schedule = loaded();
        assert_eq!(schedule.generation, 1);
        schedule.succeed(T + 1, &REFRESH, set(7, 0));
        assert_eq!(schedule.generation, 1);
        schedule.succeed(T + 2, &REFRESH, set(8, 0));
        assert_eq!(schedule.generation, 2);
    }

    #[test]
    fn a_clock_set_back_stops_nothing() {
        let schedule = loaded();
        let now = T - 3_600_000;
        assert!(schedule.usable(now, &REFRESH));
        assert!(schedule.due(now, &REFRESH, false));
        let mut leased = schedule;
        leased.begin(T, &REFRESH);
        assert!(!leased.in_flight(now));
        assert!(leased.due(now, &REFRESH, false));
        assert!(
            !schedule.due(T - 1, &REFRESH, true),
            "a millisecond is no jump"
        );
    }

    #[test]
    fn the_record_is_read_back_and_garbage_begins_anew() {
        let schedule = loaded();
        let bytes = schedule.encode();
        assert_eq!(Schedule::decode(&bytes), schedule);
        for garbage in [&bytes[..10], &[][..], &[9; 65], &[1; 66]] {
            assert_eq!(Schedule::decode(garbage), Schedule::default());
        }
        let wild = Schedule::decode(&[&[1][..], &[0xff; 64]].concat());
        let _ = wild.due(T, &REFRESH, true);
        let _ = wild.usable(T, &REFRESH);
        let _ = wild.next_attempt_in(T, &REFRESH);
    }
}
