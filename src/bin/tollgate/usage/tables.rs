//! Sums as text, CSV and JSON.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::totals::{By, Sums, Totals};
use crate::failure::of_csv;

const COLUMNS: [&str; 10] = [
    "calls",
    "denied",
    "would_deny",
    "errors",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "estimated_tokens",
    "p50_ms",
    "p99_ms",
];

/// The cells of a row; empty where there is nothing to tell.
fn cells(sums: &Sums) -> [Option<u64>; 10] {
    [
        Some(sums.calls),
        Some(sums.denied),
        Some(sums.would_deny),
        Some(sums.errors),
        Some(sums.prompt),
        Some(sums.completion),
        Some(sums.total),
        Some(sums.estimated),
        sums.percentile(50.0),
        sums.percentile(99.0),
    ]
}

/// A cell as text.
fn shown(cell: Option<u64>) -> String {
    cell.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// Tables for people, each with the sum of all at its end.
pub(super) fn text(totals: &Totals, tables: &[By], out: &mut dyn Write) -> io::Result<()> {
    for (index, by) in tables.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let keys = by.dimensions().len();
        let head: Vec<String> = by
            .dimensions()
            .iter()
            .map(|dimension| dimension.name())
            .chain(COLUMNS)
            .map(str::to_owned)
            .collect();
        let mut all = vec![""; keys];
        if let Some(first) = all.first_mut() {
            *first = "all";
        }
        let rows = totals.rows(by).into_iter().chain([(all, &totals.all)]);
        let lines = rows.map(|(key, sums)| {
            let key = key.iter().map(|part| part.escape_debug().to_string());
            key.chain(cells(sums).map(shown)).collect()
        });
        let lines: Vec<Vec<String>> = std::iter::once(head).chain(lines).collect();
        let width = |at: usize| {
            let cells = lines.iter().filter_map(|line| line.get(at));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..keys.saturating_add(COLUMNS.len())).map(width).collect();
        for line in &lines {
            write_line(out, line, keys, &widths)?;
        }
    }
    Ok(())
}

/// Keys to the left, numbers to the right.
fn write_line(
    out: &mut dyn Write,
    cells: &[String],
    keys: usize,
    widths: &[usize],
) -> io::Result<()> {
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let gap = if at == 0 { "" } else { "  " };
        if at < keys {
            write!(out, "{gap}{cell:width$}")?;
        } else {
            write!(out, "{gap}{cell:>width$}")?;
        }
    }
    writeln!(out)
}

/// One table for programs: what a row is of, its key, its sums. A key of several parts has a column for each.
pub(super) fn csv(totals: &Totals, tables: &[By], out: &mut dyn Write) -> io::Result<()> {
    let most = tables.iter().map(|by| by.dimensions().len()).max();
    let keys = most.unwrap_or(1);
    let mut writer = csv::Writer::from_writer(out);
    let mut head = vec!["by".to_owned(), "key".to_owned()];
    head.extend((2..=keys).map(|number| format!("key_{number}")));
    head.extend(COLUMNS.map(str::to_owned));
    writer.write_record(&head).map_err(of_csv)?;
    for by in tables {
        for (key, sums) in totals.rows(by) {
            let mut row = vec![by.name()];
            row.extend(key.into_iter().map(harmless));
            row.resize(keys.saturating_add(1), String::new());
            let cells = cells(sums);
            row.extend(cells.map(|cell| cell.map(|number| number.to_string()).unwrap_or_default()));
            writer.write_record(&row).map_err(of_csv)?;
        }
    }
    writer.flush()
}

/// A key that no spreadsheet takes for a formula.
fn harmless(key: &str) -> String {
    if key.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{key}")
    } else {
        key.to_owned()
    }
}

/// One object: the sum of all, and a list for each table.
pub(super) fn json(totals: &Totals, tables: &[By]) -> Value {
    let row = |sums: &Sums| {
        let pairs = COLUMNS.iter().zip(cells(sums));
        let pairs = pairs.map(|(name, cell)| ((*name).to_owned(), json!(cell)));
        pairs.collect::<Map<String, Value>>()
    };
    let mut object = Map::new();
    object.insert("all".to_owned(), row(&totals.all).into());
    object.insert("unreadable_lines".to_owned(), totals.unreadable.into());
    object.insert("other_lines".to_owned(), totals.others.into());
    object.insert("duplicate_records".to_owned(), totals.duplicates.into());
    for by in tables {
        let rows = totals.rows(by).into_iter().map(|(key, sums)| {
            let mut object = row(sums);
            for (dimension, part) in by.dimensions().iter().zip(key) {
                object.insert(dimension.name().to_owned(), part.into());
            }
            Value::Object(object)
        });
        object.insert(format!("by_{}", by.joined("_")), rows.collect());
    }
    Value::Object(object)
}
