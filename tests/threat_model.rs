//! `docs/threat-model.md` has every attack of the catalogue once, each with tests that exist.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests on the repository's own files"
)]

use std::fs;
use std::path::{Path, PathBuf};

mod common;

use common::figure;

/// The groups, with the number of attacks in each.
const CATALOGUE: [(char, usize); 10] = [
    ('A', 20),
    ('B', 8),
    ('C', 12),
    ('D', 15),
    ('E', 10),
    ('F', 12),
    ('G', 10),
    ('H', 11),
    ('I', 8),
    ('J', 5),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The attacks in the document's order, with the tests that each row names.
fn attacks() -> Vec<(String, Vec<String>)> {
    let document = read("docs/threat-model.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| "));
    rows.filter_map(|row| {
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        let [name, attack, answer, tests] = cells[..] else {
            return None;
        };
        assert!(!attack.is_empty() && !answer.is_empty(), "{name}");
        let tests = tests.split('`').skip(1).step_by(2).map(str::to_owned);
        (name != "---").then(|| (name.to_owned(), tests.collect()))
    })
    .collect()
}

/// Whether a file has a test of that name: a function that pytest or cargo runs, whatever is there or not.
fn is_test(text: &str, python: bool, name: &str) -> bool {
    if python {
        let Some((before, _)) = text.split_once(&format!("\ndef {name}(")) else {
            return false;
        };
        let decorators = before.rsplit("\n\n").next().unwrap_or_default();
        // Without the vectors nothing is claimed; `make verify` demands them.
        let skips = decorators.contains("mark.skip") && !decorators.contains("not VECTORS");
        return name.starts_with("test_") && !skips && !decorators.contains("xfail");
    }
    text.split("#[test]")
        .skip(1)
        .filter_map(|rest| rest.split_once("fn "))
        .any(|(attributes, rest)| {
            rest.split('(').next() == Some(name) && !attributes.contains("ignore")
        })
}

#[test]
fn every_attack_has_a_test() {
    let attacks = attacks();
    let expected: Vec<String> = CATALOGUE
        .iter()
        .flat_map(|(group, count)| (1..=*count).map(move |number| format!("{group}{number}")))
        .collect();
    let names: Vec<&String> = attacks.iter().map(|(name, _)| name).collect();
    assert!(names.iter().copied().eq(&expected), "{names:?}");

    let mut count = 0;
    for (attack, tests) in &attacks {
        assert!(!tests.is_empty(), "{attack} has no test");
        for test in tests {
            let (file, name) = test
                .split_once("::")
                .unwrap_or_else(|| panic!("{attack}: {test}"));
            let path = if file.starts_with("src/") {
                PathBuf::from(file)
            } else {
                Path::new("tests").join(file)
            };
            let python = path.extension().is_some_and(|extension| extension == "py");
            assert!(is_test(&read(path), python, name), "{attack}: no {test}");
            count += 1;
        }
    }
    let said = format!(
        "{} attacks, each with its answer; named tests: {count}",
        attacks.len()
    );
    figure("R2", "attacks with a test that holds them off", &said, true);
}

/// A test that no file has would be found missing.
#[test]
fn a_test_that_is_not_there_is_noticed() {
    let rust = "#[test]\nfn one() {}\n\nfn two() {}\n#[test]\n#[ignore]\nfn three() {}";
    assert!(is_test(rust, false, "one"));
    for not in ["two", "three", "on"] {
        assert!(!is_test(rust, false, not), "{not}");
    }
    let python = "\ndef test_one(gateway):\n    pass\n\n\ndef helper():\n    pass\n\n\n\
                  @pytest.mark.skipif(True)\ndef test_two():\n    pass\n\n\ndef test_three():\n    pass\n";
    assert!(is_test(python, true, "test_one") && is_test(python, true, "test_three"));
    for not in ["helper", "test_on", "test_two"] {
        assert!(!is_test(python, true, not), "{not}");
    }
}

/// I4: a borrow that meets another one, because the host called back, is a status and no panic.
#[test]
fn the_shell_borrows_without_panicking() {
    let mut tried = 0;
    for entry in fs::read_dir(root().join("src/shell")).unwrap() {
        let path = entry.unwrap().path();
        let text = read(&path);
        for call in [".borrow()", ".borrow_mut()"] {
            assert!(!text.contains(call), "{}: {call}", path.display());
        }
        tried += text.matches(".try_borrow").count();
    }
    assert!(tried > 20, "{tried}");
}
