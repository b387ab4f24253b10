//! `tollgate usage`: who used what, from the request log.

mod page;
mod pairs;
mod read;
mod tables;
mod totals;

use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read};
use std::path::PathBuf;

use clap::ValueEnum;
use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Failure;
use crate::input::{self, is_standard_input, name_of};
use crate::{Ended, Streams};
use read::{Lines, Piece};
use totals::{By, Totals};

/// Bytes that are read at once.
const BUFFER: usize = 256 * 1024;

/// How a file of gzip begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Smallest input that is worth a progress bar.
const LONG: u64 = 32 * 1024 * 1024;

/// Sum up the request log
///
/// Reads the records that Tollgate writes, one JSON object for each request, with whatever Envoy writes
/// before them or a log collector wraps around them (Docker, CRI, journald, Istio's JSON; gzip too). Other
/// lines are passed over and counted. Envoy's own access log does as well, with the keys of
/// envoy/envoy.yaml; of a request that both logs have, one record counts. Memory is bounded, however long
/// the log is.
///
/// p50 and p99 are of the calls that reached the backend.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tollgate usage envoy.log
  tollgate usage --by app --by hour envoy.log.1 envoy.log
  tollgate usage --by day --by app,deployment envoy.log.*.gz
  kubectl logs deploy/gateway | tollgate usage --format csv - > usage.csv
  tollgate usage --html usage.html envoy.log

Exit codes: 0 summed up, 2 not, also where no line is a record.")]
pub(crate) struct Arguments {
    /// Logs; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Which tables: app, deployment, code, day, hour, minute, or several of them joined by commas for a row
    /// per combination; app, deployment, code and hour without it
    #[arg(long, value_name = "WHAT")]
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
    let by = match arguments.by.as_slice() {
        [] => By::defaults(),
        chosen => chosen.to_vec(),
    };
    let of_page = match &arguments.html {
        Some(_) => page::tables(),
        None => Vec::new(),
    };
    let mut totals = Totals::new(by.iter().cloned().chain(of_page));
    let progress = progress(&arguments.files);
    for path in &arguments.files {
        let name = name_of(path);
        let source: Box<dyn Read> = if is_standard_input(path) {
            Box::new(std::io::stdin())
        } else {
            Box::new(File::open(path).map_err(|error| Failure::of_file(&name, &error))?)
        };
        let mut source = BufReader::with_capacity(BUFFER, progress.wrap_read(source));
        let start = source.fill_buf();
        let summed = if start.is_ok_and(|bytes| bytes.starts_with(&GZIP)) {
            let unpacked = MultiGzDecoder::new(source);
            sum_up(BufReader::with_capacity(BUFFER, unpacked), &mut totals)
        } else {
            sum_up(source, &mut totals)
        };
        summed.map_err(|error| Failure::of_file(&name, &error))?;
    }
    progress.finish_and_clear();
    if totals.all.calls == 0 && totals.others > 0 {
        return Err(no_record(&totals, &arguments.files));
    }
    report(&totals, streams.err)?;
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

/// Nothing in the files is a record: they are no logs of a gateway, or requests are not logged.
fn no_record(totals: &Totals, files: &[PathBuf]) -> Failure {
    let names: Vec<_> = files.iter().map(|path| name_of(path)).collect();
    let lines = totals.others.saturating_add(totals.unreadable);
    Failure::with_remedy(
        format!(
            "{}: no record of the request log in {lines} lines: not a log of this gateway",
            names.join(", ")
        ),
        "records are JSON with \"time\" and \"outcome\"; the policy needs \"log\": {\"requests\": true}, and Envoy the log level info for wasm",
    )
}

/// Reports what was passed over.
fn report(totals: &Totals, err: &mut dyn std::io::Write) -> std::io::Result<()> {
    let lines = |count: u64| {
        if count == 1 {
            "1 line".to_owned()
        } else {
            format!("{count} lines")
        }
    };
    if totals.unreadable > 0 {
        let lines = lines(totals.unreadable);
        writeln!(
            err,
            "{lines} of the request log could not be read: cut off, or not UTF-8"
        )?;
    }
    if totals.others > 0 {
        writeln!(
            err,
            "{} passed over: no records of the request log",
            lines(totals.others)
        )?;
    }
    if totals.all.calls == 0 && totals.others == 0 && totals.unreadable == 0 {
        writeln!(err, "the log is empty")?;
    }
    if totals.duplicates > 0 {
        let lines = lines(totals.duplicates);
        writeln!(
            err,
            "{lines} passed over: the other log has the same requests"
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
