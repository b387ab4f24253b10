//! The interlock: the filter state by which the gateway knows that this module let a request go on.
//!
//! An RBAC filter between the module and the router denies every request without it (docs/gateways.md), so that
//! a gateway whose module is missing, replaced or failed open lets nothing through.

use std::cell::Cell;

use super::plugin::Plugin;

/// Filter state `wasm.tollgate.passed`. Clients cannot set filter state, whatever they send.
const PASSED: &str = "tollgate.passed";

/// Whether a request's filter state is set. Not every host lets filter state be set twice, and where the body
/// decides, a request is allowed after its head went on.
#[derive(Default)]
pub(super) struct Interlock {
    is_open: Cell<bool>,
}

impl Interlock {
    /// Sets the filter state, once. Called before the head goes on, and for no request that is refused by then.
    ///
    /// A host that refuses the filter state is warned of once. Its requests go on: with an interlock the gateway
    /// denies them, and a host without filter state has no interlock.
    pub(super) fn open(&self, plugin: &Plugin) {
        if !self.is_open.replace(true) {
            plugin.set_state(PASSED, b"true");
        }
    }
}
