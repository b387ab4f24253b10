//! What was asked of the stand-in: the latest requests, word for word.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::message::Received;

/// How many requests are remembered.
const REMEMBERED: usize = 1000;
/// How much of a remembered body is kept; 1,000 large ones would fill the memory.
const REMEMBERED_BODY: usize = 64 * 1024;

#[derive(Default)]
pub(super) struct Record {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    count: u64,
    latest: VecDeque<Value>,
}

impl Record {
    pub(super) fn add(&self, received: &Received) {
        let mut state = self.state();
        state.count += 1;
        if state.latest.len() == REMEMBERED {
            state.latest.pop_front();
        }
        state.latest.push_back(echo(received, REMEMBERED_BODY));
    }

    pub(super) fn latest(&self) -> Value {
        self.state().latest.iter().cloned().collect()
    }

    pub(super) fn count(&self) -> u64 {
        self.state().count
    }

    pub(super) fn clear(&self) {
        *self.state() = State::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The request as JSON; the path with its query, headers in order and with repeats.
pub(super) fn echo(received: &Received, body_limit: usize) -> Value {
    let target = received
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let headers: Vec<[String; 2]> = received
        .headers
        .iter()
        .map(|(name, value)| {
            [
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            ]
        })
        .collect();
    let kept = &received.body[..received.body.len().min(body_limit)];
    json!({
        "method": received.method.as_str(), "path": target, "headers": headers,
        "body": String::from_utf8_lossy(kept),
    })
}
