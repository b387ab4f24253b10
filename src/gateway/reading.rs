//! What is read of a request that goes on, and of its answer.

use super::needs::Needs;
use crate::body::{RequestBody, takes_stream_options};
use crate::forward::HeaderChanges;
use crate::limits::{Asking, Deployment};
use crate::metering::Meter;
use crate::operations::{ModelPlace, Operation, Unread, is_deployment};
use crate::policy::{App, Policy, StreamOptions};
use crate::request::{HeaderMap, RequestHead};

type Asked<'a, 'o> = &'a Result<Operation<'o>, Unread>;

/// The readers of one call.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Reads the request, where it decides or has to ask for usage.
    pub(super) body: Option<Box<RequestBody>>,
    /// Measures what the call uses.
    pub(super) meter: Option<Meter>,
}

impl Reading {
    /// The readers that a call needs, and what they need of the request's headers: an answer that is
    /// not compressed, and a body that may grow.
    pub(super) fn new(
        head: &RequestHead<'_>,
        operation: Asked<'_, '_>,
        headers: &HeaderMap,
        policy: &Policy,
        changes: &mut HeaderChanges,
    ) -> Self {
        if !is_metered(head, operation, policy) {
            return Self::default();
        }
        if head.accepts_encodings {
            changes.remove.push(b"accept-encoding".to_vec());
        }
        let inject = policy.usage.stream_options == StreamOptions::Inject
            && operation
                .as_ref()
                .is_ok_and(|operation| takes_stream_options(operation, head.api_version()));
        if inject {
            changes.remove.push(b"content-length".to_vec());
        }
        let names_model = place(operation) == ModelPlace::Body;
        Self {
            body: (inject || names_model)
                .then(|| Box::new(body(operation, headers, inject, policy))),
            meter: Some(Meter::new(
                headers,
                operation.as_ref().ok().map(|operation| operation.action),
            )),
        }
    }
}

/// The reader of a request's body.
pub(super) fn body(
    operation: Asked<'_, '_>,
    headers: &HeaderMap,
    inject: bool,
    policy: &Policy,
) -> RequestBody {
    let body = if operation.as_ref().is_ok_and(Operation::takes_form) {
        RequestBody::with_form(headers)
    } else {
        RequestBody::new(headers, inject)
    };
    body.with_image_tokens(policy.usage.image_tokens)
}

/// Whether the answer is read for what the call used: that of a request to run a model, or of one that
/// nobody here knows. Stored answers, read again, would count twice.
pub(super) fn is_metered(
    head: &RequestHead<'_>,
    operation: Asked<'_, '_>,
    policy: &Policy,
) -> bool {
    // Some servers take a method in any case, which makes no operation here.
    policy.usage.read
        && head.method.eq_ignore_ascii_case(b"POST")
        && operation.as_ref().map_or(true, Operation::is_metered)
}

/// Whether the decision has to wait for the request's body: for the model, or for what limits need.
pub(super) fn body_decides(
    app: &App,
    needs: Needs,
    operation: Asked<'_, '_>,
    policy: &Policy,
) -> bool {
    let by_model = || policy.usage.read || app.deployments.is_some();
    needs > Needs::Nothing || (place(operation) == ModelPlace::Body && by_model())
}

/// What limits need to know of a request that is decided on without its body.
pub(super) fn asking<'a>(
    operation: &Result<Operation<'a>, Unread>,
    head: &RequestHead<'_>,
) -> Asking<'a> {
    let runs_another = !head.deployments.is_empty();
    let known = operation.as_ref().ok();
    let named = known.and_then(|operation| operation.deployment);
    Asking {
        action: known.map(|operation| operation.action),
        deployment: deployment(place(operation), named, runs_another),
        reserve: Some(0),
    }
}

/// What limits can know of a request before its body is read.
pub(super) fn asking_of_head<'a>(
    operation: &Result<Operation<'a>, Unread>,
    head: &RequestHead<'_>,
) -> Asking<'a> {
    let asking = asking(operation, head);
    let deployment = match (place(operation), asking.deployment) {
        (ModelPlace::Body, Deployment::Unknown) if head.deployments.is_empty() => {
            Deployment::InBody
        }
        (_, deployment) => deployment,
    };
    Asking {
        deployment,
        reserve: None,
        ..asking
    }
}

/// Which deployment a request runs: the one that it names, if it runs one. What no deployment can be
/// called is unknown: a backend may make a name of it. Of two, too, each limit takes what is not known.
pub(super) fn deployment(
    place: ModelPlace,
    named: Option<&str>,
    runs_another: bool,
) -> Deployment<'_> {
    match (place, named) {
        _ if runs_another => Deployment::Unknown,
        (ModelPlace::Nowhere, _) => Deployment::None,
        (_, Some(name)) if is_deployment(name) => Deployment::Named(name),
        (_, Some(_) | None) => Deployment::Unknown,
    }
}

/// Where the model is named. Of what nobody here knows: elsewhere.
pub(super) fn place(operation: Asked<'_, '_>) -> ModelPlace {
    operation
        .as_ref()
        .map_or(ModelPlace::Elsewhere, |operation| operation.model)
}

/// Whether a name from a body may be told: visible, and not too long for a label.
pub(super) fn is_tellable(name: &str) -> bool {
    const MAX: usize = 128;
    (1..=MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}
