//! What the built module does in a second proxy-wasm host: one topic a file, one binary.

mod abilities;
mod admission;
mod answers;
mod artifact;
mod bodies;
mod callouts;
mod charges;
mod clock;
mod common;
mod credentials;
mod failures;
mod forwarding;
mod host_crypto;
mod hosts;
mod interlock;
mod limits;
mod memory;
mod noise;
mod policy;
mod rotation;
mod telling;
mod tokens;
mod waiting;
mod workers;
