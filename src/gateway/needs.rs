//! What has to be read of a request's body before it may go on, and what a body that cannot be read is refused with.

use super::reading;
use crate::body::RequestBody;
use crate::operations::{Action, ModelPlace, Operation, Unread, is_deployment};
use crate::policy::{App, Deployments, Limit, Measure, Policy};
use crate::refusal::Refusal;
use crate::request::{API_VERSION, CONTENT_FILTER, RequestHead};
use crate::usage::{BodyError, Member};

/// What has to be read of a body, beyond what `deployments` need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Needs {
    /// Nothing decides.
    Nothing,
    /// Its size: a compressed one has another, and one that does not say it is read to its end.
    Size,
    /// What the call may use: all of it has one reading.
    Bounds,
    /// The model, which says for which limits it counts.
    Model,
}

impl Needs {
    /// What the limits need that the request may count for.
    pub(super) fn of(
        app: &App,
        head: &RequestHead<'_>,
        operation: &Result<Operation<'_>, Unread>,
        policy: &Policy,
    ) -> Self {
        let is_of_heads =
            |limit: &Limit| limit.measure == Measure::Calls && limit.scope.deployments.is_none();
        if app.limits.iter().all(is_of_heads) {
            return Self::Nothing;
        }
        let is_metered = reading::is_metered(head, operation, policy);
        let is_text = operation
            .as_ref()
            .is_ok_and(|operation| operation.action.generates_text());
        let asking = reading::asking(operation, head);
        let limits = app.limits.iter().filter(|limit| limit.is_for(&asking));
        let needs = limits.map(|limit| match limit.measure {
            _ if limit.scope.deployments.is_some()
                && reading::place(operation) == ModelPlace::Body =>
            {
                Self::Model
            }
            Measure::Tokens { .. } if is_metered && is_text => Self::Bounds,
            // Of an operation that nobody here knows, any may generate text.
            Measure::Tokens { reserve: true } if is_metered && operation.is_err() => Self::Bounds,
            Measure::Tokens { reserve: true } if is_metered => Self::Size,
            Measure::Calls | Measure::Tokens { .. } => Self::Nothing,
        });
        needs.max().unwrap_or(Self::Nothing)
    }

    /// Whether a body is what they need.
    pub(super) fn permit(self, body: &RequestBody, action: Option<Action>) -> Result<(), Refusal> {
        match (self, body.model()) {
            (Self::Nothing, _) => Ok(()),
            (Self::Size, Err(BodyError::Encoding)) => Err(Refusal::ContentEncoding),
            (Self::Size, Err(error)) if !body.is_bounded(action) => Err(unreadable(error)),
            (Self::Size, _) => Ok(()),
            (Self::Bounds, Err(error)) => Err(unreadable(error)),
            (Self::Model, Err(error)) => Err(unnamed(error)),
            (Self::Model, Ok(None)) if body.is_form() => {
                Err(Refusal::Body(BodyError::Absent(Member::Model)))
            }
            (Self::Bounds | Self::Model, Ok(_)) => Ok(()),
        }
    }
}

/// Whether the query has one reading, where it says what the body may ask for.
pub(super) fn permit_query(
    needs: Needs,
    head: &RequestHead<'_>,
    operation: &Result<Operation<'_>, Unread>,
) -> Result<(), Refusal> {
    let is_dated = operation
        .as_ref()
        .is_ok_and(|operation| operation.is_dated && operation.action.generates_text());
    if needs >= Needs::Bounds && is_dated && head.has_api_versions() {
        return Err(Refusal::QueryNotReadable {
            parameter: API_VERSION,
        });
    }
    Ok(())
}

/// Whether an application may steer the backend as its headers do.
pub(super) fn permit_headers(app: &App, head: &RequestHead<'_>) -> Result<(), Refusal> {
    if head.content_filters.is_empty() || app.caps.content_filter_override {
        return Ok(());
    }
    Err(Refusal::Parameter {
        name: CONTENT_FILTER,
    })
}

/// Whether an application may run the model that the body names. One that is not named was
/// stored before, where nobody here can see it; and what no deployment can be called, a backend may make a name of.
pub(super) fn permit_model(
    deployments: &Deployments,
    model: Result<Option<&str>, BodyError>,
) -> Result<(), Refusal> {
    match model {
        Ok(Some(name)) if !is_deployment(name) => Err(Refusal::Body(BodyError::NotADeployment)),
        Ok(Some(name)) if deployments.include(name) => Ok(()),
        Ok(Some(_)) => Err(Refusal::Deployment),
        Ok(None) => Err(Refusal::Body(BodyError::Absent(Member::Model))),
        Err(error) => Err(unnamed(error)),
    }
}

/// For a body whose model decides.
fn unnamed(error: BodyError) -> Refusal {
    if error.is_about_model() {
        return Refusal::Body(error);
    }
    unreadable(error)
}

fn unreadable(error: BodyError) -> Refusal {
    match error {
        BodyError::Encoding => Refusal::ContentEncoding,
        error => Refusal::BodyNotReadable(error),
    }
}
