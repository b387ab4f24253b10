//! Moments, as the host's clock gives them.

/// Nanoseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(u64);

const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

impl Time {
    /// From the host's clock.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Whether the host told it. The moment at which 1970 began stands for a clock that failed.
    #[must_use]
    pub const fn is_known(self) -> bool {
        self.0 > 0
    }

    /// From whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(NANOS_PER_MILLI))
    }

    /// Nanoseconds since 1970.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 / NANOS_PER_MILLI
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> i64 {
        i64::try_from(self.0 / NANOS_PER_SECOND).unwrap_or(i64::MAX)
    }

    /// RFC 3339 with milliseconds: `2026-03-01T12:00:00.000Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let (day, second) = (
            self.0 / (86_400 * NANOS_PER_SECOND),
            self.seconds() % 86_400,
        );
        let Date { year, month, day } = Date::from_days(day);
        let milli = self.millis() % 1000;
        let second = second.unsigned_abs();
        let (hour, minute, second) = (second / 3600, second % 3600 / 60, second % 60);
        let mut text = String::with_capacity(24);
        for (before, value, width) in [
            ("", year, 4),
            ("-", month, 2),
            ("-", day, 2),
            ("T", hour, 2),
            (":", minute, 2),
            (":", second, 2),
            (".", milli, 3),
        ] {
            text.push_str(before);
            push_digits(&mut text, value, width);
        }
        text.push('Z');
        text
    }
}

/// Appends the last digits of a number. By hand: formatting with a width takes ten times as long.
fn push_digits(text: &mut String, number: u64, width: u32) {
    for place in (0..width).rev() {
        let digit = 10_u64
            .checked_pow(place)
            .and_then(|unit| number.checked_div(unit))
            .and_then(|rest| u32::try_from(rest % 10).ok())
            .and_then(|digit| char::from_digit(digit, 10));
        text.push(digit.unwrap_or('0'));
    }
}

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Year, from 1970.
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
}

/// Days in 400 years, after which the calendar repeats.
const DAYS_PER_ERA: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_EPOCH: u64 = 719_468;

impl Date {
    /// The date of a day counted from 1970-01-01, by Howard Hinnant's `civil_from_days`
    /// (years begin in March, so that the leap day comes last).
    #[must_use]
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "a u64 of nanoseconds is under 2^15 years"
    )]
    pub const fn from_days(days: u64) -> Self {
        let days = days.saturating_add(DAYS_BEFORE_EPOCH);
        let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let january_or_february = if month <= 2 { 1 } else { 0 };
        Self {
            year: year_of_era + era * 400 + january_or_february,
            month,
            day,
        }
    }

    /// Days from 1970-01-01 to this date: the inverse of [`Date::from_days`].
    #[must_use]
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "dates from 1970 on, see from_days"
    )]
    pub const fn to_days(self) -> u64 {
        let year = if self.month <= 2 {
            self.year.saturating_sub(1)
        } else {
            self.year
        };
        let (era, year_of_era) = (year / 400, year % 400);
        let shifted_month = if self.month > 2 {
            self.month - 3
        } else {
            self.month + 9
        };
        let day_of_year = (153 * shifted_month + 2) / 5 + self.day.saturating_sub(1);
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        (era * DAYS_PER_ERA + day_of_era).saturating_sub(DAYS_BEFORE_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, year, month, day) in [
            (0, 1970, 1, 1),
            (58, 1970, 2, 28),
            (59, 1970, 3, 1),
            (789, 1972, 2, 29),
            (11_016, 2000, 2, 29),
            (11_017, 2000, 3, 1),
            (20_513, 2026, 3, 1),
            (47_540, 2100, 2, 28),
            (47_541, 2100, 3, 1),
        ] {
            assert_eq!(Date::from_days(days), Date { year, month, day });
        }
        for days in 0..100_000 {
            assert_eq!(Date::from_days(days).to_days(), days);
        }
    }

    #[test]
    fn prints_rfc_3339() {
        assert_eq!(
            Time::from_millis(1_772_366_400_123).rfc3339(),
            "2026-03-01T12:00:00.123Z"
        );
        assert_eq!(Time::default().rfc3339(), "1970-01-01T00:00:00.000Z");
        let _ = Time::from_nanos(u64::MAX).rfc3339();
    }
}
