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

/// Calls that panic and that no lint knows, with how often they stand in which file: each was looked at, or is a map's.
const WATCHED: [(&str, &[(&str, usize)]); 29] = [
    (".split_at(", &[]),
    (".split_at_mut(", &[]),
    (".split_off(", &[]),
    (".copy_from_slice(", &[("crypto/key.rs", 1)]),
    (".clone_from_slice(", &[]),
    (".copy_within(", &[]),
    (
        ".insert(",
        &[
            ("limits/mod.rs", 1),
            ("limits/window.rs", 1),
            ("policy/apps.rs", 2),
            ("policy/headers.rs", 1),
            ("policy/issuers.rs", 2),
            ("shell/metrics.rs", 1),
            ("store.rs", 1),
        ],
    ),
    (".insert_str(", &[]),
    (".remove(", &[("jwt/cache.rs", 3)]),
    (
        ".swap_remove(",
        &[("jwt/cache.rs", 1), ("shell/root.rs", 1)],
    ),
    (".swap(", &[]),
    (".swap_with_slice(", &[]),
    (".drain(", &[]),
    (".splice(", &[]),
    (".truncate(", &[]),
    (".replace_range(", &[]),
    (".chunks", &[]),
    (
        ".windows(",
        &[("json.rs", 1), ("request.rs", 1), ("usage/form.rs", 1)],
    ),
    (".step_by(", &[("protobuf.rs", 1)]),
    (".clamp(", &[]),
    (
        ".div_ceil(",
        &[("answer.rs", 1), ("body.rs", 1), ("limits/window.rs", 2)],
    ),
    (".ilog", &[]),
    (".borrow()", &[]),
    (".borrow_mut()", &[("policy/reader.rs", 1)]),
    ("assert!(", &[("operations/action.rs", 1)]),
    ("assert_eq!(", &[]),
    ("assert_ne!(", &[]),
    ("exit(", &[]),
    ("abort(", &[("shell/chaos.rs", 1)]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The code of a file without what is compiled for tests alone: each such item, and nothing behind it.
fn without_tests(text: &str) -> String {
    let (mut code, mut rest) = (String::new(), text);
    while let Some((before, item)) = rest.split_once("\n#[cfg(test)]\n") {
        code.push_str(before);
        code.push('\n');
        let is_line = item.lines().next().unwrap().ends_with(';');
        let end = if is_line { ";\n" } else { "\n}\n" };
        rest = item.split_once(end).unwrap().1;
    }
    code + rest
}

/// How often a lint is allowed, and so without effect: by an attribute, or by one under any condition but `test`.
fn allowances(code: &str) -> usize {
    let conditions = code.split("cfg_attr(").skip(1);
    let elsewhere = conditions.filter(|rest| !rest.trim_start().starts_with("test,"));
    let always = code.matches("#[allow(").chain(code.matches("#![allow("));
    always.chain(elsewhere).count()
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
                let code = without_tests(&text);
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
        // Everything is an expectation, with its reason.
        assert_eq!(allowances(code), 0, "{path}");
        for excuse in code.split("#[expect(").skip(1) {
            let attribute = excuse.split(")]").next().unwrap();
            assert!(attribute.contains("reason = \""), "{path}: {attribute}");
            excuses += usize::from(DENIED.iter().any(|lint| attribute.contains(lint)));
        }
    }
    for (call, places) in WATCHED {
        let found: Vec<_> = sources
            .iter()
            .map(|(path, code)| (path.as_str(), code.matches(call).count()))
            .filter(|(_, count)| *count > 0)
            .collect();
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

/// Code that stands behind tests is looked at too, and so is what a condition allows.
#[test]
fn nothing_hides_behind_tests_and_conditions() {
    let file = "fn a() {}\n#[cfg(test)]\nmod tests;\nfn b() {}\n\n#[cfg(test)]\nfn c() {\n    d();\n}\nfn e() {}\n";
    assert_eq!(without_tests(file), "fn a() {}\nfn b() {}\n\nfn e() {}\n");
    let attribute =
        |condition| format!("#[cfg_attr({condition}, allow(clippy::panic))]\nfn a() {{}}\n");
    for condition in ["target_arch = \"wasm32\"", "any(test, unix)", "not(test)"] {
        assert_eq!(allowances(&attribute(condition)), 1, "{condition}");
    }
    assert_eq!(allowances(&attribute("test")), 0);
    assert_eq!(
        allowances("#![allow(clippy::panic)]\n#[allow(unused)]\n"),
        2
    );
}
