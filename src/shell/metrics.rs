//! Metrics of the host, defined when they are first used.

use std::cell::RefCell;

use hashbrown::HashMap;

use super::abi;
use crate::policy::Policy;
use crate::telling::{Counter, metric};

/// Ids by name. The names are bounded by the policy: see [`crate::telling`].
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// A few for each issuer.
    ids: RefCell<Vec<(String, u32)>>,
    counters: RefCell<HashMap<Counter, Tally>>,
}

/// The most that is counted at once. No call uses so many tokens, and the host's counters wrap at 2^64: a
/// backend that says it did must not take one there.
const MOST: u64 = 1 << 40;

/// A counter of the host, and what it does not know yet.
#[derive(Debug)]
struct Tally {
    id: u32,
    pending: u64,
}

impl Metrics {
    /// Counts a request or its tokens. The name is made once, and the host is told with the next
    /// [`Self::flush`]: a call for each request would cost more than the counting.
    pub(super) fn count(&self, counter: Counter, amount: u64, policy: &Policy) {
        let Ok(mut counters) = self.counters.try_borrow_mut() else {
            return;
        };
        let amount = amount.min(MOST);
        if let Some(tally) = counters.get_mut(&counter) {
            tally.pending = tally.pending.saturating_add(amount);
        } else if let Ok(id) = abi::define_metric(abi::Metric::Counter, &counter.name(policy)) {
            let pending = amount;
            counters.insert(counter, Tally { id, pending });
        }
    }

    /// Tells the host what was counted since the last time.
    pub(super) fn flush(&self) {
        let Ok(mut counters) = self.counters.try_borrow_mut() else {
            return;
        };
        for tally in counters.values_mut().filter(|tally| tally.pending > 0) {
            // A metric that cannot be kept must not stop a request; it is told later.
            if let Ok(pending) = i64::try_from(tally.pending)
                && abi::increment_metric(tally.id, pending).is_ok()
            {
                tally.pending = 0;
            }
        }
    }

    /// Adds to a counter. Adding nothing makes it visible. `false` when the host has no such counter.
    pub(super) fn add(&self, name: String, offset: u64) -> bool {
        let (Ok(offset), Some(id)) = (i64::try_from(offset), self.id(abi::Metric::Counter, name))
        else {
            return false;
        };
        if offset > 0 {
            // A metric that cannot be kept must not stop a request.
            let _ = abi::increment_metric(id, offset);
        }
        true
    }

    /// Sets a gauge of an issuer.
    pub(super) fn set_gauge(&self, name: &str, issuer: &str, value: u64) {
        if let Some(id) = self.id(abi::Metric::Gauge, metric(name, &[("issuer", issuer)])) {
            let _ = abi::record_metric(id, value);
        }
    }

    fn id(&self, kind: abi::Metric, name: String) -> Option<u32> {
        let mut ids = self.ids.try_borrow_mut().ok()?;
        if let Some((_, id)) = ids.iter().find(|(known, _)| *known == name) {
            return Some(*id);
        }
        let id = abi::define_metric(kind, &name).ok()?;
        ids.push((name, id));
        Some(id)
    }
}
