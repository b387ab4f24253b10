//! Azure's data actions for Azure OpenAI.

use std::fmt;

/// Declares the actions with their names after [`PREFIX`].
macro_rules! actions {
    ($($variant:ident: $name:literal,)*) => {
        /// A data action of Azure OpenAI: what a role grants. Shown as Azure writes it,
        /// `Microsoft.CognitiveServices/accounts/OpenAI/...`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each is its name")]
        pub enum Action {
            $($variant,)*
        }

        impl Action {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name after [`PREFIX`].
            #[must_use]
            pub fn short_name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

// Names are from Azure's list of resource provider operations and its built-in roles. Where Azure
// names no action for an operation, its collection does: then `OpenAI/*` grants it, and
// `OpenAI/*/read` what reads, as they would if Azure named it.
actions! {
    Audio: "deployments/audio/action",
    ChatCompletions: "deployments/chat/completions/action",
    Completions: "deployments/completions/action",
    Embeddings: "deployments/embeddings/action",
    ExtensionsChatCompletions: "deployments/extensions/chat/completions/action",
    Realtime: "deployments/realtime/action",
    Search: "deployments/search/action",
    DeploymentsRead: "deployments/read",
    DeploymentsWrite: "deployments/write",
    DeploymentsDelete: "deployments/delete",
    EnginesRead: "engines/read",
    EnginesCompletions: "engines/completions/action",
    EnginesGenerate: "engines/generate/action",
    EnginesSearch: "engines/search/action",
    Images: "images/generations/action",
    VideoGenerate: "video/generations/jobs/action",
    VideoRead: "video/generations/jobs/read",
    VideoDelete: "video/generations/jobs/delete",
    ResponsesRead: "responses/read",
    ResponsesWrite: "responses/write",
    ResponsesDelete: "responses/delete",
    ConversationsRead: "conversations/read",
    ConversationsWrite: "conversations/write",
    ConversationsDelete: "conversations/delete",
    ContainersRead: "containers/read",
    ContainersWrite: "containers/write",
    ContainersDelete: "containers/delete",
    StoredCompletionsRead: "stored-completions/read",
    StoredCompletionsAction: "stored-completions/action",
    ModelsRead: "models/read",
    ModelsDelete: "models/delete",
    FilesRead: "files/read",
    FilesWrite: "files/write",
    FilesDelete: "files/delete",
    UploadsWrite: "uploads/write",
    FineTunesRead: "fine-tunes/read",
    FineTunesWrite: "fine-tunes/write",
    FineTunesDelete: "fine-tunes/delete",
    BatchJobsWrite: "batch-jobs/write",
    BatchesRead: "batches/read",
    BatchesDelete: "batches/delete",
    BatchesCancel: "batches/cancel/action",
    EvalsRead: "evals/read",
    EvalsWrite: "evals/write",
    EvalsDelete: "evals/delete",
    IngestionRead: "extensions/on-your-data/ingestion/read",
    IngestionWrite: "extensions/on-your-data/ingestion/write",
    AssistantsRead: "assistants/read",
    AssistantsWrite: "assistants/write",
    AssistantsDelete: "assistants/delete",
    AssistantFilesRead: "assistants/files/read",
    AssistantFilesWrite: "assistants/files/write",
    AssistantFilesDelete: "assistants/files/delete",
    ThreadsRead: "assistants/threads/read",
    ThreadsWrite: "assistants/threads/write",
    ThreadsDelete: "assistants/threads/delete",
    MessagesRead: "assistants/threads/messages/read",
    MessagesWrite: "assistants/threads/messages/write",
    MessagesDelete: "assistants/threads/messages/delete",
    MessageFilesRead: "assistants/threads/messages/files/read",
    RunsRead: "assistants/threads/runs/read",
    RunsWrite: "assistants/threads/runs/write",
    StepsRead: "assistants/threads/runs/steps/read",
    VectorStoresRead: "assistants/vector_stores/read",
    VectorStoresWrite: "assistants/vector_stores/write",
    VectorStoresDelete: "assistants/vector_stores/delete",
    VectorStoreFilesRead: "assistants/vector_stores/files/read",
    VectorStoreFilesWrite: "assistants/vector_stores/files/write",
    VectorStoreFilesDelete: "assistants/vector_stores/files/delete",
}

/// What the names of all actions begin with.
pub const PREFIX: &str = "Microsoft.CognitiveServices/accounts/OpenAI/";

// One bit each in a set of permissions.
const _: () = assert!(Action::ALL.len() <= 128);

impl Action {
    /// The action's own bit.
    #[must_use]
    #[expect(
        clippy::as_conversions,
        reason = "the number of a variant, below 128 by the assertion above"
    )]
    pub(crate) const fn bit(self) -> u128 {
        1 << self as u32
    }

    /// What it is called as well: Azure lists two names for reading and deleting batches, and does
    /// not say which of them it asks for.
    #[must_use]
    pub fn other_name(self) -> Option<&'static str> {
        match self {
            Self::BatchesRead => Some("batch-jobs/read"),
            Self::BatchesDelete => Some("batch-jobs/delete"),
            _ => None,
        }
    }

    /// Whether tokens are used by it, so that limits on tokens concern it.
    #[must_use]
    pub fn uses_tokens(self) -> bool {
        self.generates_text()
            || matches!(
                self,
                Self::Audio
                    | Self::BatchJobsWrite
                    | Self::Embeddings
                    | Self::EnginesSearch
                    | Self::EvalsWrite
                    | Self::Images
                    | Self::Realtime
                    | Self::Search
                    | Self::VideoGenerate
            )
    }

    /// Whether its prompt is text, whatever its headers call it.
    #[must_use]
    pub fn reads_text(self) -> bool {
        self.generates_text()
            || matches!(self, Self::Embeddings | Self::EnginesSearch | Self::Search)
    }

    /// Whether it is answered with text, whose length the request can bound.
    #[must_use]
    pub fn generates_text(self) -> bool {
        matches!(
            self,
            Self::ChatCompletions
                | Self::Completions
                | Self::EnginesCompletions
                | Self::EnginesGenerate
                | Self::ExtensionsChatCompletions
                | Self::ResponsesWrite
                | Self::RunsWrite
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(PREFIX)?;
        formatter.write_str(self.short_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_action_has_a_name_and_a_bit_of_its_own() {
        let names: HashSet<&str> = Action::ALL
            .iter()
            .map(|action| action.short_name())
            .collect();
        let bits = Action::ALL.iter().fold(0, |all, action| all | action.bit());
        assert_eq!(names.len(), Action::ALL.len());
        assert_eq!(usize::try_from(bits.count_ones()), Ok(Action::ALL.len()));
        assert_eq!(
            Action::FilesRead.to_string(),
            "Microsoft.CognitiveServices/accounts/OpenAI/files/read"
        );
    }
}
