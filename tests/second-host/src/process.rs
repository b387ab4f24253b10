//! One gateway process: what all of its VMs share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proxy_wasm_host::abi::v0_2_1 as abi;
use proxy_wasm_host::abi::v0_2_1::types::{LogLevel, Status};
use serde_json::Value;

use crate::header_map::HeaderQuirk;
use crate::host::Hostcall;
use crate::store::Store;
use crate::verifier::Verifier;
use crate::vm::Vm;

/// 2025-06-15T15:06:40Z, a Sunday.
const START_SECONDS: u64 = 1_750_000_000;
/// Ticks in one [`Process::pass`]; longer spans tick less often, not more.
const MOST_TICKS: u32 = 2_000;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clock of a process. It stands still until a test moves it.
pub struct Clock {
    realtime: AtomicU64,
    monotonic: AtomicU64,
}

impl Clock {
    /// Seconds since the epoch.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.realtime.load(Ordering::SeqCst) / 1_000_000_000
    }

    /// Time goes by.
    pub fn advance(&self, by: Duration) {
        let nanos = nanos(by);
        self.realtime.fetch_add(nanos, Ordering::SeqCst);
        self.monotonic.fetch_add(nanos, Ordering::SeqCst);
    }

    /// Someone sets the wall clock back.
    pub fn set_back(&self, by: Duration) {
        self.realtime.fetch_sub(nanos(by), Ordering::SeqCst);
    }

    /// Someone sets the wall clock forward.
    pub fn set_forward(&self, by: Duration) {
        self.realtime.fetch_add(nanos(by), Ordering::SeqCst);
    }

    /// Someone sets the wall clock to `seconds` since the epoch.
    pub fn set(&self, seconds: u64) {
        self.realtime
            .store(seconds * 1_000_000_000, Ordering::SeqCst);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("fits 584 years")
}

impl abi::Clock for Clock {
    fn realtime_nanos(&self) -> u64 {
        self.realtime.load(Ordering::SeqCst)
    }

    fn monotonic_nanos(&self) -> u64 {
        self.monotonic.load(Ordering::SeqCst)
    }
}

/// One line that the module logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its level.
    pub level: LogLevel,
    /// Its text.
    pub text: String,
    /// Which VM wrote it.
    pub(crate) guest: abi::GuestId,
}

#[derive(Default)]
pub(crate) struct Log(Mutex<Vec<Line>>);

impl abi::LogSink for Log {
    fn log(&self, context: abi::LogContext<'_>, level: LogLevel, message: &[u8]) {
        let text = String::from_utf8_lossy(message).into_owned();
        lock(&self.0).push(Line {
            level,
            text,
            guest: context.guest,
        });
    }
}

/// What goes wrong on purpose, and what the host offers beyond the ABI.
#[derive(Default)]
pub(crate) struct Script {
    failures: Mutex<BTreeMap<Hostcall, Status>>,
    reached: Mutex<BTreeMap<Hostcall, usize>>,
    verifier: Mutex<Option<Verifier>>,
    header_quirk: Mutex<HeaderQuirk>,
}

impl Script {
    /// The status that `call` is to end with, if it is to fail.
    pub(crate) fn check(&self, call: Hostcall) -> Result<(), Status> {
        *lock(&self.reached).entry(call).or_default() += 1;
        lock(&self.failures)
            .get(&call)
            .map_or(Ok(()), |status| Err(*status))
    }

    pub(crate) fn header_quirk(&self) -> HeaderQuirk {
        *lock(&self.header_quirk)
    }

    pub(crate) fn verifier(&self) -> Option<Verifier> {
        lock(&self.verifier).clone()
    }
}

pub(crate) fn request_lines(lines: &[Line]) -> Vec<Value> {
    lines
        .iter()
        .filter(|line| line.level == LogLevel::Info && line.text.starts_with('{'))
        .filter_map(|line| serde_json::from_str(&line.text).ok())
        .collect()
}

struct Shared {
    clock: Arc<Clock>,
    store: Arc<Store>,
    log: Arc<Log>,
    script: Arc<Script>,
}

/// One gateway process. Clones are the same process.
#[derive(Clone)]
pub struct Process(Arc<Shared>);

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

impl Process {
    /// A process in which everything works, at 2025-06-15T15:06:40Z.
    #[must_use]
    pub fn new() -> Self {
        let script = Arc::new(Script::default());
        Self(Arc::new(Shared {
            clock: Arc::new(Clock {
                realtime: AtomicU64::new(START_SECONDS * 1_000_000_000),
                monotonic: AtomicU64::new(1_000_000_000),
            }),
            store: Arc::new(Store::new(Arc::clone(&script))),
            log: Arc::default(),
            script,
        }))
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Lets time pass for `vms`: the clock advances in steps and each VM gets its ticks.
    pub fn pass(&self, span: Duration, vms: &mut [&mut Vm]) {
        let period = vms
            .iter()
            .filter_map(|vm| vm.tick_period())
            .min()
            .unwrap_or(span);
        let step = period.max(span / MOST_TICKS).max(Duration::from_millis(1));
        let mut left = span;
        while !left.is_zero() {
            let step = step.min(left);
            self.clock().advance(step);
            left -= step;
            for vm in vms.iter_mut() {
                vm.tick();
            }
        }
    }

    /// From here on, `call` ends with `status`.
    pub fn fail(&self, call: Hostcall, status: Status) {
        lock(&self.0.script.failures).insert(call, status);
    }

    /// From here on, the request's headers are kept as in this gateway.
    pub fn imitate(&self, quirk: HeaderQuirk) {
        *lock(&self.0.script.header_quirk) = quirk;
    }

    /// From here on, every call works again.
    pub fn heal(&self) {
        lock(&self.0.script.failures).clear();
    }

    /// How often the module made `call` so far.
    #[must_use]
    pub fn count(&self, call: Hostcall) -> usize {
        lock(&self.0.script.reached)
            .get(&call)
            .copied()
            .unwrap_or_default()
    }

    /// Whether the module made `call` so far.
    #[must_use]
    pub fn reached(&self, call: Hostcall) -> bool {
        self.count(call) > 0
    }

    /// From here on, the host has the foreign function `verify_signature`.
    pub fn offer_verifier(&self, verifier: Verifier) {
        *lock(&self.0.script.verifier) = Some(verifier);
    }

    /// The next `writes` conditional writes to shared data lose against another worker's.
    pub fn contend(&self, writes: u32) {
        self.0.store.contend(writes);
    }

    /// The value of a metric, by the name the module gave it.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<u64> {
        self.metrics().remove(name)
    }

    /// Every metric.
    #[must_use]
    pub fn metrics(&self) -> BTreeMap<String, u64> {
        self.0.store.metrics()
    }

    /// The keys of the shared data.
    #[must_use]
    pub fn shared_keys(&self) -> Vec<String> {
        self.0.store.keys()
    }

    /// Overwrites one value of the shared data.
    pub fn overwrite_shared(&self, key: &str, value: &[u8]) {
        self.0.store.overwrite(key, value);
    }

    /// Every log line so far.
    #[must_use]
    pub fn log(&self) -> Vec<Line> {
        lock(&self.0.log.0).clone()
    }

    /// The request log so far: the lines at level info that are JSON objects.
    #[must_use]
    pub fn request_log(&self) -> Vec<Value> {
        request_lines(&lock(&self.0.log.0))
    }

    /// How many lines were logged so far.
    pub(crate) fn logged(&self) -> usize {
        lock(&self.0.log.0).len()
    }

    /// What `guest` logged after the first `seen` lines.
    pub(crate) fn log_since(&self, seen: usize, guest: abi::GuestId) -> Vec<Line> {
        let lines = lock(&self.0.log.0);
        lines[seen..]
            .iter()
            .filter(|line| line.guest == guest)
            .cloned()
            .collect()
    }

    /// The log as text, for the message of a failed test.
    #[must_use]
    pub fn log_text(&self) -> String {
        self.log()
            .iter()
            .map(|line| format!("  {:?} {}\n", line.level, line.text))
            .collect()
    }

    pub(crate) fn services(&self, callouts: Arc<dyn abi::Callouts>) -> abi::VmServices {
        let shared = &self.0;
        abi::VmServices::new(Arc::clone(&shared.log) as Arc<dyn abi::LogSink>)
            .with_clock(Arc::clone(&shared.clock) as Arc<dyn abi::Clock>)
            .with_shared(Arc::clone(&shared.store) as Arc<dyn abi::SharedServices>)
            .with_callouts(callouts)
            .with_vm_id(*b"tollgate")
    }

    pub(crate) fn script(&self) -> Arc<Script> {
        Arc::clone(&self.0.script)
    }
}
