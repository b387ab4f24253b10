//! A filter that lets every request pass, and denies those of which its configuration says so: what a
//! Wasm filter costs at least.
#![cfg(target_arch = "wasm32")]

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_root_context(|_| Box::new(Root { denies: false }));
}}

struct Root {
    denies: bool,
}

struct Stream {
    denies: bool,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        self.denies = size > 0;
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream {
            denies: self.denies,
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        if !self.denies {
            return Action::Continue;
        }
        let headers = vec![("content-type", "application/json")];
        self.send_http_response(403, headers, Some(b"{\"error\":{\"code\":\"Denied\"}}"));
        Action::Pause
    }
}
