//! What an application may ask for: roles as Azure defines them, compiled into sets of actions.
//!
//! A role grants its `dataActions` minus its `notDataActions`; an application has the union of its
//! roles (Azure RBAC, "How Azure determines if a user has access"). Both are known when the policy
//! is read, so what is left for a request is one bit.

use crate::guid::Guid;
use crate::operations::{Action, PREFIX};

/// A set of data actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u128);

/// A role that Azure brings.
#[derive(Debug)]
pub struct BuiltIn {
    /// Azure's name for it.
    pub name: &'static str,
    /// Azure's id for it, the same in every tenant.
    pub id: &'static str,
    data_actions: &'static [&'static str],
    not_data_actions: &'static [&'static str],
}

/// The built-in roles for calling Azure OpenAI, as `az role definition list` shows them.
pub static BUILT_IN: [BuiltIn; 3] = [
    BuiltIn {
        name: "Cognitive Services OpenAI User",
        id: "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd",
        data_actions: &[
            "Microsoft.CognitiveServices/accounts/OpenAI/*/read",
            "Microsoft.CognitiveServices/accounts/OpenAI/engines/completions/action",
            "Microsoft.CognitiveServices/accounts/OpenAI/engines/search/action",
            "Microsoft.CognitiveServices/accounts/OpenAI/engines/generate/action",
            "Microsoft.CognitiveServices/accounts/OpenAI/deployments/audio/action",
            "Microsoft.CognitiveServices/accounts/OpenAI/deployments/search/action",
            "Microsoft.CognitiveServices/accounts/OpenAI/deployments/completions/action",
            "Microsoft.CognitiveServices/accounts/OpenAI/deployments/chat/completions/action",
            "Microsoft.CognitiveServices/accounts/OpenAI/deployments/realtime/action",
            "Microsoft.CognitiveServices/accounts/OpenAI/deployments/extensions/chat/completions/action",
            "Microsoft.CognitiveServices/accounts/OpenAI/deployments/embeddings/action",
            "Microsoft.CognitiveServices/accounts/OpenAI/images/generations/action",
            "Microsoft.CognitiveServices/accounts/OpenAI/video/generations/*/action",
            "Microsoft.CognitiveServices/accounts/OpenAI/video/generations/*/delete",
            "Microsoft.CognitiveServices/accounts/OpenAI/assistants/*",
            "Microsoft.CognitiveServices/accounts/OpenAI/responses/*",
        ],
        not_data_actions: &["Microsoft.CognitiveServices/accounts/OpenAI/stored-completions/read"],
    },
    BuiltIn {
        name: "Cognitive Services OpenAI Contributor",
        id: "a001fd3d-188f-4b5d-821b-7da978bf7442",
        data_actions: &["Microsoft.CognitiveServices/accounts/OpenAI/*"],
        not_data_actions: &[],
    },
    // It lacks fine-tunes-deployments/write and some actions of other services, none of which
    // an operation here needs.
    BuiltIn {
        name: "Cognitive Services User",
        id: "a97b65f3-24c7-4388-baec-2e87135dc908",
        data_actions: &["Microsoft.CognitiveServices/*"],
        not_data_actions: &[],
    },
];

impl BuiltIn {
    /// What it grants.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        Permissions::of_role(self.data_actions, self.not_data_actions)
    }

    /// Its id.
    #[must_use]
    pub fn guid(&self) -> Option<Guid> {
        Guid::parse(self.id)
    }
}

impl Permissions {
    /// What a role grants: `data_actions` minus `not_data_actions`.
    #[must_use]
    pub fn of_role(data_actions: &[&str], not_data_actions: &[&str]) -> Self {
        Self::named_by(data_actions).without(Self::named_by(not_data_actions))
    }

    fn named_by(patterns: &[&str]) -> Self {
        let named = |all: Self, pattern: &&str| all.union(Self::named(pattern));
        patterns.iter().fold(Self::default(), named)
    }

    /// The actions that a pattern names: an action's name, or a part of it with `*` for the rest.
    #[must_use]
    pub fn named(pattern: &str) -> Self {
        let named = |action: &&Action| {
            let fits = |own: &str| matches(pattern.as_bytes(), Name::of(own));
            fits(action.short_name()) || action.other_name().is_some_and(fits)
        };
        let bits = Action::ALL.iter().filter(named).map(|action| action.bit());
        Self(bits.fold(0, |all, bit| all | bit))
    }

    /// What either grants.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What this grants and the other does not.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether an action is granted.
    #[must_use]
    pub fn grant(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }
}

/// What is left of an action's name: of its beginning, which all share, and of its own part.
#[derive(Clone, Copy)]
struct Name<'a>(&'a [u8], &'a [u8]);

impl<'a> Name<'a> {
    fn of(own: &'a str) -> Self {
        Self(PREFIX.as_bytes(), own.as_bytes())
    }

    fn next(self) -> Option<(u8, Self)> {
        match self {
            Self([first, rest @ ..], own) => Some((*first, Self(rest, own))),
            Self([], [first, rest @ ..]) => Some((*first, Self(&[], rest))),
            Self([], []) => None,
        }
    }
}

/// Whether a pattern stands for a name, letter case aside. `*` stands for any characters, `/`
/// among them.
fn matches(pattern: &[u8], name: Name<'_>) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    // Behind the last `*`, and the name from where it is tried there. Going back to the last one is
    // enough: what an earlier one could take in addition, the last one can.
    let mut retry = None;
    loop {
        match (pattern, name.next()) {
            ([], None) => return true,
            ([b'*', rest @ ..], _) => {
                retry = Some((rest, name));
                pattern = rest;
                continue;
            }
            ([wanted, after @ ..], Some((byte, rest))) if wanted.eq_ignore_ascii_case(&byte) => {
                (pattern, name) = (after, rest);
                continue;
            }
            _ => {}
        }
        let Some((behind, Some((_, shorter)))) = retry.map(|(behind, name)| (behind, name.next()))
        else {
            return false;
        };
        retry = Some((behind, shorter));
        (pattern, name) = (behind, shorter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(granted: &[&str], withheld: &[&str]) -> Permissions {
        Permissions::of_role(granted, withheld)
    }

    fn names_an_action(pattern: &str) -> bool {
        Permissions::named(pattern) != Permissions::default()
    }

    fn names(permissions: Permissions) -> Vec<&'static str> {
        let granted = Action::ALL
            .iter()
            .filter(|action| permissions.grant(**action));
        granted.map(|action| action.short_name()).collect()
    }

    #[test]
    fn wildcards_stand_for_any_characters() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("**", "a/b", true),
            ("a/*/read", "a/b/read", true),
            ("a/*/read", "a/b/c/read", true),
            ("a/*/read", "a/read", false),
            ("a/*/read", "a//read", true),
            ("a/*", "a/", true),
            ("a/*", "a", false),
            ("*/read", "a/read/write", false),
            ("*/read", "a/read/read", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("a*b*c", "a-b-b-c-c", true),
            ("a*b*c", "a-b-b-c-d", false),
            ("A/B", "a/b", true),
            ("a/B", "A/b", true),
            ("a?", "ab", false),
        ] {
            // Wherever the name is cut in two.
            for (head, tail) in (0..=text.len()).map(|at| text.split_at(at)) {
                let name = Name(head.as_bytes(), tail.as_bytes());
                let found = matches(pattern.as_bytes(), name);
                assert_eq!(found, expected, "{pattern} {head} {tail}");
            }
        }
    }

    #[test]
    fn many_wildcards_cost_no_more_than_their_product() {
        let pattern = "*a".repeat(50);
        let text = "a".repeat(10_000);
        let name = Name(&[], text.as_bytes());
        assert!(!matches(format!("{pattern}b").as_bytes(), name));
    }

    #[test]
    fn a_role_grants_its_actions_minus_what_it_withholds() {
        let all = format!("{PREFIX}files/*");
        let write = format!("{PREFIX}FILES/Write");
        assert_eq!(
            names(of(&[&all], &[])),
            ["files/read", "files/write", "files/delete"]
        );
        assert_eq!(
            names(of(&[&all], &[&write])),
            ["files/read", "files/delete"]
        );
        assert_eq!(names(of(&[&all], &["*"])), [""; 0]);
        assert_eq!(names(of(&[], &[&write])), [""; 0]);
        // What one role withholds, another may grant.
        let both = of(&[&all], &[&write]).union(of(&[&write], &[]));
        assert!(both.grant(Action::FilesWrite));
        // What both grant, the two of them grant.
        let twice = of(&[&all], &[]).union(of(&[&write], &[]));
        assert_eq!(twice, of(&[&all, &write], &[]));
        assert!(twice.grant(Action::FilesWrite));
        // Azure lists two names for what reads and deletes batches: either grants, and either withholds.
        let either = |own: &str| names(of(&[&format!("{PREFIX}{own}")], &[]));
        assert_eq!(either("batch-jobs/read"), ["batches/read"]);
        assert_eq!(either("batches/read"), ["batches/read"]);
        assert_eq!(
            either("batch-jobs/*"),
            ["batch-jobs/write", "batches/read", "batches/delete"]
        );
        let kept = of(&["*"], &["*/batch-jobs/write", "*/Batch-Jobs/delete"]);
        assert!(kept.grant(Action::BatchesRead));
        assert!(!kept.grant(Action::BatchesDelete) && !kept.grant(Action::BatchJobsWrite));
        // Short names are no names.
        assert!(!names_an_action("files/write"));
        assert!(names_an_action("*/files/write"));
    }

    #[test]
    fn built_in_roles_grant_what_azure_says() {
        let [user, contributor, services] = BUILT_IN.each_ref().map(BuiltIn::permissions);
        for action in Action::ALL {
            assert!(contributor.grant(*action), "{action}");
            assert!(services.grant(*action), "{action}");
        }
        for action in [
            Action::ChatCompletions,
            Action::Completions,
            Action::Embeddings,
            Action::Audio,
            Action::Realtime,
            Action::Images,
            Action::VideoGenerate,
            Action::VideoDelete,
            Action::ResponsesWrite,
            Action::ResponsesDelete,
            Action::RunsWrite,
            Action::VectorStoreFilesDelete,
            Action::FilesRead,
            Action::ModelsRead,
            Action::FineTunesRead,
            Action::BatchesRead,
        ] {
            assert!(user.grant(action), "{action}");
        }
        for action in [
            Action::StoredCompletionsRead,
            Action::StoredCompletionsAction,
            Action::FilesWrite,
            Action::FilesDelete,
            Action::UploadsWrite,
            Action::FineTunesWrite,
            Action::BatchJobsWrite,
            Action::BatchesCancel,
            Action::EvalsWrite,
            Action::IngestionWrite,
            Action::DeploymentsWrite,
            Action::ModelsDelete,
        ] {
            assert!(!user.grant(action), "{action}");
        }
    }

    #[test]
    fn built_in_roles_name_actions_that_exist() {
        for role in &BUILT_IN {
            assert!(role.guid().is_some());
            for pattern in role.data_actions.iter().chain(role.not_data_actions) {
                assert!(names_an_action(pattern), "{pattern}");
            }
        }
    }
}
