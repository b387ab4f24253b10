//! Charts over time: which steps they have, and how the axes are labelled.

use tollgate::time::Date;

use super::super::totals::{By, Dimension, OTHER, Row, Sums, Totals};

/// Most bars of a chart. Longer logs have longer bars.
const MAX_BARS: u64 = 120;

/// Labels of the time axis.
const LABELS: u64 = 6;

const HOUR: u64 = 60;
const DAY: u64 = 24 * HOUR;

/// How long a bar can be, in minutes. Beyond the last, as many of those as it takes.
const LENGTHS: [u64; 9] = [1, 5, 15, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 7 * DAY];

/// The time that a log covers, in bars of one length, those without a call included.
pub(super) struct Timeline<'a> {
    /// Minutes of a bar.
    length: u64,
    /// The number of the first bar since 1970.
    first: u64,
    bars: Vec<Vec<&'a Sums>>,
}

impl<'a> Timeline<'a> {
    /// From the finest table that holds all of the log. `None` where nothing was called.
    pub(super) fn new(totals: &'a Totals) -> Option<Self> {
        let tables = [Dimension::Minute, Dimension::Hour, Dimension::Day];
        tables.into_iter().find_map(|table| {
            let rows = totals.rows(&By::from(table));
            let is_whole = !rows.iter().any(|(key, _)| key.first() == Some(&OTHER));
            (is_whole || table == Dimension::Day)
                .then(|| Self::of_rows(&rows, table))
                .flatten()
        })
    }

    fn of_rows(rows: &[Row<'a>], table: Dimension) -> Option<Self> {
        let minute = |(key, sums): &Row<'a>| Some((minute(key.first()?)?, *sums));
        let minutes: Vec<_> = rows.iter().filter_map(minute).collect();
        let first = minutes.iter().map(|(minute, _)| *minute).min()?;
        let last = minutes.iter().map(|(minute, _)| *minute).max()?;
        let fits = |length: &u64| {
            let bars = last
                .checked_div(*length)?
                .saturating_sub(first.checked_div(*length)?);
            Some(bars < MAX_BARS)
        };
        let finest = match table {
            Dimension::Day => DAY,
            Dimension::Hour => HOUR,
            _ => 1,
        };
        let lengths = LENGTHS.into_iter().filter(|length| *length >= finest);
        let length = lengths.chain((2..).map(|weeks: u64| weeks.saturating_mul(7 * DAY)));
        let length = length
            .take(10_000)
            .find(|length| fits(length) == Some(true))?;
        let number = |minute: u64| minute.checked_div(length);
        let (first, last) = (number(first)?, number(last)?);
        let count = usize::try_from(last.saturating_sub(first).saturating_add(1)).ok()?;
        let mut bars = vec![Vec::new(); count];
        for (minute, sums) in minutes {
            let at = number(minute)?.saturating_sub(first);
            if let Some(bar) = bars.get_mut(usize::try_from(at).ok()?) {
                bar.push(sums);
            }
        }
        Some(Self {
            length,
            first,
            bars,
        })
    }

    /// What a bar covers: `1 minute`, `3 hours`.
    pub(super) fn bar_name(&self) -> String {
        let (length, unit) = match self.length {
            minutes if minutes < HOUR => (minutes, "minute"),
            minutes if minutes < DAY => (minutes / HOUR, "hour"),
            minutes => (minutes / DAY, "day"),
        };
        match length {
            1 => format!("1 {unit}"),
            many => format!("{many} {unit}s"),
        }
    }

    /// Each bar: when it begins, and a sum over it.
    pub(super) fn bars(&self, of: fn(&Sums) -> u64) -> impl Iterator<Item = (String, u64)> {
        (0_u64..).zip(&self.bars).map(move |(at, sums)| {
            let sums = sums.iter().map(|sums| of(sums));
            (self.text(at), sums.fold(0, u64::saturating_add))
        })
    }

    /// How many bars there are.
    pub(super) fn len(&self) -> u64 {
        u64::try_from(self.bars.len()).unwrap_or(u64::MAX)
    }

    /// The labels of the time axis, each with the bar at whose left edge it is.
    pub(super) fn labels(&self) -> Vec<(u64, String)> {
        let every = self.len().div_ceil(LABELS).max(1);
        let last = self.text(self.len().saturating_sub(1));
        let is_one_day = last.get(..10) == self.text(0).get(..10);
        let mut day = String::new();
        let bars = (0..self.len()).filter(|at| at.is_multiple_of(every));
        bars.map(|at| {
            let text = self.text(at);
            let (date, time) = text.split_once(' ').unwrap_or((&text, ""));
            // The year is at the top of the page, and the date where it changes.
            let month_and_day = date.get(5..).unwrap_or_default();
            let label = match time {
                "" | "00:00" if !is_one_day => month_and_day.to_owned(),
                _ if is_one_day || day == date => time.to_owned(),
                _ => format!("{month_and_day} {time}"),
            };
            date.clone_into(&mut day);
            (at, label)
        })
        .collect()
    }

    /// When a bar begins: `2026-03-01`, or `2026-03-01 12:05`.
    fn text(&self, bar: u64) -> String {
        let minute = self.first.saturating_add(bar).saturating_mul(self.length);
        let (day, minute) = (minute / DAY, minute % DAY);
        let date = Date::from_days(day);
        let date = format!("{:04}-{:02}-{:02}", date.year, date.month, date.day);
        if self.length >= DAY {
            return date;
        }
        format!("{date} {:02}:{:02}", minute / HOUR, minute % HOUR)
    }
}

/// The minute since 1970 at which the key of a time begins: a day, an hour or a minute, as records write them.
fn minute(key: &str) -> Option<u64> {
    let part = |range: std::ops::Range<usize>| key.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (part(0..4)?, part(5..7)?, part(8..10)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = Date { year, month, day }.to_days();
    let (hour, minute) = (part(11..13).unwrap_or(0), part(14..16).unwrap_or(0));
    let minute = hour.saturating_mul(HOUR).saturating_add(minute);
    Some(days.saturating_mul(DAY).saturating_add(minute))
}

/// The marks of a value axis that reaches to `most`: round numbers, 0 and the highest included.
pub(super) fn marks(most: u64) -> Vec<u64> {
    let step = (0..19)
        .map(|exponent| 10_u64.saturating_pow(exponent))
        .flat_map(|power| [1, 2, 5].map(|factor| power.saturating_mul(factor)))
        .find(|step| step.saturating_mul(4) >= most);
    let step = step.unwrap_or(most).max(1);
    let last = most.div_ceil(step).max(1);
    (0..=last).map(|mark| mark.saturating_mul(step)).collect()
}

/// A number in four characters or so: `950`, `1.5k`, `20M`.
pub(super) fn short(number: u64) -> String {
    let (tenths, name) = match number {
        1_000_000_000.. => (number / 100_000_000, "G"),
        1_000_000.. => (number / 100_000, "M"),
        1_000.. => (number / 100, "k"),
        _ => return number.to_string(),
    };
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole}{name}"),
        (whole, tenth) => format!("{whole}.{tenth}{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_marks() {
        for (most, expected) in [
            (1, &[0, 1][..]),
            (3, &[0, 1, 2, 3]),
            (7, &[0, 2, 4, 6, 8]),
            (102, &[0, 50, 100, 150]),
            (1_900_000, &[0, 500_000, 1_000_000, 1_500_000, 2_000_000]),
        ] {
            assert_eq!(marks(most), expected, "{most}");
        }
        assert!(marks(u64::MAX).len() <= 6);
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_500, "1.5k"),
            (20_000_000, "20M"),
            (2_000_000_000, "2G"),
        ] {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn times_are_minutes_since_1970() {
        for (key, expected) in [
            ("1970-01-02T01", 25 * 60),
            ("1970-01-01T01:05", 65),
            ("1970-01-03", 2 * 1440),
        ] {
            assert_eq!(minute(key), Some(expected), "{key}");
        }
        for bad in [
            "(other)",
            "1969-12-31T00",
            "2026-13-01T00",
            "2026-00-10T00",
            "2026-01-32T00",
            "2026",
        ] {
            assert_eq!(minute(bad), None, "{bad}");
        }
    }
}
