//! Sums in bounded memory.

use std::collections::HashMap;
use std::str::FromStr;

use hdrhistogram::Histogram;

use super::pairs::Pairs;
use super::read::{Amount, Record, Source};

/// What a column of a table's key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dimension {
    App,
    Deployment,
    Code,
    Day,
    Hour,
    Minute,
}

/// What a table has a row for: one dimension, or each combination of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct By(Vec<Dimension>);

/// Keys beyond the bound of a table.
pub(super) const OTHER: &str = "(other)";
/// Requests without such a key.
pub(super) const NONE: &str = "(none)";

/// Longest key that is kept.
const MAX_KEY: usize = 128;

/// Between the parts of a key of several dimensions. No part holds one.
const SEPARATOR: char = '\u{1f}';

impl Dimension {
    pub(super) const ALL: [Self; 6] = [
        Self::App,
        Self::Deployment,
        Self::Code,
        Self::Day,
        Self::Hour,
        Self::Minute,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Deployment => "deployment",
            Self::Code => "code",
            Self::Day => "day",
            Self::Hour => "hour",
            Self::Minute => "minute",
        }
    }

    fn is_time(self) -> bool {
        matches!(self, Self::Day | Self::Hour | Self::Minute)
    }

    /// Most rows of a table. A row has some kilobytes, most of them for the percentiles.
    fn bound(self) -> usize {
        match self {
            Self::App => 2_000,
            Self::Deployment => 1_000,
            Self::Code => 100,
            Self::Day | Self::Hour | Self::Minute => 10_000,
        }
    }

    /// Adds its part of a record's key.
    fn add_to(self, key: &mut String, record: &Record) {
        let (first, second) = match self {
            Self::App => (&record.app_name, record.app_id.as_deref()),
            Self::Deployment => (&record.deployment, None),
            Self::Code => (&record.code, Some(record.outcome.as_str())),
            Self::Day => return key.push_str(record.time.get(..10).unwrap_or_default()),
            Self::Hour => return key.push_str(record.time.get(..13).unwrap_or_default()),
            Self::Minute => return key.push_str(record.time.get(..16).unwrap_or(&record.time)),
        };
        // Envoy writes a hyphen for what is not there.
        let is_there = |text: &&str| !text.is_empty() && *text != "-";
        let found = first.as_deref().filter(is_there);
        let part = found.or_else(|| second.filter(is_there)).unwrap_or(NONE);
        let part = part.chars().take(MAX_KEY);
        key.extend(part.map(|character| {
            if character == SEPARATOR {
                '\u{fffd}'
            } else {
                character
            }
        }));
    }
}

impl FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut dimensions = Vec::new();
        for name in text.split(',') {
            let found = Dimension::ALL
                .into_iter()
                .find(|known| known.name() == name);
            let Some(dimension) = found else {
                let names = Dimension::ALL.map(Dimension::name).join(", ");
                return Err(format!("{name:?} is none of {names}"));
            };
            if dimensions.contains(&dimension) {
                return Err(format!("{name} is repeated"));
            }
            dimensions.push(dimension);
        }
        Ok(Self(dimensions))
    }
}

impl By {
    /// The tables without `--by`.
    pub(super) fn defaults() -> Vec<Self> {
        let singles = [
            Dimension::App,
            Dimension::Deployment,
            Dimension::Code,
            Dimension::Hour,
        ];
        singles.into_iter().map(Self::from).collect()
    }

    /// Each combination of several dimensions.
    pub(super) fn each_of(dimensions: &[Dimension]) -> Self {
        Self(dimensions.to_vec())
    }

    pub(super) fn dimensions(&self) -> &[Dimension] {
        &self.0
    }

    /// `app`, or `app,deployment`.
    pub(super) fn name(&self) -> String {
        self.joined(",")
    }

    /// The names of its dimensions with something between them.
    pub(super) fn joined(&self, between: &str) -> String {
        let names: Vec<_> = self.0.iter().map(|dimension| dimension.name()).collect();
        names.join(between)
    }

    /// Most rows of its table.
    fn bound(&self) -> usize {
        match self.0.as_slice() {
            [one] => one.bound(),
            _ => 10_000,
        }
    }

    fn key(&self, record: &Record, key: &mut String) {
        key.clear();
        for (at, dimension) in self.0.iter().enumerate() {
            if at > 0 {
                key.push(SEPARATOR);
            }
            dimension.add_to(key, record);
        }
    }
}

impl From<Dimension> for By {
    fn from(dimension: Dimension) -> Self {
        Self(vec![dimension])
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
    /// What was charged where the response reported nothing.
    pub(super) estimated: u64,
    /// Milliseconds of the calls that reached the backend, to about 1 %.
    durations: Option<Histogram<u32>>,
}

impl Sums {
    fn add(&mut self, record: &Record) {
        let amount = |amount: &Option<Amount>| amount.as_ref().map_or(0, Amount::value);
        let outcome = record.outcome.as_str();
        let would = outcome.starts_with("would_");
        let reached = outcome == "allowed" || would;
        add(&mut self.calls, 1);
        add(&mut self.denied, u64::from(!reached));
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
        add(&mut self.estimated, amount(&record.estimated_tokens));
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

/// A row: the parts of its key, and its sums.
pub(super) type Row<'a> = (Vec<&'a str>, &'a Sums);

/// All sums.
#[derive(Debug)]
pub(super) struct Totals {
    pub(super) all: Sums,
    tables: Vec<Table>,
    /// The key that is being looked up, in one buffer for all records.
    key: String,
    pairs: Pairs,
    /// Records of requests that the other log had already.
    pub(super) duplicates: u64,
    /// Lines of something else.
    pub(super) others: u64,
    /// Records that could not be read.
    pub(super) unreadable: u64,
}

#[derive(Debug)]
struct Table {
    by: By,
    rows: HashMap<String, Sums>,
    other: Option<Sums>,
}

impl Totals {
    /// For these tables.
    pub(super) fn new(tables: impl IntoIterator<Item = By>) -> Self {
        let mut distinct: Vec<Table> = Vec::new();
        for by in tables {
            if !distinct.iter().any(|table| table.by == by) {
                distinct.push(Table {
                    by,
                    rows: HashMap::new(),
                    other: None,
                });
            }
        }
        Self {
            all: Sums::default(),
            tables: distinct,
            key: String::new(),
            pairs: Pairs::default(),
            duplicates: 0,
            others: 0,
            unreadable: 0,
        }
    }

    /// Adds a request, unless the other log had it already.
    pub(super) fn add(&mut self, record: &Record, source: Source) {
        if !self.pairs.is_new(record.request_id.as_deref(), source) {
            add(&mut self.duplicates, 1);
            return;
        }
        self.all.add(record);
        for Table { by, rows, other } in &mut self.tables {
            by.key(record, &mut self.key);
            if let Some(sums) = rows.get_mut(&self.key) {
                sums.add(record);
            } else if rows.len() < by.bound() {
                rows.entry(self.key.clone()).or_default().add(record);
            } else {
                other.get_or_insert_default().add(record);
            }
        }
    }

    /// Whether a table was too small.
    pub(super) fn is_cut(&self) -> bool {
        self.tables.iter().any(|table| table.other.is_some())
    }

    /// The rows of a table: days and hours in their order, others by tokens, then calls.
    pub(super) fn rows(&self, by: &By) -> Vec<Row<'_>> {
        let Some(table) = self.tables.iter().find(|table| table.by == *by) else {
            return Vec::new();
        };
        let mut rows: Vec<_> = table.rows.iter().collect();
        if by.dimensions().first().is_some_and(|first| first.is_time()) {
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
        let mut rows: Vec<Row<'_>> = rows
            .into_iter()
            .map(|(key, sums)| (key.split(SEPARATOR).collect(), sums))
            .collect();
        if let Some(sums) = &table.other {
            rows.push((vec![OTHER; by.dimensions().len()], sums));
        }
        rows
    }
}
