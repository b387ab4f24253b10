//! The id of a limit in a record: a hash of what the limit counts, window, counted responses and scope.
//!
//! Records outlive the module that wrote them: an upgrade, a rollback and the drain of old connections between
//! them all have several versions at work on one record. So what is hashed is written out here, and
//! follows no name and no order of declaration elsewhere. The first version hashed `Debug` text; every limit
//! that it could express keeps the id that it had, and no version has to convert what another counted.
//!
//! Actions that a later version adds change no id either: a limit is identified by those of its actions that the
//! first version to have any of them had.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::operations::Action;
use crate::policy::{Count, Limit, Measure, Pattern, Period, Window};

/// Identifies a limit in a record, so that its count survives a policy and a module that leave it be.
///
/// What it counts, its window, counted responses, scope, and position among its likes: not the amount, so
/// that raising or lowering a limit keeps what was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitId(pub(super) [u8; 8]);

/// The data actions of the first version. The position is the bit that it hashed.
const FIRST_ACTIONS: [&str; 69] = [
    "deployments/audio/action",
    "deployments/chat/completions/action",
    "deployments/completions/action",
    "deployments/embeddings/action",
    "deployments/extensions/chat/completions/action",
    "deployments/realtime/action",
    "deployments/search/action",
    "deployments/read",
    "deployments/write",
    "deployments/delete",
    "engines/read",
    "engines/completions/action",
    "engines/generate/action",
    "engines/search/action",
    "images/generations/action",
    "video/generations/jobs/action",
    "video/generations/jobs/read",
    "video/generations/jobs/delete",
    "responses/read",
    "responses/write",
    "responses/delete",
    "conversations/read",
    "conversations/write",
    "conversations/delete",
    "containers/read",
    "containers/write",
    "containers/delete",
    "stored-completions/read",
    "stored-completions/action",
    "models/read",
    "models/delete",
    "files/read",
    "files/write",
    "files/delete",
    "uploads/write",
    "fine-tunes/read",
    "fine-tunes/write",
    "fine-tunes/delete",
    "batch-jobs/write",
    "batches/read",
    "batches/delete",
    "batches/cancel/action",
    "evals/read",
    "evals/write",
    "evals/delete",
    "extensions/on-your-data/ingestion/read",
    "extensions/on-your-data/ingestion/write",
    "assistants/read",
    "assistants/write",
    "assistants/delete",
    "assistants/files/read",
    "assistants/files/write",
    "assistants/files/delete",
    "assistants/threads/read",
    "assistants/threads/write",
    "assistants/threads/delete",
    "assistants/threads/messages/read",
    "assistants/threads/messages/write",
    "assistants/threads/messages/delete",
    "assistants/threads/messages/files/read",
    "assistants/threads/runs/read",
    "assistants/threads/runs/write",
    "assistants/threads/runs/steps/read",
    "assistants/vector_stores/read",
    "assistants/vector_stores/write",
    "assistants/vector_stores/delete",
    "assistants/vector_stores/files/read",
    "assistants/vector_stores/files/write",
    "assistants/vector_stores/files/delete",
];

/// The data actions added since: a list for each version that added some. Append only.
const ADDED_ACTIONS: &[&[&str]] = &[];

/// What is hashed, without the ordinal that stands between the two parts.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    head: String,
    tail: String,
    /// Actions that the id leaves out.
    later_actions: usize,
}

/// The ids of the limits of one entry, in their order.
pub(super) fn assign(limits: &[Limit]) -> Vec<LimitId> {
    let identities: Vec<_> = limits
        .iter()
        .map(|limit| Identity::of(limit, ADDED_ACTIONS))
        .collect();
    number(&identities)
}

/// Tells equals apart by their order; first come those that leave out the fewest actions.
fn number(identities: &[Identity]) -> Vec<LimitId> {
    let ordinal = |index: usize, identity: &Identity| {
        let is_earlier = |(other_index, other): &(usize, &Identity)| {
            (&other.head, &other.tail) == (&identity.head, &identity.tail)
                && (other.later_actions, *other_index) < (identity.later_actions, index)
        };
        identities.iter().enumerate().filter(is_earlier).count()
    };
    identities
        .iter()
        .enumerate()
        .map(|(index, identity)| identity.id(ordinal(index, identity)))
        .collect()
}

impl Identity {
    fn of(limit: &Limit, added: &[&[&str]]) -> Self {
        let actions = limit.scope.operations.map(|granted| {
            let granted = Action::ALL.iter().filter(|action| granted.grant(**action));
            granted.map(|action| action.short_name()).collect()
        });
        Self::with_actions(limit, actions, added)
    }

    fn with_actions(limit: &Limit, actions: Option<Vec<&str>>, added: &[&[&str]]) -> Self {
        let Some(actions) = actions else {
            return Self::first(limit, None);
        };
        let is_first = |action: &&str| FIRST_ACTIONS.contains(action);
        if actions.is_empty() || actions.iter().any(is_first) {
            return Self::first(limit, Some(&actions));
        }
        let of_version = |version: &&&[&str]| actions.iter().any(|name| version.contains(name));
        let version = added.iter().find(of_version);
        let (mut named, later): (Vec<_>, Vec<_>) = actions
            .into_iter()
            .partition(|name| version.is_none_or(|version| version.contains(name)));
        named.sort_unstable();
        Self::second(limit, &named, later.len())
    }

    /// The encoding of the first version, for the limits that it could express.
    fn first(limit: &Limit, actions: Option<&[&str]>) -> Self {
        let window = match limit.window {
            Window::Sliding { millis } => format!("Sliding {{ millis: {millis} }}"),
            Window::Calendar(Period::Hour) => "Calendar(Hour)".to_owned(),
            Window::Calendar(Period::Day) => "Calendar(Day)".to_owned(),
            Window::Calendar(Period::Week) => "Calendar(Week)".to_owned(),
            Window::Calendar(Period::Month) => "Calendar(Month)".to_owned(),
        };
        let count = match &limit.count {
            Count::All => "All".to_owned(),
            Count::Success => "Success".to_owned(),
            Count::Statuses(statuses) => format!("Statuses([{}])", joined(statuses, ", ")),
        };
        let patterns = limit.scope.deployments.as_ref().map(|deployments| {
            let patterns = deployments.0.iter().map(|pattern| match pattern {
                // Names of deployments have no character that would be escaped.
                Pattern::Exact(name) => format!("Exact(\"{name}\")"),
                Pattern::Prefix(name) => format!("Prefix(\"{name}\")"),
            });
            let patterns: Vec<_> = patterns.collect();
            format!("Some(Deployments([{}]))", patterns.join(", "))
        });
        let bits = actions.map(|actions| {
            let bit = |name: &str| {
                let position = FIRST_ACTIONS.iter().position(|first| *first == name)?;
                1_u128.checked_shl(u32::try_from(position).ok()?)
            };
            let bits: u128 = actions.iter().filter_map(|name| bit(name)).sum();
            format!("Some(Permissions({bits}))")
        });
        let tail = if bits.is_none() && patterns.is_none() {
            String::new()
        } else {
            format!(
                "/Scope {{ operations: {}, deployments: {} }}",
                bits.as_deref().unwrap_or("None"),
                patterns.as_deref().unwrap_or("None")
            )
        };
        let is_later = |name: &&&str| !FIRST_ACTIONS.contains(*name);
        Self {
            head: format!("{}/{window}/{count}/", measure_code(limit.measure)),
            tail,
            later_actions: actions.unwrap_or_default().iter().filter(is_later).count(),
        }
    }

    /// The encoding for limits that the first version could not express.
    fn second(limit: &Limit, actions: &[&str], later_actions: usize) -> Self {
        let window = match limit.window {
            Window::Sliding { millis } => format!("{millis}ms"),
            Window::Calendar(Period::Hour) => "hour".to_owned(),
            Window::Calendar(Period::Day) => "day".to_owned(),
            Window::Calendar(Period::Week) => "week".to_owned(),
            Window::Calendar(Period::Month) => "month".to_owned(),
        };
        let count = match &limit.count {
            Count::All => "all".to_owned(),
            Count::Success => "success".to_owned(),
            Count::Statuses(statuses) => joined(statuses, ","),
        };
        let mut tail = format!(";operations={}", actions.join(","));
        if let Some(deployments) = &limit.scope.deployments {
            let patterns = deployments.0.iter().map(|pattern| match pattern {
                Pattern::Exact(name) => name.to_ascii_lowercase(),
                Pattern::Prefix(name) => format!("{}*", name.to_ascii_lowercase()),
            });
            let mut patterns: Vec<_> = patterns.collect();
            patterns.sort_unstable();
            patterns.dedup();
            // Writing to a string cannot fail.
            let _ = write!(tail, ";deployments={}", patterns.join(","));
        }
        Self {
            head: format!("2;{};{window};{count};", measure_code(limit.measure)),
            tail,
            later_actions,
        }
    }

    fn id(&self, ordinal: usize) -> LimitId {
        let text = format!("{}{ordinal}{}", self.head, self.tail);
        let digest = Sha256::digest(text.as_bytes());
        LimitId(digest.first_chunk().copied().unwrap_or_default())
    }
}

/// Whether tokens are reserved makes no other limit.
fn measure_code(measure: Measure) -> &'static str {
    match measure {
        Measure::Calls => "calls",
        Measure::Tokens { .. } => "tokens",
    }
}

fn joined(statuses: &[u16], separator: &str) -> String {
    let statuses: Vec<_> = statuses.iter().map(u16::to_string).collect();
    statuses.join(separator)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::policy::Policy;

    /// What the first version printed for these limits: never to be changed.
    const GOLDEN: &[(&str, &[&str])] = &[
        (r#"[{"calls":10,"per":"60s"}]"#, &["8445779f401a35b1"]),
        (r#"[{"tokens":10,"per":"60s"}]"#, &["718cb605b1ba4a74"]),
        (
            r#"[{"tokens":10,"per":"60s","reserve":true}]"#,
            &["718cb605b1ba4a74"],
        ),
        (
            r#"[{"calls":10,"per":"1s"},{"calls":10,"per":"744h"},{"calls":1,"per":"90s"}]"#,
            &["19d3c128d9df9c8a", "a922d0ffe6ac8435", "ecff28ed1f102539"],
        ),
        (
            r#"[{"calls":10,"per":"hour"},{"calls":10,"per":"day"},{"calls":10,"per":"week"},{"calls":10,"per":"month"}]"#,
            &[
                "8cf5812fdd9d1a39",
                "d843854964387317",
                "27265c02f87124fb",
                "3d1203d522b42090",
            ],
        ),
        (
            r#"[{"calls":10,"per":"60s","count":"success"},{"calls":10,"per":"60s","count":[200]},{"calls":10,"per":"60s","count":[503,200,429]}]"#,
            &["a897d2c46346071d", "a218f6f0120d648f", "ae56bb738e80f5a1"],
        ),
        (
            r#"[{"calls":10,"per":"60s"},{"calls":5,"per":"60s"},{"tokens":5,"per":"60s"},{"calls":4,"per":"60s"},{"tokens":5,"per":"60s","reserve":true}]"#,
            &[
                "8445779f401a35b1",
                "7c1d9ae1308caf9f",
                "718cb605b1ba4a74",
                "9c2c0e73b71370a0",
                "c837d914d7a6d5e1",
            ],
        ),
        (
            r#"[{"calls":10,"per":"60s","operations":["deployments/audio/action"]}]"#,
            &["0fe868608cc4abc6"],
        ),
        (
            r#"[{"calls":10,"per":"60s","operations":["images/generations/action"]}]"#,
            &["b6fa7ffc4a089d51"],
        ),
        (
            r#"[{"calls":10,"per":"60s","operations":["assistants/vector_stores/files/delete"]}]"#,
            &["ebd4090cd051001d"],
        ),
        (
            r#"[{"calls":10,"per":"60s","operations":["*"]}]"#,
            &["74a4060caba1409f"],
        ),
        (
            r#"[{"calls":10,"per":"60s","operations":["responses/*"]}]"#,
            &["05b789d2f76145f7"],
        ),
        (
            r#"[{"calls":10,"per":"60s","operations":["*/read","files/*"],"deployments":["gpt-4o","text-embedding-*","*"]}]"#,
            &["130d22bcaf071fca"],
        ),
        (
            r#"[{"tokens":10,"per":"month","deployments":["GPT-4o"]},{"tokens":10,"per":"month","deployments":["GPT-4o"]}]"#,
            &["429687a645072d1c", "a30efa349a44be20"],
        ),
        (
            r#"[{"tokens":10,"per":"day","count":"success","operations":["deployments/chat/completions/action"],"deployments":["a.b_c-*"]}]"#,
            &["805dc43b531b0b4a"],
        ),
    ];

    fn limits(text: &str) -> Vec<Limit> {
        let policy = format!(
            r#"{{"issuers":[{{"tenant_id":"11111111-2222-3333-4444-555555555555","audiences":["a"],"cluster":"e"}}],"default_app":{{"limits":{text}}}}}"#
        );
        Policy::parse(policy.as_bytes())
            .unwrap()
            .apps
            .default_app
            .limits
    }

    fn hex(id: LimitId) -> String {
        id.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn counters_survive_upgrades_ids_are_those_of_the_first_version() {
        for (text, ids) in GOLDEN {
            let assigned: Vec<_> = assign(&limits(text)).into_iter().map(hex).collect();
            assert_eq!(assigned, *ids, "{text}");
        }
    }

    #[test]
    fn counters_survive_upgrades_every_action_has_its_version() {
        let added = ADDED_ACTIONS.iter().copied().flatten();
        let versions: Vec<&str> = FIRST_ACTIONS.iter().chain(added).copied().collect();
        let unique: HashSet<_> = versions.iter().collect();
        assert_eq!(unique.len(), versions.len());
        for action in Action::ALL {
            assert!(
                versions.contains(&action.short_name()),
                "{action}: append it to ADDED_ACTIONS"
            );
        }
        for name in FIRST_ACTIONS {
            assert!(
                Action::ALL.iter().any(|action| action.short_name() == name),
                "{name} is gone: limits on it begin anew"
            );
        }
    }

    fn calls(deployments: &str) -> Limit {
        let text = format!(r#"[{{"calls":1,"per":"60s"{deployments}}}]"#);
        limits(&text).remove(0)
    }

    #[test]
    fn counters_survive_upgrades_that_add_actions() {
        let limit = calls("");
        let of =
            |actions: &[&str], added| Identity::with_actions(&limit, Some(actions.to_vec()), added);
        let added: &[&[&str]] = &[&["agents/read", "agents/write"], &["agents/delete"]];
        let id = |identity: Identity| hex(identity.id(0));
        // Known to the first version: what is added changes nothing, nor does the order.
        assert_eq!(
            id(of(&["new/action", "responses/read", "agents/read"], added)),
            id(of(&["responses/read"], &[]))
        );
        assert_eq!(
            id(of(&["agents/delete", "agents/write", "agents/read"], added)),
            id(of(&["agents/read", "agents/write"], &added[..1]))
        );
        assert_eq!(id(of(&["agents/delete"], added)), "cb7befea51306319");
        assert_eq!(
            id(of(&["agents/write", "agents/read"], added)),
            "f5ee61b4c094f2ad"
        );
    }

    #[test]
    fn golden_bytes_of_the_second_encoding() {
        let text = |limit: &Limit| {
            let identity = Identity::with_actions(limit, Some(vec!["b/read", "a/write"]), &[]);
            format!("{}0{}", identity.head, identity.tail)
        };
        assert_eq!(
            text(&calls("")),
            "2;calls;60000ms;all;0;operations=a/write,b/read"
        );
        let scoped = r#"[{"tokens":1,"per":"month","count":[503,200],"deployments":["GPT-4o","a-*","gpt-4o"]}]"#;
        assert_eq!(
            text(&limits(scoped)[0]),
            "2;tokens;month;200,503;0;operations=a/write,b/read;deployments=a-*,gpt-4o"
        );
    }

    #[test]
    fn a_limit_keeps_its_id_whatever_stands_with_it() {
        let limit = calls("");
        let identity = |actions: &[&str]| {
            Identity::with_actions(&limit, Some(actions.to_vec()), &[&["new/action"]])
        };
        let (old, both) = (["responses/read"], ["new/action", "responses/read"]);
        let alone = number(&[identity(&old)]);
        let first = number(&[identity(&old), identity(&both)]);
        let second = number(&[identity(&both), identity(&old)]);
        assert_eq!(first, [second[1], second[0]]);
        assert_eq!(first[0], alone[0]);
        assert_ne!(first[0], first[1]);
    }
}
