//! A switch that kills the VM, for the tests of what happens then. It exists only in builds with the
//! feature `chaos`, which `make build` never sets.

use crate::request::HeaderMap;

/// The request header that pulls the switch.
const SWITCH: &str = "x-tollgate-chaos";

/// Traps, if the request says so.
pub(super) fn obey(headers: &HeaderMap) {
    if headers.first(SWITCH) == Some(b"trap") {
        std::process::abort();
    }
}
