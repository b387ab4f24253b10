//! `load`: sends prepared HTTP/1.1 requests over connections that stay open, each after the answer to
//! the one before, and prints what came back as JSON. For `make bench`.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use clap::Parser;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

#[derive(Parser)]
struct Options {
    /// Where to send them, as address:port.
    #[arg(long)]
    to: String,
    /// A JSON array of whole requests, sent in turn.
    #[arg(long)]
    requests: PathBuf,
    /// How many to send.
    #[arg(long)]
    count: usize,
    /// Over how many connections.
    #[arg(long, default_value_t = 8)]
    connections: usize,
}

/// What one connection saw.
#[derive(Default)]
struct Seen {
    statuses: BTreeMap<u16, usize>,
    /// Time to the first byte and to the last one, in microseconds.
    first: Vec<u64>,
    last: Vec<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<serde_json::Value> {
    let text = std::fs::read_to_string(&options.requests)?;
    let requests: Vec<String> = serde_json::from_str(&text)?;
    if requests.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "there is no request to send",
        ));
    }
    let requests = Rc::new(requests);
    let began = Instant::now();
    let tasks = LocalSet::new();
    let handles: Vec<_> = (0..options.connections)
        .map(|index| {
            let (to, requests) = (options.to.clone(), Rc::clone(&requests));
            let (count, step) = (options.count, options.connections);
            tasks.spawn_local(
                async move { send(&to, &requests, (index..count).step_by(step)).await },
            )
        })
        .collect();
    tasks.await;
    let mut all = Seen::default();
    for handle in handles {
        let seen = handle.await.map_err(Error::other)??;
        for (status, count) in seen.statuses {
            *all.statuses.entry(status).or_default() += count;
        }
        all.first.extend(seen.first);
        all.last.extend(seen.last);
    }
    Ok(json!({
        "seconds": began.elapsed().as_secs_f64(),
        "statuses": all.statuses.iter().map(|(status, count)| (status.to_string(), count)).collect::<BTreeMap<_, _>>(),
        "first_byte_us": percentiles(all.first),
        "us": percentiles(all.last),
    }))
}

fn percentiles(mut times: Vec<u64>) -> serde_json::Value {
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100);
    json!({ "p50": at(50), "p99": at(99) })
}

async fn send(to: &str, requests: &[String], turns: impl Iterator<Item = usize>) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut connection = TcpStream::connect(to).await?;
    connection.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(64 * 1024);
    for turn in turns {
        let began = Instant::now();
        connection
            .write_all(requests[turn % requests.len()].as_bytes())
            .await?;
        buffer.clear();
        let (status, closes) = answer(&mut connection, &mut buffer, began, &mut seen).await?;
        *seen.statuses.entry(status).or_default() += 1;
        seen.last.push(micros(began));
        if closes {
            connection = TcpStream::connect(to).await?;
            connection.set_nodelay(true)?;
        }
    }
    Ok(seen)
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Reads one answer to its end: its status, and whether the connection ends with it.
async fn answer(
    connection: &mut TcpStream,
    buffer: &mut Vec<u8>,
    began: Instant,
    seen: &mut Seen,
) -> Result<(u16, bool)> {
    let cut_off = || Error::new(ErrorKind::UnexpectedEof, "an answer broke off");
    let end = loop {
        if connection.read_buf(buffer).await? == 0 {
            return Err(cut_off());
        }
        if seen.first.len() == seen.last.len() {
            seen.first.push(micros(began));
        }
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| Error::new(ErrorKind::InvalidData, "not an HTTP answer"))?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let done = |buffer: &[u8]| match length {
        Some(length) => buffer.len() >= end + length,
        None => buffer.ends_with(b"0\r\n\r\n"),
    };
    while !done(buffer) {
        if connection.read_buf(buffer).await? == 0 {
            return Err(cut_off());
        }
    }
    Ok((status, head.contains("connection: close")))
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len())
        .position(|window| window == wanted)
}
