//! Shared data and metrics, as Envoy keeps them: one map per process, where every write gets the
//! next number of one counter and nothing is ever deleted.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use proxy_wasm_host::abi::v0_2_1::types::{MetricType, Status};
use proxy_wasm_host::abi::v0_2_1::{Invocation, MetricId, SharedServices, SharedValue};

use crate::host::Hostcall;
use crate::process::{Script, lock};

#[derive(Default)]
struct Data {
    values: BTreeMap<Vec<u8>, (Vec<u8>, NonZeroU32)>,
    last_cas: u32,
    contended: u32,
}

impl Data {
    fn next_cas(&mut self) -> NonZeroU32 {
        self.last_cas += 1;
        NonZeroU32::new(self.last_cas).expect("a test writes fewer than 2^32 times")
    }

    fn write(&mut self, key: &[u8], value: &[u8]) {
        let cas = self.next_cas();
        self.values.insert(key.to_vec(), (value.to_vec(), cas));
    }
}

struct Metric {
    kind: MetricType,
    name: String,
    value: u64,
}

/// The store of one process.
pub(crate) struct Store {
    data: Mutex<Data>,
    metrics: Mutex<Vec<Metric>>,
    script: Arc<Script>,
}

impl Store {
    pub(crate) fn new(script: Arc<Script>) -> Self {
        Self {
            data: Mutex::default(),
            metrics: Mutex::default(),
            script,
        }
    }

    pub(crate) fn contend(&self, writes: u32) {
        lock(&self.data).contended = writes;
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        let data = lock(&self.data);
        data.values
            .keys()
            .map(|key| String::from_utf8_lossy(key).into_owned())
            .collect()
    }

    pub(crate) fn overwrite(&self, key: &str, value: &[u8]) {
        lock(&self.data).write(key.as_bytes(), value);
    }

    pub(crate) fn metrics(&self) -> BTreeMap<String, u64> {
        lock(&self.metrics)
            .iter()
            .map(|metric| (metric.name.clone(), metric.value))
            .collect()
    }

    fn with_metric(
        &self,
        id: MetricId,
        change: impl FnOnce(&mut Metric) -> Result<u64, Status>,
    ) -> Result<(), Status> {
        let index = usize::try_from(id.get() - 1).map_err(|_| Status::NotFound)?;
        let mut metrics = lock(&self.metrics);
        let metric = metrics.get_mut(index).ok_or(Status::NotFound)?;
        metric.value = change(metric)?;
        Ok(())
    }
}

impl SharedServices for Store {
    fn get_shared_data(&self, _: Invocation, _: &[u8], key: &[u8]) -> Result<SharedValue, Status> {
        self.script.check(Hostcall::GetSharedData)?;
        let data = lock(&self.data);
        let (value, cas) = data.values.get(key).ok_or(Status::NotFound)?;
        Ok(SharedValue::new(value.clone(), *cas))
    }

    fn set_shared_data(
        &self,
        _: Invocation,
        _: &[u8],
        key: &[u8],
        value: &[u8],
        cas: Option<u32>,
    ) -> Result<(), Status> {
        self.script.check(Hostcall::SetSharedData)?;
        let mut data = lock(&self.data);
        let held = data.values.get(key).cloned();
        if let (Some(expected), Some((held, current))) = (cas, held) {
            if data.contended > 0 {
                data.contended -= 1;
                data.write(key, &held);
                return Err(Status::CasMismatch);
            }
            if expected != current.get() {
                return Err(Status::CasMismatch);
            }
        }
        data.write(key, value);
        Ok(())
    }

    fn define_metric(
        &self,
        _: Invocation,
        _: &[u8],
        kind: MetricType,
        name: &[u8],
    ) -> Result<MetricId, Status> {
        self.script.check(Hostcall::DefineMetric)?;
        let name = String::from_utf8(name.to_vec()).map_err(|_| Status::BadArgument)?;
        let mut metrics = lock(&self.metrics);
        let index = match metrics.iter().position(|metric| metric.name == name) {
            Some(index) if metrics[index].kind == kind => index,
            Some(_) => return Err(Status::BadArgument),
            None => {
                metrics.push(Metric {
                    kind,
                    name,
                    value: 0,
                });
                metrics.len() - 1
            }
        };
        let id = u32::try_from(index + 1).map_err(|_| Status::InternalFailure)?;
        MetricId::try_from(id).map_err(|_| Status::InternalFailure)
    }

    fn record_metric(&self, _: Invocation, id: MetricId, value: u64) -> Result<(), Status> {
        self.script.check(Hostcall::RecordMetric)?;
        self.with_metric(id, |metric| match metric.kind {
            // Envoy's counters only count.
            MetricType::Counter => Err(Status::BadArgument),
            _ => Ok(value),
        })
    }

    fn increment_metric(&self, _: Invocation, id: MetricId, delta: i64) -> Result<(), Status> {
        self.script.check(Hostcall::IncrementMetric)?;
        self.with_metric(id, |metric| match metric.kind {
            MetricType::Counter if delta < 0 => Err(Status::BadArgument),
            MetricType::Histogram => Err(Status::BadArgument),
            _ => metric
                .value
                .checked_add_signed(delta)
                .ok_or(Status::BadArgument),
        })
    }

    fn get_metric(&self, _: Invocation, id: MetricId) -> Result<u64, Status> {
        let mut value = 0;
        self.with_metric(id, |metric| {
            value = metric.value;
            Ok(value)
        })?;
        Ok(value)
    }
}
