//! `load`: sends prepared HTTP/1.1 requests over connections that stay open, each after the answer to
//! the one before, and prints what came back as JSON: of all, and of each kind. For `make bench` and for
//! the tests that need many requests.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};
use tollgate_stand_ins::random;

/// What counts as the answer of a connection that ended without one, and of a caller who did not wait.
const BROKEN: &str = "broken";
const LEFT: &str = "left";

#[derive(Parser)]
struct Options {
    /// Where to send them, as address:port.
    #[arg(long)]
    to: String,
    /// A JSON array of requests, sent in turn. One is its text, whose characters are bytes, or an object:
    /// its `text`, the `kind` that it is counted as, and `leave_ms`, after which its caller hangs up.
    #[arg(long)]
    requests: PathBuf,
    /// How many to send.
    #[arg(long, required_unless_present = "seconds")]
    count: Option<usize>,
    /// For how long to send.
    #[arg(long)]
    seconds: Option<f64>,
    /// How many to send a second, over all of it; without it, as many as are answered.
    #[arg(long)]
    rate: Option<f64>,
    /// Over how many connections.
    #[arg(long, default_value_t = 8)]
    connections: usize,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Text(String),
    Kind {
        kind: String,
        text: String,
        leave_ms: Option<u64>,
    },
}

struct Request {
    kind: Rc<str>,
    bytes: Vec<u8>,
    leave: Option<Duration>,
}

impl Request {
    fn from(line: Line) -> Result<Self> {
        let (kind, text, leave) = match line {
            Line::Text(text) => (String::new(), text, None),
            Line::Kind {
                kind,
                text,
                leave_ms,
            } => (kind, text, leave_ms.map(Duration::from_millis)),
        };
        let bytes = text
            .chars()
            .map(u8::try_from)
            .collect::<std::result::Result<_, _>>();
        let bytes =
            bytes.map_err(|_| Error::new(ErrorKind::InvalidInput, "a character is no byte"))?;
        Ok(Self {
            kind: kind.into(),
            bytes,
            leave,
        })
    }
}

/// Which request is next, and when.
struct Turns {
    requests: Vec<Request>,
    taken: Cell<usize>,
    count: usize,
    end: Option<Instant>,
    /// When each is due; without it, as soon as a connection is free.
    clock: Option<Mutex<UnboundedReceiver<Instant>>>,
}

impl Turns {
    /// Waits for the next turn. Answers with its request and when its time began: when it was due, if
    /// nobody was free by then.
    async fn next(&self) -> Option<(&Request, Instant)> {
        let began = match &self.clock {
            Some(clock) => next_of(&mut *clock.lock().await).await?,
            None if self.are_over() => return None,
            None => Instant::now(),
        };
        let turn = self.taken.replace(self.taken.get() + 1);
        Some((&self.requests[turn % self.requests.len()], began))
    }

    /// Where no clock ends them.
    fn are_over(&self) -> bool {
        self.taken.get() >= self.count || self.end.is_some_and(|end| Instant::now() >= end)
    }
}

async fn next_of(clock: &mut UnboundedReceiver<Instant>) -> Option<Instant> {
    match clock.try_recv() {
        Ok(due) => Some(due),
        Err(TryRecvError::Empty) => clock.recv().await.map(|_| Instant::now()),
        Err(TryRecvError::Disconnected) => None,
    }
}

/// Says when turns are due: so many a second, each at a random moment of its own share of the time. At even steps two
/// programs would keep step with each other, and all their requests meet or none. A thread of its own, because Tokio's
/// timers go by whole milliseconds.
fn start_clock(
    began: Instant,
    rate: f64,
    count: usize,
    end: Option<Instant>,
) -> UnboundedReceiver<Instant> {
    let (turns, clock) = unbounded_channel();
    thread::spawn(move || {
        let mut shares = 0.0;
        for _ in 0..count {
            let due = began + Duration::from_secs_f64((shares + random_fraction()) / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if end.is_some_and(|end| due >= end) || turns.send(due).is_err() {
                break;
            }
            shares += 1.0;
        }
    });
    clock
}

/// From 0 up to and without 1.
fn random_fraction() -> f64 {
    f64::from(u32::from_ne_bytes(random::bytes())) / 2_f64.powi(32)
}

/// What came back of one kind of request.
#[derive(Default)]
struct Seen {
    /// By status, and code where it is an error.
    answers: BTreeMap<String, usize>,
    /// Time to the first byte and to the last one, in microseconds.
    first: Vec<u64>,
    last: Vec<u64>,
}

impl Seen {
    fn count(&mut self, answer: String) {
        *self.answers.entry(answer).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        for (answer, count) in &other.answers {
            *self.answers.entry(answer.clone()).or_default() += count;
        }
        self.first.extend(&other.first);
        self.last.extend(&other.last);
    }

    fn report(mut self) -> Value {
        let mut statuses = BTreeMap::<_, usize>::new();
        for (answer, count) in &self.answers {
            *statuses.entry(answer.split(' ').next()).or_default() += count;
        }
        let statuses: BTreeMap<_, _> = statuses
            .into_iter()
            .filter_map(|(status, count)| Some((status?, count)))
            .collect();
        json!({
            "statuses": statuses,
            "answers": self.answers,
            "first_byte_us": percentiles(&mut self.first),
            "us": percentiles(&mut self.last),
        })
    }
}

type Kinds = BTreeMap<Rc<str>, Seen>;

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

async fn run(options: Options) -> Result<Value> {
    let text = std::fs::read_to_string(&options.requests)?;
    let lines: Vec<Line> = serde_json::from_str(&text)?;
    let requests = lines
        .into_iter()
        .map(Request::from)
        .collect::<Result<Vec<_>>>()?;
    if requests.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "there is no request to send",
        ));
    }
    let began = Instant::now();
    let count = options.count.unwrap_or(usize::MAX);
    let end = options
        .seconds
        .map(|seconds| began + Duration::from_secs_f64(seconds));
    let clock = options
        .rate
        .map(|rate| start_clock(began, rate, count, end));
    let turns = Rc::new(Turns {
        requests,
        taken: Cell::new(0),
        count,
        end,
        clock: clock.map(Mutex::new),
    });
    let tasks = LocalSet::new();
    let handles: Vec<_> = (0..options.connections)
        .map(|_| {
            let (to, turns) = (options.to.clone(), Rc::clone(&turns));
            tasks.spawn_local(async move { send(&to, &turns).await })
        })
        .collect();
    tasks.await;
    let seconds = began.elapsed().as_secs_f64();
    let (mut all, mut kinds) = (Seen::default(), Kinds::new());
    for handle in handles {
        for (kind, seen) in handle.await.map_err(Error::other)?? {
            all.add(&seen);
            kinds.entry(kind).or_default().add(&seen);
        }
    }
    let mut report = all.report();
    report["seconds"] = json!(seconds);
    report["kinds"] = kinds
        .into_iter()
        .map(|(kind, seen)| (kind.to_string(), seen.report()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    Ok(report)
}

fn percentiles(times: &mut [u64]) -> Value {
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100);
    json!({ "p50": at(50), "p99": at(99) })
}

async fn connect(to: &str) -> Result<TcpStream> {
    let connection = TcpStream::connect(to).await?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

async fn send(to: &str, turns: &Turns) -> Result<Kinds> {
    let mut kinds = Kinds::new();
    let mut connection = connect(to).await?;
    let mut buffer = Vec::with_capacity(64 * 1024);
    while let Some((request, began)) = turns.next().await {
        let seen = kinds.entry(Rc::clone(&request.kind)).or_default();
        buffer.clear();
        let stays = match exchange(&mut connection, request, &mut buffer).await {
            Ok(Some(answer)) => {
                seen.first.push(micros(answer.first - began));
                seen.last.push(micros(began.elapsed()));
                seen.count(answer.text());
                !answer.closes
            }
            Ok(None) => {
                seen.count(LEFT.to_owned());
                false
            }
            Err(error) if error.kind() == ErrorKind::InvalidData => return Err(error),
            Err(_) => {
                seen.count(BROKEN.to_owned());
                false
            }
        };
        if !stays {
            connection = connect(to).await?;
        }
    }
    Ok(kinds)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// One whole answer.
struct Answer {
    status: u16,
    code: Option<String>,
    closes: bool,
    first: Instant,
}

impl Answer {
    fn text(&self) -> String {
        match &self.code {
            Some(code) => format!("{} {code}", self.status),
            None => self.status.to_string(),
        }
    }
}

/// Sends a request and reads its answer to the end; `None` if its caller does not wait for it.
async fn exchange(
    connection: &mut TcpStream,
    request: &Request,
    buffer: &mut Vec<u8>,
) -> Result<Option<Answer>> {
    connection.write_all(&request.bytes).await?;
    if let Some(leave) = request.leave {
        sleep(leave).await;
        return Ok(None);
    }
    read_more(connection, buffer).await?;
    let first = Instant::now();
    let end = loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            break end + 4;
        }
        read_more(connection, buffer).await?;
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
        read_more(connection, buffer).await?;
    }
    Ok(Some(Answer {
        status,
        code: (status >= 400).then(|| code(&buffer[end..])).flatten(),
        closes: head.contains("connection: close"),
        first,
    }))
}

async fn read_more(connection: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<()> {
    match connection.read_buf(buffer).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// The code of an error as Azure words it.
fn code(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body["error"]["code"].as_str().map(str::to_owned)
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn turns_of(mut clock: UnboundedReceiver<Instant>) -> Vec<Instant> {
        let mut turns = Vec::new();
        while let Some(due) = clock.recv().await {
            turns.push(due);
        }
        turns
    }

    #[tokio::test]
    async fn each_turn_is_due_within_its_share_and_not_in_step() {
        let began = Instant::now();
        let turns = turns_of(start_clock(began, 1_000.0, 300, None)).await;
        assert_eq!(turns.len(), 300);
        let share = Duration::from_millis(1);
        for (turn, due) in (0..).zip(&turns) {
            assert!((share * turn..share * (turn + 1)).contains(&(*due - began)));
        }
        let steps: Vec<_> = turns.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().any(|step| *step < share / 2));
        assert!(steps.iter().any(|step| *step > share * 3 / 2));
    }

    #[tokio::test]
    async fn no_turn_is_due_after_the_end() {
        let began = Instant::now();
        let end = began + Duration::from_millis(20);
        let turns = turns_of(start_clock(began, 1_000.0, usize::MAX, Some(end))).await;
        assert_eq!(turns.len(), 20);
        assert!(turns.iter().all(|due| *due < end));
    }
}
