//! What makes things go wrong, for the tests of what happens then. It exists only in builds with the
//! feature `chaos`, which `make build` never sets.

use std::cell::Cell;

use super::abi;
use crate::request::HeaderMap;

/// The request header that says what is to happen.
pub(super) const SWITCH: &str = "x-tollgate-chaos";

/// How long a write lingers, in milliseconds: long enough for another worker's to come between.
const LINGER: u64 = 3;

thread_local! {
    /// The request that came last asks for writes that linger.
    static LINGERS: Cell<bool> = const { Cell::new(false) };
}

/// Does what the request says: traps at once, or has writes of shared data linger.
pub(super) fn obey(headers: &HeaderMap) {
    let asked = headers.first(SWITCH);
    if asked == Some(b"trap") {
        std::process::abort();
    }
    LINGERS.set(asked == Some(b"linger"));
}

/// Waits between the read of a shared value and its write.
pub(super) fn linger() {
    if LINGERS.get() {
        let end = abi::now().millis().saturating_add(LINGER);
        while abi::now().millis() < end {}
    }
}
