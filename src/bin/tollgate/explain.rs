//! `tollgate explain`: how a decision comes about.

mod codes;
mod facts;
mod keys;
mod steps;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::rc::Rc;

use clap::ValueEnum;
use serde_json::json;
use tollgate::answer::{Answer, ResponseContext};
use tollgate::crypto::Crypto;
use tollgate::gateway::{Gateway, Patience, Read, Verdict};
use tollgate::policy::Policy;
use tollgate::request::HeaderMap;
use tollgate::store::MemoryStore;
use tollgate::time::{Date, Time};
use tollgate::usage::BodyReader as _;

use crate::check::{check, read_file};
use crate::failure::Failure;
use crate::input::{Input, is_standard_input};
use crate::report;
use crate::{Ended, Streams};
use steps::{Asked, Outcome, Step};

/// Explain a decision, or a line of the request log
///
/// Decides on a request as the module does, and says at each step what was looked at and what came out,
/// up to the answer. Counters are taken as empty.
///
/// A token never stands in an argument, which a shell's history would keep.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  az account get-access-token --resource https://cognitiveservices.azure.com -o tsv \\
    --query accessToken | tollgate explain policy.json --fetch --token-file - \\
    --path '/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21'
  tollgate explain policy.json --keys jwks.json --token-env TOKEN --at issued \\
    --path /openai/v1/responses --body body.json
  tollgate explain policy.json --header api-key --path /openai/models --method GET
  tollgate explain --log line.json

Exit codes: 0 allowed, 1 refused, 2 not decided.")]
pub(crate) struct Arguments {
    /// The policy, or a configuration with one in it
    #[arg(required_unless_present = "log", value_name = "POLICY")]
    policy: Option<PathBuf>,

    /// A file with the token, with or without `Bearer`; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token_env")]
    token_file: Option<PathBuf>,

    /// The environment variable that holds the token
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,

    #[arg(long, default_value = "POST")]
    method: String,

    /// Path and query of the request
    #[arg(long, required_unless_present = "log", value_name = "PATH")]
    path: Option<String>,

    /// A header of the request; a key needs no value
    #[arg(long = "header", value_name = "NAME[: VALUE]")]
    headers: Vec<String>,

    /// A file with the request's body, where it decides; `-` is standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,

    /// The issuers' keys: a JWK Set
    #[arg(long, value_name = "FILE", conflicts_with = "fetch")]
    keys: Option<PathBuf>,

    /// Fetch the issuers' keys from where the policy says
    #[arg(long)]
    fetch: bool,

    /// When the request comes: a time such as 2026-03-01T12:00:00Z, seconds since 1970, or `issued`, right
    /// after the token was
    #[arg(long, value_name = "TIME", default_value = "now")]
    at: String,

    /// A line of the request log to explain; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["policy", "path", "token_file", "token_env"])]
    log: Option<PathBuf>,

    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One object
    Json,
}

/// A decision with its steps.
struct Explained {
    steps: Vec<Step>,
    /// The answer, if it is refused.
    answer: Option<Answer>,
    /// What is good to know beside.
    notes: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, streams: Streams<'_>) -> Result<Ended, Failure> {
    if let Some(path) = &arguments.log {
        let (name, text) = Input::read(path)?.into_text()?;
        return codes::explain_line(&name, &text, arguments.format == Format::Json, streams.out);
    }
    let (Some(file), Some(path)) = (&arguments.policy, &arguments.path) else {
        return Err(Failure::new("a policy and --path, or --log, are needed"));
    };
    one_reader_of_standard_input(arguments)?;
    let policy = read_policy(file, streams.err)?;
    let token = token(arguments)?;
    let clock = clock(&arguments.at, token.as_deref())?;
    let request = Request {
        headers: headers(arguments, path, token.as_deref())?,
        body: match &arguments.body {
            Some(file) => Some(Input::read(file)?.bytes),
            None => None,
        },
    };
    let explained = explain(arguments, policy, &request, clock)?;
    match arguments.format {
        Format::Text => streams.out.write_all(explained.to_text().as_bytes())?,
        Format::Json => writeln!(streams.out, "{:#}", explained.to_json())?,
    }
    if !explained.is_decided() {
        return Err(Failure::with_remedy(
            "not decided: the keys that sign the token are not here",
            "give them with --keys FILE, or fetch them with --fetch",
        ));
    }
    Ok(match explained.answer {
        None => Ended::Well,
        Some(_) => Ended::Badly,
    })
}

struct Request {
    headers: HeaderMap,
    body: Option<Vec<u8>>,
}

fn one_reader_of_standard_input(arguments: &Arguments) -> Result<(), Failure> {
    let files = [
        &arguments.policy,
        &arguments.token_file,
        &arguments.body,
        &arguments.keys,
    ];
    let from_input = files.into_iter().flatten();
    if from_input.filter(|path| is_standard_input(path)).count() > 1 {
        let remedy = "give all but one as files";
        return Err(Failure::with_remedy(
            "standard input is named twice",
            remedy,
        ));
    }
    Ok(())
}

fn read_policy(path: &std::path::Path, err: &mut dyn std::io::Write) -> Result<Policy, Failure> {
    let (name, text) = Input::read(path)?.into_text()?;
    let file = read_file(name, text, err)?;
    let embedded = file.only()?;
    let checked = check(embedded);
    checked.policy.map_or_else(
        || {
            report::findings(file.shown(embedded), &checked.findings, err)?;
            Err(Failure::new(format!("{}: not a good policy", file.name)))
        },
        Ok,
    )
}

/// The token from a file or the environment, without white space and scheme.
fn token(arguments: &Arguments) -> Result<Option<String>, Failure> {
    let text = match (&arguments.token_file, &arguments.token_env) {
        (Some(path), _) => {
            let (name, text) = Input::read(path)?.into_text()?;
            if text.trim().is_empty() {
                return Err(Failure::new(format!("{name}: no token in it")));
            }
            text
        }
        (None, Some(name)) => std::env::var(name).map_err(|_| {
            let remedy = format!("export {name}, or use --token-file");
            Failure::with_remedy(format!("the environment has no {name}"), remedy)
        })?,
        (None, None) => return Ok(None),
    };
    let text = text.trim();
    let bare = text
        .get(..7)
        .is_some_and(|start| start.eq_ignore_ascii_case("bearer "));
    let token = if bare {
        text.get(7..).unwrap_or_default().trim()
    } else {
        text
    };
    Ok(Some(token.to_owned()))
}

/// The value of a header that is given without one.
const SOMETHING: &str = "...";

fn headers(arguments: &Arguments, path: &str, token: Option<&str>) -> Result<HeaderMap, Failure> {
    let mut pairs = vec![
        (":method".to_owned(), arguments.method.clone()),
        (":path".to_owned(), path.to_owned()),
    ];
    for header in &arguments.headers {
        let (name, value) = header.split_once(':').unwrap_or((header, SOMETHING));
        let name = name.trim().to_ascii_lowercase();
        if name == "authorization" {
            let remedy =
                "use --token-file or --token-env, which leave no trace in a shell's history";
            return Err(Failure::with_remedy("a token in an argument", remedy));
        }
        pairs.push((name, value.trim().to_owned()));
    }
    if let Some(token) = token {
        pairs.push(("authorization".to_owned(), format!("Bearer {token}")));
    }
    let bytes = pairs
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    Ok(HeaderMap::from_pairs(bytes))
}

/// The moment of the request.
fn clock(at: &str, token: Option<&str>) -> Result<Time, Failure> {
    let seconds = |seconds: u64| Time::from_millis(seconds.saturating_mul(1000));
    let found = match at {
        "now" => Some(now()),
        "issued" => token.and_then(steps::issued_at).map(seconds),
        other => other.parse().ok().map(seconds).or_else(|| rfc3339(other)),
    };
    found.ok_or_else(|| match at {
        "issued" => Failure::new("--at issued: the token does not say when it was issued"),
        _ => Failure::with_remedy(
            format!("--at {at}: not a time"),
            "write a time such as 2026-03-01T12:00:00Z, seconds since 1970, or issued",
        ),
    })
}

/// The command line is its own host, and has a clock.
fn now() -> Time {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    let nanos = since.unwrap_or_default().as_nanos();
    Time::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// `2026-03-01T12:00:00Z`, in UTC only.
fn rfc3339(text: &str) -> Option<Time> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, separator| -> Option<Vec<u64>> {
        text.split(separator)
            .map(|part| part.parse().ok())
            .collect()
    };
    let (date, time) = (numbers(date, '-')?, numbers(time, ':')?);
    let ([year, month, day], [hour, minute, second]) = (date.as_slice(), time.as_slice()) else {
        return None;
    };
    let (year, month, day) = (*year, *month, *day);
    let is_date =
        (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date || *hour > 23 || *minute > 59 || *second > 59 {
        return None;
    }
    let day = Date { year, month, day };
    let hours = day.to_days().checked_mul(24)?.checked_add(*hour)?;
    let minutes = hours.checked_mul(60)?.checked_add(*minute)?;
    let seconds = minutes.checked_mul(60)?.checked_add(*second)?;
    Some(Time::from_millis(seconds.checked_mul(1000)?))
}

/// Lets the core decide, and tells its steps.
fn explain(
    arguments: &Arguments,
    mut policy: Policy,
    request: &Request,
    now: Time,
) -> Result<Explained, Failure> {
    let mut notes = Vec::new();
    if let Some(file) = &arguments.keys {
        keys::from_file(&mut policy, &Input::read(file)?)?;
    }
    let policy = Rc::new(policy);
    let store = MemoryStore::default();
    let mut gateway = Gateway::new(Rc::clone(&policy), "explain", Crypto::pure());
    if arguments.fetch {
        notes.extend(keys::fetch(&mut gateway, &policy, &store, now)?);
    }
    let clock = || now;
    let mut verdict = gateway.decide(&request.headers, &clock, &store, Patience::Wait);
    let mut model = None;
    if let Verdict::Read(read) = verdict {
        let Read {
            pending,
            body: mut reader,
            changes,
            ..
        } = read;
        let given = request.body.as_deref();
        if given.is_none() {
            notes.push("the body decides too, and is taken as {}; give it with --body".to_owned());
        }
        reader.push(given.unwrap_or(b"{}"), true);
        verdict = gateway.decide_on_body(pending, &reader, &clock, &store);
        if let Verdict::Allow(allow) = &mut verdict {
            allow.changes = changes;
        }
        model = Some(reader.model().map(|name| name.map(str::to_owned)));
    }
    let asked = Asked {
        has_keys: arguments.fetch,
        policy: &policy,
        headers: &request.headers,
        model,
        now,
    };
    let steps = steps::steps(&asked, &verdict);
    let answer = match &verdict {
        Verdict::Refuse(refused) => Some(Answer::new(
            &refused.refusal,
            &policy.responses,
            &ResponseContext::read(&request.headers),
        )),
        _ => None,
    };
    notes.extend(steps::notes(&asked, &verdict));
    Ok(Explained {
        steps,
        answer,
        notes,
    })
}

impl Explained {
    fn to_text(&self) -> String {
        let mut text = String::new();
        let width = self.steps.iter().map(|step| step.name.len()).max();
        let width = width.unwrap_or_default();
        for (number, step) in self.steps.iter().enumerate() {
            let style = step.outcome.style();
            let line = format!(
                "{:>3}  {:width$}  {style}{:11}{style:#}  {}",
                number.saturating_add(1),
                step.name,
                step.outcome.name(),
                step.found
            );
            text.push_str(line.trim_end());
            text.push('\n');
        }
        for note in &self.notes {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\nNote: {note}");
        }
        match &self.answer {
            None if self.is_decided() => text.push_str("\nAllowed: it goes on to the backend.\n"),
            None => {}
            Some(answer) => {
                let _ = writeln!(text, "\nThe answer:\n\nHTTP/1.1 {}", answer.status);
                for (name, value) in &answer.headers {
                    let _ = writeln!(text, "{name}: {value}");
                }
                let _ = writeln!(text, "\n{}", answer.body);
            }
        }
        text
    }

    fn to_json(&self) -> serde_json::Value {
        let answer = self.answer.as_ref().map(|answer| {
            let headers = answer.headers.iter();
            let headers = headers.map(|(name, value)| ((*name).to_owned(), json!(value)));
            json!({
                "status": answer.status,
                "headers": headers.collect::<serde_json::Map<_, _>>(),
                "body": answer.body,
            })
        });
        let steps = self.steps.iter().map(|step| {
            json!({ "step": step.name, "outcome": step.outcome.name(), "found": step.found })
        });
        json!({
            "decided": self.is_decided(),
            "allowed": self.is_decided() && self.answer.is_none(),
            "steps": steps.collect::<Vec<_>>(),
            "answer": answer,
            "notes": self.notes,
        })
    }

    fn is_decided(&self) -> bool {
        !self
            .steps
            .iter()
            .any(|step| step.outcome == Outcome::Undecided)
    }
}
