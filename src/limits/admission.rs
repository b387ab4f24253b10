//! A call's way through the limits of its application: admitted, then settled.
//!
//! A call whose body says more than its head is admitted in two steps: with the head to every limit that the head
//! decides, and with the body to the rest. In the end it is in all of them or in none.

use super::LimitId;
use super::NamedLimit;
use super::holds;
use super::record::Record;
use super::window::{Place, Standing};
use crate::operations::Action;
use crate::policy::{Count, Limit, Measure, Window};
use crate::store::{self, SharedStore, StoreError};
use crate::time::Time;

/// What limits need to know of a call.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// What is asked for; `None` where that is not known.
    pub action: Option<Action>,
    /// Which deployment it runs.
    pub deployment: Deployment<'a>,
    /// The most tokens that it may use; `None` until its body is read.
    pub reserve: Option<u64>,
}

impl Asking<'_> {
    /// Whether it may run a model: one of the same action that stops a run or reads a result does not.
    fn runs_a_model(&self) -> bool {
        self.deployment != Deployment::None
    }
}

/// Which deployment a call runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deployment<'a> {
    /// This one.
    Named(&'a str),
    /// None.
    None,
    /// One that is named where nobody here can see it.
    Unknown,
    /// The one that its body names, which is not read yet.
    InBody,
}

/// A call that was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    key: String,
    held: Vec<Held>,
}

/// What a call holds in one limit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    id: LimitId,
    window: Window,
    count: Count,
    measure: Measure,
    place: Place,
    amount: u64,
}

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// What it counts.
    pub measure: Measure,
    /// How much of it passes in one window.
    pub limit: u64,
    /// How much is left, which is less than the call needs.
    pub remaining: u64,
    /// The window.
    pub window: Window,
    /// The call may use more than ever passes in one window.
    pub never: bool,
    /// Milliseconds until there is room in every limit of the application.
    pub room_in: u64,
    /// Milliseconds until there may be, if calls in flight give back what they hold.
    pub retry_in: u64,
    /// Milliseconds until nothing is counted any more.
    pub reset_in: u64,
}

/// What became of [`admit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The call is counted.
    Counted(Admission),
    /// A limit is reached; nothing was counted.
    Reached(Reached),
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Its response.
    pub status: ResponseStatus,
    /// The tokens that it is charged.
    pub tokens: u64,
}

/// The status of a call's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseStatus {
    /// There was no response: the caller left before it, or the gateway gave up.
    Absent,
    /// There was one, and the gateway does not hand over its status: it may be one that counts.
    Unknown,
    /// This one.
    Code(u16),
}

impl ResponseStatus {
    /// The status, where it is known.
    #[must_use]
    pub fn code(self) -> Option<u16> {
        match self {
            Self::Code(code) => Some(code),
            Self::Absent | Self::Unknown => None,
        }
    }

    /// Whether it is known to be none of 2xx.
    #[must_use]
    pub fn is_failure(self) -> bool {
        self.code().is_some_and(|code| !(200..300).contains(&code))
    }
}

/// Counts a call against all limits of its application that are for it, or against none. Limits that depend
/// on a body that is not read yet are left to [`Admission::extend`]; of those that reserve tokens it is known that
/// they have some left.
///
/// The clock may tell the time of the request first. It is read again when another worker was later: a worker
/// that was held up would look like a clock that was set back.
///
/// # Errors
/// The host failed, or other workers were always first: the caller must refuse.
pub fn admit(
    store: &dyn SharedStore,
    key: String,
    limits: &[NamedLimit],
    asking: &Asking<'_>,
    clock: &dyn Fn() -> Time,
    retries: &mut u32,
) -> Result<Admitted, StoreError> {
    let admission = Admission {
        key,
        held: Vec::new(),
    };
    admission.extend(store, limits, asking, clock, retries)
}

/// Takes a place in every limit that is not held yet, or says which is reached and whether the clock was set
/// back.
fn take_all(
    record: &mut Record,
    limits: &[NamedLimit],
    asking: &Asking<'_>,
    held: &[Held],
    now: Time,
) -> Result<Vec<Held>, (Reached, bool)> {
    let mut worst: Option<Reached> = None;
    let mut retry_in = 0;
    let mut set_back = false;
    let concerned = || concerned(limits, asking, held);
    for named in concerned() {
        let NamedLimit { id, limit } = named;
        let state = record.state(*id, limit.window);
        set_back |= state.advance(limit.window, now);
        let needed = limit.takes(asking).unwrap_or_default().max(1);
        let standing = state.standing(limit.window, limit.amount, needed, now);
        if limit.amount.saturating_sub(standing.used) >= needed {
            continue;
        }
        let reached = reached(record, named, needed, &standing, now);
        retry_in = retry_in.max(reached.retry_in);
        let is_worse =
            |worst: Reached| (reached.never, reached.room_in) > (worst.never, worst.room_in);
        if worst.is_none_or(is_worse) {
            worst = Some(reached);
        }
    }
    if let Some(worst) = worst {
        return Err((Reached { retry_in, ..worst }, set_back));
    }
    Ok(concerned()
        .filter_map(|named| take(record, named, asking))
        .collect())
}

/// The refusal of a call that needs more than a limit has left.
fn reached(
    record: &mut Record,
    named: &NamedLimit,
    needed: u64,
    standing: &Standing,
    now: Time,
) -> Reached {
    let limit = &named.limit;
    let never = needed > limit.amount;
    let room_in = match limit.window {
        // Waiting does not help; a window later at least the rest of it is free.
        Window::Sliding { millis } if never => millis,
        Window::Sliding { .. } => standing.room_in,
        Window::Calendar(_) => standing.reset_in.max(1),
    };
    let reserves = limit.measure == Measure::Tokens { reserve: true };
    let sooner = if reserves && !never {
        holds::room_in(record, named, needed, now)
    } else {
        None
    };
    Reached {
        measure: limit.measure,
        limit: limit.amount,
        remaining: limit.amount.saturating_sub(standing.used),
        window: limit.window,
        never,
        room_in,
        retry_in: sooner.map_or(room_in, |sooner| sooner.min(room_in)),
        reset_in: standing.reset_in,
    }
}

/// Takes a call's place in a limit that has room; `None` where it takes none until its body is read.
fn take(
    record: &mut Record,
    NamedLimit { id, limit }: &NamedLimit,
    asking: &Asking<'_>,
) -> Option<Held> {
    let amount = limit.takes(asking)?;
    let held = Held {
        id: *id,
        window: limit.window,
        count: limit.count.clone(),
        measure: limit.measure,
        place: record.state(*id, limit.window).take(amount),
        amount,
    };
    if held.is_reserved() {
        holds::take(record, held.id, held.window, held.place, amount);
    }
    Some(held)
}

/// The limits that a call has to have room in, and holds nothing of yet.
fn concerned<'a>(
    limits: &'a [NamedLimit],
    asking: &Asking<'_>,
    held: &[Held],
) -> impl Iterator<Item = &'a NamedLimit> {
    let is_held = |id: LimitId| held.iter().any(|held| held.id == id);
    limits
        .iter()
        .filter(move |named| named.limit.is_for(asking) && !is_held(named.id))
}

impl Limit {
    /// Whether it is for a call. It is, unless the call is known to be none of those it names: what is
    /// not known must not slip past it. Which deployments it names is nothing to a head that names none.
    pub(crate) fn is_for(&self, asking: &Asking<'_>) -> bool {
        let operation = asking.action.is_none_or(|action| {
            let named = self.scope.operations;
            named.is_none_or(|named| named.grant(action))
                && (self.measure == Measure::Calls || action.uses_tokens() && asking.runs_a_model())
        });
        let deployment =
            self.scope
                .deployments
                .as_ref()
                .is_none_or(|deployments| match asking.deployment {
                    Deployment::Named(name) => deployments.include(name),
                    Deployment::None | Deployment::InBody => false,
                    Deployment::Unknown => true,
                });
        operation && deployment
    }

    /// What a call takes of it when it is admitted; `None` until its body is read.
    fn takes(&self, asking: &Asking<'_>) -> Option<u64> {
        match self.measure {
            Measure::Calls => Some(1),
            Measure::Tokens { reserve: false } => Some(0),
            Measure::Tokens { reserve: true } => asking.reserve,
        }
    }
}

/// What settling changes in one limit.
enum Change {
    Nothing,
    GiveBack(u64),
    Charge(u64),
}

impl Admission {
    /// Counts an admitted call against the limits that are for it now that more is known, besides those that
    /// it is in. Where one of them is reached, it gives back what it holds in the others.
    ///
    /// # Errors
    /// The host failed, or other workers were always first: the caller must refuse. What the call holds then may
    /// stay counted.
    pub fn extend(
        self,
        store: &dyn SharedStore,
        limits: &[NamedLimit],
        asking: &Asking<'_>,
        clock: &dyn Fn() -> Time,
        retries: &mut u32,
    ) -> Result<Admitted, StoreError> {
        let Self { key, mut held } = self;
        if concerned(limits, asking, &held).next().is_none() {
            return Ok(Admitted::Counted(Self { key, held }));
        }
        let updated = store::update(store, &key, |value| {
            let mut record = value.map(Record::decode).unwrap_or_default();
            let mut now = clock();
            if record.is_ahead_of(now) {
                now = clock();
            }
            match take_all(&mut record, limits, asking, &held, now) {
                Ok(taken) if taken.is_empty() => (Ok(taken), None),
                Ok(taken) => {
                    record.drop_finished(limits, now);
                    (Ok(taken), Some(record.encode()))
                }
                Err((reached, set_back)) => {
                    give_back_all(&mut record, &held);
                    // A clock that was set back must be written down, or the counts would stay in its
                    // future.
                    let changed = set_back || !held.is_empty();
                    (Err(reached), changed.then(|| record.encode()))
                }
            }
        })?;
        *retries = retries.saturating_add(updated.retries);
        Ok(match updated.answer {
            Ok(taken) => {
                if held.is_empty() {
                    held = taken;
                } else {
                    held.extend(taken);
                }
                Admitted::Counted(Self { key, held })
            }
            Err(reached) => Admitted::Reached(reached),
        })
    }

    /// Gives back all that a call holds which was refused after it was counted, whatever its limits count.
    ///
    /// # Errors
    /// The host failed; what the call holds then stays counted.
    pub fn release(self, store: &dyn SharedStore, retries: &mut u32) -> Result<(), StoreError> {
        if self.held.iter().all(|held| held.amount == 0) {
            return Ok(());
        }
        let updated = store::update(store, &self.key, |value| {
            let mut record = value.map(Record::decode).unwrap_or_default();
            give_back_all(&mut record, &self.held);
            ((), Some(record.encode()))
        })?;
        *retries = retries.saturating_add(updated.retries);
        Ok(())
    }

    /// Settles a call that has ended: gives its places back where the answer does not count, and
    /// charges the tokens that it used.
    ///
    /// Takes the admission: a call settles once.
    ///
    /// # Errors
    /// The host failed; what the call holds then stays counted.
    pub fn settle(
        self,
        store: &dyn SharedStore,
        settlement: &Settlement,
        clock: &dyn Fn() -> Time,
        retries: &mut u32,
    ) -> Result<(), StoreError> {
        let changes: Vec<_> = self
            .held
            .iter()
            .map(|held| (held, held.change(settlement)))
            .filter(|(held, change)| held.is_reserved() || !matches!(change, Change::Nothing))
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        let updated = store::update(store, &self.key, |value| {
            let mut record = value.map(Record::decode).unwrap_or_default();
            let now = clock();
            for (held, change) in &changes {
                if held.is_reserved() {
                    holds::give_back(&mut record, held.id, held.place, held.amount);
                }
                match change {
                    Change::Nothing => {}
                    Change::GiveBack(amount) => {
                        if let Some(state) = record.known(held.id) {
                            state.give_back(held.place, *amount);
                        }
                    }
                    Change::Charge(amount) => {
                        let state = record.state(held.id, held.window);
                        state.advance(held.window, now);
                        state.take(*amount);
                    }
                }
            }
            ((), Some(record.encode()))
        })?;
        *retries = retries.saturating_add(updated.retries);
        Ok(())
    }

    /// The most tokens that a limit holds for it.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        let reserving = self.held.iter();
        let reserving = reserving.filter(|held| held.measure != Measure::Calls);
        reserving.map(|held| held.amount).max().unwrap_or_default()
    }

    /// Whether any answer changes what it holds.
    #[must_use]
    pub fn depends_on_answer(&self) -> bool {
        let depends = |held: &Held| held.count != Count::All || held.measure != Measure::Calls;
        self.held.iter().any(depends)
    }

    /// Whether it has to wait for the answer's end, and not only for its status.
    #[must_use]
    pub fn counts_tokens(&self) -> bool {
        self.held.iter().any(|held| held.measure != Measure::Calls)
    }
}

fn give_back_all(record: &mut Record, all: &[Held]) {
    for held in all {
        if let Some(state) = record.known(held.id) {
            state.give_back(held.place, held.amount);
        }
        if held.is_reserved() {
            holds::give_back(record, held.id, held.place, held.amount);
        }
    }
}

impl Held {
    /// Whether it holds tokens that come back when the call ends.
    fn is_reserved(&self) -> bool {
        self.measure == Measure::Tokens { reserve: true } && self.amount > 0
    }

    fn change(&self, settlement: &Settlement) -> Change {
        let counted = counts(&self.count, settlement.status);
        let used = match self.measure {
            _ if !counted => 0,
            Measure::Calls => self.amount,
            Measure::Tokens { .. } => settlement.tokens,
        };
        match (used.checked_sub(self.amount), self.amount.checked_sub(used)) {
            (Some(0), _) => Change::Nothing,
            (Some(more), _) => Change::Charge(more),
            (None, less) => Change::GiveBack(less.unwrap_or_default()),
        }
    }
}

fn counts(count: &Count, status: ResponseStatus) -> bool {
    match (count, status) {
        (Count::All, _) | (_, ResponseStatus::Unknown) => true,
        (_, ResponseStatus::Absent) => false,
        (Count::Success, ResponseStatus::Code(code)) => (200..300).contains(&code),
        (Count::Statuses(statuses), ResponseStatus::Code(code)) => statuses.contains(&code),
    }
}

#[cfg(test)]
mod tests;
