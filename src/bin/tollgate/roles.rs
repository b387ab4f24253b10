//! `tollgate roles import`: roles of Azure as roles of a policy.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Map, Value, json};
use tollgate::operations::Action;
use tollgate::policy::{Policy, PolicyErrors};
use tollgate::roles::{BUILT_IN, Permissions};

use crate::document::{self, Data, Located};
use crate::failure::Failure;
use crate::input::Input;
use crate::report::{self, Finding, Severity, Text};
use crate::{Ended, Streams, place, pretty};

/// Take over roles of Azure
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Import(Import),
}

/// Write a policy's `roles` for roles of Azure
///
/// Keeps the data actions of Azure OpenAI and says which others there were. `tollgate operations --roles
/// FILE --role NAME` shows what a role lets through.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  az role definition list --name 'Chat only' > role.json
  tollgate roles import role.json
  tollgate operations --roles role.json --role 'Chat only'

Exit codes: 0 taken over, 2 not.")]
struct Import {
    /// The output of `az role definition list`; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Roles that were read.
pub(crate) struct Roles {
    name: String,
    text: String,
    root: Located,
}

pub(crate) fn run(arguments: &Arguments, streams: Streams<'_>) -> Result<Ended, Failure> {
    let Command::Import(Import { file }) = &arguments.command;
    let roles = Roles::read(Input::read(file)?, streams.err)?;
    let (short, findings) = shorten(&roles);
    report::findings(roles.shown(), &findings, streams.err)?;
    if short.is_empty() {
        return Err(Failure::with_remedy(
            format!("{}: no role with actions of Azure OpenAI", roles.name),
            "give roles with dataActions of Microsoft.CognitiveServices/accounts/OpenAI; built-in roles are known by name",
        ));
    }
    writeln!(streams.out, "{}", pretty::print(&json!({ "roles": short })))?;
    Ok(Ended::Well)
}

impl Roles {
    /// Reads a file of roles, by the policy's own rules.
    pub(crate) fn read(input: Input, err: &mut dyn std::io::Write) -> Result<Self, Failure> {
        let (name, text) = input.into_text()?;
        let bad = |findings: &[Finding], err: &mut dyn std::io::Write| {
            let shown = Text {
                name: &name,
                text: &text,
            };
            report::findings(shown, findings, err)?;
            Err(Failure::new(format!("{name}: no roles of Azure")))
        };
        let root = match document::read_json(&text) {
            Ok(root) => root,
            Err(malformed) => {
                let finding = Finding {
                    severity: Severity::Error,
                    problem: malformed.problem,
                    remedy: "give the output of az role definition list".to_owned(),
                    span: malformed.at..malformed.at.saturating_add(1),
                };
                return bad(&[finding], err);
            }
        };
        let roles = Self {
            name: name.clone(),
            text: text.clone(),
            root,
        };
        match roles.policy(None) {
            Ok(_) => Ok(roles),
            Err(errors) => bad(&roles.findings(&errors), err),
        }
    }

    fn shown(&self) -> Text<'_> {
        Text {
            name: &self.name,
            text: &self.text,
        }
    }

    /// What a role of the file, or a built-in one, grants.
    pub(crate) fn permissions(&self, name: &str) -> Result<Permissions, PolicyErrors> {
        granted(&self.policy(Some(name))?)
    }

    fn policy(&self, name: Option<&str>) -> Result<Policy, PolicyErrors> {
        let own = self.own();
        // An array only, where built-in ones were taken out.
        policy_with(&own, name)
    }

    /// The roles that are not built in: a policy has those anyway.
    fn own(&self) -> Value {
        let value: Value = serde_json::from_str(&self.text).unwrap_or_default();
        match value {
            Value::Array(roles) => Value::Array(
                roles
                    .into_iter()
                    .filter(|role| !is_built_in(role))
                    .collect(),
            ),
            other if is_built_in(&other) => json!([]),
            other => other,
        }
    }

    fn findings(&self, errors: &PolicyErrors) -> Vec<Finding> {
        let mut root = self.root.clone();
        // The parser did not see the built-in ones.
        if let Data::List(roles) = &mut root.data {
            roles.retain(|role| !is_built_in(&to_json(role)));
        }
        let found = errors.iter().map(|error| {
            let path = error.path.trim_start_matches("roles");
            Finding {
                severity: Severity::Error,
                problem: format!("{}: {}", error.path, error.problem),
                remedy: error.remedy.clone(),
                span: place::span_of(&root, path, error.problem == "unknown key"),
            }
        });
        found.collect()
    }
}

/// What built-in roles grant, without a file.
pub(crate) fn built_in(name: &str) -> Result<Permissions, PolicyErrors> {
    granted(&policy_with(&json!({}), Some(name))?)
}

fn granted(policy: &Policy) -> Result<Permissions, PolicyErrors> {
    Ok(policy.apps.default_app.roles.unwrap_or_default())
}

/// The smallest policy with these roles: its parser knows what they are.
fn policy_with(roles: &Value, name: Option<&str>) -> Result<Policy, PolicyErrors> {
    let mut policy = json!({
        "issuers": [{ "issuers": ["https://issuer.example"], "jwks_uri": "https://issuer.example/",
            "cluster": "issuer", "audiences": ["any"] }],
        "roles": roles,
    });
    if let (Some(name), Some(policy)) = (name, policy.as_object_mut()) {
        policy.insert("default_app".to_owned(), json!({ "roles": [name] }));
    }
    Policy::parse(policy.to_string().as_bytes())
}

fn to_json(role: &Located) -> Value {
    serde_json::from_str(&role.to_value().to_json()).unwrap_or_default()
}

fn is_built_in(role: &Value) -> bool {
    let inner = role.get("properties").unwrap_or(role);
    let name = inner.get("roleName").and_then(Value::as_str);
    name.is_some_and(|name| {
        BUILT_IN
            .iter()
            .any(|known| known.name.eq_ignore_ascii_case(name))
    })
}

/// Roles in the policy's short form, and what was left out.
fn shorten(roles: &Roles) -> (Map<String, Value>, Vec<Finding>) {
    let mut short = Map::new();
    let mut findings = Vec::new();
    let root = std::slice::from_ref(&roles.root);
    let entries = match roles.root.elements() {
        [] => root,
        entries => entries,
    };
    for entry in entries {
        let inner = entry.get("properties").unwrap_or(entry);
        let Some(name) = inner.get("roleName") else {
            continue;
        };
        let text = name.as_str().unwrap_or_default();
        let mut note = |value: &Located, problem: String| {
            findings.push(Finding {
                severity: Severity::Note,
                problem,
                remedy: String::new(),
                span: value.span.clone(),
            });
        };
        if BUILT_IN
            .iter()
            .any(|known| known.name.eq_ignore_ascii_case(text))
        {
            note(name, format!("{text} is built in, and known by its name"));
            continue;
        }
        let permissions = inner.get("permissions").map(Located::elements);
        let mut lists = [Vec::new(), Vec::new()];
        for permission in permissions.unwrap_or_default() {
            for (member, list) in ["dataActions", "notDataActions"].iter().zip(&mut lists) {
                for action in permission
                    .get(member)
                    .map(Located::elements)
                    .unwrap_or_default()
                {
                    let text = action.as_str().unwrap_or_default();
                    if Permissions::named(text) == Permissions::default() {
                        note(action, format!("{text} is no action of Azure OpenAI"));
                    } else {
                        list.push(text.to_owned());
                    }
                }
            }
        }
        let [granted, withheld] = lists;
        if granted.is_empty() {
            note(name, format!("{text} grants nothing of Azure OpenAI"));
            continue;
        }
        let mut role = Map::new();
        role.insert("data_actions".to_owned(), granted.into());
        if !withheld.is_empty() {
            role.insert("not_data_actions".to_owned(), withheld.into());
        }
        short.insert(text.to_owned(), role.into());
    }
    (short, findings)
}

/// Whether any of these grants an action.
pub(crate) fn any_grants(permissions: &[Permissions], action: Action) -> bool {
    permissions.iter().any(|one| one.grant(action))
}
