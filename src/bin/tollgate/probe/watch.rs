//! `--every` and `--listen`: one request at a time, and metrics about it.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::calls::without_token;
use super::client::Client;
use super::target::Target;
use super::verdict::{Judgement, Verdict, judge};
use crate::failure::Failure;
use crate::{Ended, Streams};

/// What one scraper may take, and how many there may be.
const MAX_REQUEST: usize = 8 * 1024;
const MAX_SCRAPERS: usize = 16;
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

/// Watches one gateway.
pub(crate) struct Watch {
    target: Target,
    client: Arc<Client>,
    every: Duration,
    json: bool,
}

/// What metrics are made of.
#[derive(Default)]
struct Seen {
    /// By `Verdict::STATES`.
    probes: [u64; Verdict::STATES.len()],
    last: Option<Verdict>,
    /// Seconds since 1970, with their fraction.
    last_success: Option<Duration>,
    last_duration: Duration,
}

impl Watch {
    pub(crate) fn new(target: Target, client: Arc<Client>, every: Duration, json: bool) -> Self {
        Self {
            target,
            client,
            every,
            json,
        }
    }

    /// Watches until it is interrupted.
    pub(crate) async fn run(
        self,
        listen: SocketAddr,
        streams: Streams<'_>,
    ) -> Result<Ended, Failure> {
        let of_listener = |error| Failure::of_file(&format!("--listen {listen}"), &error);
        let listener = TcpListener::bind(listen).await.map_err(of_listener)?;
        let address = listener.local_addr().map_err(of_listener)?;
        writeln!(streams.err, "metrics: http://{address}/metrics")?;
        streams.err.flush()?;
        let seen = Rc::new(RefCell::new(Seen::default()));
        tokio::task::spawn_local(serve(listener, Rc::clone(&seen)));
        tokio::select! {
            ended = self.probe(&seen, streams) => ended,
            () = interrupted() => Ok(Ended::Well),
        }
    }

    async fn probe(&self, seen: &RefCell<Seen>, streams: Streams<'_>) -> Result<Ended, Failure> {
        let call = without_token();
        let mut ticks = interval(self.every);
        // A gateway that is slow is not asked the more for it.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            ticks.tick().await;
            let start = Instant::now();
            let result = self.client.send(&call, self.every).await;
            let found = judge(call.credential, result);
            seen.borrow_mut().add(found.verdict, start.elapsed());
            // A line for each change, and none for what stays.
            if last.as_ref() != Some(&found) {
                writeln!(streams.out, "{}", self.line(&found))?;
                streams.out.flush()?;
                last = Some(found);
            }
        }
    }

    fn line(&self, found: &Judgement) -> String {
        let (target, state) = (&self.target, found.verdict.name());
        if self.json {
            return json!({
                "gateway": target.to_string(), "state": state, "status": found.status, "code": found.code,
                "protocol": found.protocol, "reason": found.reason,
            })
            .to_string();
        }
        let status = found.status.map(|status| status.to_string());
        let parts = [
            status.as_deref(),
            found.code.as_deref(),
            Some(&found.reason),
        ];
        let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
        let parts: Vec<_> = parts.collect();
        format!("{target}: {state}: {}", parts.join(", "))
    }
}

/// Ctrl-C, or how a container is ended.
async fn interrupted() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
        }
    }
    #[cfg(not(unix))]
    let _ = interrupt.await;
}

impl Seen {
    fn add(&mut self, verdict: Verdict, duration: Duration) {
        for (state, count) in Verdict::STATES.into_iter().zip(&mut self.probes) {
            if state == verdict {
                *count = count.saturating_add(1);
            }
        }
        self.last = Some(verdict);
        self.last_duration = duration;
        if verdict == Verdict::Deciding {
            // The command line is its own host, and has a clock.
            self.last_success = Some(UNIX_EPOCH.elapsed().unwrap_or_default());
        }
    }

    /// Prometheus' text format.
    fn metrics(&self) -> String {
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, series: Vec<(String, String)>| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in series {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let label = |state: Verdict| format!("{{state=\"{}\"}}", state.name());
        let states = Verdict::STATES.into_iter();
        let current = states.clone().map(|state| {
            let value = if self.last == Some(state) { "1" } else { "0" };
            (label(state), value.to_owned())
        });
        metric(
            "tollgate_probe_state",
            "gauge",
            "1 for the state that the last request without a token found, 0 for the others.",
            current.collect(),
        );
        let probes = states.zip(&self.probes);
        metric(
            "tollgate_probe_requests_total",
            "counter",
            "Requests without a token, by the state that they found.",
            probes
                .map(|(state, count)| (label(state), count.to_string()))
                .collect(),
        );
        metric(
            "tollgate_probe_last_success_timestamp_seconds",
            "gauge",
            "When the module was last found deciding; 0 before that.",
            vec![(
                String::new(),
                seconds(self.last_success.unwrap_or_default()),
            )],
        );
        metric(
            "tollgate_probe_duration_seconds",
            "gauge",
            "How long the last request took.",
            vec![(String::new(), seconds(self.last_duration))],
        );
        text
    }
}

fn seconds(duration: Duration) -> String {
    format!("{}.{:03}", duration.as_secs(), duration.subsec_millis())
}

/// Serves the metrics to a bounded number of scrapers at a time.
async fn serve(listener: TcpListener, seen: Rc<RefCell<Seen>>) {
    let room = Arc::new(Semaphore::new(MAX_SCRAPERS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No more files, for instance: it gets better, or there are no metrics.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        let seen = Rc::clone(&seen);
        tokio::task::spawn_local(async move {
            let _ = timeout(SCRAPE_TIMEOUT, respond(stream, &seen)).await;
            drop(permit);
        });
    }
}

/// One request and its response; the connection ends with it.
async fn respond(mut stream: TcpStream, seen: &RefCell<Seen>) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut piece).await?;
        if read == 0 || head.len() > MAX_REQUEST {
            return Ok(());
        }
        head.extend(piece.iter().take(read));
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, path) = (words.next(), words.next());
    let path = path.and_then(|path| path.split(|byte| *byte == b'?').next());
    let (status, body) = match (method, path) {
        (Some(b"GET"), Some(b"/metrics")) => ("200 OK", seen.borrow().metrics()),
        (Some(b"GET"), _) => ("404 Not Found", "see /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", String::new()),
    };
    let allow = if status.starts_with("405") {
        "allow: GET\r\n"
    } else {
        ""
    };
    let length = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n\
         content-length: {length}\r\n{allow}connection: close\r\n\r\n{body}"
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}
