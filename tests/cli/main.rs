//! The built command line: what it writes, its exit codes, its errors.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "tests on their own input"
)]

#[path = "../common/mod.rs"]
mod common;

mod check;
mod documents;
mod explain;
mod gateways;
mod import;
mod probe;
mod roles;
mod run;
mod server;
mod usage;
