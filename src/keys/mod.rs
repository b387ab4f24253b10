//! Issuers' keys: sets, where they come from, and when they are fetched.
//!
//! One fetch per process serves all workers: the schedule and the set stand in shared data,
//! and whoever finds a fetch due takes a lease on it. See [`Schedule`] for the rules of time.

mod issuer;
mod metadata;
mod schedule;
mod set;

pub use issuer::{
    Answer, FetchOutcome, FetchedKeys, IssuerKeys, Lookup, NextCall, Progress, Unreachable, Wanted,
};
pub use metadata::{Metadata, MetadataError};
pub use schedule::{GoodSet, Schedule};
pub use set::{Key, KeySet, KeySetError, MAX_DOCUMENT, MAX_KEYS, SkipReason, Skipped};
