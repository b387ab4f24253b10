//! What the documents say is so: samples are good policies, codes and metrics are the module's.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "tests on the repository's own files"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tollgate::operations::{ModelPlace, Surfaces};
use tollgate::policy::Policy;
use tollgate::refusal::Code;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn documents() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md")];
    let docs = fs::read_dir(root().join("docs")).unwrap();
    found.extend(docs.map(|entry| entry.unwrap().path()));
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found
}

/// Fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence)
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap().to_owned())
        .collect()
}

#[test]
fn sample_policies_are_good() {
    let mut samples = 0;
    for path in documents() {
        for block in blocks(&fs::read_to_string(&path).unwrap(), "json") {
            samples += 1;
            if let Err(errors) = Policy::parse(block.as_bytes()) {
                panic!("{}: {errors}\n{block}", path.display());
            }
        }
    }
    assert!(samples >= 2, "{samples} samples");
}

const AZURE: [&str; 2] = [
    "https://cognitiveservices.azure.com",
    "https://ai.azure.com",
];

/// Microsoft's pages ask for tokens of either audience, and no token of theirs has an app role of somebody else.
#[test]
fn c1_c7_examples_for_azure_have_both_audiences_and_ask_for_no_role() {
    let mut found = 0;
    for path in documents() {
        for block in blocks(&fs::read_to_string(&path).unwrap(), "json") {
            for issuer in Policy::parse(block.as_bytes()).unwrap().issuers {
                let of_azure = |audience: &&str| issuer.audiences.iter().any(|one| one == audience);
                let count = AZURE.iter().filter(|audience| of_azure(audience)).count();
                assert!(
                    count == 0 || count == AZURE.len(),
                    "{}: {block}",
                    path.display()
                );
                let asks_for_roles = issuer
                    .required_claims
                    .iter()
                    .any(|claim| claim.name == "roles");
                assert!(count == 0 || !asks_for_roles, "{}: {block}", path.display());
                found += count;
            }
        }
    }
    assert!(found >= 10, "{found}");
    for entry in fs::read_dir(root().join("envoy")).unwrap() {
        let path = entry.unwrap().path();
        let Some("json" | "yaml") = path.extension().and_then(|extension| extension.to_str())
        else {
            continue;
        };
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| line.contains("audiences")) {
            for audience in AZURE {
                assert!(line.contains(audience), "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn the_shipped_policy_is_good() {
    let envoy = read("envoy/envoy.yaml");
    let start = envoy.find("value: |\n").unwrap();
    let lines = envoy[start..].lines().skip(1);
    let policy: String = lines
        .take_while(|line| line.starts_with("                            "))
        .map(|line| format!("{line}\n"))
        .collect();
    Policy::parse(policy.as_bytes()).unwrap_or_else(|errors| panic!("{errors}\n{policy}"));
}

#[test]
fn sample_errors_are_what_the_parser_says() {
    let policy = r#"{
        "issuers": [{ "tenant_id": "11111111-2222-3333-4444-555555555555", "cluster": "entra",
            "audience": ["x"] }],
        "apps": [{ "app_id": "aaaaaaaa-0000-0000-0000-000000000001",
            "limits": [{ "calls": 1, "per": 60 }] }]
    }"#;
    let errors = Policy::parse(policy.as_bytes()).unwrap_err().to_string();
    let readme = read("README.md");
    for start in ["apps[0].limits[0].per:", "issuers[0].audience:"] {
        let line = readme.lines().find(|line| line.starts_with(start)).unwrap();
        assert!(
            errors.lines().any(|said| said == line),
            "{line}\nis not in\n{errors}"
        );
    }
}

/// Statuses and codes as the sources have them.
fn codes() -> BTreeSet<(String, String)> {
    let between = |text: &str, start: &str, end: &str| -> String {
        let (_, rest) = text.split_once(start).unwrap();
        rest.split_once(end).unwrap().0.to_owned()
    };
    let core = read("src/refusal.rs");
    let variants = between(&core, "pub enum Code {\n", "\n}");
    let lines: Vec<&str> = variants.lines().map(str::trim).collect();
    lines
        .chunks(2)
        .map(|pair| {
            let [status, name] = pair else {
                panic!("{pair:?}");
            };
            let status = status.strip_prefix("/// ").unwrap();
            let name = name.strip_suffix(',').unwrap();
            let called = format!("Self::{name} => \"{name}\",");
            assert!(core.contains(&called), "{name} has another name");
            (status.to_owned(), name.to_owned())
        })
        .collect()
}

/// The cells of a table's row.
fn cells(line: &str) -> Vec<&str> {
    line.trim_matches(['|', ' ']).split(" | ").collect()
}

#[test]
fn every_code_is_documented_with_its_status_and_its_cure_and_nothing_else() {
    let codes = codes();
    assert!(codes.len() > 15, "{codes:?}");
    let (readme, running) = (read("README.md"), read("docs/running.md"));
    let names = |cell: &str| -> Vec<String> {
        let names = cell.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    };
    let is_status = |cell: &str| cell.len() == 3 && cell.parse::<u16>().is_ok();
    let told: BTreeSet<_> = readme
        .lines()
        .map(cells)
        .filter(|cells| cells.len() == 3 && is_status(cells[0]))
        .flat_map(|cells| {
            names(cells[1])
                .into_iter()
                .map(move |name| (cells[0].to_owned(), name))
        })
        .collect();
    assert_eq!(told, codes);
    assert!(readme.contains(Code::TokenExpired.message()));

    let (_, cures) = running
        .split_once("| code | cause | cure |\n| --- | --- | --- |\n")
        .unwrap();
    let cured: BTreeSet<_> = cures
        .lines()
        .take_while(|line| line.starts_with('|'))
        .flat_map(|line| names(cells(line)[0]))
        .collect();
    let codes: BTreeSet<_> = codes.into_iter().map(|(_, name)| name).collect();
    assert_eq!(cured, codes);
}

#[test]
fn every_operation_is_documented_and_nothing_else() {
    let rows: Vec<String> = tollgate::operations::rows()
        .map(|row| {
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
            let (path, action) = (row.path, row.action.short_name());
            let method = format!("{:?}", row.method).to_uppercase();
            format!("| {method} | `{surface}/{path}` | `{action}` | {model} |")
        })
        .collect();
    let document = read("docs/operations.md");
    let told: Vec<&str> = document
        .lines()
        .filter(|line| line.contains("| `/openai"))
        .collect();
    assert!(told == rows, "expected:\n{}", rows.join("\n"));
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches(['#', ' ']).to_lowercase();
    let kept = text
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_lead_somewhere() {
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if link.starts_with("http") || link.starts_with('#') {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = path.parent().unwrap().join(file);
            assert!(target.exists(), "{}: {link}", path.display());
            let is_heading = |line: &&str| line.starts_with('#') && anchor(line) == heading;
            let found = heading.is_empty()
                || fs::read_to_string(&target)
                    .unwrap()
                    .lines()
                    .any(|line| is_heading(&line));
            assert!(found, "{}: no heading for {link}", path.display());
        }
    }
}
