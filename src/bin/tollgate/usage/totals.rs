//! Sums in bounded memory.

use std::borrow::Cow;
use std::collections::HashMap;

use clap::ValueEnum;
use hdrhistogram::Histogram;

use super::read::{Amount, Record, Source};

/// What a table has a row for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    App,
    Deployment,
    Code,
    Hour,
}

/// Keys beyond the bound of a table.
pub(super) const OTHER: &str = "(other)";
/// Requests without such a key.
pub(super) const NONE: &str = "(none)";

/// Longest key that is kept.
const MAX_KEY: usize = 128;

impl By {
    pub(super) const ALL: [Self; 4] = [Self::App, Self::Deployment, Self::Code, Self::Hour];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Deployment => "deployment",
            Self::Code => "code",
            Self::Hour => "hour",
        }
    }

    /// Most rows of a table. A row has some kilobytes, most of them for the percentiles.
    fn bound(self) -> usize {
        match self {
            Self::App => 2_000,
            Self::Deployment => 1_000,
            Self::Code => 100,
            Self::Hour => 10_000,
        }
    }

    fn key<'r>(self, record: &'r Record<'_>) -> Cow<'r, str> {
        let (first, second) = match self {
            Self::App => (&record.app_name, &record.app_id),
            Self::Deployment => (&record.deployment, &None),
            Self::Code => (&record.code, &record.outcome),
            Self::Hour => return Cow::Borrowed(record.time.get(..13).unwrap_or_default()),
        };
        // Envoy writes a hyphen for what is not there.
        let present = |text: &&'r Cow<'_, str>| !text.is_empty() && *text != "-";
        let found = first
            .as_ref()
            .filter(present)
            .or_else(|| second.as_ref().filter(present));
        found.map_or(Cow::Borrowed(NONE), |text| {
            match text.char_indices().nth(MAX_KEY) {
                Some((end, _)) => Cow::Owned(text.get(..end).unwrap_or_default().to_owned()),
                None => Cow::Borrowed(text.as_ref()),
            }
        })
    }
}

/// The sums of some requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) calls: u64,
    /// Answered by the gate.
    pub(super) denied: u64,
    /// In report mode: they would have been.
    pub(super) would_deny: u64,
    /// The backend's answers of 500 and above.
    pub(super) errors: u64,
    pub(super) prompt: u64,
    pub(super) completion: u64,
    pub(super) total: u64,
    /// Milliseconds of the calls that reached the backend, to about 1 %.
    durations: Option<Histogram<u32>>,
}

impl Sums {
    fn add(&mut self, record: &Record<'_>) {
        let amount = |amount: &Option<Amount<'_>>| amount.as_ref().map_or(0, Amount::value);
        let outcome = record.outcome.as_deref().unwrap_or_default();
        let would = outcome.starts_with("would_");
        let reached = outcome == "allowed" || would;
        add(&mut self.calls, 1);
        add(
            &mut self.denied,
            u64::from(!reached && !matches!(outcome, "" | "-")),
        );
        add(&mut self.would_deny, u64::from(would));
        add(
            &mut self.errors,
            u64::from(reached && amount(&record.status) >= 500),
        );
        let (prompt, completion) = (
            amount(&record.prompt_tokens),
            amount(&record.completion_tokens),
        );
        add(&mut self.prompt, prompt);
        add(&mut self.completion, completion);
        add(&mut self.total, amount(&record.total_tokens));
        if reached {
            let millis = amount(&record.duration_ms).max(1);
            let durations = match &mut self.durations {
                Some(durations) => Some(durations),
                none => {
                    *none = histogram();
                    none.as_mut()
                }
            };
            if let Some(durations) = durations {
                // It grows as it has to; up to a day it can.
                let _ = durations.record(millis.min(MAX_MILLIS));
            }
        }
    }

    /// The duration in milliseconds below which so many percent of the calls stay.
    pub(super) fn percentile(&self, percent: f64) -> Option<u64> {
        let durations = self.durations.as_ref()?;
        let highest = durations.value_at_quantile(percent / 100.0);
        Some(durations.lowest_equivalent(highest))
    }
}

/// A day: longer calls count as one of a day.
const MAX_MILLIS: u64 = 86_400_000;

fn histogram() -> Option<Histogram<u32>> {
    let mut histogram = Histogram::new(2).ok()?;
    histogram.auto(true);
    Some(histogram)
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

/// All sums.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) all: Sums,
    tables: [Table; 4],
    /// Which log it is: that of the first record.
    source: Option<Source>,
    /// Records of the other log, which tells of the same requests.
    pub(super) twins: u64,
    /// Lines of something else.
    pub(super) others: u64,
    /// Records that could not be read.
    pub(super) unreadable: u64,
}

#[derive(Debug, Default)]
struct Table {
    rows: HashMap<String, Sums>,
    other: Option<Sums>,
}

impl Totals {
    /// Adds a request, unless another log tells of it too.
    pub(super) fn add(&mut self, record: &Record<'_>, source: Source) {
        if *self.source.get_or_insert(source) != source {
            add(&mut self.twins, 1);
            return;
        }
        self.all.add(record);
        for (by, table) in By::ALL.into_iter().zip(&mut self.tables) {
            let key = by.key(record);
            if let Some(sums) = table.rows.get_mut(key.as_ref()) {
                sums.add(record);
            } else if table.rows.len() < by.bound() {
                table.rows.entry(key.into_owned()).or_default().add(record);
            } else {
                table.other.get_or_insert_default().add(record);
            }
        }
    }

    /// Whether a table was too small.
    pub(super) fn is_cut(&self) -> bool {
        self.tables.iter().any(|table| table.other.is_some())
    }

    /// The rows of a table: hours in their order, others by tokens, then calls.
    pub(super) fn rows(&self, by: By) -> Vec<(&str, &Sums)> {
        let tables = By::ALL.into_iter().zip(&self.tables);
        let Some((_, table)) = tables.into_iter().find(|(of, _)| *of == by) else {
            return Vec::new();
        };
        let mut rows: Vec<_> = table
            .rows
            .iter()
            .map(|(key, sums)| (key.as_str(), sums))
            .collect();
        if by == By::Hour {
            rows.sort_by_key(|(key, _)| *key);
        } else {
            rows.sort_by(|(left_key, left), (right_key, right)| {
                let order = right
                    .total
                    .cmp(&left.total)
                    .then(right.calls.cmp(&left.calls));
                order.then(left_key.cmp(right_key))
            });
        }
        rows.extend(table.other.as_ref().map(|sums| (OTHER, sums)));
        rows
    }
}
