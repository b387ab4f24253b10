//! What the root context and the streams of one plugin share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::abi::{self, HostStore};
use super::header_writer::HeaderWriter;
use super::metrics::Metrics;
use super::stream::Stream;
use super::waiting::{Waiting, WaitingRoom};
use crate::body::RequestBody;
use crate::crypto::{Crypto, HostVerifier, envoy};
use crate::gateway::{FetchReport, Gateway, Patience, Pending, Verdict};
use crate::policy::{Access, Mode, Policy};
use crate::store::{Expected, MemoryStore, SharedStore};
use crate::telling::metric;
use crate::time::Time;

/// Ticks while requests could be settled that had no turn yet, in milliseconds.
const NEXT_TICK: u32 = 1;
/// Ticks while requests wait.
const FAST_TICK: u32 = 10;
/// Ticks otherwise: how soon other workers' keys are seen.
const SLOW_TICK: u32 = 100;

/// The commit that was built; `make build` names it.
const COMMIT: &str = match option_env!("TOLLGATE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Lookups in the cache of verified tokens. Istio reads a name that ends in `cache` as a tag of its own
/// (`(cache\.(.+?)\.)` among its `stats_tags`); the old name stays for one version.
const TOKEN_LOOKUPS: [&str; 2] = ["tollgate_token_lookups", "tollgate_token_cache"];

/// The counter that every policy has.
const RETRIES: &str = "tollgate_counter_retries";

/// One policy in one VM.
pub(super) struct Plugin {
    pub(super) root_id: u32,
    pub(super) gateway: RefCell<Gateway>,
    pub(super) policy: Rc<Policy>,
    pub(super) store: Rc<dyn SharedStore>,
    pub(super) metrics: Metrics,
    pub(super) writer: HeaderWriter,
    waiting: WaitingRoom,
    tick_period: Cell<u32>,
    lacks_state: Cell<bool>,
}

impl Plugin {
    pub(super) fn new(policy: Policy, root_id: u32) -> Self {
        let policy = Rc::new(policy);
        let name = plugin_name();
        let crypto = Crypto::probe(Rc::new(ForeignVerifier));
        log::info!("{}", start_line(&policy, &crypto));
        #[cfg(feature = "chaos")]
        log::info!("built for tests: {} makes it fail", super::chaos::SWITCH);
        let mut gateway = Gateway::new(Rc::clone(&policy), &name, crypto);
        let store = choose_store();
        gateway.sync(&*store, abi::now());
        Self {
            root_id,
            gateway: RefCell::new(gateway),
            policy,
            store,
            metrics: Metrics::default(),
            writer: HeaderWriter::default(),
            waiting: WaitingRoom::default(),
            tick_period: Cell::new(0),
            lacks_state: Cell::new(false),
        }
    }

    /// Decides on a stream's request.
    pub(super) fn decide(
        &self,
        stream: &Stream,
        clock: &dyn Fn() -> Time,
        patience: Patience,
    ) -> Option<Verdict> {
        let mut gateway = self.gateway.try_borrow_mut().ok()?;
        Some(gateway.decide(stream.headers(), clock, &*self.store, patience))
    }

    /// Decides on a request whose body was read.
    pub(super) fn decide_on_body(&self, pending: Pending, body: &RequestBody) -> Option<Verdict> {
        let mut gateway = self.gateway.try_borrow_mut().ok()?;
        Some(gateway.decide_on_body(pending, body, &abi::now, &*self.store))
    }

    /// Whether one more request may wait for this issuer's keys.
    fn has_room(&self, issuer: usize) -> bool {
        let share = self
            .gateway
            .try_borrow()
            .map_or(0, |gateway| gateway.waiting_share());
        self.waiting.count(issuer) < share
    }

    /// Lets a stream wait, and has the root look after it soon. Called from the stream.
    /// `false` when there is no room, or nothing that would end the wait.
    pub(super) fn wait(&self, stream: Rc<Stream>, issuer: usize) -> bool {
        if !self.has_room(issuer) {
            return false;
        }
        let id = stream.id();
        // Who waits is looked after by ticks alone.
        let is_watched =
            abi::set_effective_context(self.root_id).is_ok() && self.tick_every(FAST_TICK);
        if abi::set_effective_context(id).is_err() || !is_watched {
            return false;
        }
        let Ok(mut gateway) = self.gateway.try_borrow_mut() else {
            return false;
        };
        let patience = gateway.patience(issuer);
        self.waiting
            .enter(Waiting::new(stream, issuer, abi::now(), patience))
    }

    /// Takes over the requests that wait under an earlier policy, which are all to be decided on anew.
    pub(super) fn inherit(&self, earlier: &Self) {
        self.waiting.inherit(&earlier.waiting);
        self.waiting.mark_due(|_| true);
    }

    /// Has the requests that wait for these issuers decided on anew.
    pub(super) fn reconsider(&self, issuers: &[usize]) {
        self.waiting.mark_due(|issuer| issuers.contains(&issuer));
    }

    /// Decides anew on requests that wait: for whom something has changed, or whose time is up. Called from
    /// the root, once in a call of the host; what is left has its turn with the next tick.
    pub(super) fn settle_due(self: &Rc<Self>) {
        let now = abi::now();
        let due = self.waiting.take_due(now);
        if due.is_empty() {
            return;
        }
        for entry in due {
            let is_over = entry.is_over(now);
            let patience = if is_over {
                Patience::Over
            } else {
                Patience::Wait
            };
            if let Some(issuer) = entry.stream.decide_again(self, patience) {
                self.waiting.enter(entry.again(issuer));
            }
        }
        let _ = abi::set_effective_context(self.root_id);
    }

    /// Gives up the fetches that this VM has begun, because their answers will not come.
    pub(super) fn abandon_fetches(&self) {
        if let Ok(mut gateway) = self.gateway.try_borrow_mut() {
            gateway.abandon_fetches(&*self.store);
        }
    }

    /// Answers requests that wait, because this plugin is about to go.
    pub(super) fn give_up_waiting(self: &Rc<Self>) {
        let given_up = self.waiting.take_first();
        for entry in &given_up {
            entry.stream.decide_again(self, Patience::Over);
        }
        if !given_up.is_empty() {
            let _ = abi::set_effective_context(self.root_id);
        }
    }

    /// Ticks as often as there is something to look after. Called from the root.
    pub(super) fn adapt_tick(&self) {
        let period = if self.waiting.has_due() {
            NEXT_TICK
        } else if !self.waiting.is_empty() {
            FAST_TICK
        } else {
            SLOW_TICK
        };
        let _ = self.tick_every(period);
    }

    /// `false` when the host has no ticks.
    fn tick_every(&self, millis: u32) -> bool {
        if self.tick_period.get() != millis {
            if abi::set_tick_period(millis).is_err() {
                return false;
            }
            self.tick_period.set(millis);
        }
        true
    }

    /// Warns of what this host lacks, as far as a start shows it. Called from the root.
    pub(super) fn tell_what_is_missing(&self) {
        let found = [
            ("ticks: no keys are fetched", self.tick_every(SLOW_TICK)),
            (
                "effective contexts: no keys are fetched",
                abi::set_effective_context(self.root_id).is_ok(),
            ),
            ("metrics", self.metrics.add(RETRIES.to_owned(), 0)),
            (
                "proxy_add_header_map_value: identity headers are set by replacing",
                self.policy.forward.headers.is_empty() || abi::may_add_headers(),
            ),
        ];
        for (what, _) in found.iter().filter(|(_, is_there)| !is_there) {
            log::warn!("this host has no {what}");
        }
    }

    /// Sets a field of the filter state. A host without it loses a field of its log, not a request.
    pub(super) fn set_state(&self, field: &str, value: &[u8]) {
        if abi::set_property(field, value).is_err() && !self.lacks_state.replace(true) {
            log::warn!("this host refused the filter state {field:?}");
        }
    }

    /// Tells of a fetch that ended.
    pub(super) fn tell_fetch(&self, report: &FetchReport) {
        let Some(issuer) = self.policy.issuers.get(report.issuer) else {
            return;
        };
        let (name, result) = (&issuer.name, report.outcome.label());
        if result == "ok" {
            log::info!("keys of {name}: {}", report.outcome);
        } else {
            log::warn!(
                "keys of {name} by cluster {:?}: {}",
                issuer.cluster(),
                report.outcome
            );
        }
        let labels = [("issuer", name.as_str()), ("result", result)];
        self.metrics.add(metric("tollgate_key_fetches", &labels), 1);
    }

    /// Brings the metrics up to date.
    pub(super) fn tell_metrics(&self, now: Time) {
        self.metrics.flush();
        let Ok(mut gateway) = self.gateway.try_borrow_mut() else {
            return;
        };
        let tallies = gateway.take_tallies();
        let results = [("hit", tallies.cache_hits), ("miss", tallies.cache_misses)];
        for name in TOKEN_LOOKUPS {
            for (result, count) in results {
                self.metrics.add(metric(name, &[("result", result)]), count);
            }
        }
        self.metrics
            .add(RETRIES.to_owned(), tallies.counter_retries.into());
        for (issuer, keys, age) in gateway.key_gauges(now) {
            self.metrics
                .set_gauge("tollgate_keys", issuer, u64::try_from(keys).unwrap_or(0));
            if let Some(age) = age {
                self.metrics
                    .set_gauge("tollgate_key_age_seconds", issuer, age);
            }
        }
    }
}

/// Envoy's name of the plugin, by which counters and keys are kept apart.
fn plugin_name() -> String {
    let name = abi::property("plugin_name").unwrap_or_default();
    let name = if name.is_empty() {
        abi::property("plugin_root_id").unwrap_or_default()
    } else {
        name
    };
    if name.is_empty() {
        log::warn!("this host tells no plugin name: all instances share counters and keys");
    }
    String::from_utf8_lossy(&name).into_owned()
}

/// The process's shared data; where the host has none, a store of this VM.
fn choose_store() -> Rc<dyn SharedStore> {
    const PROBE: &str = "tollgate/1/probe";
    const TRIES: usize = 3;
    let works = || {
        HostStore.write(PROBE, b"1", Expected::Absent).is_ok()
            && matches!(HostStore.read(PROBE), Ok(Some(_)))
    };
    // Once more, and again: one bad moment must not cost the limits their exactness.
    if (0..TRIES).any(|_| works()) {
        return Rc::new(HostStore);
    }
    log::warn!("this host has no shared data: limits and keys are per VM, not per process");
    Rc::new(MemoryStore::default())
}

fn start_line(policy: &Policy, crypto: &Crypto) -> String {
    let apps = &policy.apps;
    let limited = apps
        .listed
        .iter()
        .filter(|app| !app.limits.is_empty())
        .count();
    let by_host: Vec<_> = crypto
        .by_host()
        .iter()
        .map(|algorithm| algorithm.name())
        .collect();
    format!(
        "tollgate {} ({}): issuers: {}; applications: {} ({limited} with limits; others {}); \
         mode: {}; signatures verified by the host: {}",
        env!("CARGO_PKG_VERSION"),
        COMMIT,
        policy.issuers.len(),
        apps.listed.len(),
        match (apps.default_app.access, apps.default_app.limits.is_empty()) {
            (Access::Deny, _) => "denied",
            (Access::Allow, true) => "allowed without limits",
            (Access::Allow, false) => "allowed with limits",
        },
        match policy.mode {
            Mode::Enforce => "enforce",
            Mode::Report => "report",
        },
        if by_host.is_empty() {
            "none".to_owned()
        } else {
            by_host.join(" ")
        },
    )
}

/// Envoy's `verify_signature`.
struct ForeignVerifier;

impl HostVerifier for ForeignVerifier {
    fn verify(&self, hash: &str, spki: &[u8], signature: &[u8], message: &[u8]) -> Option<bool> {
        let arguments = envoy::encode_arguments(hash, spki, signature, message);
        let result = abi::call_foreign_function("verify_signature", &arguments).ok()?;
        envoy::decode_result(&result)
    }
}
