//! The root context: configuration, ticks, and the only maker of callouts.

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use super::abi;
use super::logger;
use super::plugin::Plugin;
use super::stream::StreamContext;
use crate::gateway::FetchReport;
use crate::keys::{Answer, MAX_DOCUMENT, NextCall};
use crate::policy::Policy;

/// Largest configuration that is read, in bytes.
const MAX_CONFIGURATION: usize = 64 * 1024 * 1024;

/// What a provider may send: metadata, and key sets, which some serve under their own type alone (RFC 7517
/// section 8.5.1).
const ACCEPT: &str = "application/json, application/jwk-set+json";

/// The root context of one plugin in one VM.
pub(super) struct Root {
    id: u32,
    plugin: Option<Rc<Plugin>>,
    /// Callouts under way: whose keys, and which attempt.
    calls: Vec<(u32, usize, u64)>,
}

impl Root {
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            plugin: None,
            calls: Vec::new(),
        }
    }

    /// Makes callouts until one is under way or none is left to make.
    fn dispatch(&mut self, plugin: &Rc<Plugin>, issuer: usize, call: &NextCall) {
        let headers = vec![
            (":method", "GET"),
            (":scheme", call.url.scheme.as_str()),
            (":authority", call.url.authority.as_str()),
            (":path", call.url.path.as_str()),
            ("accept", ACCEPT),
            (
                "user-agent",
                concat!("tollgate/", env!("CARGO_PKG_VERSION")),
            ),
        ];
        let timeout = Duration::from_millis(call.timeout);
        // The SDK panics over the answer where the root cannot become the effective context.
        let sent = abi::set_effective_context(self.id).ok().and_then(|()| {
            let cluster = &call.cluster;
            proxy_wasm::hostcalls::dispatch_http_call(cluster, headers, None, vec![], timeout).ok()
        });
        match sent {
            Some(token) => {
                self.calls.push((token, issuer, call.attempt));
            }
            None => {
                let report = plugin
                    .gateway
                    .try_borrow_mut()
                    .ok()
                    .and_then(|mut gateway| gateway.not_sent(issuer, &*plugin.store));
                finish(plugin, report);
            }
        }
    }
}

/// Ends a fetch: tells of it, and takes its keys over.
fn finish(plugin: &Rc<Plugin>, report: Option<FetchReport>) {
    let Some(report) = report else {
        return;
    };
    plugin.tell_fetch(&report);
    see_changes(plugin);
}

fn see_changes(plugin: &Rc<Plugin>) {
    let changed = match plugin.gateway.try_borrow_mut() {
        Ok(mut gateway) => gateway.sync(&*plugin.store, abi::now()),
        Err(_) => return,
    };
    plugin.reconsider(&changed);
}

/// The answer to the callout whose callback is running. A call that failed has no headers.
fn read_answer(num_headers: usize, body_size: usize) -> Answer {
    if num_headers == 0 {
        return Answer {
            status: None,
            body: None,
        };
    }
    let status = abi::headers(abi::Map::CallResponse)
        .ok()
        .and_then(|headers| {
            std::str::from_utf8(headers.first(":status")?)
                .ok()?
                .parse()
                .ok()
        });
    // A larger body is not even copied: this VM's memory never shrinks.
    let body = match body_size {
        0 => Some(Vec::new()),
        1..=MAX_DOCUMENT => abi::buffer(abi::Buffer::CallResponseBody, 0, MAX_DOCUMENT).ok(),
        _ => None,
    };
    Answer { status, body }
}

impl Context for Root {
    fn on_http_call_response(
        &mut self,
        token_id: u32,
        num_headers: usize,
        body_size: usize,
        _num_trailers: usize,
    ) {
        let place = self.calls.iter().position(|(token, ..)| *token == token_id);
        let (Some(place), Some(plugin)) = (place, self.plugin.clone()) else {
            return;
        };
        let (_, issuer, attempt) = self.calls.swap_remove(place);
        let answer = read_answer(num_headers, body_size);
        let next = match plugin.gateway.try_borrow_mut() {
            Ok(mut gateway) => gateway.answer(issuer, attempt, &answer, &*plugin.store, abi::now()),
            Err(_) => return,
        };
        match next {
            Ok(call) => self.dispatch(&plugin, issuer, &call),
            Err(report) => finish(&plugin, report),
        }
        plugin.settle_due();
        plugin.adapt_tick();
    }

    fn on_done(&mut self) -> bool {
        if let Some(plugin) = &self.plugin {
            plugin.abandon_fetches();
            plugin.give_up_waiting();
            plugin.metrics.flush();
        }
        true
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, configuration_size: usize) -> bool {
        logger::follow_host_level();
        let configuration = if configuration_size == 0 {
            Vec::new()
        } else {
            abi::buffer(abi::Buffer::PluginConfiguration, 0, MAX_CONFIGURATION).unwrap_or_default()
        };
        let policy = match Policy::parse(&configuration) {
            Ok(policy) => policy,
            Err(errors) => {
                for line in errors.to_string().lines() {
                    log::error!("policy refused: {line}");
                }
                return false;
            }
        };
        let plugin = Rc::new(Plugin::new(policy, self.id));
        if let Some(earlier) = self.plugin.replace(Rc::clone(&plugin)) {
            earlier.abandon_fetches();
            earlier.metrics.flush();
            plugin.inherit(&earlier);
            plugin.settle_due();
            self.calls.clear();
        }
        plugin.tell_what_is_missing();
        // Keys are fetched from the first tick on: Envoy also configures VMs that it throws
        // away, and a fetch that dies with one would hold the lease.
        plugin.adapt_tick();
        true
    }

    fn on_tick(&mut self) {
        let Some(plugin) = self.plugin.clone() else {
            return;
        };
        logger::follow_host_level();
        see_changes(&plugin);
        let now = abi::now();
        let calls = match plugin.gateway.try_borrow_mut() {
            Ok(mut gateway) => gateway.begin_fetches(&*plugin.store, now),
            Err(_) => return,
        };
        for (issuer, call) in calls {
            self.dispatch(&plugin, issuer, &call);
        }
        plugin.settle_due();
        plugin.tell_metrics(now);
        plugin.adapt_tick();
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(StreamContext::new(
            context_id,
            self.plugin.clone(),
        )))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
