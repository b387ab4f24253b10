//! `tollgate usage`: who used what, from the request log.

mod page;
mod read;
mod tables;
mod totals;

use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read};
use std::path::PathBuf;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Failure;
use crate::input::{self, is_standard_input, name_of};
use crate::{Ended, Streams};
use read::{Lines, Piece};
use totals::{By, Totals};

/// How a file of gzip begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Smallest input that is worth a progress bar.
const LONG: u64 = 32 * 1024 * 1024;

/// Sum up the request log
///
/// Reads the lines that Tollgate writes, one JSON object for each request, with or without what Envoy
/// writes before them; other lines are passed over. Envoy's own access log does too, with the keys of
/// envoy/envoy.yaml; where both stand in one stream, the first is taken. Memory is bounded, however long
/// the log is.
///
/// p50 and p99 are of the calls that reached the backend.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tollgate usage envoy.log
  tollgate usage --by app --by hour envoy.log.1 envoy.log
  zcat envoy.log.*.gz | tollgate usage --format csv - > usage.csv
  tollgate usage --html usage.html envoy.log

Exit codes: 0 summed up, 2 not.")]
pub(crate) struct Arguments {
    /// Logs; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Which tables; all without it
    #[arg(long, value_enum, value_name = "WHAT")]
    by: Vec<By>,

    /// How they are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Write a page with charts, in one file that needs no network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One table, its first column says of what
    Csv,
    /// One object
    Json,
}

pub(crate) fn run(arguments: &Arguments, streams: Streams<'_>) -> Result<Ended, Failure> {
    let mut totals = Totals::default();
    let progress = progress(&arguments.files);
    for path in &arguments.files {
        let name = name_of(path);
        let source: Box<dyn Read> = if is_standard_input(path) {
            Box::new(std::io::stdin())
        } else {
            Box::new(File::open(path).map_err(|error| Failure::of_file(&name, &error))?)
        };
        let mut source = BufReader::with_capacity(256 * 1024, progress.wrap_read(source));
        let start = source.fill_buf();
        if start.is_ok_and(|bytes| bytes.starts_with(&GZIP)) {
            let remedy = format!("zcat {name} | tollgate usage -");
            return Err(Failure::with_remedy(
                format!("{name} is compressed"),
                remedy,
            ));
        }
        sum_up(source, &mut totals).map_err(|error| Failure::of_file(&name, &error))?;
    }
    progress.finish_and_clear();
    said(&totals, streams.err)?;
    let by = match arguments.by.as_slice() {
        [] => By::ALL.to_vec(),
        chosen => chosen.to_vec(),
    };
    if let Some(path) = &arguments.html {
        input::write(path, &page::write(&totals))?;
        return Ok(Ended::Well);
    }
    match arguments.format {
        Format::Text => tables::text(&totals, &by, streams.out)?,
        Format::Csv => tables::csv(&totals, &by, streams.out)?,
        Format::Json => writeln!(streams.out, "{:#}", tables::json(&totals, &by))?,
    }
    Ok(Ended::Well)
}

fn sum_up(source: impl std::io::BufRead, totals: &mut Totals) -> std::io::Result<()> {
    let mut lines = Lines::new(source);
    while let Some(piece) = lines.next_piece()? {
        match piece {
            Piece::Record(record, source) => totals.add(&record, source),
            Piece::Other => totals.others = totals.others.saturating_add(1),
            Piece::Unreadable => totals.unreadable = totals.unreadable.saturating_add(1),
        }
    }
    Ok(())
}

/// A bar on a terminal, when the wait is long.
fn progress(files: &[PathBuf]) -> ProgressBar {
    let size = |path: &PathBuf| std::fs::metadata(path).map(|data| data.len()).unwrap_or(0);
    let total: u64 = files.iter().map(size).sum();
    let is_stream = files.iter().any(|path| is_standard_input(path));
    let is_seen = std::io::stderr().is_terminal();
    if !is_seen || (total < LONG && !is_stream) {
        return ProgressBar::hidden();
    }
    if is_stream {
        let style = ProgressStyle::with_template("{spinner} {bytes} read, {bytes_per_sec}");
        return styled(ProgressBar::new_spinner(), style.ok());
    }
    let style = ProgressStyle::with_template(
        "{wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
    );
    styled(ProgressBar::new(total), style.ok())
}

fn styled(bar: ProgressBar, style: Option<ProgressStyle>) -> ProgressBar {
    match style {
        Some(style) => bar.with_style(style),
        None => bar,
    }
}

/// What was passed over, and that there was nothing.
fn said(totals: &Totals, err: &mut dyn std::io::Write) -> std::io::Result<()> {
    if totals.unreadable > 0 {
        let (count, plural) = (
            totals.unreadable,
            if totals.unreadable == 1 { "" } else { "s" },
        );
        writeln!(
            err,
            "{count} line{plural} of the request log could not be read: cut, or not UTF-8"
        )?;
    }
    if totals.all.calls == 0 {
        let others = totals.others;
        writeln!(
            err,
            "no line of the request log among {others} lines; is \"log\": {{\"requests\": true}} in the policy, and the log level of wasm at info?"
        )?;
    }
    if totals.twins > 0 {
        let twins = totals.twins;
        writeln!(
            err,
            "{twins} lines of the other log, which tells of the same requests, were passed over"
        )?;
    }
    if totals.is_cut() {
        writeln!(
            err,
            "more keys than a table holds: the later ones are summed up as (other)"
        )?;
    }
    Ok(())
}
