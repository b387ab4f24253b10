//! Bodies as Azure OpenAI sends them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::events;
use super::usage::{Generated, prompt_tokens};
use crate::message::{Received, Reply};
use crate::random;
use crate::tokens::now;

const CHAT_MODEL: &str = "gpt-4o-mini-2024-07-18";
const EMBEDDING_MODEL: &str = "text-embedding-3-small";
const EMBEDDING_DIMENSIONS: u64 = 1536;
const MAX_DIMENSIONS: u64 = 4096;
/// A PNG of one pixel.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// What both forms of one answer, whole or streamed, have in common.
pub(super) struct Head {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
}

impl Head {
    fn new(prefix: &str, model: String) -> Self {
        let id = format!("{prefix}{}", random::guid().replace('-', ""));
        Self {
            id,
            created: now(),
            model,
        }
    }
}

/// With a deployment the model behind it answers; on `/openai/v1` the body names it.
fn model(body: &Value, deployment: Option<&str>, usual: &str) -> String {
    let named = body
        .get("model")
        .and_then(Value::as_str)
        .filter(|_| deployment.is_none());
    named.unwrap_or(usual).to_owned()
}

fn streams(body: &Value) -> bool {
    body["stream"] == true
}

/// Whether the caller asked for the last chunk with the usage.
fn wants_usage(body: &Value) -> bool {
    body["stream_options"]["include_usage"] == true
}

pub(super) fn content_filter() -> Value {
    let safe = json!({ "filtered": false, "severity": "safe" });
    json!({ "hate": safe, "self_harm": safe, "sexual": safe, "violence": safe })
}

pub(super) fn prompt_filter() -> Value {
    let mut results = content_filter();
    results["jailbreak"] = json!({ "filtered": false, "detected": false });
    json!([{ "prompt_index": 0, "content_filter_results": results }])
}

fn generated(reply: Reply) -> Reply {
    reply
        .with("x-ratelimit-limit-requests", "1000")
        .with("x-ratelimit-limit-tokens", "100000")
        .with("x-ratelimit-remaining-requests", "999")
        .with("x-ratelimit-remaining-tokens", "99960")
        .with("x-ms-deployment-name", "stand-in")
        .with("azureml-model-session", "stand-in-session")
}

pub(super) fn chat(body: &Value, deployment: Option<&str>) -> Reply {
    let head = Head::new("chatcmpl-", model(body, deployment, CHAT_MODEL));
    let made = Generated::from(body);
    if streams(body) {
        return generated(events::chat(&head, &made, wants_usage(body)));
    }
    generated(Reply::ok(&json!({
        "id": head.id, "object": "chat.completion", "created": head.created,
        "model": head.model, "system_fingerprint": "fp_standin000",
        "choices": [{
            "index": 0, "finish_reason": made.finish_reason(), "logprobs": null,
            "message": {
                "role": "assistant", "content": made.text(), "refusal": null, "annotations": [],
            },
            "content_filter_results": content_filter(),
        }],
        "prompt_filter_results": prompt_filter(),
        "usage": made.usage(),
    })))
}

pub(super) fn completion(body: &Value, deployment: Option<&str>) -> Reply {
    let head = Head::new("cmpl-", model(body, deployment, "gpt-35-turbo-instruct"));
    let made = Generated::from(body);
    if streams(body) {
        return generated(events::completion(&head, &made, wants_usage(body)));
    }
    generated(Reply::ok(&json!({
        "id": head.id, "object": "text_completion", "created": head.created,
        "model": head.model,
        "choices": [{
            "index": 0, "text": made.text(), "finish_reason": made.finish_reason(),
            "logprobs": null, "content_filter_results": content_filter(),
        }],
        "prompt_filter_results": prompt_filter(),
        "usage": made.usage(),
    })))
}

pub(super) fn embeddings(body: &Value, deployment: Option<&str>) -> Reply {
    let inputs = match &body["input"] {
        // A list of texts or of token lists; a list of numbers is one input.
        Value::Array(items) if items.iter().any(|item| !item.is_number()) => items.len(),
        _ => 1,
    };
    let asked = body["dimensions"].as_u64().unwrap_or(EMBEDDING_DIMENSIONS);
    let vector = vector(asked.clamp(1, MAX_DIMENSIONS));
    let embedding = if body["encoding_format"] == "base64" {
        let bytes: Vec<u8> = vector
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Value::from(STANDARD.encode(bytes))
    } else {
        Value::from(vector)
    };
    let data: Vec<Value> = (0..inputs)
        .map(|index| json!({ "object": "embedding", "index": index, "embedding": embedding }))
        .collect();
    let tokens = prompt_tokens(body);
    generated(Reply::ok(&json!({
        "object": "list", "data": data, "model": model(body, deployment, EMBEDDING_MODEL),
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })))
}

/// Of length one, as embeddings are.
fn vector(dimensions: u64) -> Vec<f32> {
    let length = (dimensions as f32).sqrt();
    (0..dimensions)
        .map(|at| {
            if at % 2 == 0 {
                1.0 / length
            } else {
                -1.0 / length
            }
        })
        .collect()
}

pub(super) fn image(body: &Value) -> Reply {
    let made = Generated::from(body);
    generated(Reply::ok(&json!({
        "created": now(), "data": [{ "b64_json": PIXEL }], "usage": made.input_output_usage(),
    })))
}

pub(super) fn response(body: &Value) -> Reply {
    let head = Head::new("resp_", model(body, None, CHAT_MODEL));
    let made = Generated::from(body);
    if streams(body) {
        return generated(events::response(&head, &made));
    }
    generated(Reply::ok(&finished_response(&head, &made)))
}

/// A response object when all of it is there.
pub(super) fn finished_response(head: &Head, made: &Generated) -> Value {
    let mut response = started_response(head);
    response["completed_at"] = head.created.into();
    response["output"] = json!([output_item(head, &made.text())]);
    response["usage"] = made.input_output_usage();
    if made.cut_short {
        response["status"] = "incomplete".into();
        response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
    } else {
        response["status"] = "completed".into();
    }
    response
}

/// A response object when it has only begun.
pub(super) fn started_response(head: &Head) -> Value {
    json!({
        "id": head.id, "object": "response", "created_at": head.created,
        "status": "in_progress", "background": false, "completed_at": null, "error": null,
        "incomplete_details": null, "instructions": null, "max_output_tokens": null,
        "model": head.model, "output": [], "parallel_tool_calls": true,
        "previous_response_id": null, "reasoning": { "effort": null, "summary": null },
        "service_tier": "default", "store": true, "temperature": 1.0,
        "text": { "format": { "type": "text" } }, "tool_choice": "auto", "tools": [],
        "top_p": 1.0, "truncation": "disabled", "usage": null, "user": null, "metadata": {},
    })
}

/// The message in a response.
pub(super) fn output_item(head: &Head, text: &str) -> Value {
    json!({
        "id": message_id(head), "type": "message", "status": "completed", "role": "assistant",
        "content": [{ "type": "output_text", "annotations": [], "logprobs": [], "text": text }],
    })
}

pub(super) fn message_id(head: &Head) -> String {
    head.id.replacen("resp_", "msg_", 1)
}

/// Models, files, deployments and stored responses: what can be listed, read, made and deleted.
pub(super) fn resource(method: &Method, path: &[&str], received: &Received) -> Option<Reply> {
    let found = match (method.as_str(), path) {
        ("GET", ["models"]) => list([model_object(CHAT_MODEL), model_object(EMBEDDING_MODEL)]),
        ("GET", ["models", id]) => model_object(id),
        ("GET", ["deployments"]) => list([json!({
            "id": "chat", "object": "deployment", "model": CHAT_MODEL, "status": "succeeded",
        })]),
        ("GET", ["files"]) => list([file("file-standin", "data.jsonl", 140)]),
        ("POST", ["files"]) => {
            let body = String::from_utf8_lossy(&received.body);
            let name = body
                .split("filename=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            let made = file(
                "file-standin",
                name.unwrap_or("data.jsonl"),
                received.body.len(),
            );
            return Some(Reply::json(StatusCode::CREATED, &made));
        }
        ("GET", ["files", id]) => file(id, "data.jsonl", 140),
        ("DELETE", ["files", id]) => json!({ "id": id, "object": "file", "deleted": true }),
        ("GET", ["responses", id]) => {
            let head = Head {
                id: (*id).to_owned(),
                created: now(),
                model: CHAT_MODEL.to_owned(),
            };
            finished_response(&head, &Generated::from(&json!({})))
        }
        ("DELETE", ["responses", id]) => json!({ "id": id, "object": "response", "deleted": true }),
        _ => return None,
    };
    Some(Reply::ok(&found))
}

fn list(data: impl Into<Vec<Value>>) -> Value {
    json!({ "object": "list", "data": data.into() })
}

fn model_object(id: &str) -> Value {
    json!({
        "id": id, "object": "model", "status": "succeeded", "created_at": 1_721_260_800,
        "lifecycle_status": "generally-available",
        "capabilities": {
            "inference": true, "completion": false, "fine_tune": false,
            "chat_completion": id != EMBEDDING_MODEL, "embeddings": id == EMBEDDING_MODEL,
        },
    })
}

fn file(id: &str, name: &str, bytes: usize) -> Value {
    json!({
        "id": id, "object": "file", "bytes": bytes, "created_at": now(), "filename": name,
        "purpose": "batch", "status": "processed",
    })
}

pub(super) fn not_found() -> Reply {
    error(StatusCode::NOT_FOUND)
}

/// The body is not JSON.
pub(super) fn unreadable() -> Reply {
    let text = "We could not parse the JSON body of your request.";
    let body = json!({ "error": {
        "message": text, "type": "invalid_request_error", "param": null, "code": null,
    } });
    Reply::json(StatusCode::BAD_REQUEST, &body)
}

/// An error as Azure words it.
pub(super) fn error(status: StatusCode) -> Reply {
    let message = match status.as_u16() {
        401 => {
            "Unauthorized. Access token is missing, invalid, audience is incorrect \
             (https://cognitiveservices.azure.com), or have expired."
        }
        404 => "Resource not found",
        429 => {
            "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version \
             2024-10-21 have exceeded token rate limit of your current OpenAI S0 pricing tier. \
             Please retry after 1 seconds."
        }
        500 => "The server had an error while processing your request. Sorry about that!",
        503 => "The service is temporarily unable to process your request. Please try again later.",
        _ => status.canonical_reason().unwrap_or("Error"),
    };
    let code = status.as_u16().to_string();
    let reply = Reply::json(
        status,
        &json!({ "error": { "code": code, "message": message } }),
    );
    if status == StatusCode::TOO_MANY_REQUESTS {
        return reply
            .with("retry-after", "1")
            .with("retry-after-ms", "1000");
    }
    reply
}
