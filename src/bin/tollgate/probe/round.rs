//! One round: its calls, what they show together, and how that is written.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Style};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::calls::{Call, Credential};
use super::client::{Client, Unanswered};
use super::target::Target;
use super::verdict::{Judgement, Verdict, judge};

/// How many calls are on their way at a time.
const AT_A_TIME: usize = 8;

/// What the calls of a round show.
pub(crate) struct Round {
    calls: Vec<(Call, Judgement)>,
}

/// What they show together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Summary {
    /// The module decides, and nothing is open.
    Deciding,
    /// Something is open, only guarded, or a good token does not pass.
    NotDeciding(String),
    /// Nothing can be said.
    Unanswered(String),
}

impl Round {
    /// Sends the calls; where the first finds no gateway, the others are not sent. Each waits for no longer
    /// than `at_most`.
    pub(crate) async fn run(client: &Arc<Client>, calls: Vec<Call>, at_most: Duration) -> Self {
        let mut calls = calls.into_iter();
        let mut judged = Vec::new();
        if let Some(first) = calls.next() {
            let result = client.send(&first, at_most).await;
            let is_unreachable = result.as_ref().is_err_and(Unanswered::is_unreachable);
            let judgement = judge(first.credential, result);
            judged.push((first, judgement));
            if is_unreachable {
                return Self { calls: judged };
            }
        }
        let rest: Vec<_> = calls.collect();
        for batch in rest.chunks(AT_A_TIME) {
            let mut running = JoinSet::new();
            for (index, call) in batch.iter().cloned().enumerate() {
                let client = Arc::clone(client);
                running.spawn_local(async move {
                    let result = client.send(&call, at_most).await;
                    let judgement = judge(call.credential, result);
                    (index, call, judgement)
                });
            }
            let mut done: Vec<_> = running.join_all().await;
            done.sort_by_key(|(index, _, _)| *index);
            judged.extend(done.into_iter().map(|(_, call, found)| (call, found)));
        }
        Self { calls: judged }
    }

    fn count(&self, verdict: Verdict) -> usize {
        let found = self.calls.iter().map(|(_, found)| found.verdict);
        found.filter(|found| *found == verdict).count()
    }

    /// A call that may have passed, for all that is known: it got no response in time.
    fn undecided(&self) -> impl Iterator<Item = &Judgement> {
        let found = self.calls.iter().map(|(_, found)| found);
        found.filter(|found| found.is_undecided)
    }

    /// The state of the gateway, in one word.
    pub(crate) fn state(&self) -> Verdict {
        let has = |verdict| self.count(verdict) > 0;
        if has(Verdict::Open) {
            Verdict::Open
        } else if self.undecided().next().is_some() {
            Verdict::Unanswered
        } else if has(Verdict::Deciding) {
            Verdict::Deciding
        } else if has(Verdict::Guarded) {
            Verdict::Guarded
        } else {
            Verdict::Unanswered
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        match self.state() {
            Verdict::Open => {
                let open = of_calls(self.count(Verdict::Open));
                Summary::NotDeciding(format!("open: {open} not denied"))
            }
            Verdict::Guarded => {
                Summary::NotDeciding("guarded, not deciding: no call reached the module".to_owned())
            }
            Verdict::Deciding if self.count(Verdict::Denied) > 0 => {
                Summary::NotDeciding("deciding, but the token of --token-file is denied".to_owned())
            }
            Verdict::Deciding => Summary::Deciding,
            _ => Summary::Unanswered(self.why_unanswered()),
        }
    }

    fn why_unanswered(&self) -> String {
        let unanswered = self.count(Verdict::Unanswered);
        let without = self
            .undecided()
            .next()
            .or_else(|| self.calls.first().map(|(_, found)| found));
        let reason = without.map_or("", |found| found.reason.as_str());
        if unanswered == self.calls.len() {
            format!("nothing answered: {reason}")
        } else {
            format!(
                "{} without a response: {reason}",
                of_calls(self.undecided().count())
            )
        }
    }

    /// A line for each call and one for all of them.
    pub(crate) fn to_text(&self, target: &Target) -> String {
        let name = |call: &Call| format!("{}, {}", call.name, call.shown_path());
        let code = |found: &Judgement| found.code.clone().unwrap_or_else(|| "-".to_owned());
        let width = self
            .calls
            .iter()
            .map(|(_, found)| code(found).chars().count())
            .max();
        let width = width.unwrap_or_default();
        let mut text = String::new();
        for (call, found) in &self.calls {
            let style = style(found.verdict);
            let verdict = found.verdict.name();
            let status = found
                .status
                .map_or_else(|| "-".to_owned(), |status| status.to_string());
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{style}{verdict:10}{style:#}  {status:3}  {:width$}  {}",
                code(found),
                name(call)
            );
            if !found.reason.is_empty() {
                let _ = write!(text, ": {}", found.reason);
            }
            text.push('\n');
        }
        let (style, summary) = match self.summary() {
            Summary::Deciding => (
                style(Verdict::Deciding),
                "deciding, nothing open".to_owned(),
            ),
            Summary::NotDeciding(summary) => (style(Verdict::Open), summary),
            Summary::Unanswered(summary) => (style(Verdict::Unanswered), summary),
        };
        let _ = writeln!(text, "\n{target}: {style}{summary}{style:#}");
        text
    }

    /// One object.
    pub(crate) fn to_json(&self, target: &Target) -> Value {
        let calls = self.calls.iter().map(|(call, found)| {
            json!({
                "call": call.name, "path": call.shown_path(), "must_pass": call.credential == Credential::Good,
                "verdict": found.verdict.name(), "status": found.status, "code": found.code,
                "protocol": found.protocol, "reason": found.reason,
            })
        });
        let (exit_code, summary) = match self.summary() {
            Summary::Deciding => (0, "deciding, nothing open".to_owned()),
            Summary::NotDeciding(summary) => (1, summary),
            Summary::Unanswered(summary) => (2, summary),
        };
        json!({
            "gateway": target.to_string(), "state": self.state().name(), "exit_code": exit_code,
            "summary": summary, "calls": calls.collect::<Vec<_>>(),
        })
    }
}

fn of_calls(count: usize) -> String {
    if count == 1 {
        "1 call is".to_owned()
    } else {
        format!("{count} calls are")
    }
}

fn style(verdict: Verdict) -> Style {
    let colour = match verdict {
        Verdict::Deciding | Verdict::Passed => AnsiColor::Green,
        Verdict::Guarded | Verdict::Unanswered => AnsiColor::Yellow,
        Verdict::Open | Verdict::Denied => AnsiColor::Red,
    };
    colour.on_default()
}
