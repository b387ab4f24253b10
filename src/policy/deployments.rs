//! `deployments`: the deployments that an application may use.

use super::reader::{Node, Read};
use super::wording::quoted;
use super::{Deployments, Pattern};
use crate::operations::is_deployment;

/// Most deployments of one application: each costs its requests a comparison.
const MAX_DEPLOYMENTS: usize = 1_000;

const EXAMPLE: &str = r#"["gpt-4o", "text-embedding-*"]"#;

pub(super) fn deployments(node: &Node<'_>) -> Read<Deployments> {
    node.filled_list(EXAMPLE, MAX_DEPLOYMENTS, pattern)
        .map(Deployments)
}

fn pattern(node: &Node<'_>) -> Read<Pattern> {
    let text = node.string("gpt-4o")?;
    let (name, is_prefix) = match text.strip_suffix('*') {
        Some(prefix) => (prefix, true),
        None => (text, false),
    };
    if !(is_deployment(name) || is_prefix && name.is_empty()) {
        let problem = format!("{} is not the name of a deployment", quoted(text));
        let remedy = "write up to 64 letters, digits, dots, hyphens and underscores; \
                      * stands only at the end";
        return Err(node.note(problem, remedy));
    }
    let name = name.to_owned();
    Ok(if is_prefix {
        Pattern::Prefix(name)
    } else {
        Pattern::Exact(name)
    })
}
