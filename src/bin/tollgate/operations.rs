//! `tollgate operations`: what can be asked for, and what a role lets through.

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;
use tollgate::operations::{ModelPlace, Row, Surfaces, rows};
use tollgate::policy::PolicyErrors;
use tollgate::roles::Permissions;

use crate::failure::{Failure, of_csv};
use crate::input::Input;
use crate::roles::{self, Roles};
use crate::{Ended, Streams};

/// List the operations of Azure OpenAI, or those that roles let through
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tollgate operations
  tollgate operations --role 'Cognitive Services OpenAI User'
  tollgate operations --roles role.json --role 'Chat only' --format csv")]
pub(crate) struct Arguments {
    /// A role by its name or id; several let through what any of them does
    #[arg(long = "role", value_name = "NAME")]
    names: Vec<String>,

    /// More roles: the output of `az role definition list`
    #[arg(long, value_name = "FILE")]
    roles: Option<PathBuf>,

    /// How they are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Csv,
    Json,
}

pub(crate) fn run(arguments: &Arguments, streams: Streams<'_>) -> Result<Ended, Failure> {
    let roles = match &arguments.roles {
        Some(file) => Some(Roles::read(Input::read(file)?, streams.err)?),
        None => None,
    };
    let permissions = arguments.names.iter().map(|name| {
        let found = match &roles {
            Some(roles) => roles.permissions(name),
            None => roles::built_in(name),
        };
        found.map_err(|errors| unknown(&errors))
    });
    let permissions = permissions.collect::<Result<Vec<Permissions>, Failure>>()?;
    let is_asked =
        |row: &&Row| arguments.names.is_empty() || roles::any_grants(&permissions, row.action);
    let found: Vec<[String; 4]> = rows().filter(is_asked).map(columns).collect();
    match arguments.format {
        Format::Text => write_text(&found, streams.out)?,
        Format::Csv => write_csv(&found, streams.out)?,
        Format::Json => {
            let found = found.iter().map(|[method, path, action, model]| {
                json!({ "method": method, "path": path, "action": action, "model": model })
            });
            let found: serde_json::Value = found.collect();
            writeln!(streams.out, "{found:#}")?;
        }
    }
    Ok(Ended::Well)
}

/// The parser's own words for a role that it does not know.
fn unknown(errors: &PolicyErrors) -> Failure {
    match errors.iter().next() {
        Some(error) => Failure::with_remedy(&error.problem, &error.remedy),
        None => Failure::new("no such role"),
    }
}

/// Method, path, action, and where the model is named.
fn columns(row: &Row) -> [String; 4] {
    let surface = match row.surfaces {
        Surfaces::Dated => "/openai",
        Surfaces::V1 => "/openai/v1",
        Surfaces::Both => "/openai[/v1]",
    };
    let model = match row.model {
        ModelPlace::Nowhere => "",
        ModelPlace::Path => "path",
        ModelPlace::Query => "query",
        ModelPlace::Body => "body",
        ModelPlace::Earlier => "earlier",
        ModelPlace::Elsewhere => "unseen",
    };
    let method = format!("{:?}", row.method).to_uppercase();
    let path = format!("{surface}/{}", row.path);
    [
        method,
        path,
        row.action.short_name().to_owned(),
        model.to_owned(),
    ]
}

fn write_text(rows: &[[String; 4]], out: &mut dyn std::io::Write) -> std::io::Result<()> {
    let width = rows
        .iter()
        .map(|[_, path, ..]| path.len())
        .max()
        .unwrap_or_default();
    for [method, path, action, _] in rows {
        writeln!(out, "{method:7} {path:width$}  {action}")?;
    }
    Ok(())
}

fn write_csv(rows: &[[String; 4]], out: &mut dyn std::io::Write) -> std::io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer
        .write_record(["method", "path", "action", "model"])
        .map_err(of_csv)?;
    for row in rows {
        writer.write_record(row).map_err(of_csv)?;
    }
    writer.flush()
}
