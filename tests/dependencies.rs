//! `docs/dependencies.md` names every dependency, and every build takes the versions of `Cargo.lock`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "tests on the repository's own files"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

mod common;

use common::figure;

type Names = BTreeSet<String>;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names in the first column of a section's tables.
fn documented(heading: &str) -> Names {
    let document = read("docs/dependencies.md");
    let section = document
        .split("\n## ")
        .find(|section| section.starts_with(&format!("{heading}\n")))
        .unwrap_or_else(|| panic!("no section {heading}"));
    let column = section
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|row| row.split(" | ").next());
    column
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

/// The dependencies of a manifest, of every kind, and which of them are optional.
fn declared(path: &str) -> Vec<(String, bool)> {
    let manifest = read(path);
    let mut found = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if let Some(header) = line.strip_prefix('[') {
            inside = header.trim_end_matches(']').ends_with("dependencies");
        } else if inside && line.starts_with(|first: char| first.is_ascii_alphabetic()) {
            let name = line.split([' ', '.', '=']).next().unwrap();
            found.push((name.to_owned(), line.contains("optional = true")));
        }
    }
    found
}

fn names(declared: impl IntoIterator<Item = (String, bool)>) -> Names {
    declared.into_iter().map(|(name, _)| name).collect()
}

/// What `cargo tree` says of the module.
fn tree(depth: &str) -> Names {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["tree", "--locked", "--package", "tollgate"])
        .args(["--edges", "normal", "--target", "wasm32-wasip1"])
        .args(["--prefix", "none", "--format", "{p}", "--depth", depth])
        .output()
        .expect("cargo runs");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != "tollgate" && !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_crate_that_reaches_the_module_is_documented() {
    let (direct, all) = (tree("1"), tree("1000"));
    assert_eq!(documented("The module"), direct);
    assert_eq!(documented("What reaches the module"), all);
    assert!(direct.len() < all.len());
    let said = format!(
        "{} direct, {} in all, each documented",
        direct.len(),
        all.len()
    );
    figure("R27", "crates of the module", &said, true);
}

#[test]
fn every_crate_of_the_command_line_and_the_tests_is_documented() {
    let own = declared("Cargo.toml");
    let (optional, others): (Vec<_>, Vec<_>) = own.into_iter().partition(|(_, optional)| *optional);
    assert_eq!(documented("The command line"), names(optional));

    let manifest = read("Cargo.toml");
    let (_, members) = manifest.split_once("members = [").unwrap();
    let members = members
        .split(']')
        .next()
        .unwrap()
        .split('"')
        .skip(1)
        .step_by(2);
    let mut tests: Names = members
        .chain(["fuzz", "tests/rate-limit-service"])
        .flat_map(|member| names(declared(&format!("{member}/Cargo.toml"))))
        .collect();
    let (_, dev) = manifest.split_once("[dev-dependencies]").unwrap();
    let is_dev = |name: &String| {
        dev.lines()
            .any(|line| line.starts_with(&format!("{name} =")))
    };
    tests.extend(names(others).into_iter().filter(is_dev));
    assert_eq!(documented("Tests in Rust"), tests);
}

#[test]
fn every_package_of_python_is_documented() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup");
    let mut packages = Names::new();
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("requirements") {
            continue;
        }
        files += 1;
        let text = read(&format!("tests/setup/{name}"));
        // What they need in turn stands below.
        let own = text.split("# What").next().unwrap();
        let pinned = own.lines().filter(|line| !line.starts_with('#'));
        packages.extend(
            pinned
                .filter_map(|line| line.split_once("=="))
                .map(|(name, _)| name.to_owned()),
        );
    }
    assert!(files >= 3);
    assert_eq!(documented("Python"), packages);
}

/// I8 among others: what `deny.toml` bans is not there, such as an allocator that leaks.
#[test]
fn nothing_that_is_banned_reaches_the_module() {
    let deny = read("deny.toml");
    let (_, bans) = deny.split_once("\ndeny = [\n").unwrap();
    let bans = bans.split("\n]").next().unwrap();
    let crates = bans
        .lines()
        .filter_map(|line| line.trim().strip_prefix("{ crate = \""));
    // Those with `wrappers` may be named by these; the linker leaves them out.
    let (named, banned): (Vec<_>, Vec<_>) = crates.partition(|line| line.contains("wrappers = ["));
    let names = |lines: Vec<&str>| -> Names {
        let names = lines.into_iter().filter_map(|line| line.split('"').next());
        names.map(str::to_owned).collect()
    };
    let (named, banned) = (names(named), names(banned));
    assert_eq!(named, Names::from(["hmac".to_owned()]));
    assert!(banned.len() > 10, "{banned:?}");
    assert!(banned.contains("wee_alloc"));

    let all = tree("1000");
    assert!(named.is_subset(&all), "{named:?} need not be named");
    let found: Vec<_> = all.intersection(&banned).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// Commands of the Makefile, joined where they go on in the next line.
fn commands() -> Vec<String> {
    let makefile = read("Makefile")
        .replace("\\\n", " ")
        .replace("$(CARGO)", "cargo");
    makefile
        .lines()
        .filter(|line| line.starts_with('\t'))
        .flat_map(|line| line.split(';').map(|part| part.trim().to_owned()))
        .filter(|part| part.contains("cargo "))
        .collect()
}

#[test]
fn every_tool_is_documented_and_every_build_is_locked() {
    let tools = documented("Tools");
    let mut builds = 0;
    for command in commands() {
        let (_, arguments) = command.split_once("cargo ").unwrap();
        let verb = arguments.split(' ').next().unwrap();
        let verbs = [
            "build", "test", "clippy", "doc", "run", "install", "tree", "metadata", "llvm-cov",
        ];
        if !verbs.contains(&verb) {
            continue;
        }
        builds += 1;
        assert!(command.contains("--locked"), "{command}");
    }
    assert!(builds >= 10, "{builds} commands that build");

    // cargo-fuzz cannot be told so; what comes before it can.
    let fuzz = read("fuzz/run.sh");
    let (before, _) = fuzz.split_once("\ncargo fuzz build ").unwrap();
    assert!(before.contains("\ncargo fetch --locked "));
    assert!(read("tests/setup/mutants.sh").contains("--cargo-arg --locked"));

    let makefile = read("Makefile");
    let installed = makefile.split("/bin/cargo-").skip(1).map(|rest| {
        let name = rest.split_whitespace().next().unwrap();
        format!("cargo-{name}")
    });
    let installed: Names = installed.collect();
    assert!(installed.contains("cargo-deny"));
    assert!(installed.is_subset(&tools), "{installed:?}");
}

#[test]
fn every_advisory_that_is_ignored_is_explained() {
    let deny = read("deny.toml");
    let document = read("docs/dependencies.md");
    let (_, explained) = document.split_once("## Faults that are known").unwrap();
    let ids = |text: &str| -> Names {
        text.match_indices("RUSTSEC-")
            .map(|(at, _)| text[at..at + "RUSTSEC-0000-0000".len()].to_owned())
            .collect()
    };
    let (_, ignored) = deny.split_once("[advisories]").unwrap();
    assert_eq!(ids(explained), ids(ignored));
}

/// Every crate comes from crates.io, at a version and with a checksum.
#[test]
fn every_crate_comes_from_crates_io() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let locks = [
        "Cargo.lock",
        "tests/rate-limit-service/Cargo.lock",
        "fuzz/Cargo.lock",
    ];
    let mut crates = 0;
    for lock in locks.iter().filter(|lock| folder.join(lock).exists()) {
        let text = read(lock);
        for package in text.split("[[package]]").skip(1) {
            let Some((_, source)) = package.split_once("source = \"") else {
                continue; // Of this repository.
            };
            let source = source.split('"').next();
            let registry = "registry+https://github.com/rust-lang/crates.io-index";
            assert_eq!(source, Some(registry), "{lock}: {package}");
            assert!(package.contains("checksum = \""), "{lock}: {package}");
            crates += 1;
        }
    }
    assert!(crates > 300, "{crates}");
}
