//! The targets of `tests/fuzz`, for libFuzzer: `make fuzz`.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "tests compute on their own constants, and each part uses some of them"
)]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/fuzz/targets/mod.rs"]
mod targets;

/// Runs a target once. It panics where an invariant does not hold.
pub fn check(name: &str, input: &[u8]) {
    (targets::named(name).check)(input);
}

/// The names of the targets.
pub fn names() -> impl Iterator<Item = &'static str> {
    targets::ALL.into_iter().map(|target| target.name)
}

/// What to begin with.
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    (targets::named(name).seeds)()
}

/// The words of a target, as a dictionary.
pub fn dictionary(name: &str) -> String {
    let escaped = |byte: u8| format!("\\x{byte:02x}");
    let line = |word: &&str| format!("\"{}\"\n", word.bytes().map(escaped).collect::<String>());
    targets::named(name).words.iter().map(line).collect()
}
