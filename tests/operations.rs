//! Who may do what: every operation under the right role and under a wrong one, and what tries to
//! slip past a role.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "tests compute on their own constants"
)]

mod common;

use std::collections::{BTreeMap, HashSet};

use common::{APP, Bench, OTHER_APP, SIGNER, code, policy, v1_claims, with};
use serde_json::{Value, json};
use tollgate::answer::{Answer, ResponseContext};
use tollgate::gateway::Verdict;
use tollgate::operations::{Action, Operation, PREFIX, Row};
use tollgate::refusal::Code::*;

/// Operations of both surfaces as the SDKs and Azure's documents have them, and the action that
/// each needs.
const OPERATIONS: &[(&str, &str)] = &[
    (
        "deployments/chat/completions/action",
        "POST /openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21
         POST /openai/v1/chat/completions
         POST /openai/v1/chat/completions?api-version=preview
         POST /openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21&api-version=x",
    ),
    (
        "deployments/completions/action",
        "POST /openai/deployments/gpt-35-turbo-instruct/completions?api-version=2024-10-21
         POST /openai/v1/completions",
    ),
    (
        "deployments/embeddings/action",
        "POST /openai/deployments/text-embedding-3-large/embeddings?api-version=2024-10-21
         POST /openai/v1/embeddings",
    ),
    (
        "deployments/extensions/chat/completions/action",
        "POST /openai/deployments/gpt-4/extensions/chat/completions?api-version=2023-08-01-preview",
    ),
    (
        "deployments/audio/action",
        "POST /openai/deployments/whisper/audio/transcriptions?api-version=2024-10-21
         POST /openai/deployments/whisper/audio/translations?api-version=2024-10-21
         POST /openai/deployments/tts-1.hd/audio/speech?api-version=2024-10-21
         POST /openai/v1/audio/transcriptions
         POST /openai/v1/audio/translations
         POST /openai/v1/audio/speech",
    ),
    (
        "deployments/search/action",
        "POST /openai/deployments/ada/search?api-version=2022-12-01",
    ),
    (
        "deployments/realtime/action",
        "GET /openai/realtime?api-version=2024-10-01-preview&deployment=gpt-4o-realtime
         GET /openai/v1/realtime?model=gpt-realtime
         POST /openai/realtimeapi/sessions?api-version=2025-04-01-preview
         POST /openai/v1/realtime/client_secrets
         POST /openai/v1/realtime/sessions
         POST /openai/v1/realtime/transcription_sessions
         POST /openai/v1/realtime/calls
         POST /openai/v1/realtime/calls/rtc_1/accept
         POST /openai/v1/realtime/calls/rtc_1/hangup
         POST /openai/v1/realtime/calls/rtc_1/refer
         POST /openai/v1/realtime/calls/rtc_1/reject",
    ),
    (
        "deployments/read",
        "GET /openai/deployments?api-version=2022-12-01
         GET /openai/deployments/gpt-4o?api-version=2022-12-01",
    ),
    (
        "deployments/write",
        "POST /openai/deployments?api-version=2022-12-01
         PUT /openai/deployments/gpt-4o?api-version=2022-12-01
         PATCH /openai/deployments/gpt-4o?api-version=2022-12-01",
    ),
    (
        "deployments/delete",
        "DELETE /openai/deployments/gpt-4o?api-version=2022-12-01",
    ),
    ("engines/read", "GET /openai/engines GET /openai/engines/davinci"),
    ("engines/completions/action", "POST /openai/engines/davinci/completions"),
    ("engines/generate/action", "POST /openai/engines/davinci/generate"),
    ("engines/search/action", "POST /openai/engines/davinci/search"),
    (
        "images/generations/action",
        "POST /openai/deployments/dall-e-3/images/generations?api-version=2024-10-21
         POST /openai/deployments/gpt-image-1/images/edits?api-version=2025-04-01-preview
         POST /openai/deployments/gpt-image-1/images/variations?api-version=2025-04-01-preview
         POST /openai/images/generations:submit?api-version=2023-08-01-preview
         GET /openai/operations/images/f508bcf2-e651-4b4b-85a7-58ad77981ffa?api-version=2023-08-01-preview
         DELETE /openai/operations/images/f508bcf2-e651-4b4b-85a7-58ad77981ffa
         POST /openai/v1/images/generations
         POST /openai/v1/images/edits
         POST /openai/v1/images/variations",
    ),
    (
        "video/generations/jobs/action",
        "POST /openai/v1/video/generations/jobs?api-version=preview
         POST /openai/v1/videos
         POST /openai/v1/videos/edits
         POST /openai/v1/videos/extensions
         POST /openai/v1/videos/video_1/remix",
    ),
    (
        "video/generations/jobs/read",
        "GET /openai/v1/video/generations/jobs?api-version=preview
         GET /openai/v1/video/generations/jobs/task_1
         GET /openai/v1/video/generations/gen_1
         GET /openai/v1/video/generations/gen_1/content
         GET /openai/v1/video/generations/gen_1/content/video
         HEAD /openai/v1/video/generations/gen_1/content/video
         GET /openai/v1/video/generations/gen_1/content/thumbnail
         GET /openai/v1/video/generations/gen_1/content/gif
         GET /openai/v1/videos
         GET /openai/v1/videos/video_1
         GET /openai/v1/videos/video_1/content?variant=thumbnail",
    ),
    (
        "video/generations/jobs/delete",
        "DELETE /openai/v1/video/generations/jobs/task_1
         DELETE /openai/v1/videos/video_1",
    ),
    (
        "responses/write",
        "POST /openai/responses?api-version=2025-03-01-preview
         POST /openai/v1/responses
         POST /openai/v1/responses/compact
         POST /openai/v1/responses/input_tokens
         POST /openai/v1/responses/resp_1/cancel",
    ),
    (
        "responses/read",
        "GET /openai/responses/resp_1?api-version=2025-03-01-preview
         GET /openai/v1/responses
         GET /openai/v1/responses/resp_1?stream=true&starting_after=3
         GET /openai/v1/responses/resp_1/input_items",
    ),
    (
        "responses/delete",
        "DELETE /openai/responses/resp_1?api-version=2025-03-01-preview
         DELETE /openai/v1/responses/resp_1",
    ),
    (
        "conversations/write",
        "POST /openai/v1/conversations
         POST /openai/v1/conversations/conv_1
         POST /openai/v1/conversations/conv_1/items",
    ),
    (
        "conversations/read",
        "GET /openai/v1/conversations/conv_1
         GET /openai/v1/conversations/conv_1/items
         GET /openai/v1/conversations/conv_1/items/msg_1",
    ),
    (
        "conversations/delete",
        "DELETE /openai/v1/conversations/conv_1
         DELETE /openai/v1/conversations/conv_1/items/msg_1",
    ),
    (
        "containers/write",
        "POST /openai/v1/containers
         POST /openai/v1/containers/cntr_1/files",
    ),
    (
        "containers/read",
        "GET /openai/v1/containers
         GET /openai/v1/containers/cntr_1
         GET /openai/v1/containers/cntr_1/files
         GET /openai/v1/containers/cntr_1/files/cfile_1
         GET /openai/v1/containers/cntr_1/files/cfile_1/content",
    ),
    (
        "containers/delete",
        "DELETE /openai/v1/containers/cntr_1
         DELETE /openai/v1/containers/cntr_1/files/cfile_1",
    ),
    (
        "stored-completions/read",
        "GET /openai/v1/chat/completions
         GET /openai/v1/chat/completions/chatcmpl-1
         GET /openai/v1/chat/completions/chatcmpl-1/messages
         GET /openai/chat/completions?api-version=2025-01-01-preview",
    ),
    (
        "stored-completions/action",
        "POST /openai/v1/chat/completions/chatcmpl-1
         DELETE /openai/v1/chat/completions/chatcmpl-1",
    ),
    (
        "models/read",
        "GET /openai/models?api-version=2024-10-21
         GET /openai/models/gpt-4o?api-version=2024-10-21
         GET /openai/v1/models
         GET /openai/v1/models/ft:gpt-4o-mini-2024-07-18:org:name:id",
    ),
    ("models/delete", "DELETE /openai/v1/models/gpt-35-turbo-0125.ft-1"),
    (
        "files/write",
        "POST /openai/files?api-version=2024-10-21
         POST /openai/files/import?api-version=2023-05-15
         POST /openai/v1/files",
    ),
    (
        "files/read",
        "GET /openai/files?api-version=2024-10-21
         GET /openai/files/file-1?api-version=2024-10-21
         GET /openai/files/file-1/content?api-version=2024-10-21
         GET /openai/v1/files
         GET /openai/v1/files/file-1
         GET /openai/v1/files/file-1/content",
    ),
    (
        "files/delete",
        "DELETE /openai/files/file-1?api-version=2024-10-21
         DELETE /openai/v1/files/file-1",
    ),
    (
        "uploads/write",
        "POST /openai/uploads?api-version=2024-10-21
         POST /openai/v1/uploads/upload_1/parts
         POST /openai/v1/uploads/upload_1/complete
         POST /openai/v1/uploads/upload_1/cancel",
    ),
    (
        "fine-tunes/write",
        "POST /openai/fine_tuning/jobs?api-version=2024-10-21
         POST /openai/v1/fine_tuning/jobs
         POST /openai/v1/fine_tuning/jobs/ftjob-1/cancel
         POST /openai/v1/fine_tuning/jobs/ftjob-1/pause
         POST /openai/v1/fine_tuning/jobs/ftjob-1/resume
         POST /openai/v1/fine_tuning/jobs/ftjob-1/checkpoints/ftchkpt-1/copy
         POST /openai/v1/fine_tuning/checkpoints/ckpt-1/permissions
         POST /openai/v1/fine_tuning/alpha/graders/run
         POST /openai/v1/fine_tuning/alpha/graders/validate
         POST /openai/fine-tunes?api-version=2022-12-01
         POST /openai/fine-tunes/ft-1/cancel?api-version=2022-12-01",
    ),
    (
        "fine-tunes/read",
        "GET /openai/v1/fine_tuning/jobs
         GET /openai/v1/fine_tuning/jobs/ftjob-1
         GET /openai/v1/fine_tuning/jobs/ftjob-1/events
         GET /openai/v1/fine_tuning/jobs/ftjob-1/checkpoints
         GET /openai/v1/fine_tuning/jobs/ftjob-1/checkpoints/ftchkpt-1/copy
         GET /openai/v1/fine_tuning/checkpoints/ckpt-1/permissions
         GET /openai/fine-tunes?api-version=2022-12-01
         GET /openai/fine-tunes/ft-1?api-version=2022-12-01
         GET /openai/fine-tunes/ft-1/events?api-version=2022-12-01",
    ),
    (
        "fine-tunes/delete",
        "DELETE /openai/fine_tuning/jobs/ftjob-1?api-version=2024-10-21
         DELETE /openai/v1/fine_tuning/checkpoints/ckpt-1/permissions/cp_1
         DELETE /openai/fine-tunes/ft-1?api-version=2022-12-01",
    ),
    (
        "batch-jobs/write",
        "POST /openai/batches?api-version=2024-10-21 POST /openai/v1/batches",
    ),
    (
        "batches/read",
        "GET /openai/batches?api-version=2024-10-21
         GET /openai/v1/batches/batch_1",
    ),
    ("batches/cancel/action", "POST /openai/v1/batches/batch_1/cancel"),
    ("batches/delete", "DELETE /openai/v1/batches/batch_1"),
    (
        "evals/write",
        "POST /openai/v1/evals
         POST /openai/v1/evals/eval_1
         POST /openai/v1/evals/eval_1/runs
         POST /openai/v1/evals/eval_1/runs/evalrun_1
         POST /openai/v1/evals/eval_1/runs/evalrun_1/cancel",
    ),
    (
        "evals/read",
        "GET /openai/v1/evals
         GET /openai/v1/evals/eval_1
         GET /openai/v1/evals/eval_1/runs
         GET /openai/v1/evals/eval_1/runs/evalrun_1
         GET /openai/v1/evals/eval_1/runs/evalrun_1/output_items
         GET /openai/v1/evals/eval_1/runs/evalrun_1/output_items/item_1",
    ),
    (
        "evals/delete",
        "DELETE /openai/v1/evals/eval_1
         DELETE /openai/v1/evals/eval_1/runs/evalrun_1",
    ),
    (
        "extensions/on-your-data/ingestion/read",
        "GET /openai/extensions/on-your-data/ingestion/jobs
         GET /openai/extensions/on-your-data/ingestion/jobs/job-1
         GET /openai/extensions/on-your-data/ingestion-jobs
         GET /openai/extensions/on-your-data/ingestion-jobs/job-1
         GET /openai/ingestion/jobs?api-version=2024-07-01-preview
         GET /openai/ingestion/jobs/job-1
         GET /openai/ingestion/jobs/job-1/runs
         GET /openai/ingestion/jobs/job-1/runs/run-1",
    ),
    (
        "extensions/on-your-data/ingestion/write",
        "PUT /openai/extensions/on-your-data/ingestion/jobs/job-1
         PUT /openai/extensions/on-your-data/ingestion-jobs/job-1
         PUT /openai/ingestion/jobs/job-1",
    ),
    (
        "assistants/write",
        "POST /openai/assistants?api-version=2024-05-01-preview
         POST /openai/assistants/asst_1?api-version=2024-05-01-preview
         POST /openai/v1/assistants",
    ),
    (
        "assistants/read",
        "GET /openai/assistants?api-version=2024-05-01-preview
         GET /openai/assistants/asst_1?api-version=2024-05-01-preview",
    ),
    ("assistants/delete", "DELETE /openai/assistants/asst_1"),
    (
        "assistants/files/read",
        "GET /openai/assistants/asst_1/files
         GET /openai/assistants/asst_1/files/file-1",
    ),
    ("assistants/files/write", "POST /openai/assistants/asst_1/files"),
    ("assistants/files/delete", "DELETE /openai/assistants/asst_1/files/file-1"),
    (
        "assistants/threads/write",
        "POST /openai/threads?api-version=2024-05-01-preview
         POST /openai/threads/thread_1",
    ),
    ("assistants/threads/read", "GET /openai/threads/thread_1"),
    ("assistants/threads/delete", "DELETE /openai/threads/thread_1"),
    (
        "assistants/threads/messages/write",
        "POST /openai/threads/thread_1/messages
         POST /openai/threads/thread_1/messages/msg_1",
    ),
    (
        "assistants/threads/messages/read",
        "GET /openai/threads/thread_1/messages
         GET /openai/threads/thread_1/messages/msg_1",
    ),
    (
        "assistants/threads/messages/delete",
        "DELETE /openai/threads/thread_1/messages/msg_1",
    ),
    (
        "assistants/threads/messages/files/read",
        "GET /openai/threads/thread_1/messages/msg_1/files
         GET /openai/threads/thread_1/messages/msg_1/files/file-1",
    ),
    (
        "assistants/threads/runs/write",
        "POST /openai/threads/runs?api-version=2024-05-01-preview
         POST /openai/threads/thread_1/runs
         POST /openai/threads/thread_1/runs/run_1
         POST /openai/threads/thread_1/runs/run_1/cancel
         POST /openai/threads/thread_1/runs/run_1/submit_tool_outputs",
    ),
    (
        "assistants/threads/runs/read",
        "GET /openai/threads/thread_1/runs
         GET /openai/threads/thread_1/runs/run_1",
    ),
    (
        "assistants/threads/runs/steps/read",
        "GET /openai/threads/thread_1/runs/run_1/steps
         GET /openai/threads/thread_1/runs/run_1/steps/step_1",
    ),
    (
        "assistants/vector_stores/write",
        "POST /openai/vector_stores?api-version=2024-05-01-preview
         POST /openai/v1/vector_stores
         POST /openai/v1/vector_stores/vs_1
         POST /openai/v1/vector_stores/vs_1/search",
    ),
    (
        "assistants/vector_stores/read",
        "GET /openai/v1/vector_stores
         GET /openai/v1/vector_stores/vs_1",
    ),
    ("assistants/vector_stores/delete", "DELETE /openai/v1/vector_stores/vs_1"),
    (
        "assistants/vector_stores/files/write",
        "POST /openai/v1/vector_stores/vs_1/files
         POST /openai/v1/vector_stores/vs_1/files/file-1
         POST /openai/v1/vector_stores/vs_1/file_batches
         POST /openai/v1/vector_stores/vs_1/file_batches/vsfb_1/cancel",
    ),
    (
        "assistants/vector_stores/files/read",
        "GET /openai/v1/vector_stores/vs_1/files
         GET /openai/v1/vector_stores/vs_1/files/file-1
         GET /openai/v1/vector_stores/vs_1/files/file-1/content
         GET /openai/v1/vector_stores/vs_1/file_batches/vsfb_1
         GET /openai/v1/vector_stores/vs_1/file_batches/vsfb_1/files",
    ),
    (
        "assistants/vector_stores/files/delete",
        "DELETE /openai/v1/vector_stores/vs_1/files/file-1",
    ),
];

/// The operations, each with its action: method, path and full name.
fn operations() -> impl Iterator<Item = (String, &'static str, &'static str)> {
    OPERATIONS.iter().flat_map(|(action, requests)| {
        let words: Vec<_> = requests.split_whitespace().collect();
        let pairs: Vec<_> = words.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        pairs
            .into_iter()
            .map(move |(method, path)| (format!("{PREFIX}{action}"), method, path))
    })
}

/// A gateway for one application with these keys, and that application's token.
struct Caller {
    bench: Bench,
    authorization: String,
}

impl Caller {
    fn new(app: &Value, more: &Value) -> Self {
        let app = with(json!({ "app_id": APP }), app);
        let all = with(json!({ "apps": [app] }), more);
        Self {
            bench: Bench::new(&policy(&all)),
            authorization: format!("Bearer {}", SIGNER.token(&v1_claims())),
        }
    }

    /// With a role of these actions.
    fn with_role(granted: &[&str], withheld: &[&str]) -> Self {
        let role = json!({ "data_actions": granted, "not_data_actions": withheld });
        Self::new(
            &json!({ "roles": ["Own"] }),
            &json!({ "roles": { "Own": role } }),
        )
    }

    fn user() -> Self {
        Self::new(
            &json!({ "roles": ["Cognitive Services OpenAI User"] }),
            &json!({}),
        )
    }

    fn ask_bytes(&mut self, method: &[u8], path: &[u8]) -> Verdict {
        self.bench.decide_bytes(&[
            (b":method", method),
            (b":path", path),
            (b"authorization", self.authorization.clone().as_bytes()),
        ])
    }

    fn ask(&mut self, method: &str, path: &str) -> Verdict {
        self.ask_bytes(method.as_bytes(), path.as_bytes())
    }

    fn code(&mut self, method: &str, path: &str) -> Option<tollgate::refusal::Code> {
        code(&self.ask(method, path))
    }

    /// The message that a refused request is answered with.
    fn message(&mut self, method: &str, path: &str) -> String {
        let Verdict::Refuse(refuse) = self.ask(method, path) else {
            panic!("{method} {path} is not refused")
        };
        let responses = &self.bench.gateway.policy().responses;
        let answer = Answer::new(&refuse.refusal, responses, &ResponseContext::default());
        assert_eq!(answer.status, 403);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["error"]["code"], json!("PermissionDenied"));
        body["error"]["message"].as_str().unwrap().to_owned()
    }
}

/// What a verdict tells about the operation.
fn asked(verdict: &Verdict) -> (Option<Action>, Option<&str>) {
    let asked = match verdict {
        Verdict::Allow(allow) => &allow.asked,
        Verdict::Refuse(refuse) => &refuse.asked,
        Verdict::Wait { .. } | Verdict::Read(_) => panic!("not decided"),
    };
    (asked.action, asked.deployment.as_deref())
}

#[test]
fn every_operation_passes_under_its_role_and_not_under_another() {
    let mut by_action: BTreeMap<String, Vec<(&str, &str)>> = BTreeMap::new();
    for (action, method, path) in operations() {
        by_action.entry(action).or_default().push((method, path));
    }
    assert_eq!(by_action.len(), Action::ALL.len());
    for (action, requests) in by_action {
        let mut right = Caller::with_role(&[&action], &[]);
        let mut wrong = Caller::with_role(&["*"], &[&action]);
        for (method, path) in requests {
            let verdict = right.ask(method, path);
            assert_eq!(code(&verdict), None, "{method} {path}");
            assert_eq!(
                asked(&verdict).0.map(|action| action.to_string()),
                Some(action.clone())
            );
            assert_eq!(
                wrong.message(method, path),
                format!(
                    "The principal lacks the required data action `{action}` \
                     to perform this operation."
                ),
                "{method} {path}"
            );
        }
    }
}

#[test]
fn the_table_above_has_every_row_of_the_module() {
    let mut rows: Vec<_> = tollgate::operations::rows().collect();
    for (_, method, path) in operations() {
        let path = path.split('?').next().unwrap();
        let path = path.strip_prefix("/openai/").unwrap();
        let path = path.strip_prefix("v1/").unwrap_or(path);
        let segments: Vec<_> = path.split('/').collect();
        let fits = |template: &str| {
            let wanted: Vec<_> = template.split('/').collect();
            let same = |(wanted, found): (&&str, &&str)| wanted.starts_with('{') || wanted == found;
            wanted.len() == segments.len() && wanted.iter().zip(&segments).all(same)
        };
        let is = |row: &Row| format!("{:?}", row.method).to_uppercase() == method;
        rows.retain(|row| !is(row) || !fits(row.path));
    }
    // A template may also fit what a fixed one stands for, which then is found first.
    assert!(rows.is_empty(), "{rows:?}");
}

#[test]
fn the_built_in_roles_divide_the_operations_as_azure_does() {
    let denied_to_user: HashSet<String> = [
        "deployments/write",
        "deployments/delete",
        "conversations/write",
        "conversations/delete",
        "containers/write",
        "containers/delete",
        "stored-completions/read",
        "stored-completions/action",
        "models/delete",
        "files/write",
        "files/delete",
        "uploads/write",
        "fine-tunes/write",
        "fine-tunes/delete",
        "batch-jobs/write",
        "batches/cancel/action",
        "batches/delete",
        "evals/write",
        "evals/delete",
        "extensions/on-your-data/ingestion/write",
    ]
    .map(|action| format!("{PREFIX}{action}"))
    .into();
    let mut user = Caller::user();
    let mut others = [
        "Cognitive Services OpenAI Contributor",
        "Cognitive Services User",
    ]
    .map(|role| Caller::new(&json!({ "roles": [role] }), &json!({})));
    for (action, method, path) in operations() {
        let expected = denied_to_user.contains(&action).then_some(PermissionDenied);
        assert_eq!(user.code(method, path), expected, "{method} {path}");
        for other in &mut others {
            assert_eq!(other.code(method, path), None, "{method} {path}");
        }
    }
}

/// Ways to write a path that a server behind may read as `path`. `{}` is the path's last segment.
fn disguises(path: &str) -> Vec<String> {
    let (head, last) = path.rsplit_once('/').unwrap();
    let rest = path.strip_prefix("/openai/").unwrap();
    let first = char::from(last.as_bytes()[0]);
    let encoded = format!("%{:02x}{}", u32::from(first), &last[1..]);
    let twice = format!("%25{:02x}{}", u32::from(first), &last[1..]);
    vec![
        format!("/{path}"),
        format!("/openai//{rest}"),
        format!("{head}//{last}"),
        format!("/./openai/{rest}"),
        format!("/openai/./{rest}"),
        format!("{head}/./{last}"),
        format!("/openai/models/../{rest}"),
        format!("/openai/models/x/../../{rest}"),
        format!("/openai/v1/models/../../{rest}"),
        format!("/openai/models/%2e%2e/{rest}"),
        format!("/openai/models/.%2e/{rest}"),
        format!("/openai/models/%2E./{rest}"),
        format!("/openai/models/%252e%252e/{rest}"),
        format!("/openai/models/..;/{rest}"),
        format!("/openai/models/..%2f{rest}"),
        format!("/openai/models/..%5c{rest}"),
        format!("/openai/models/..\\{rest}"),
        format!("/openai\\{rest}"),
        format!("{head}\\{last}"),
        format!("{head}%5c{last}"),
        format!("{head}%2f{last}"),
        format!("{head}%2F{last}"),
        format!("{head}%252f{last}"),
        format!("{head}/{encoded}"),
        format!("{head}/{twice}"),
        format!("{path}/"),
        format!("{path}//"),
        format!("{path}/."),
        format!("{path}/x/.."),
        format!("{path}/%2e"),
        format!("{path}."),
        format!("{path}%20"),
        format!("{path}%00"),
        format!("{path}%00/models"),
        format!("{path}\0"),
        format!("{path}\t"),
        format!("{path} "),
        format!("{path};"),
        format!("{path};x=1"),
        format!("{path};/../models"),
        format!("/openai;x=1/{rest}"),
        format!("{path}#"),
        format!("{path}#/openai/models"),
        format!("/openai/models#/../{rest}"),
        format!("{path}%3fx"),
        format!("{path}%23"),
        format!("{head}/\u{200b}{last}"),
        format!("{head}/{last}\u{ad}"),
        format!("{head}\u{2215}{last}"),
        format!("{head}\u{ff0f}{last}"),
        format!("/open\u{430}i/{rest}"),
        format!("http://localhost{path}"),
        format!("localhost{path}"),
        path[1..].to_owned(),
        path.to_uppercase(),
        format!("/OpenAI/{rest}"),
        format!("/openai/v2/{rest}"),
        format!("/openai/v1/v1/{rest}"),
        format!("/openai/v1./{rest}"),
        format!("/openai/openai/{rest}"),
        format!("/v1/{rest}"),
        format!("/{rest}"),
        format!("/api{path}"),
        format!("{path}?"),
        format!("{path}?/openai/models"),
        format!("{path}?x=/../../models"),
        format!("{path}/openai/models"),
        format!("/openai/deployments/gpt-4o/chat/completions/../../../../{rest}"),
        format!("/openai/deployments/..%2f..%2fopenai%2f{rest}/chat/completions"),
        format!("/openai/deployments/gpt-4o/chat/completions%2f..%2f..%2f..%2f..%2f{rest}"),
        format!("/openai/models/{rest}"),
        format!("/openai/assistants/..;/{rest}"),
    ]
}

/// Methods that a server behind may take for another.
fn disguised_methods(method: &str) -> Vec<String> {
    vec![
        method.to_lowercase(),
        format!("{}{}", &method[..1], method[1..].to_lowercase()),
        format!("{method} "),
        format!(" {method}"),
        format!("{method}\0"),
        format!("X-{method}"),
        String::new(),
        "*".to_owned(),
        "PROPFIND".to_owned(),
        "TRACE".to_owned(),
        "CONNECT".to_owned(),
        "OPTIONS".to_owned(),
        "QUERY".to_owned(),
    ]
}

/// Operations that the OpenAI User lacks.
const FORBIDDEN: &[(&str, &str)] = &[
    ("POST", "/openai/files"),
    ("POST", "/openai/v1/files"),
    ("DELETE", "/openai/v1/files/file-1"),
    ("POST", "/openai/v1/uploads"),
    ("POST", "/openai/fine_tuning/jobs"),
    ("POST", "/openai/v1/fine_tuning/jobs/ftjob-1/cancel"),
    ("POST", "/openai/v1/batches"),
    ("POST", "/openai/v1/evals"),
    ("GET", "/openai/v1/chat/completions"),
    ("DELETE", "/openai/v1/chat/completions/chatcmpl-1"),
    ("DELETE", "/openai/v1/models/gpt-4o"),
    ("PUT", "/openai/deployments/gpt-4o"),
    ("PUT", "/openai/ingestion/jobs/job-1"),
];

#[test]
fn nothing_slips_past_a_role() {
    let mut user = Caller::user();
    let mut tried = HashSet::new();
    for (method, path) in FORBIDDEN {
        let paths = disguises(path)
            .into_iter()
            .map(|path| ((*method).to_owned(), path));
        let methods = disguised_methods(method).into_iter();
        let methods = methods.map(|method| (method, (*path).to_owned()));
        for (method, path) in paths.chain(methods) {
            // Without a method or a path the host has handed over no request.
            let is_request = !method.is_empty() && !path.is_empty() && !path.starts_with('?');
            let expected = if is_request {
                PermissionDenied
            } else {
                InternalError
            };
            assert_eq!(
                user.code(&method, &path),
                Some(expected),
                "{method:?} {path:?}"
            );
            tried.insert((method, path));
        }
        // Bytes that are no text.
        for tail in [&b"\xff"[..], b"/\x80", b"\xc0\xae\xc0\xae/models"] {
            let path = [path.as_bytes(), tail].concat();
            let verdict = user.ask_bytes(method.as_bytes(), &path);
            assert_eq!(code(&verdict), Some(PermissionDenied), "{path:?}");
        }
    }
    assert!(tried.len() > 900, "{}", tried.len());
    // The same caller may still do what it may.
    assert_eq!(user.code("GET", "/openai/v1/files"), None);
}

#[test]
fn what_is_no_operation_is_refused_without_naming_an_action() {
    let mut everything = Caller::with_role(&["*"], &[]);
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/status"),
        ("GET", "/openai/anything"),
        ("HEAD", "/openai/models"),
        ("POST", "/openai/v1/moderations"),
        ("POST", "/models/chat/completions"),
        ("POST", "/anthropic/v1/messages"),
        ("GET", "/openai/models//"),
        ("GET", "/openai/%6dodels"),
        ("POST", "/openai/deployments/a%62c/chat/completions"),
        ("POST", "/openai/deployments/a:b/chat/completions"),
        ("GET", "/openai/realtime?deployment=a&deployment=b"),
    ] {
        assert_eq!(
            everything.message(method, path),
            "The operation is not permitted: no known operation has this method and path. Paths begin with \
             /openai/v1/ or /openai/.",
            "{method} {path}"
        );
        assert_eq!(asked(&everything.ask(method, path)), (None, None));
    }
}

#[test]
fn without_roles_everything_passes_and_is_told_as_far_as_it_is_known() {
    let mut caller = Caller::new(&json!({}), &json!({}));
    for (_, method, path) in operations() {
        assert_eq!(caller.code(method, path), None, "{method} {path}");
    }
    for path in [
        "/openai/anything",
        "/openai/models//",
        "/openai/%6dodels",
        "/",
    ] {
        let verdict = caller.ask("GET", path);
        assert_eq!(code(&verdict), None, "{path}");
        assert_eq!(asked(&verdict), (None, None));
    }
    let verdict = caller.ask("POST", "/openai/deployments/GPT-4o/chat/completions");
    assert_eq!(
        asked(&verdict),
        (Some(Action::ChatCompletions), Some("GPT-4o"))
    );
    let verdict = caller.ask("GET", "/openai/v1/realtime?model=rt");
    assert_eq!(asked(&verdict), (Some(Action::Realtime), Some("rt")));
    let verdict = caller.ask("POST", "/openai/v1/responses");
    assert_eq!(asked(&verdict), (Some(Action::ResponsesWrite), None));
}

#[test]
fn only_listed_deployments_pass() {
    let mut caller = Caller::new(&json!({ "deployments": ["gpt-4o", "text-*"] }), &json!({}));
    for (method, path) in [
        ("POST", "/openai/deployments/gpt-4o/chat/completions"),
        ("POST", "/openai/deployments/GPT-4O/chat/completions"),
        (
            "POST",
            "/openai/deployments/text-embedding-3-large/embeddings",
        ),
        ("GET", "/openai/deployments/gpt-4o"),
        ("GET", "/openai/realtime?deployment=gpt-4o"),
        ("GET", "/openai/v1/realtime?model=gpt-4o"),
        // These run no model.
        ("GET", "/openai/models"),
        ("GET", "/openai/v1/models/o1"),
        ("POST", "/openai/v1/files"),
        ("GET", "/openai/v1/responses/resp_1"),
        ("POST", "/openai/v1/responses/resp_1/cancel"),
    ] {
        assert_eq!(caller.code(method, path), None, "{method} {path}");
    }
    for (method, path) in [
        ("POST", "/openai/deployments/o1/chat/completions"),
        ("POST", "/openai/deployments/gpt-4/chat/completions"),
        ("POST", "/openai/deployments/gpt-4o-mini/chat/completions"),
        ("POST", "/openai/deployments/text/embeddings"),
        ("GET", "/openai/deployments/o1"),
        ("POST", "/openai/engines/o1/completions"),
        ("GET", "/openai/realtime?deployment=o1"),
        ("GET", "/openai/v1/realtime?model=gpt-4"),
        ("GET", "/openai/v1/realtime"),
        ("GET", "/openai/v1/realtime?intent=transcription"),
        // The body is not read.
        ("POST", "/openai/v1/chat/completions"),
        ("POST", "/openai/v1/responses"),
        // The model stands where no gateway sees it.
        ("POST", "/openai/v1/batches"),
        ("POST", "/openai/v1/evals"),
        ("POST", "/openai/v1/videos/video_1/remix"),
        ("POST", "/openai/images/generations:submit"),
    ] {
        assert_eq!(
            caller.code(method, path),
            Some(DeploymentNotAllowed),
            "{method} {path}"
        );
    }
    for path in [
        "/openai/deployments/gpt-4o/../o1/chat/completions",
        "/openai/deployments/o1/chat/completions/../../../gpt-4o/chat/completions",
        "/openai/deployments/%6f1/chat/completions",
        "/openai/deployments/gpt-4o%2f..%2fo1/chat/completions",
        "/openai/deployments/gpt-4o;/chat/completions",
        "/openai/deployments//chat/completions",
        "/openai/deployments/gpt-4o%00/chat/completions",
        "/openai/deployments/gpt-4o./chat/completions",
        "/openai/deployments/text-\u{e9}/embeddings",
        "/openai/deployments/text-:/embeddings",
        "//openai/deployments/o1/chat/completions",
        "/openai/v2/chat/completions",
        "/models/chat/completions",
    ] {
        assert_eq!(caller.code("POST", path), Some(PermissionDenied), "{path}");
    }
    for query in [
        "deployment=o1&deployment=gpt-4o",
        "deployment=gpt-4o&model=o1",
        "x;deployment=o1",
    ] {
        let path = format!("/openai/realtime?{query}");
        assert_eq!(caller.code("GET", &path), Some(PermissionDenied), "{query}");
    }
}

#[test]
fn roles_and_deployments_both_count() {
    let app = json!({ "roles": ["Cognitive Services OpenAI User"], "deployments": ["gpt-4o"] });
    let mut caller = Caller::new(&app, &json!({}));
    let path = |name: &str| format!("/openai/deployments/{name}/chat/completions");
    assert_eq!(caller.code("POST", &path("gpt-4o")), None);
    assert_eq!(caller.code("POST", &path("o1")), Some(DeploymentNotAllowed));
    assert_eq!(
        caller.code("DELETE", "/openai/deployments/gpt-4o"),
        Some(PermissionDenied)
    );
    assert_eq!(
        caller.code("DELETE", "/openai/deployments/o1"),
        Some(PermissionDenied)
    );
    assert_eq!(
        caller.code("POST", "/openai/v1/files"),
        Some(PermissionDenied)
    );
}

#[test]
fn unlisted_applications_have_the_roles_of_the_default_one() {
    let more = json!({ "default_app": { "roles": ["Cognitive Services OpenAI User"] } });
    let mut caller = Caller::new(&json!({}), &more);
    assert_eq!(caller.code("POST", "/openai/v1/files"), None);
    let token = SIGNER.token(&with(v1_claims(), &json!({ "appid": OTHER_APP })));
    caller.authorization = format!("Bearer {token}");
    assert_eq!(
        caller.code("POST", "/openai/v1/files"),
        Some(PermissionDenied)
    );
    assert_eq!(caller.code("POST", "/openai/v1/responses"), None);
}

#[test]
fn a_refused_operation_takes_no_place_in_a_limit() {
    let app = json!({
        "roles": ["Cognitive Services OpenAI User"],
        "limits": [{ "calls": 1, "per": "60s" }],
    });
    let mut caller = Caller::new(&app, &json!({}));
    for _ in 0..3 {
        assert_eq!(
            caller.code("POST", "/openai/v1/files"),
            Some(PermissionDenied)
        );
    }
    assert_eq!(caller.code("GET", "/openai/v1/files"), None);
    assert_eq!(
        caller.code("GET", "/openai/v1/files"),
        Some(RateLimitExceeded)
    );
    // Permission is asked first.
    assert_eq!(
        caller.code("POST", "/openai/v1/files"),
        Some(PermissionDenied)
    );
}

#[test]
fn in_report_mode_a_missing_permission_is_only_told() {
    let app = json!({ "roles": ["Cognitive Services OpenAI User"] });
    let mut caller = Caller::new(&app, &json!({ "mode": "report" }));
    let Verdict::Allow(allow) = caller.ask("POST", "/openai/v1/files") else {
        panic!("refused")
    };
    assert_eq!(
        allow.would_refuse.map(|refusal| refusal.code()),
        Some(PermissionDenied)
    );
    assert_eq!(allow.asked.action, Some(Action::FilesWrite));
}

#[test]
fn no_path_stops_the_reader() {
    let alphabet = b"/\\.%;?#:ao1 \0\xff-_{}";
    // A small generator with a fixed seed: every run tries the same.
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    let mut read = 0;
    for _ in 0..20_000 {
        let mut path = b"/openai/".to_vec();
        let length = next() % 24;
        path.extend((0..length).map(|_| alphabet[next() % alphabet.len()]));
        if let Ok(operation) = Operation::read(b"GET", &path, Some(&path)) {
            panic!("{operation:?} {path:?}");
        }
        read += 1;
    }
    assert_eq!(read, 20_000);
}
