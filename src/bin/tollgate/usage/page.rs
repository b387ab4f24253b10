//! One page with charts: no script, no font, no image from elsewhere.

mod timeline;

use std::fmt::Write as _;

use super::totals::{By, Dimension, Row, Sums, Totals};
use timeline::{Timeline, marks, short};

/// Rows of a table of the page.
const MAX_ROWS: usize = 200;

/// Rows of a chart of applications, deployments or codes.
const TOP: usize = 12;

/// The page may load nothing and run nothing, and says so to the browser.
const HEAD: &str = concat!(
    r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Usage of Azure OpenAI</title>
<style>
"#,
    include_str!("page/page.css"),
    "</style>\n</head>\n<body>\n"
);

/// A colour of the page, what it stands for, and the sum that it shows.
type Series = (&'static str, &'static str, fn(&Sums) -> u64);

const CALLS: [Series; 2] = [
    ("passed", "passed", |sums| {
        sums.calls.saturating_sub(sums.denied)
    }),
    ("denied", "denied", |sums| sums.denied),
];

const ERRORS: [Series; 1] = [("errors", "errors of the backend", |sums| sums.errors)];

const TOKENS: [Series; 2] = [
    ("prompt", "prompt tokens", |sums| sums.prompt),
    ("completion", "completion tokens", |sums| sums.completion),
];

const TABLE_COLUMNS: [&str; 10] = [
    "calls",
    "denied",
    "would deny",
    "errors",
    "prompt",
    "completion",
    "total tokens",
    "estimated",
    "p50 ms",
    "p99 ms",
];

/// The tables that the page is made of.
pub(super) fn tables() -> Vec<By> {
    let charts = [Dimension::Minute, Dimension::Hour].map(By::from);
    shown_tables().into_iter().chain(charts).collect()
}

/// The tables that the page shows.
fn shown_tables() -> Vec<By> {
    let singles = [
        Dimension::App,
        Dimension::Deployment,
        Dimension::Code,
        Dimension::Day,
    ];
    let mut tables: Vec<_> = singles.into_iter().map(By::from).collect();
    tables.insert(2, By::each_of(&[Dimension::App, Dimension::Deployment]));
    tables
}

pub(super) fn write(totals: &Totals) -> String {
    let mut page = HEAD.to_owned();
    let timeline = Timeline::new(totals);
    summary(&mut page, totals, timeline.as_ref());
    if let Some(timeline) = &timeline {
        over_time(&mut page, "Calls", timeline, &CALLS);
        over_time(&mut page, "Errors", timeline, &ERRORS);
        over_time(&mut page, "Tokens", timeline, &TOKENS);
    }
    for (title, of, series) in [
        ("Tokens by application", Dimension::App, &TOKENS),
        ("Calls by application", Dimension::App, &CALLS),
        ("Tokens by deployment", Dimension::Deployment, &TOKENS),
        ("Calls by code", Dimension::Code, &CALLS),
    ] {
        by_key(&mut page, title, &totals.rows(&of.into()), series);
    }
    for by in shown_tables() {
        table(&mut page, &by, &totals.rows(&by));
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// Text as HTML shows it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Nothing invisible, and nothing that turns the line around.
            other if other.is_control() || ('\u{202a}'..='\u{202e}').contains(&other) => {
                escaped.push('\u{fffd}');
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && digits.len().saturating_sub(at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn summary(page: &mut String, totals: &Totals, timeline: Option<&Timeline<'_>>) {
    let days = totals.rows(&Dimension::Day.into());
    let is_day = |key: &&String| *key != super::totals::OTHER;
    let keys: Vec<String> = days.iter().map(|(key, _)| label(key)).collect();
    let first = keys
        .first()
        .map_or_else(|| "-".to_owned(), |key| escape(key));
    let last = keys
        .iter()
        .rev()
        .find(is_day)
        .map_or_else(|| "-".to_owned(), |key| escape(key));
    let span = if first == last {
        first
    } else {
        format!("{first} to {last}")
    };
    let all = &totals.all;
    let millis = |percent| {
        let millis = all.percentile(percent);
        millis.map_or_else(
            || "-".to_owned(),
            |millis| format!("{} ms", grouped(millis)),
        )
    };
    // Writing to a string cannot fail.
    let _ = write!(page, "<h1>Usage of Azure OpenAI</h1>\n<p>{span}, UTC");
    if let Some(timeline) = timeline {
        let _ = write!(page, "; each bar covers {}", timeline.bar_name());
    }
    page.push_str("</p>\n<dl>\n");
    for (name, value) in [
        ("Calls", grouped(all.calls)),
        ("Denied", grouped(all.denied)),
        ("Errors", grouped(all.errors)),
        ("Prompt tokens", grouped(all.prompt)),
        ("Completion tokens", grouped(all.completion)),
        ("Estimated tokens", grouped(all.estimated)),
        ("Median", millis(50.0)),
        ("99th percentile", millis(99.0)),
    ] {
        let _ = writeln!(page, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    page.push_str("</dl>\n");
    if totals.unreadable > 0 {
        let lines = grouped(totals.unreadable);
        let _ = writeln!(page, "<p>{lines} lines could not be read.</p>");
    }
}

fn legend(page: &mut String, series: &[Series]) {
    page.push_str("<p class=\"legend\">");
    for (class, name, _) in series {
        let _ = write!(page, "<span><i class=\"key {class}\"></i>{name}</span>");
    }
    page.push_str("</p>\n");
}

/// A count as a coordinate. What is lost beyond 2^53 is no pixel.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "for drawing"
)]
fn number(count: u64) -> f64 {
    count as f64
}

/// A value as percent of the most.
fn percent(value: u64, most: u64) -> f64 {
    if most == 0 {
        0.0
    } else {
        number(value) / number(most) * 100.0
    }
}

/// A chart over time. Its drawing stretches with the window; its text does not.
fn over_time(page: &mut String, title: &str, timeline: &Timeline<'_>, series: &[Series]) {
    let heights: Vec<Vec<(String, u64)>> = series
        .iter()
        .map(|(.., of)| timeline.bars(*of).collect())
        .collect();
    let count = timeline.len();
    let mut stacked = vec![0_u64; heights.first().map_or(0, Vec::len)];
    for bars in &heights {
        for (sum, (_, value)) in stacked.iter_mut().zip(bars) {
            *sum = sum.saturating_add(*value);
        }
    }
    let most = stacked.iter().max().copied().unwrap_or(0);
    if most == 0 {
        return;
    }
    let marks = marks(most);
    let top = marks.last().copied().unwrap_or(most);
    let _ = writeln!(page, "<h2>{title} over time</h2>");
    legend(page, series);
    page.push_str("<div class=\"chart\">\n");
    axis(page, &marks, top);
    let _ = writeln!(
        page,
        "\n<svg viewBox=\"0 0 {count} 100\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{title} over time\">"
    );
    let mut base = vec![0_u64; stacked.len()];
    for ((class, name, _), bars) in series.iter().zip(&heights) {
        for (at, ((start, value), below)) in (0_u64..).zip(bars.iter().zip(&mut base)) {
            if *value == 0 {
                continue;
            }
            let height = percent(*value, top);
            *below = below.saturating_add(*value);
            let y = 100.0 - percent(*below, top);
            let _ = writeln!(
                page,
                "<rect class=\"{class}\" x=\"{:.2}\" y=\"{y:.2}\" width=\"0.84\" height=\"{height:.2}\"><title>{start}, {name}: {}</title></rect>",
                number(at) + 0.08,
                grouped(*value)
            );
        }
    }
    page.push_str("</svg>\n</div>\n");
    time_labels(page, timeline);
    page.push_str("</div>\n");
}

/// The marks of a chart's upright axis, and their lines behind its drawing.
fn axis(page: &mut String, marks: &[u64], top: u64) {
    page.push_str("<div class=\"y\">");
    for mark in marks {
        let bottom = percent(*mark, top);
        let _ = write!(
            page,
            "<span style=\"bottom:{bottom:.1}%\">{}</span>",
            short(*mark)
        );
    }
    page.push_str("</div>\n<div class=\"plot\">");
    for mark in marks.iter().skip(1) {
        let bottom = percent(*mark, top);
        let _ = write!(
            page,
            "<div class=\"grid\" style=\"bottom:{bottom:.1}%\"></div>"
        );
    }
}

fn time_labels(page: &mut String, timeline: &Timeline<'_>) {
    page.push_str("<div class=\"x\">");
    for (index, (at, label)) in timeline.labels().into_iter().enumerate() {
        let left = percent(at, timeline.len());
        let class = if index.is_multiple_of(2) {
            ""
        } else {
            " class=\"half\""
        };
        let _ = write!(
            page,
            "<span{class} style=\"left:{left:.1}%\">{label}</span>"
        );
    }
    page.push_str("</div>\n");
}

/// A bar for each of the largest keys.
fn by_key(page: &mut String, title: &str, rows: &[Row<'_>], series: &[Series]) {
    let total = |sums: &Sums| {
        let values = series.iter().map(|(.., of)| of(sums));
        values.fold(0, u64::saturating_add)
    };
    let mut shown: Vec<_> = rows.iter().filter(|(_, sums)| total(sums) > 0).collect();
    shown.sort_by_key(|(_, sums)| std::cmp::Reverse(total(sums)));
    shown.truncate(TOP);
    let most = shown.first().map_or(0, |(_, sums)| total(sums));
    if most == 0 {
        return;
    }
    let _ = writeln!(page, "<h2>{title}</h2>");
    legend(page, series);
    page.push_str("<div class=\"bars\">\n");
    for (key, sums) in shown {
        let key = escape(&label(key));
        let _ = writeln!(
            page,
            "<div><span title=\"{key}\">{key}</span><svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{key}\">"
        );
        let mut x = 0.0;
        for (class, name, of) in series {
            let value = of(sums);
            let width = percent(value, most);
            if value == 0 {
                continue;
            }
            let _ = writeln!(
                page,
                "<rect class=\"{class}\" x=\"{x:.2}\" y=\"0\" width=\"{width:.2}\" height=\"10\"><title>{key}, {name}: {}</title></rect>",
                grouped(value)
            );
            x += width;
        }
        let _ = writeln!(page, "</svg><b>{}</b></div>", grouped(total(sums)));
    }
    page.push_str("</div>\n");
}

/// A key in one text.
fn label(key: &[&str]) -> String {
    key.join(" · ")
}

fn table(page: &mut String, by: &By, rows: &[Row<'_>]) {
    let name = by.joined(" and ");
    let _ = write!(
        page,
        "<h2>By {name}</h2>\n<div class=\"wide\"><table>\n<tr class=\"head\">"
    );
    for dimension in by.dimensions() {
        let _ = write!(page, "<th class=\"name\">{}</th>", dimension.name());
    }
    for column in TABLE_COLUMNS {
        let _ = write!(page, "<th>{column}</th>");
    }
    page.push_str("</tr>\n");
    for (key, sums) in rows.iter().take(MAX_ROWS) {
        page.push_str("<tr>");
        for (dimension, part) in by.dimensions().iter().zip(key) {
            let (name, part) = (dimension.name(), escape(part));
            let _ = write!(
                page,
                "<td class=\"name\" data-name=\"{name}\" title=\"{part}\">{part}</td>"
            );
        }
        let counts = [
            sums.calls,
            sums.denied,
            sums.would_deny,
            sums.errors,
            sums.prompt,
            sums.completion,
            sums.total,
            sums.estimated,
        ];
        let counts = counts.into_iter().map(Some);
        let cells = counts.chain([50.0, 99.0].map(|percent| sums.percentile(percent)));
        for (column, cell) in TABLE_COLUMNS.into_iter().zip(cells) {
            let cell = cell.map_or_else(|| "-".to_owned(), grouped);
            let _ = write!(page, "<td data-name=\"{column}\">{cell}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
    let more = rows.len().saturating_sub(MAX_ROWS);
    if more > 0 {
        let _ = writeln!(page, "<p>and {more} more: see the CSV</p>");
    }
}
