//! The operations of Azure OpenAI's data plane, as data.
//!
//! Paths begin after `/openai/` or `/openai/v1/`. `{id}` is any one segment, `{deployment}` one
//! that is a deployment's name. In a group the first row that fits counts, so a fixed segment
//! stands before an `{id}` in its place.

use super::Action::{
    AssistantFilesDelete, AssistantFilesRead, AssistantFilesWrite, AssistantsDelete,
    AssistantsRead, AssistantsWrite, Audio, BatchJobsWrite, BatchesCancel, BatchesDelete,
    BatchesRead, ChatCompletions, Completions, ContainersDelete, ContainersRead, ContainersWrite,
    ConversationsDelete, ConversationsRead, ConversationsWrite, DeploymentsDelete, DeploymentsRead,
    DeploymentsWrite, Embeddings, EnginesCompletions, EnginesGenerate, EnginesRead, EnginesSearch,
    EvalsDelete, EvalsRead, EvalsWrite, ExtensionsChatCompletions, FilesDelete, FilesRead,
    FilesWrite, FineTunesDelete, FineTunesRead, FineTunesWrite, Images, IngestionRead,
    IngestionWrite, MessageFilesRead, MessagesDelete, MessagesRead, MessagesWrite, ModelsDelete,
    ModelsRead, Realtime, ResponsesDelete, ResponsesRead, ResponsesWrite, RunsRead, RunsWrite,
    Search, StepsRead, StoredCompletionsAction, StoredCompletionsRead, ThreadsDelete, ThreadsRead,
    ThreadsWrite, UploadsWrite, VectorStoreFilesDelete, VectorStoreFilesRead,
    VectorStoreFilesWrite, VectorStoresDelete, VectorStoresRead, VectorStoresWrite, VideoDelete,
    VideoGenerate, VideoRead,
};
use super::Method::{Delete, Get, Head, Patch, Post, Put};
use super::ModelPlace::{Body, Earlier, Elsewhere, Nowhere, Path, Query};
use super::{Action, Method, ModelPlace, Surfaces};

/// One operation.
#[derive(Debug)]
pub struct Row {
    /// Where it exists.
    pub surfaces: Surfaces,
    /// HTTP method.
    pub method: Method,
    /// Path after `/openai/` or `/openai/v1/`.
    pub path: &'static str,
    /// What a role must grant.
    pub action: Action,
    /// Where the request names the model that it runs.
    pub model: ModelPlace,
}

/// The operations whose paths begin with the same segment.
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) rows: &'static [Row],
}

const fn row(
    surfaces: Surfaces,
    method: Method,
    path: &'static str,
    action: Action,
    model: ModelPlace,
) -> Row {
    Row {
        surfaces,
        method,
        path,
        action,
        model,
    }
}

/// On both surfaces.
const fn both(method: Method, path: &'static str, action: Action, model: ModelPlace) -> Row {
    row(Surfaces::Both, method, path, action, model)
}

/// Under `/openai/` with a dated API version only.
const fn dated(method: Method, path: &'static str, action: Action, model: ModelPlace) -> Row {
    row(Surfaces::Dated, method, path, action, model)
}

/// Under `/openai/v1/` only.
const fn v1(method: Method, path: &'static str, action: Action, model: ModelPlace) -> Row {
    row(Surfaces::V1, method, path, action, model)
}

/// The busiest groups first.
#[rustfmt::skip]
pub(super) static GROUPS: &[Group] = &[
    Group { name: "deployments", rows: &[
        dated(Post, "deployments/{deployment}/chat/completions", ChatCompletions, Path),
        dated(Post, "deployments/{deployment}/embeddings", Embeddings, Path),
        dated(Post, "deployments/{deployment}/completions", Completions, Path),
        dated(Post, "deployments/{deployment}/images/generations", Images, Path),
        dated(Post, "deployments/{deployment}/images/edits", Images, Path),
        dated(Post, "deployments/{deployment}/images/variations", Images, Path),
        dated(Post, "deployments/{deployment}/audio/transcriptions", Audio, Path),
        dated(Post, "deployments/{deployment}/audio/translations", Audio, Path),
        dated(Post, "deployments/{deployment}/audio/speech", Audio, Path),
        dated(Post, "deployments/{deployment}/extensions/chat/completions", ExtensionsChatCompletions, Path),
        dated(Post, "deployments/{deployment}/search", Search, Path),
        dated(Get, "deployments", DeploymentsRead, Nowhere),
        dated(Post, "deployments", DeploymentsWrite, Elsewhere),
        dated(Get, "deployments/{deployment}", DeploymentsRead, Path),
        dated(Put, "deployments/{deployment}", DeploymentsWrite, Path),
        dated(Patch, "deployments/{deployment}", DeploymentsWrite, Path),
        dated(Delete, "deployments/{deployment}", DeploymentsDelete, Path),
    ] },
    Group { name: "chat", rows: &[
        v1(Post, "chat/completions", ChatCompletions, Body),
        both(Get, "chat/completions", StoredCompletionsRead, Nowhere),
        both(Get, "chat/completions/{id}", StoredCompletionsRead, Nowhere),
        both(Get, "chat/completions/{id}/messages", StoredCompletionsRead, Nowhere),
        both(Post, "chat/completions/{id}", StoredCompletionsAction, Nowhere),
        both(Delete, "chat/completions/{id}", StoredCompletionsAction, Nowhere),
    ] },
    Group { name: "responses", rows: &[
        both(Post, "responses", ResponsesWrite, Body),
        both(Post, "responses/compact", ResponsesWrite, Body),
        both(Post, "responses/input_tokens", ResponsesWrite, Body),
        both(Get, "responses", ResponsesRead, Nowhere),
        both(Get, "responses/{id}", ResponsesRead, Nowhere),
        both(Get, "responses/{id}/input_items", ResponsesRead, Nowhere),
        both(Post, "responses/{id}/cancel", ResponsesWrite, Nowhere),
        both(Delete, "responses/{id}", ResponsesDelete, Nowhere),
    ] },
    Group { name: "embeddings", rows: &[
        v1(Post, "embeddings", Embeddings, Body),
    ] },
    Group { name: "completions", rows: &[
        v1(Post, "completions", Completions, Body),
    ] },
    Group { name: "images", rows: &[
        v1(Post, "images/generations", Images, Body),
        v1(Post, "images/edits", Images, Body),
        v1(Post, "images/variations", Images, Body),
        dated(Post, "images/generations:submit", Images, Elsewhere),
    ] },
    Group { name: "operations", rows: &[
        dated(Get, "operations/images/{id}", Images, Nowhere),
        dated(Delete, "operations/images/{id}", Images, Nowhere),
    ] },
    Group { name: "audio", rows: &[
        v1(Post, "audio/transcriptions", Audio, Body),
        v1(Post, "audio/translations", Audio, Body),
        v1(Post, "audio/speech", Audio, Body),
    ] },
    Group { name: "realtime", rows: &[
        both(Get, "realtime", Realtime, Query),
        both(Post, "realtime/sessions", Realtime, Body),
        both(Post, "realtime/transcription_sessions", Realtime, Elsewhere),
        both(Post, "realtime/client_secrets", Realtime, Elsewhere),
        both(Post, "realtime/calls", Realtime, Elsewhere),
        both(Post, "realtime/calls/{id}/accept", Realtime, Body),
        both(Post, "realtime/calls/{id}/hangup", Realtime, Nowhere),
        both(Post, "realtime/calls/{id}/refer", Realtime, Nowhere),
        both(Post, "realtime/calls/{id}/reject", Realtime, Nowhere),
    ] },
    Group { name: "realtimeapi", rows: &[
        dated(Post, "realtimeapi/sessions", Realtime, Body),
    ] },
    Group { name: "models", rows: &[
        both(Get, "models", ModelsRead, Nowhere),
        both(Get, "models/{id}", ModelsRead, Nowhere),
        both(Delete, "models/{id}", ModelsDelete, Nowhere),
    ] },
    Group { name: "files", rows: &[
        both(Get, "files", FilesRead, Nowhere),
        both(Post, "files", FilesWrite, Nowhere),
        dated(Post, "files/import", FilesWrite, Nowhere),
        both(Get, "files/{id}", FilesRead, Nowhere),
        both(Get, "files/{id}/content", FilesRead, Nowhere),
        both(Delete, "files/{id}", FilesDelete, Nowhere),
    ] },
    Group { name: "uploads", rows: &[
        both(Post, "uploads", UploadsWrite, Nowhere),
        both(Post, "uploads/{id}/parts", UploadsWrite, Nowhere),
        both(Post, "uploads/{id}/complete", UploadsWrite, Nowhere),
        both(Post, "uploads/{id}/cancel", UploadsWrite, Nowhere),
    ] },
    // A batch names its models in the lines of its file, an evaluation inside its graders.
    Group { name: "batches", rows: &[
        both(Post, "batches", BatchJobsWrite, Elsewhere),
        both(Get, "batches", BatchesRead, Nowhere),
        both(Get, "batches/{id}", BatchesRead, Nowhere),
        both(Post, "batches/{id}/cancel", BatchesCancel, Nowhere),
        both(Delete, "batches/{id}", BatchesDelete, Nowhere),
    ] },
    Group { name: "evals", rows: &[
        both(Get, "evals", EvalsRead, Nowhere),
        both(Post, "evals", EvalsWrite, Elsewhere),
        both(Get, "evals/{id}", EvalsRead, Nowhere),
        both(Post, "evals/{id}", EvalsWrite, Nowhere),
        both(Delete, "evals/{id}", EvalsDelete, Nowhere),
        both(Get, "evals/{id}/runs", EvalsRead, Nowhere),
        both(Post, "evals/{id}/runs", EvalsWrite, Elsewhere),
        both(Get, "evals/{id}/runs/{id}", EvalsRead, Nowhere),
        both(Post, "evals/{id}/runs/{id}", EvalsWrite, Nowhere),
        both(Post, "evals/{id}/runs/{id}/cancel", EvalsWrite, Nowhere),
        both(Delete, "evals/{id}/runs/{id}", EvalsDelete, Nowhere),
        both(Get, "evals/{id}/runs/{id}/output_items", EvalsRead, Nowhere),
        both(Get, "evals/{id}/runs/{id}/output_items/{id}", EvalsRead, Nowhere),
    ] },
    // The model of a fine-tuning job is a base model, not a deployment.
    Group { name: "fine_tuning", rows: &[
        both(Get, "fine_tuning/jobs", FineTunesRead, Nowhere),
        both(Post, "fine_tuning/jobs", FineTunesWrite, Nowhere),
        both(Get, "fine_tuning/jobs/{id}", FineTunesRead, Nowhere),
        both(Delete, "fine_tuning/jobs/{id}", FineTunesDelete, Nowhere),
        both(Post, "fine_tuning/jobs/{id}/cancel", FineTunesWrite, Nowhere),
        both(Post, "fine_tuning/jobs/{id}/pause", FineTunesWrite, Nowhere),
        both(Post, "fine_tuning/jobs/{id}/resume", FineTunesWrite, Nowhere),
        both(Get, "fine_tuning/jobs/{id}/events", FineTunesRead, Nowhere),
        both(Get, "fine_tuning/jobs/{id}/checkpoints", FineTunesRead, Nowhere),
        both(Get, "fine_tuning/jobs/{id}/checkpoints/{id}/copy", FineTunesRead, Nowhere),
        both(Post, "fine_tuning/jobs/{id}/checkpoints/{id}/copy", FineTunesWrite, Nowhere),
        both(Get, "fine_tuning/checkpoints/{id}/permissions", FineTunesRead, Nowhere),
        both(Post, "fine_tuning/checkpoints/{id}/permissions", FineTunesWrite, Nowhere),
        both(Delete, "fine_tuning/checkpoints/{id}/permissions/{id}", FineTunesDelete, Nowhere),
        both(Post, "fine_tuning/alpha/graders/run", FineTunesWrite, Elsewhere),
        both(Post, "fine_tuning/alpha/graders/validate", FineTunesWrite, Nowhere),
    ] },
    Group { name: "fine-tunes", rows: &[
        dated(Get, "fine-tunes", FineTunesRead, Nowhere),
        dated(Post, "fine-tunes", FineTunesWrite, Nowhere),
        dated(Get, "fine-tunes/{id}", FineTunesRead, Nowhere),
        dated(Delete, "fine-tunes/{id}", FineTunesDelete, Nowhere),
        dated(Get, "fine-tunes/{id}/events", FineTunesRead, Nowhere),
        dated(Post, "fine-tunes/{id}/cancel", FineTunesWrite, Nowhere),
    ] },
    Group { name: "assistants", rows: &[
        both(Get, "assistants", AssistantsRead, Nowhere),
        both(Post, "assistants", AssistantsWrite, Body),
        both(Get, "assistants/{id}", AssistantsRead, Nowhere),
        both(Post, "assistants/{id}", AssistantsWrite, Body),
        both(Delete, "assistants/{id}", AssistantsDelete, Nowhere),
        dated(Get, "assistants/{id}/files", AssistantFilesRead, Nowhere),
        dated(Post, "assistants/{id}/files", AssistantFilesWrite, Nowhere),
        dated(Get, "assistants/{id}/files/{id}", AssistantFilesRead, Nowhere),
        dated(Delete, "assistants/{id}/files/{id}", AssistantFilesDelete, Nowhere),
    ] },
    Group { name: "threads", rows: &[
        both(Post, "threads", ThreadsWrite, Nowhere),
        both(Post, "threads/runs", RunsWrite, Body),
        both(Get, "threads/{id}", ThreadsRead, Nowhere),
        both(Post, "threads/{id}", ThreadsWrite, Nowhere),
        both(Delete, "threads/{id}", ThreadsDelete, Nowhere),
        both(Get, "threads/{id}/messages", MessagesRead, Nowhere),
        both(Post, "threads/{id}/messages", MessagesWrite, Nowhere),
        both(Get, "threads/{id}/messages/{id}", MessagesRead, Nowhere),
        both(Post, "threads/{id}/messages/{id}", MessagesWrite, Nowhere),
        both(Delete, "threads/{id}/messages/{id}", MessagesDelete, Nowhere),
        dated(Get, "threads/{id}/messages/{id}/files", MessageFilesRead, Nowhere),
        dated(Get, "threads/{id}/messages/{id}/files/{id}", MessageFilesRead, Nowhere),
        both(Get, "threads/{id}/runs", RunsRead, Nowhere),
        both(Post, "threads/{id}/runs", RunsWrite, Body),
        both(Get, "threads/{id}/runs/{id}", RunsRead, Nowhere),
        both(Post, "threads/{id}/runs/{id}", RunsWrite, Nowhere),
        both(Post, "threads/{id}/runs/{id}/cancel", RunsWrite, Nowhere),
        both(Post, "threads/{id}/runs/{id}/submit_tool_outputs", RunsWrite, Earlier),
        both(Get, "threads/{id}/runs/{id}/steps", StepsRead, Nowhere),
        both(Get, "threads/{id}/runs/{id}/steps/{id}", StepsRead, Nowhere),
    ] },
    Group { name: "vector_stores", rows: &[
        both(Get, "vector_stores", VectorStoresRead, Nowhere),
        both(Post, "vector_stores", VectorStoresWrite, Nowhere),
        both(Get, "vector_stores/{id}", VectorStoresRead, Nowhere),
        both(Post, "vector_stores/{id}", VectorStoresWrite, Nowhere),
        both(Delete, "vector_stores/{id}", VectorStoresDelete, Nowhere),
        both(Post, "vector_stores/{id}/search", VectorStoresWrite, Nowhere),
        both(Get, "vector_stores/{id}/files", VectorStoreFilesRead, Nowhere),
        both(Post, "vector_stores/{id}/files", VectorStoreFilesWrite, Nowhere),
        both(Get, "vector_stores/{id}/files/{id}", VectorStoreFilesRead, Nowhere),
        both(Post, "vector_stores/{id}/files/{id}", VectorStoreFilesWrite, Nowhere),
        both(Delete, "vector_stores/{id}/files/{id}", VectorStoreFilesDelete, Nowhere),
        both(Get, "vector_stores/{id}/files/{id}/content", VectorStoreFilesRead, Nowhere),
        both(Post, "vector_stores/{id}/file_batches", VectorStoreFilesWrite, Nowhere),
        both(Get, "vector_stores/{id}/file_batches/{id}", VectorStoreFilesRead, Nowhere),
        both(Get, "vector_stores/{id}/file_batches/{id}/files", VectorStoreFilesRead, Nowhere),
        both(Post, "vector_stores/{id}/file_batches/{id}/cancel", VectorStoreFilesWrite, Nowhere),
    ] },
    Group { name: "conversations", rows: &[
        v1(Post, "conversations", ConversationsWrite, Nowhere),
        v1(Get, "conversations/{id}", ConversationsRead, Nowhere),
        v1(Post, "conversations/{id}", ConversationsWrite, Nowhere),
        v1(Delete, "conversations/{id}", ConversationsDelete, Nowhere),
        v1(Get, "conversations/{id}/items", ConversationsRead, Nowhere),
        v1(Post, "conversations/{id}/items", ConversationsWrite, Nowhere),
        v1(Get, "conversations/{id}/items/{id}", ConversationsRead, Nowhere),
        v1(Delete, "conversations/{id}/items/{id}", ConversationsDelete, Nowhere),
    ] },
    Group { name: "containers", rows: &[
        v1(Get, "containers", ContainersRead, Nowhere),
        v1(Post, "containers", ContainersWrite, Nowhere),
        v1(Get, "containers/{id}", ContainersRead, Nowhere),
        v1(Delete, "containers/{id}", ContainersDelete, Nowhere),
        v1(Get, "containers/{id}/files", ContainersRead, Nowhere),
        v1(Post, "containers/{id}/files", ContainersWrite, Nowhere),
        v1(Get, "containers/{id}/files/{id}", ContainersRead, Nowhere),
        v1(Get, "containers/{id}/files/{id}/content", ContainersRead, Nowhere),
        v1(Delete, "containers/{id}/files/{id}", ContainersDelete, Nowhere),
    ] },
    Group { name: "video", rows: &[
        both(Post, "video/generations/jobs", VideoGenerate, Body),
        both(Get, "video/generations/jobs", VideoRead, Nowhere),
        both(Get, "video/generations/jobs/{id}", VideoRead, Nowhere),
        both(Delete, "video/generations/jobs/{id}", VideoDelete, Nowhere),
        both(Get, "video/generations/{id}", VideoRead, Nowhere),
        both(Get, "video/generations/{id}/content", VideoRead, Nowhere),
        both(Get, "video/generations/{id}/content/video", VideoRead, Nowhere),
        both(Head, "video/generations/{id}/content/video", VideoRead, Nowhere),
        both(Get, "video/generations/{id}/content/thumbnail", VideoRead, Nowhere),
        both(Get, "video/generations/{id}/content/gif", VideoRead, Nowhere),
    ] },
    Group { name: "videos", rows: &[
        v1(Get, "videos", VideoRead, Nowhere),
        v1(Post, "videos", VideoGenerate, Body),
        v1(Post, "videos/edits", VideoGenerate, Elsewhere),
        v1(Post, "videos/extensions", VideoGenerate, Elsewhere),
        v1(Get, "videos/{id}", VideoRead, Nowhere),
        v1(Delete, "videos/{id}", VideoDelete, Nowhere),
        v1(Get, "videos/{id}/content", VideoRead, Nowhere),
        v1(Post, "videos/{id}/remix", VideoGenerate, Elsewhere),
    ] },
    Group { name: "extensions", rows: &[
        dated(Get, "extensions/on-your-data/ingestion/jobs", IngestionRead, Nowhere),
        dated(Get, "extensions/on-your-data/ingestion/jobs/{id}", IngestionRead, Nowhere),
        dated(Put, "extensions/on-your-data/ingestion/jobs/{id}", IngestionWrite, Elsewhere),
        dated(Get, "extensions/on-your-data/ingestion-jobs", IngestionRead, Nowhere),
        dated(Get, "extensions/on-your-data/ingestion-jobs/{id}", IngestionRead, Nowhere),
        dated(Put, "extensions/on-your-data/ingestion-jobs/{id}", IngestionWrite, Elsewhere),
    ] },
    Group { name: "ingestion", rows: &[
        dated(Get, "ingestion/jobs", IngestionRead, Nowhere),
        dated(Get, "ingestion/jobs/{id}", IngestionRead, Nowhere),
        dated(Put, "ingestion/jobs/{id}", IngestionWrite, Elsewhere),
        dated(Get, "ingestion/jobs/{id}/runs", IngestionRead, Nowhere),
        dated(Get, "ingestion/jobs/{id}/runs/{id}", IngestionRead, Nowhere),
    ] },
    Group { name: "engines", rows: &[
        dated(Get, "engines", EnginesRead, Nowhere),
        dated(Get, "engines/{deployment}", EnginesRead, Path),
        dated(Post, "engines/{deployment}/completions", EnginesCompletions, Path),
        dated(Post, "engines/{deployment}/generate", EnginesGenerate, Path),
        dated(Post, "engines/{deployment}/search", EnginesSearch, Path),
    ] },
];
