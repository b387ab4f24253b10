//! `tollgate probe`: whether a gateway that runs is guarded.

mod calls;
mod client;
mod round;
mod target;
mod tls;
mod token;
mod verdict;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use crate::failure::Failure;
use crate::input::is_standard_input;
use crate::{Ended, Streams};
use client::Client;
use round::{Round, Summary};
use target::Target;
use tls::Trust;
use token::Token;

/// How long --wait pauses between two rounds.
const PAUSE: Duration = Duration::from_secs(1);

/// Probe whether a running gateway is guarded
///
/// Sends requests that every guarded gateway denies: without a token, with made-up tokens and API
/// keys, and with the path in other spellings. Each is a GET of the list of models, which costs
/// nothing should it pass, and carries no real key. A response shows who denied the request:
///
///   deciding  the module
///   guarded   the interlock, or Envoy itself: nothing passes, but the module does not decide
///   open      nobody, or something other than the module
///
/// Redirects are not followed, and proxies in the environment are not used.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  tollgate probe https://gateway.example.com
  tollgate probe https://gateway.example.com --wait 2m --token-file token
  tollgate probe https://localhost:10000 --ca-file ca.pem --json
  tollgate probe https://gateway.example.com --every 30s --listen 127.0.0.1:9464

Exit codes: 0 deciding, and nothing open; 1 something open, only guarded, or a good token denied;
2 no response."
)]
pub(crate) struct Arguments {
    /// The gateway's address: http:// or https://, and what its paths begin with
    #[arg(value_name = "URL")]
    gateway: Target,

    /// A file with a good token, whose requests must pass; read in each round, never shown
    #[arg(long, value_name = "FILE", conflicts_with = "every")]
    token_file: Option<PathBuf>,

    /// A PEM file with the certificate authorities to trust, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// How long a response may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,

    /// Repeat until the exit code is 0, for this long
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "every")]
    wait: Option<Duration>,

    /// Watch: send one request without a token this often, until interrupted
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "listen")]
    every: Option<Duration>,

    /// Serve Prometheus metrics on this address at /metrics
    #[arg(long, value_name = "ADDRESS:PORT", requires = "every")]
    listen: Option<SocketAddr>,

    /// Write JSON: one object for a round
    #[arg(long)]
    json: bool,
}

/// A whole number and a unit, from 1s to 24h.
fn duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "write a whole number with unit s, m or h, such as 30s, from 1s to 24h";
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let found = units.into_iter().find_map(|(unit, seconds)| {
        let digits = text.strip_suffix(unit)?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = is_number.then(|| digits.parse().ok())??;
        number.checked_mul(seconds)
    });
    match found {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(FORM.to_owned()),
    }
}

pub(crate) fn run(arguments: &Arguments, streams: Streams<'_>) -> Result<Ended, Failure> {
    if arguments
        .token_file
        .as_deref()
        .is_some_and(is_standard_input)
    {
        let remedy = "name a file, such as one that `az` has written";
        return Err(Failure::with_remedy(
            "--token-file is read in each round, which standard input cannot be",
            remedy,
        ));
    }
    let trust = match arguments.gateway.tls {
        true => Some(Trust::new(arguments.ca_file.as_deref())?),
        false => None,
    };
    let client = Client::new(arguments.gateway.clone(), trust, arguments.timeout);
    let client = Arc::new(client);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("no event loop: {error}")))?;
    let local = LocalSet::new();
    let ended = match (arguments.every, arguments.listen) {
        (Some(every), Some(listen)) => {
            let watch = watch::Watch::new(arguments.gateway.clone(), client, every, arguments.json);
            local.block_on(&runtime, watch.run(listen, streams))
        }
        _ => local.block_on(&runtime, rounds(arguments, &client, streams)),
    };
    // A look-up of a name that hangs would keep it.
    runtime.shutdown_background();
    ended
}

/// One round, or with --wait as many as it takes.
async fn rounds(
    arguments: &Arguments,
    client: &Arc<Client>,
    streams: Streams<'_>,
) -> Result<Ended, Failure> {
    let Streams { out, err } = streams;
    let target = &arguments.gateway;
    let start = Instant::now();
    let mut at_most = arguments.timeout;
    loop {
        let token = arguments.token_file.as_deref().map(Token::read);
        let token = token.transpose()?;
        if token.is_some() && !target.tls && !is_loopback(&target.host) {
            writeln!(err, "note: the token is sent without TLS")?;
        }
        let calls = calls::round(target.tls, token.as_ref());
        let round = Round::run(client, calls, at_most).await;
        let summary = round.summary();
        let left = arguments.wait.unwrap_or_default();
        let left = left.saturating_sub(start.elapsed()).saturating_sub(PAUSE);
        if summary == Summary::Deciding || left.is_zero() {
            if arguments.json {
                writeln!(out, "{}", round.to_json(target))?;
            } else {
                out.write_all(round.to_text(target).as_bytes())?;
            }
            return match summary {
                Summary::Deciding => Ok(Ended::Well),
                Summary::NotDeciding(_) => Ok(Ended::Badly),
                Summary::Unanswered(_) => Ok(Ended::Unknown),
            };
        }
        if let Summary::NotDeciding(why) | Summary::Unanswered(why) = &summary {
            writeln!(err, "waiting: {why}")?;
            err.flush()?;
        }
        sleep(PAUSE).await;
        // The last round may not take longer than the time that was given.
        at_most = left.max(PAUSE);
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_bounds() {
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        for text in [
            "",
            "30",
            "0s",
            "25h",
            "-1s",
            "+1s",
            "1.5s",
            "s",
            "1 s",
            "500ms",
            "99999999999999999999s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
