//! The module under test: found, read and compiled once.

use std::path::PathBuf;
use std::sync::LazyLock;

use proxy_wasm_host::abi::v0_2_1::Host;
use proxy_wasm_host::{Engine, Module};
use wasmparser::{Parser, Payload};

/// The built file.
pub struct Artifact {
    /// Where it was found.
    pub path: PathBuf,
    /// What it holds.
    pub bytes: Vec<u8>,
}

static ARTIFACT: LazyLock<Artifact> = LazyLock::new(Artifact::read);
static COMPILED: LazyLock<(Host, Module)> = LazyLock::new(|| {
    let engine = Engine::new().expect("wasmtime starts");
    let module = Module::new(&engine, &ARTIFACT.bytes)
        .unwrap_or_else(|error| panic!("{}: {error}", ARTIFACT.path.display()));
    (Host::new(&engine).expect("the host functions link"), module)
});

/// The module, compiled at the first call.
pub(crate) fn compiled() -> &'static (Host, Module) {
    &COMPILED
}

impl Artifact {
    /// The file named by `TOLLGATE_WASM`, or `dist/tollgate.wasm` in the workspace.
    ///
    /// # Panics
    ///
    /// When it is not there: these tests test nothing without it.
    #[must_use]
    pub fn get() -> &'static Self {
        &ARTIFACT
    }

    fn read() -> Self {
        let path = std::env::var_os("TOLLGATE_WASM").map_or_else(
            || {
                PathBuf::from(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/../../dist/tollgate.wasm"
                ))
            },
            PathBuf::from,
        );
        let bytes = std::fs::read(&path).unwrap_or_else(|error| {
            panic!(
                "{}: {error}: run make build, or set TOLLGATE_WASM",
                path.display()
            )
        });
        Self { path, bytes }
    }

    /// What it imports, as `(module, name)`.
    #[must_use]
    pub fn imports(&self) -> Vec<(String, String)> {
        let mut imports = Vec::new();
        for payload in Parser::new(0).parse_all(&self.bytes) {
            if let Payload::ImportSection(section) = payload.expect("the module parses") {
                for import in section.into_imports() {
                    let import = import.expect("the import parses");
                    imports.push((import.module.to_owned(), import.name.to_owned()));
                }
            }
        }
        imports
    }

    /// What it exports.
    #[must_use]
    pub fn exports(&self) -> Vec<String> {
        let mut exports = Vec::new();
        for payload in Parser::new(0).parse_all(&self.bytes) {
            if let Payload::ExportSection(section) = payload.expect("the module parses") {
                exports.extend(
                    section
                        .into_iter()
                        .map(|e| e.expect("parses").name.to_owned()),
                );
            }
        }
        exports
    }
}
