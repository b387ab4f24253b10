//! `responses` and `log`: what callers and operators are told.

use super::reader::{Members, Node, Read, Shape, distinct};
use super::wording::{meant, quoted};
use super::{AnswerFormat, FilterStateField, Log, Response, Responses};

/// Longest message, in characters.
const MAX_MESSAGE: usize = 500;

/// Fields of the filter state by their names.
const FIELDS: [(&str, FilterStateField); 12] = [
    ("outcome", FilterStateField::Outcome),
    ("code", FilterStateField::Code),
    ("app_id", FilterStateField::AppId),
    ("app_name", FilterStateField::AppName),
    ("tenant_id", FilterStateField::TenantId),
    ("object_id", FilterStateField::ObjectId),
    ("action", FilterStateField::Action),
    ("deployment", FilterStateField::Deployment),
    ("prompt_tokens", FilterStateField::PromptTokens),
    ("completion_tokens", FilterStateField::CompletionTokens),
    ("total_tokens", FilterStateField::TotalTokens),
    ("estimated_tokens", FilterStateField::EstimatedTokens),
];

static RESPONSES: Shape = Shape {
    example: r#"{"unauthenticated": {"status": 403, "message": "Forbidden"}}"#,
    keys: &[
        "format",
        "unauthenticated",
        "api_key",
        "forbidden",
        "limited",
        "quota",
        "unavailable",
    ],
    refused: &[],
};

static RESPONSE: Shape = Shape {
    example: r#"{"status": 403, "message": "Forbidden"}"#,
    keys: &["status", "message"],
    refused: &[],
};

static LOG: Shape = Shape {
    example: r#"{"requests": true}"#,
    keys: &["requests", "filter_state"],
    refused: &[],
};

pub(super) fn responses(policy: &Members<'_>) -> Read<Responses> {
    let Some(node) = policy.get("responses") else {
        return Ok(Responses::default());
    };
    let members = node.members(&RESPONSES)?;
    let format = members.or("format", AnswerFormat::OpenAi, |node| {
        node.choice(&[
            ("openai", AnswerFormat::OpenAi),
            ("apim", AnswerFormat::Apim),
        ])
    });
    let unauthenticated = response(&members, "unauthenticated", 401);
    let api_key = response(&members, "api_key", 403);
    let forbidden = response(&members, "forbidden", 403);
    let limited = response(&members, "limited", 429);
    let quota = response(&members, "quota", 429);
    let unavailable = response(&members, "unavailable", 503);
    Ok(Responses {
        format: format?,
        unauthenticated: unauthenticated?,
        api_key: api_key?,
        forbidden: forbidden?,
        limited: limited?,
        quota: quota?,
        unavailable: unavailable?,
    })
}

impl Default for Responses {
    fn default() -> Self {
        Self {
            format: AnswerFormat::OpenAi,
            unauthenticated: default_response(401),
            api_key: default_response(403),
            forbidden: default_response(403),
            limited: default_response(429),
            quota: default_response(429),
            unavailable: default_response(503),
        }
    }
}

fn default_response(status: u16) -> Response {
    Response {
        status,
        message: None,
    }
}

fn response(responses: &Members<'_>, outcome: &'static str, status: u16) -> Read<Response> {
    responses.or(outcome, default_response(status), |node| {
        let members = node.members(&RESPONSE)?;
        let status = members.or("status", status, |node| node.status(400..=599));
        let message = members.optional("message", message);
        Ok(Response {
            status: status?,
            message: message?,
        })
    })
}

fn message(node: &Node<'_>) -> Read<String> {
    let text = node.text("Forbidden")?;
    let length = text.chars().count();
    if length > MAX_MESSAGE {
        let problem = format!("is {length} characters long");
        return Err(node.note(problem, format!("write at most {MAX_MESSAGE}")));
    }
    Ok(text.to_owned())
}

pub(super) fn log(policy: &Members<'_>) -> Read<Log> {
    let defaults = Log {
        requests: true,
        filter_state: FIELDS.map(|(_, field)| field).to_vec(),
    };
    let Some(node) = policy.get("log") else {
        return Ok(defaults);
    };
    let members = node.members(&LOG)?;
    let requests = members.or("requests", defaults.requests, |node| node.boolean());
    let filter_state = members.or("filter_state", defaults.filter_state, |node| {
        node.list("[\"outcome\", \"app_id\"]", field).map(distinct)
    });
    Ok(Log {
        requests: requests?,
        filter_state: filter_state?,
    })
}

fn field(node: &Node<'_>) -> Read<FilterStateField> {
    let text = node.string("outcome")?;
    if let Some((_, field)) = FIELDS.iter().find(|(name, _)| *name == text) {
        return Ok(*field);
    }
    let problem = format!("{} is not a field", quoted(text));
    Err(node.note(problem, meant(text, &FIELDS.map(|(name, _)| name))))
}
