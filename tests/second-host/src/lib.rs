//! The built module in a second proxy-wasm host.
//!
//! Envoy runs the module as it will run in production, but what Envoy never does cannot be tried
//! there: a host call that fails, a clock that jumps, a callout that ends with nothing, two
//! workers that meet in one counter. Here the module runs in `proxy-wasm-host` (wasmtime), and
//! everything the host says is scripted by the test:
//!
//! ```no_run
//! use serde_json::json;
//! use tollgate_second_host::{Answer, Process, Token, Vm, keys};
//!
//! let process = Process::new();
//! let policy = json!({ "issuers": [{
//!     "tenant_id": tollgate_second_host::TENANT,
//!     "audiences": [tollgate_second_host::AUDIENCE],
//!     "jwks": keys::jwks(&[keys::rsa(0)]),
//! }] });
//! let mut vm = Vm::start(&process, &policy);
//!
//! let token = Token::v1(&process).sign(keys::rsa(0));
//! let answer = vm.request().bearer(&token).send();
//! assert!(matches!(answer, Answer::Forwarded { .. }));
//!
//! process.clock().advance(std::time::Duration::from_secs(7200));
//! assert_eq!(vm.request().bearer(&token).send().code(), "TokenExpired");
//! ```
//!
//! | type | is |
//! | --- | --- |
//! | [`Process`] | one gateway process: clock, shared data, metrics, log, scripted failures |
//! | [`Vm`] | one worker's VM in it; any number per process |
//! | [`Request`] | one request, built and sent through a VM |
//! | [`Stream`] | a request in flight, when a test takes its steps one by one |
//! | [`Answer`] | what the module decided about it |
//! | [`Callout`], [`Reply`] | an HTTP call that the module made, and how it ends |
//! | [`Entra`] | an identity provider that replies to those calls |
//! | [`Token`], [`keys`] | tokens shaped as Entra's, and the keys that sign them |

mod callout;
mod entra;
mod header_map;
mod headers;
mod host;
pub mod keys;
mod module;
mod process;
mod request;
mod store;
mod token;
pub mod verifier;
mod vm;

pub use callout::{Callout, Reply};
pub use entra::Entra;
pub use header_map::HeaderQuirk;
pub use headers::Headers;
pub use host::Hostcall;
pub use module::Artifact;
pub use process::{Clock, Line, Process};
pub use proxy_wasm_host::abi::v0_2_1::types::{LogLevel, Status};
pub use request::{Answer, Request, Told};
pub use token::{APP_ONE, APP_TWO, AUDIENCE, TENANT, Token, flip_signature};
pub use vm::{Refused, Stream, Vm};
