//! What Envoy asks: which limits apply, and whether its hits fit.

use std::collections::HashMap;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit,
};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitService;
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::protobuf;
use limitador::counter::Counter;
use limitador::errors::LimitadorError;
use limitador::limit::{Context, Limit};
use tonic::{Request, Response, Status};

use crate::counters::{Counted, Counters, Hit};

/// The service.
pub(crate) struct Service {
    limits: Vec<Limit>,
    counters: Counters,
}

impl Service {
    pub(crate) fn new(limits: Vec<Limit>, counters: Counters) -> Self {
        Self { limits, counters }
    }

    /// The counters of the limits that apply to a descriptor.
    fn counters_of(
        &self,
        domain: &str,
        descriptor: &RateLimitDescriptor,
    ) -> Result<Vec<Counter>, LimitadorError> {
        let entries = descriptor.entries.iter();
        let values: HashMap<String, String> = entries
            .map(|entry| (entry.key.clone(), entry.value.clone()))
            .collect();
        let mut context = Context::default();
        context.list_binding("descriptors".to_owned(), vec![values]);
        let mut found = Vec::new();
        for limit in &self.limits {
            if limit.namespace().as_ref() == domain && limit.applies(&context) {
                found.extend(Counter::new(limit.clone(), &context)?);
            }
        }
        Ok(found)
    }
}

#[tonic::async_trait]
impl RateLimitService for Service {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let asked = request.into_inner();
        let mut hits = Vec::new();
        // How many counters each descriptor has.
        let mut shares = Vec::new();
        for descriptor in &asked.descriptors {
            // A descriptor's own 0 asks without counting; the request's 0 is an absent field.
            let amount = match &descriptor.hits_addend {
                Some(own) => own.value,
                None => u64::from(asked.hits_addend.max(1)),
            };
            let counters = self
                .counters_of(&asked.domain, descriptor)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            shares.push(counters.len());
            hits.extend(counters.into_iter().map(|counter| Hit {
                counter,
                hits: amount,
            }));
        }
        let counted = self.counters.count(&hits).await;
        let counted = counted.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut each = hits.iter().zip(&counted).map(status);
        let statuses = shares
            .iter()
            .map(|share| tightest(each.by_ref().take(*share)))
            .collect();
        Ok(Response::new(answer(statuses)))
    }
}

/// Over the limit if a descriptor is.
fn answer(statuses: Vec<DescriptorStatus>) -> RateLimitResponse {
    let limited = statuses
        .iter()
        .any(|status| status.code() == Code::OverLimit);
    let overall_code = if limited { Code::OverLimit } else { Code::Ok };
    RateLimitResponse {
        overall_code: overall_code.into(),
        statuses,
        ..RateLimitResponse::default()
    }
}

/// What is told of a descriptor: the limit that leaves the least, and OK if none applies.
fn tightest(statuses: impl Iterator<Item = DescriptorStatus>) -> DescriptorStatus {
    statuses
        .min_by_key(|status| (status.code() != Code::OverLimit, status.limit_remaining))
        .unwrap_or_else(|| DescriptorStatus {
            code: Code::Ok.into(),
            ..DescriptorStatus::default()
        })
}

/// Whether hits fitted, and what Envoy's `x-ratelimit-*` headers are made of. Hits count even if they did
/// not fit, as in Envoy's own service: what an answer cost is known only when it has been given.
fn status((hit, counted): (&Hit, &Counted)) -> DescriptorStatus {
    let limit = hit.counter.limit();
    let over = counted.value > limit.max_value();
    let remaining = limit.max_value().saturating_sub(counted.value);
    DescriptorStatus {
        code: if over { Code::OverLimit } else { Code::Ok }.into(),
        current_limit: Some(RateLimit {
            name: limit.name().unwrap_or_default().to_owned(),
            requests_per_unit: u32::try_from(limit.max_value()).unwrap_or(u32::MAX),
            unit: unit(limit.seconds()).into(),
        }),
        limit_remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
        duration_until_reset: Some(protobuf::Duration {
            seconds: i64::try_from(counted.reset.as_secs()).unwrap_or(i64::MAX),
            nanos: 0,
        }),
        ..DescriptorStatus::default()
    }
}

fn unit(seconds: u64) -> Unit {
    match seconds {
        1 => Unit::Second,
        60 => Unit::Minute,
        3_600 => Unit::Hour,
        86_400 => Unit::Day,
        _ => Unit::Unknown,
    }
}
