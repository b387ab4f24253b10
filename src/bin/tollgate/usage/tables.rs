//! Sums as text, CSV and JSON.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::totals::{By, Sums, Totals};
use crate::failure::of_csv;

const COLUMNS: [&str; 9] = [
    "calls",
    "denied",
    "would_deny",
    "errors",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "p50_ms",
    "p99_ms",
];

/// The cells of a row; empty where there is nothing to tell.
fn cells(sums: &Sums) -> [Option<u64>; 9] {
    [
        Some(sums.calls),
        Some(sums.denied),
        Some(sums.would_deny),
        Some(sums.errors),
        Some(sums.prompt),
        Some(sums.completion),
        Some(sums.total),
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
        let rows = totals.rows(*by);
        let all = ("all", &totals.all);
        let lines: Vec<(String, [String; 9])> = rows
            .into_iter()
            .chain([all])
            .map(|(key, sums)| (key.escape_debug().to_string(), cells(sums).map(shown)))
            .collect();
        let first = lines.iter().map(|(key, _)| key.chars().count());
        let first = first.max().unwrap_or_default().max(by.name().len());
        let widths: Vec<usize> = COLUMNS
            .iter()
            .enumerate()
            .map(|(at, name)| {
                let cells = lines.iter().filter_map(|(_, cells)| cells.get(at));
                cells
                    .map(String::len)
                    .max()
                    .unwrap_or_default()
                    .max(name.len())
            })
            .collect();
        write_line(out, by.name(), first, &COLUMNS, &widths)?;
        for (key, cells) in &lines {
            write_line(out, key, first, cells, &widths)?;
        }
    }
    Ok(())
}

fn write_line(
    out: &mut dyn Write,
    key: &str,
    first: usize,
    cells: &[impl AsRef<str>],
    widths: &[usize],
) -> io::Result<()> {
    write!(out, "{key:first$}")?;
    for (cell, width) in cells.iter().zip(widths) {
        write!(out, "  {:>width$}", cell.as_ref())?;
    }
    writeln!(out)
}

/// One table for programs: what a row is of, its key, its sums.
pub(super) fn csv(totals: &Totals, tables: &[By], out: &mut dyn Write) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer
        .write_record(["by", "key"].iter().chain(&COLUMNS))
        .map_err(of_csv)?;
    for by in tables {
        for (key, sums) in totals.rows(*by) {
            let cells =
                cells(sums).map(|cell| cell.map(|number| number.to_string()).unwrap_or_default());
            let head = [by.name().to_owned(), harmless(key)];
            writer
                .write_record(head.iter().chain(&cells))
                .map_err(of_csv)?;
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
    for by in tables {
        let rows = totals.rows(*by).into_iter().map(|(key, sums)| {
            let mut object = row(sums);
            object.insert(by.name().to_owned(), key.into());
            Value::Object(object)
        });
        object.insert(format!("by_{}", by.name()), rows.collect());
    }
    Value::Object(object)
}
