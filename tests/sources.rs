//! What the lints are asked to deny, and what the sources ask to be excused from.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests on the repository's own files"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::figure;

/// Lints against what stops a worker.
const DENIED: [&str; 10] = [
    "arithmetic_side_effects",
    "as_conversions",
    "expect_used",
    "indexing_slicing",
    "panic",
    "string_slice",
    "todo",
    "unimplemented",
    "unreachable",
    "unwrap_used",
];

/// Calls that panic and that no lint knows, with the places where they stand: each was looked at.
const WATCHED: [(&str, &[&str]); 9] = [
    (".split_at(", &[]),
    (".split_off(", &[]),
    (".copy_from_slice(", &["crypto/key.rs"]),
    (".swap_remove(", &["jwt/cache.rs", "shell/root.rs"]),
    (".drain(", &[]),
    (".splice(", &[]),
    (".borrow()", &[]),
    (".borrow_mut()", &["policy/reader.rs"]),
    ("assert!(", &["operations/action.rs"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of the module, by their path below `src`, without the tests in them.
fn sources() -> Vec<(String, String)> {
    let (mut folders, mut found) = (vec![root().join("src")], Vec::new());
    while let Some(folder) = folders.pop() {
        let entries: Vec<PathBuf> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        for path in entries {
            let name = path.file_name().unwrap().to_str().unwrap();
            // The command line is no part of the module.
            if path.is_dir() && !["bin", "tests"].contains(&name) {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("\n#[cfg(test)]").next().unwrap().to_owned();
                let path = path.strip_prefix(root().join("src")).unwrap();
                found.push((path.to_str().unwrap().to_owned(), code));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn nothing_in_the_module_may_panic() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let lints = manifest.split("[workspace.lints.clippy]").nth(1).unwrap();
    for lint in DENIED {
        assert!(lints.contains(&format!("\n{lint} = \"deny\"")), "{lint}");
    }
    let sources = sources();
    assert!(sources.len() > 50);
    let mut excuses = 0;
    for (path, code) in &sources {
        // One for the tests of the whole crate; everything else is an expectation, with its reason.
        let allowed = code.matches("#[allow(").count() + code.matches("#![allow(").count();
        assert_eq!(allowed, 0, "{path}");
        for excuse in code.split("#[expect(").skip(1) {
            let attribute = excuse.split(")]").next().unwrap();
            assert!(attribute.contains("reason = \""), "{path}: {attribute}");
            excuses += usize::from(DENIED.iter().any(|lint| attribute.contains(lint)));
        }
    }
    for (call, places) in WATCHED {
        let with = sources.iter().filter(|(_, code)| code.contains(call));
        let found: Vec<_> = with.map(|(path, _)| path.as_str()).collect();
        assert_eq!(found, places, "{call}");
    }
    let figures = format!(
        "{} lints deny, {excuses} lines in {} files are excused, each with its reason",
        DENIED.len(),
        sources.len()
    );
    println!("{figures}");
    figure("R4", "what could panic in the module", &figures, true);
}
