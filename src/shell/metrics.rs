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
    counters: RefCell<HashMap<Counter, u32>>,
}

impl Metrics {
    /// Counts a request or its tokens. The name is made once.
    pub(super) fn count(&self, counter: Counter, offset: u64, policy: &Policy) {
        let (Ok(mut counters), Ok(offset)) =
            (self.counters.try_borrow_mut(), i64::try_from(offset))
        else {
            return;
        };
        let id = match counters.get(&counter) {
            Some(id) => *id,
            None => {
                let name = counter.name(policy);
                let Ok(id) = abi::define_metric(abi::Metric::Counter, &name) else {
                    return;
                };
                counters.insert(counter, id);
                id
            }
        };
        if offset > 0 {
            let _ = abi::increment_metric(id, offset);
        }
    }

    /// Adds to a counter. Adding nothing makes it visible.
    pub(super) fn add(&self, name: String, offset: u64) {
        let Ok(offset) = i64::try_from(offset) else {
            return;
        };
        if let Some(id) = self.id(abi::Metric::Counter, name)
            && offset > 0
        {
            // A metric that cannot be kept must not stop a request.
            let _ = abi::increment_metric(id, offset);
        }
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
