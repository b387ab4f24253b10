//! `tollgate check`: what is wrong with a policy, where, and what would be right.

mod effective;
mod gateway;
mod unwise;

use std::path::PathBuf;

use clap::ValueEnum;
use tollgate::policy::Policy;

use crate::document::Malformed;
use crate::failure::Failure;
use crate::input::Input;
use crate::place::{Embedded, NoPolicy, PolicyFile};
use crate::report::{self, Finding, Severity, Text};
use crate::{Ended, Streams};

/// Check policies
///
/// Takes policies as the module does, and says everything that is wrong with them at once, each with
/// its place and what would be right; then what is legal and probably not meant.
///
/// A file holds a policy, or a configuration with policies in it: of Envoy, a WasmPlugin of Istio, an
/// EnvoyExtensionPolicy of Envoy Gateway, in JSON or YAML.
///
/// Of a configuration it also checks what a policy cannot: whether requests pass where the module is
/// missing or fails, and whether the access log holds keys. Files of one gateway are checked together.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tollgate check policy.json
  tollgate check envoy.yaml wasm-plugin.yaml
  tollgate check --strict --format json policy.json
  tollgate check --print-effective policy.json > effective.json
  kubectl get wasmplugin,envoyfilter -n openai -o yaml | tollgate check -

Exit codes: 0 good, 1 something is wrong, 2 nothing could be checked.")]
pub(crate) struct Arguments {
    /// Files to check; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Take warnings for errors
    #[arg(long)]
    strict: bool,

    /// Write each policy with every default filled in
    #[arg(long, conflicts_with = "format")]
    print_effective: bool,

    /// How findings are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people, on standard error
    Text,
    /// One array, on standard output
    Json,
}

/// What was found out about a policy.
pub(crate) struct Checked {
    pub(crate) policy: Option<Policy>,
    pub(crate) findings: Vec<Finding>,
    /// Errors beyond those that are told.
    more: usize,
}

pub(crate) fn run(arguments: &Arguments, streams: Streams<'_>) -> Result<Ended, Failure> {
    let mut ended = Ended::Well;
    let mut list = Vec::new();
    let mut files = Vec::new();
    for path in &arguments.files {
        let (name, text) = Input::read(path)?.into_text()?;
        files.push(read_configuration(name, text, streams.err)?);
    }
    leave_other_plugins_out(&mut files);
    let of_gateways = gateway::findings(&files);
    for (file, of_gateway) in files.iter().zip(&of_gateways) {
        for embedded in &file.policies {
            let checked = check(embedded);
            let shown = file.shown(embedded);
            if checked.is_bad(arguments.strict) {
                ended = Ended::Badly;
            }
            if arguments.format == Format::Json {
                let found = report::as_json(shown, &checked.findings);
                list.extend(found.as_array().cloned().unwrap_or_default());
                continue;
            }
            report::findings(shown, &checked.findings, streams.err)?;
            writeln!(streams.err, "{}", verdict(file, embedded, &checked))?;
            if let (true, Some(policy)) = (arguments.print_effective, &checked.policy) {
                writeln!(streams.out, "{}", effective::print(embedded, policy))?;
            }
        }
        if is_bad(of_gateway, arguments.strict) {
            ended = Ended::Badly;
        }
        let shown = file.whole();
        if arguments.format == Format::Json {
            let found = report::as_json(shown, of_gateway);
            list.extend(found.as_array().cloned().unwrap_or_default());
        } else if file.policies.is_empty() || !of_gateway.is_empty() {
            report::findings(shown, of_gateway, streams.err)?;
            let counts = summary(of_gateway, 0);
            writeln!(streams.err, "{}, gateway: {counts}", file.name)?;
        }
    }
    if arguments.format == Format::Json {
        writeln!(streams.out, "{:#}", serde_json::Value::Array(list))?;
    }
    Ok(ended)
}

/// Where one of the files has the module, a plugin alone in another need not be it.
fn leave_other_plugins_out(files: &mut [PolicyFile]) {
    let is_there = files
        .iter()
        .any(|file| file.policies.iter().any(|policy| policy.is_ours));
    for file in files {
        if is_there && gateway::is_part(&file.documents) {
            file.policies.retain(|policy| policy.is_ours);
        }
    }
}

/// Reads a file with policies, or with another part of a gateway's configuration.
fn read_configuration(
    name: String,
    text: String,
    err: &mut dyn std::io::Write,
) -> Result<PolicyFile, Failure> {
    match PolicyFile::read(name, text) {
        Ok(file) => Ok(file),
        Err(unread) => match *unread {
            (file, NoPolicy::Nowhere) if gateway::is_part(&file.documents) => Ok(file),
            (file, none) => why_not(&file, &none, err),
        },
    }
}

/// Reads the policies of a file, or says why there are none.
pub(crate) fn read_file(
    name: String,
    text: String,
    err: &mut dyn std::io::Write,
) -> Result<PolicyFile, Failure> {
    PolicyFile::read(name, text).or_else(|unread| {
        let (file, none) = *unread;
        why_not(&file, &none, err)
    })
}

fn why_not(
    file: &PolicyFile,
    none: &NoPolicy,
    err: &mut dyn std::io::Write,
) -> Result<PolicyFile, Failure> {
    let (name, text) = (file.name.as_str(), file.text.as_str());
    Err(match none {
        NoPolicy::Malformed(malformed) => {
            let finding = of_malformed(malformed);
            report::findings(Text { name, text }, &[finding], err)?;
            Failure::new(format!("{name} cannot be read"))
        }
        NoPolicy::Nowhere if text.trim().is_empty() => Failure::with_remedy(
            format!("{name} is empty"),
            "a policy is one JSON object; docs/command-line.md has a small one",
        ),
        NoPolicy::Nowhere => Failure::with_remedy(
            format!("{name}: no policy in it"),
            "a policy has \"issuers\"; in Envoy's configuration it is the plugin's \
             \"configuration\", in a WasmPlugin \"pluginConfig\", in an \
             EnvoyExtensionPolicy \"config\"",
        ),
    })
}

fn of_malformed(malformed: &Malformed) -> Finding {
    Finding {
        severity: Severity::Error,
        problem: malformed.problem.clone(),
        remedy: String::new(),
        span: malformed.at..malformed.at.saturating_add(1),
    }
}

/// Checks one policy.
pub(crate) fn check(embedded: &Embedded) -> Checked {
    match Policy::parse(embedded.configuration.as_bytes()) {
        Ok(policy) => Checked {
            findings: unwise::warnings(embedded, &policy),
            policy: Some(policy),
            more: 0,
        },
        Err(errors) => {
            let findings = errors.iter().map(|error| {
                let (path, problem) = (&error.path, &error.problem);
                let remedy = placeholder(embedded, problem).unwrap_or(&error.remedy);
                embedded.finding(Severity::Error, path, problem, remedy)
            });
            let mut findings: Vec<_> = findings.collect();
            findings.sort_by_key(|finding| finding.span.start);
            Checked {
                findings,
                policy: None,
                more: errors.more(),
            }
        }
    }
}

/// What to do where a placeholder stands for what is wrong, as in the files for `envoy/azure.py`.
fn placeholder(embedded: &Embedded, problem: &str) -> Option<&'static str> {
    let is_one = problem.contains("${") || embedded.configuration.trim_start().starts_with("${");
    is_one.then_some(
        "fill in what the placeholder stands for, and check that: envoy/azure.py | tollgate check -",
    )
}

impl Checked {
    pub(crate) fn is_bad(&self, strict: bool) -> bool {
        self.policy.is_none() || is_bad(&self.findings, strict)
    }
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    let of = |finding: &&Finding| finding.severity == severity;
    findings.iter().filter(of).count()
}

fn is_bad(findings: &[Finding], strict: bool) -> bool {
    count(findings, Severity::Error) > 0 || (strict && count(findings, Severity::Warning) > 0)
}

fn verdict(file: &PolicyFile, embedded: &Embedded, checked: &Checked) -> String {
    let place = match &embedded.path {
        None => file.name.clone(),
        Some(path) => format!("{}, {path}", file.name),
    };
    format!("{place}: {}", summary(&checked.findings, checked.more))
}

/// How many errors and warnings there are. `more` errors are not among the findings.
fn summary(findings: &[Finding], more: usize) -> String {
    let errors = count(findings, Severity::Error).saturating_add(more);
    let warnings = count(findings, Severity::Warning);
    let said = match (errors, warnings) {
        (0, 0) => "good".to_owned(),
        (0, warnings) => format!("good, with {}", several(warnings, "warning")),
        (errors, _) => several(errors, "error"),
    };
    let rest = match more {
        0 => String::new(),
        more => format!(", {more} of them not shown"),
    };
    format!("{said}{rest}")
}

fn several(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVOY: &str = include_str!("../../../envoy/envoy.yaml");
    const POLICY: &str = include_str!("../../../tests/cli/samples/policy.json");
    const LISTENER: &str = include_str!("../../../tests/cli/samples/envoy-listener.yaml");
    const ISTIO: &str = include_str!("../../../tests/cli/samples/istio.yaml");
    const ENVOY_GATEWAY: &str = include_str!("../../../tests/cli/samples/envoy-gateway.yaml");

    /// Whatever is cut out, doubled or put in, every finding stands somewhere in the text.
    #[test]
    fn damaged_files_are_checked_or_refused_and_nothing_else() {
        let pieces = [
            "\"", "{", "}", "[", "]", ":", "\n", "  ", "é", "- ", "&a", "*a", "|", "null", "7",
            "\\",
        ];
        let mut state: u64 = 5;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        let (mut found, mut of_gateway) = (0, 0);
        for round in 0..1_600 {
            let samples = [
                ("a.yaml", ENVOY),
                ("a.json", POLICY),
                ("a", POLICY),
                ("l.yaml", LISTENER),
                ("i.yaml", ISTIO),
                ("g.yaml", ENVOY_GATEWAY),
            ];
            let (name, sample) = samples[round % samples.len()];
            let mut text = sample.to_owned();
            for _ in 0..=next(3) {
                let start = next(text.len());
                let end = (start + next(12)).min(text.len());
                if text.is_char_boundary(start) && text.is_char_boundary(end) {
                    text.replace_range(start..end, pieces[next(pieces.len())]);
                }
            }
            let Ok(file) = PolicyFile::read(name.to_owned(), text) else {
                continue;
            };
            for finding in gateway::findings(std::slice::from_ref(&file)).concat() {
                of_gateway += 1;
                assert!(
                    finding.span.end <= file.text.len(),
                    "{finding:?}\n{}",
                    file.text
                );
            }
            for embedded in &file.policies {
                let checked = check(embedded);
                let shown = file.shown(embedded);
                for finding in &checked.findings {
                    found += 1;
                    assert!(
                        finding.span.start <= shown.text.len(),
                        "{finding:?}\n{}",
                        shown.text
                    );
                }
                report::findings(shown, &checked.findings, &mut Vec::new()).unwrap();
                if let Some(policy) = &checked.policy {
                    effective::print(embedded, policy);
                }
            }
        }
        assert!(found > 500, "{found}");
        assert!(of_gateway > 30, "{of_gateway}");
    }
}
