//! The proxy-wasm side: callbacks in, host calls out, no decisions.

mod abi;
#[cfg(feature = "chaos")]
mod chaos;
mod header_writer;
mod interlock;
mod logger;
mod metrics;
mod plugin;
mod root;
mod stream;
mod waiting;

use proxy_wasm::traits::RootContext;

proxy_wasm::main! {{
    logger::install();
    proxy_wasm::set_root_context(|id| -> Box<dyn RootContext> { Box::new(root::Root::new(id)) });
}}
