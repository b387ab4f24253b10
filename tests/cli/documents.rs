//! What docs/command-line.md and the migration's page show is what happens.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::common::{SIGNER, v1_claims};
use crate::run::{in_repository, tollgate, with_input};

/// A command of a sample, and what it writes.
struct Sample {
    command: String,
    written: String,
}

fn samples(text: &str) -> Vec<Sample> {
    let blocks = text.split("```console\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("\n```").next().unwrap());
    let mut samples = Vec::new();
    for block in blocks {
        for command in format!("\n{block}\n").split("\n$ ").skip(1) {
            let (command, written) = command.split_once('\n').unwrap_or((command, ""));
            samples.push(Sample {
                command: command.to_owned(),
                written: written.trim_end_matches('\n').to_owned(),
            });
        }
    }
    samples
}

/// A folder with the files that the samples name.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("documents");
    std::fs::create_dir_all(&folder).unwrap();
    for file in std::fs::read_dir(in_repository("tests/cli/samples")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    let keys = json!({ "keys": [SIGNER.jwk()] }).to_string();
    std::fs::write(folder.join("keys.json"), keys).unwrap();
    std::fs::write(folder.join("token"), SIGNER.token(&v1_claims())).unwrap();
    folder
}

#[test]
fn samples_write_what_is_shown() {
    let text = std::fs::read_to_string(in_repository("docs/command-line.md")).unwrap();
    let folder = folder();
    let binary = Path::new(env!("CARGO_BIN_EXE_tollgate"));
    let path = format!(
        "{}:{}",
        binary.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut run = 0;
    for Sample { command, written } in samples(&text) {
        // What installs is not run here.
        if !command.contains("tollgate") || command.contains("~/") {
            continue;
        }
        run += 1;
        let output = Command::new("sh")
            .args(["-c", &format!("{{ {command}; }} 2>&1")])
            .env("PATH", &path)
            .env_remove("CLICOLOR_FORCE")
            .current_dir(&folder)
            .output()
            .unwrap();
        let got = String::from_utf8(output.stdout).unwrap();
        // Findings end with an empty line; a block shows it only between two of them.
        let plain = |text: &str| text.trim_end().replace("\n\n{", "\n{");
        assert_eq!(plain(&got), plain(&written), "$ {command}");
    }
    assert_eq!(run, 10);
}

#[test]
fn the_policy_of_the_migration_is_what_the_importer_makes_of_it() {
    let path = in_repository("docs/migrating-from-api-management.md");
    let text = std::fs::read_to_string(path).unwrap();
    let block = |fence: &str| {
        let mut blocks = text.split(fence);
        let block = blocks.nth(1).unwrap().split("\n```").next().unwrap();
        assert!(blocks.next().is_none(), "one block of {fence}");
        block.to_owned()
    };
    let written = with_input(&["import", "apim", "-", "--strict"], &block("```xml\n")).well();
    let [shown, written]: [serde_json::Value; 2] =
        [block("```json\n"), written].map(|text| serde_json::from_str(&text).unwrap());
    assert_eq!(shown, written);
}

#[test]
fn every_command_is_documented_and_has_examples() {
    let text = std::fs::read_to_string(in_repository("docs/command-line.md")).unwrap();
    let help = tollgate(&["--help"]).well();
    let commands = help
        .split("Commands:\n")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    let mut seen = 0;
    for line in commands.lines() {
        let command = line.split_whitespace().next().unwrap();
        if command == "help" {
            continue;
        }
        seen += 1;
        assert!(text.contains(&format!("tollgate {command}")), "{command}");
        let arguments: &[&str] = match command {
            "import" => &["import", "apim", "--help"],
            "roles" => &["roles", "import", "--help"],
            other => &[other, "--help"],
        };
        let help = tollgate(arguments).well();
        let examples = help.split("Examples:\n").nth(1);
        let examples = examples.unwrap_or_else(|| panic!("{command}: {help}"));
        // Examples are pasted: no line of them is broken.
        let starts = ["  tollgate ", "  az ", "  kubectl ", "  zcat ", "    --"];
        for line in examples.lines().take_while(|line| !line.is_empty()) {
            assert!(
                starts.iter().any(|start| line.starts_with(start)),
                "{command}: {line}"
            );
        }
    }
    assert_eq!(seen, 9);
}

#[test]
fn completions_and_man_pages_name_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = tollgate(&["completions", shell]).well();
        for word in [
            "check",
            "explain",
            "token-file",
            "named-values",
            "probe",
            "ca-file",
        ] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    tollgate(&["completions", "basic"]).ended(2);
    assert!(tollgate(&["man"]).well().contains(".TH tollgate 1"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("man");
    std::fs::create_dir_all(&folder).unwrap();
    tollgate(&["man", "--dir", folder.to_str().unwrap()]).well();
    for page in [
        "tollgate.1",
        "tollgate-check.1",
        "tollgate-import-apim.1",
        "tollgate-probe.1",
        "tollgate-usage.1",
    ] {
        assert!(folder.join(page).exists(), "{page}");
    }
    tollgate(&["man", "--dir", "/no/such/folder"]).ended(2);
}

#[test]
fn what_is_no_command_is_said() {
    let said = tollgate(&["chek"]).ended(2);
    assert!(said.contains("'check'"), "{said}");
    assert!(tollgate(&["--version"]).well().starts_with("tollgate 0."));
}
