//! `tollgate import apim`: a policy of API Management as one of Tollgate.

mod draft;
mod expression;
mod meaning;
mod pieces;
mod tokens;
mod translation;
mod xml;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::Value;
use tollgate::policy::Policy;

use crate::failure::Failure;
use crate::input::{self, Input};
use crate::report::{self, Finding, Severity, Text};
use crate::{Ended, Streams};

/// Take over policies of other gateways
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    from: From,
}

#[derive(Subcommand)]
enum From {
    Apim(Apim),
}

/// Take over a policy of Azure API Management
///
/// Writes the policy of Tollgate that does the same. What has another meaning here, or none, is
/// reported with its line, and nothing is left out in silence.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tollgate import apim policy.xml > policy.json
  tollgate import apim policy.xml --named-values values.json --strict \\
    --output policy.json --envoy pieces.yaml
  az apim nv list -g group --service-name apim > values.json

Exit codes: 0 taken over, 1 with --strict: not without losses, 2 not at all.")]
pub(crate) struct Apim {
    /// The policy, as the portal shows it; `-` is standard input
    #[arg(value_name = "FILE")]
    policy: PathBuf,

    /// Values for {{names}}: an object, or the output of `az apim nv list`
    #[arg(long, value_name = "FILE")]
    named_values: Option<PathBuf>,

    /// Fail, and write nothing, where something changes its meaning or is lost
    #[arg(long)]
    strict: bool,

    /// Where the policy goes; standard output without it
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Write what Envoy needs for it: clusters, as a configuration to merge
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
}

/// What came of a policy.
pub(crate) struct Imported {
    pub(crate) policy: Value,
    pub(crate) envoy: String,
    pub(crate) findings: Vec<Finding>,
}

pub(crate) fn run(arguments: &Arguments, streams: Streams<'_>) -> Result<Ended, Failure> {
    let From::Apim(arguments) = &arguments.from;
    let (name, text) = Input::read(&arguments.policy)?.into_text()?;
    let values = match &arguments.named_values {
        Some(path) => named_values(path)?,
        None => HashMap::new(),
    };
    let shown = Text {
        name: &name,
        text: &text,
    };
    let imported = match translation::import(&text, &values) {
        Ok(imported) => imported,
        Err(findings) => {
            report::findings(shown, &findings, streams.err)?;
            return Err(Failure::new(format!("{name} cannot be taken over")));
        }
    };
    report::findings(shown, &imported.findings, streams.err)?;
    let policy = format!("{}\n", crate::pretty::print(&imported.policy));
    if let Err(errors) = Policy::parse(policy.as_bytes()) {
        let what = format!("{name}: what came of it is no good policy:\n{errors}\n\n{policy}");
        return Err(Failure::with_remedy(
            what,
            "correct these places in the XML",
        ));
    }
    let losses = imported.losses();
    if losses > 0 && arguments.strict {
        writeln!(
            streams.err,
            "{name}: not taken over, {losses} places change their meaning"
        )?;
        return Ok(Ended::Badly);
    }
    match &arguments.output {
        Some(path) => input::write(path, &policy)?,
        None => streams.out.write_all(policy.as_bytes())?,
    }
    if let Some(path) = &arguments.envoy {
        input::write(path, &imported.envoy)?;
    }
    writeln!(streams.err, "{name}: taken over, {}", told(losses))?;
    Ok(Ended::Well)
}

fn told(losses: usize) -> String {
    match losses {
        0 => "as it is".to_owned(),
        1 => "1 place changes its meaning".to_owned(),
        several => format!("{several} places change their meaning"),
    }
}

impl Imported {
    fn losses(&self) -> usize {
        let lost = |finding: &&Finding| finding.severity < Severity::Note;
        self.findings.iter().filter(lost).count()
    }
}

/// Named values: `{"name": "value"}`, or what `az apim nv list` prints.
fn named_values(path: &Path) -> Result<HashMap<String, String>, Failure> {
    let (name, text) = Input::read(path)?.into_text()?;
    let remedy =
        "write an object such as {\"tenant-id\": \"...\"}, or give the output of az apim nv list";
    let bad = |problem: &str| Failure::with_remedy(format!("{name}: {problem}"), remedy);
    let value: Value = serde_json::from_str(&text).map_err(|error| bad(&error.to_string()))?;
    let text_of = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    match &value {
        Value::Object(members) => {
            let pairs = members.iter().map(|(key, value)| {
                let text = text_of(value).ok_or_else(|| bad(&format!("{key:?} is no text")))?;
                Ok((key.clone(), text))
            });
            pairs.collect()
        }
        Value::Array(entries) => {
            let pair = |entry: &Value| {
                let inner = entry.get("properties").unwrap_or(entry);
                let member = |name: &str| inner.get(name).and_then(text_of);
                // A secret comes without its value; a policy that needs it will say so.
                Some((
                    member("displayName").or_else(|| member("name"))?,
                    member("value")?,
                ))
            };
            Ok(entries.iter().filter_map(pair).collect())
        }
        _ => Err(bad("neither an object nor an array")),
    }
}
