//! Records of the module's log and of Envoy's access log that are of one request.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use super::read::Source;

/// Requests that are remembered. Where both logs come one after the other, all of the first are needed.
const MAX_REQUESTS: usize = 1_000_000;

/// Tells the second record of a request from the first.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    hasher: RandomState,
    /// By the hash of the request's id: how many more records the module's log has of it than Envoy's.
    ahead: HashMap<u64, i32>,
    /// The log that the first record came from. Without ids, or beyond the bound, it alone counts: a call too few
    /// is better than every call twice.
    first: Option<Source>,
}

impl Pairs {
    /// Whether a record is the first of its request.
    pub(super) fn is_new(&mut self, request_id: Option<&str>, source: Source) -> bool {
        let first = *self.first.get_or_insert(source);
        let Some(id) = request_id.filter(|id| !id.is_empty() && *id != "-") else {
            return source == first;
        };
        let id = self.hasher.hash_one(id);
        if !self.ahead.contains_key(&id) && self.ahead.len() >= MAX_REQUESTS {
            return source == first;
        }
        let ahead = self.ahead.entry(id).or_default();
        // A caller may send several requests under one id: each of a log counts, once.
        let (is_new, step) = match source {
            Source::Module => (*ahead >= 0, 1),
            Source::Envoy => (*ahead <= 0, -1),
        };
        *ahead = ahead.saturating_add(step);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: Source = Source::Module;
    const ENVOY: Source = Source::Envoy;

    fn new(records: &[(Option<&str>, Source)]) -> Vec<bool> {
        let mut pairs = Pairs::default();
        records
            .iter()
            .map(|(id, source)| pairs.is_new(*id, *source))
            .collect()
    }

    #[test]
    fn o1_a_request_counts_once_whichever_log_has_it_first() {
        let (a, b) = (Some("a"), Some("b"));
        assert_eq!(
            new(&[(a, MODULE), (b, ENVOY), (a, ENVOY), (b, MODULE)]),
            [true, true, false, false]
        );
        // Two requests of one id.
        assert_eq!(
            new(&[(a, MODULE), (a, MODULE), (a, ENVOY), (a, ENVOY), (a, ENVOY)]),
            [true, true, false, false, true]
        );
        assert_eq!(
            new(&[(a, ENVOY), (a, MODULE), (a, ENVOY), (a, MODULE)]),
            [true, false, true, false]
        );
    }

    #[test]
    fn o1_without_ids_one_log_counts() {
        let none = None;
        assert_eq!(
            new(&[
                (none, ENVOY),
                (none, MODULE),
                (Some("-"), ENVOY),
                (Some(""), MODULE)
            ]),
            [true, false, true, false]
        );
    }
}
