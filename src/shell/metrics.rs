//! Metrics of the host, defined when they are first used.

use std::cell::RefCell;
use std::collections::HashMap;

use super::abi;
use crate::telling::metric;

/// Ids by name. The names are bounded by the policy: see [`crate::telling`].
#[derive(Debug, Default)]
pub(super) struct Metrics {
    ids: RefCell<HashMap<String, u32>>,
}

impl Metrics {
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
        if let Some(id) = ids.get(&name) {
            return Some(*id);
        }
        let id = abi::define_metric(kind, &name).ok()?;
        ids.insert(name, id);
        Some(id)
    }
}
