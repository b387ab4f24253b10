//! One page with charts: no script, no font, no image from elsewhere.

use std::fmt::Write as _;

use super::totals::{By, Dimension, Row, Sums, Totals};

/// Hours that a chart shows at most; longer logs are summed up by more hours a bar.
const MAX_BARS: usize = 168;

/// Rows of a table of the page.
const MAX_ROWS: usize = 200;

/// Rows of a chart of applications, deployments or codes.
const TOP: usize = 12;

/// The page may load nothing and run nothing, and says so to the browser.
const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Usage of Azure OpenAI</title>
<style>
:root { color-scheme: light dark; --ink: #1d2330; --dim: #5b6472; --line: #d9dde4; --ground: #fff;
  --a: #2f6fde; --b: #e0702f; --bad: #c8324a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf0; --dim: #9aa4b2; --line: #343b47; --ground: #171a20;
  --a: #6ea3ff; --b: #f2a265; --bad: #ff7187; } }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { color: var(--dim); margin: .25rem 0; }
dl { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 1.25rem 0; }
dt { color: var(--dim); } dd { margin: 0; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--dim); font-size: 12px; }
.a { fill: var(--a); } .b { fill: var(--b); } .bad { fill: var(--bad); } .grid { stroke: var(--line); }
.key { display: inline-block; width: .7rem; height: .7rem; margin-right: .35rem; border-radius: 2px; }
.key.a { background: var(--a); } .key.b { background: var(--b); } .key.bad { background: var(--bad); }
.legend span { margin-right: 1.25rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; max-width: 26rem; overflow: hidden; text-overflow: ellipsis; }
th { color: var(--dim); font-weight: 600; }
</style>
</head>
<body>
"#;

/// A colour of the page and what it stands for.
type Series = (&'static str, &'static str, fn(&Sums) -> u64);

const CALLS: [Series; 2] = [
    ("a", "passed", |sums| sums.calls.saturating_sub(sums.denied)),
    ("bad", "denied", |sums| sums.denied),
];

const TOKENS: [Series; 2] = [
    ("a", "prompt tokens", |sums| sums.prompt),
    ("b", "completion tokens", |sums| sums.completion),
];

/// The tables of the page.
pub(super) fn tables() -> Vec<By> {
    By::defaults()
}

pub(super) fn write(totals: &Totals) -> String {
    let mut page = HEAD.to_owned();
    summary(&mut page, totals);
    let rows = totals.rows(&Dimension::Hour.into());
    let hours = bars(&rows);
    chart_of_hours(&mut page, "Calls over time", &hours, &CALLS);
    chart_of_hours(&mut page, "Tokens over time", &hours, &TOKENS);
    chart_of_keys(
        &mut page,
        "Tokens by application",
        &totals.rows(&Dimension::App.into()),
        &TOKENS,
    );
    chart_of_keys(
        &mut page,
        "Calls by application",
        &totals.rows(&Dimension::App.into()),
        &CALLS,
    );
    chart_of_keys(
        &mut page,
        "Tokens by deployment",
        &totals.rows(&Dimension::Deployment.into()),
        &TOKENS,
    );
    chart_of_keys(
        &mut page,
        "Calls by code",
        &totals.rows(&Dimension::Code.into()),
        &CALLS,
    );
    for by in tables() {
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

fn summary(page: &mut String, totals: &Totals) {
    let rows = totals.rows(&Dimension::Hour.into());
    let first = rows
        .first()
        .map_or_else(|| "-".to_owned(), |(hour, _)| label(hour));
    let last = rows
        .iter()
        .rev()
        .map(|(hour, _)| label(hour))
        .find(|hour| hour != super::totals::OTHER);
    let all = &totals.all;
    let millis = |percent| {
        all.percentile(percent)
            .map_or_else(|| "-".to_owned(), grouped)
    };
    let last = last.unwrap_or_else(|| "-".to_owned());
    let [first, last] = [first, last].map(|hour| escape(&hour).replace('T', " "));
    // Writing to a string cannot fail.
    let _ = write!(
        page,
        "<h1>Usage of Azure OpenAI</h1>\n<p>From {first}:00 to {last}:59 UTC, by application, deployment, code and hour</p>\n<dl>\n"
    );
    for (name, value) in [
        ("Calls", grouped(all.calls)),
        ("Denied", grouped(all.denied)),
        ("Prompt tokens", grouped(all.prompt)),
        ("Completion tokens", grouped(all.completion)),
        ("p50, ms", millis(50.0)),
        ("p99, ms", millis(99.0)),
    ] {
        let _ = writeln!(page, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    page.push_str("</dl>\n");
    if totals.unreadable > 0 {
        let _ = writeln!(
            page,
            "<p>{} lines could not be read.</p>",
            grouped(totals.unreadable)
        );
    }
}

/// Some hours in a row: the first of them, and the sums of each.
struct Bar<'a> {
    label: String,
    hours: &'a [Row<'a>],
}

/// Hours, several to a bar where there are many.
fn bars<'a>(rows: &'a [Row<'a>]) -> Vec<Bar<'a>> {
    let per_bar = rows.len().div_ceil(MAX_BARS).max(1);
    let bars = rows.chunks(per_bar).map(|hours| Bar {
        label: hours
            .first()
            .map_or_else(String::new, |(hour, _)| label(hour).replace('T', " ")),
        hours,
    });
    bars.collect()
}

impl Bar<'_> {
    fn sum(&self, of: fn(&Sums) -> u64) -> u64 {
        self.hours
            .iter()
            .map(|(_, sums)| of(sums))
            .fold(0, u64::saturating_add)
    }
}

fn legend(page: &mut String, series: &[Series]) {
    page.push_str("<p class=\"legend\">");
    for (class, name, _) in series {
        let _ = write!(page, "<span><i class=\"key {class}\"></i>{name}</span>");
    }
    page.push_str("</p>\n");
}

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 200.0;
const BOTTOM: f64 = 22.0;

/// A count as a coordinate. What is lost beyond 2^53 is no pixel.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "for drawing"
)]
fn number(count: u64) -> f64 {
    count as f64
}

fn share(value: u64, most: u64) -> f64 {
    if most == 0 {
        0.0
    } else {
        number(value) / number(most)
    }
}

fn chart_of_hours(page: &mut String, title: &str, bars: &[Bar<'_>], series: &[Series]) {
    let total = |bar: &Bar<'_>| {
        series
            .iter()
            .map(|(.., of)| bar.sum(*of))
            .fold(0, u64::saturating_add)
    };
    let most = bars.iter().map(total).max().unwrap_or(0);
    if most == 0 {
        return;
    }
    let _ = writeln!(page, "<h2>{title}</h2>");
    legend(page, series);
    let whole = HEIGHT + BOTTOM;
    let _ = writeln!(
        page,
        "<svg viewBox=\"0 0 {WIDTH} {whole}\" role=\"img\" aria-label=\"{title}\">"
    );
    for line in [0.0, 0.5, 1.0] {
        let y = HEIGHT - line * (HEIGHT - 20.0);
        let _ = writeln!(
            page,
            "<line class=\"grid\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
        );
    }
    let _ = writeln!(page, "<text x=\"0\" y=\"14\">{}</text>", grouped(most));
    let count = u64::try_from(bars.len()).unwrap_or(1).max(1);
    let step = WIDTH / number(count);
    for (at, bar) in (0_u64..).zip(bars) {
        let x = number(at) * step;
        let label = escape(&bar.label);
        let mut y = HEIGHT;
        for (class, name, of) in series {
            let value = bar.sum(*of);
            let height = share(value, most) * (HEIGHT - 20.0);
            if value == 0 {
                continue;
            }
            y -= height;
            let width = (step * 0.86).max(0.5);
            let _ = writeln!(
                page,
                "<rect class=\"{class}\" x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\"><title>{label}:00, {name}: {}</title></rect>",
                grouped(value)
            );
        }
        // As many labels as there is room for.
        if at.is_multiple_of(count.div_ceil(8)) {
            let _ = writeln!(
                page,
                "<text x=\"{x:.2}\" y=\"{:.1}\">{label}</text>",
                HEIGHT + 16.0
            );
        }
    }
    page.push_str("</svg>\n");
}

fn chart_of_keys(page: &mut String, title: &str, rows: &[Row<'_>], series: &[Series]) {
    const ROW: f64 = 26.0;
    const LABEL: f64 = 280.0;
    let total = |sums: &Sums| {
        series
            .iter()
            .map(|(.., of)| of(sums))
            .fold(0, u64::saturating_add)
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
    let height = number(u64::try_from(shown.len()).unwrap_or(0)) * ROW;
    let _ = writeln!(
        page,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">"
    );
    for (at, (key, sums)) in (0_u64..).zip(shown) {
        let y = number(at) * ROW;
        let key = label(key);
        let (label, cut) = (escape(&key), escape(&shorten(&key)));
        let _ = writeln!(
            page,
            "<text x=\"0\" y=\"{:.1}\">{cut}<title>{label}</title></text>",
            y + 17.0
        );
        let mut x = LABEL;
        for (class, name, of) in series {
            let value = of(sums);
            let width = share(value, most) * (WIDTH - LABEL - 110.0);
            if value == 0 {
                continue;
            }
            let _ = writeln!(
                page,
                "<rect class=\"{class}\" x=\"{x:.2}\" y=\"{:.1}\" width=\"{width:.2}\" height=\"18\"><title>{label}, {name}: {}</title></rect>",
                y + 3.0,
                grouped(value)
            );
            x += width;
        }
        let _ = writeln!(
            page,
            "<text x=\"{:.2}\" y=\"{:.1}\">{}</text>",
            x + 6.0,
            y + 17.0,
            grouped(total(sums))
        );
    }
    page.push_str("</svg>\n");
}

/// A key in one text.
fn label(key: &[&str]) -> String {
    key.join(" · ")
}

fn shorten(key: &str) -> String {
    const MAX: usize = 40;
    match key.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", key.get(..end).unwrap_or_default()),
        None => key.to_owned(),
    }
}

fn table(page: &mut String, by: &By, rows: &[Row<'_>]) {
    let _ = write!(
        page,
        "<h2>By {0}</h2>\n<div class=\"wide\"><table>\n<tr><th>{0}</th>",
        by.name()
    );
    for column in [
        "calls",
        "denied",
        "would deny",
        "errors",
        "prompt",
        "completion",
        "total tokens",
        "p50 ms",
        "p99 ms",
    ] {
        let _ = write!(page, "<th>{column}</th>");
    }
    page.push_str("</tr>\n");
    for (key, sums) in rows.iter().take(MAX_ROWS) {
        let key = escape(&label(key));
        let _ = write!(page, "<tr><td title=\"{key}\">{key}</td>");
        for cell in [
            sums.calls,
            sums.denied,
            sums.would_deny,
            sums.errors,
            sums.prompt,
            sums.completion,
            sums.total,
        ] {
            let _ = write!(page, "<td>{}</td>", grouped(cell));
        }
        for percent in [50.0, 99.0] {
            let cell = sums
                .percentile(percent)
                .map_or_else(|| "-".to_owned(), grouped);
            let _ = write!(page, "<td>{cell}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
    let more = rows.len().saturating_sub(MAX_ROWS);
    if more > 0 {
        let _ = writeln!(page, "<p>and {more} more: see the CSV</p>");
    }
}
