//! `apps` and `default_app`: what each application may do.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::caps::caps;
use super::deployments::deployments;
use super::limits::limits;
use super::names::label;
use super::reader::{Members, Node, Read, Refused, Shape};
use super::roles::{self, Definitions};
use super::wording::quoted;
use super::{Access, App, Apps, Caps, Limit};
use crate::guid::Guid;

/// Most applications that can be listed.
const MAX_APPS: usize = 100_000;

const EXAMPLE_ID: &str = "aaaaaaaa-0000-0000-0000-000000000001";

static APP: Shape = Shape {
    example: r#"{"app_id": "aaaaaaaa-0000-0000-0000-000000000001"}"#,
    keys: &[
        "app_id",
        "name",
        "access",
        "roles",
        "deployments",
        "limits",
        "caps",
    ],
    refused: &[],
};

static DEFAULT_APP: Shape = Shape {
    example: r#"{"access": "deny"}"#,
    keys: &["name", "access", "roles", "deployments", "limits", "caps"],
    refused: &[Refused {
        key: "app_id",
        problem: "the default application has no id: it serves every application that is \
                  not listed",
        remedy: "leave it out, or move the entry to apps",
    }],
};

/// Names and the paths where they are given.
type Names = HashMap<String, String>;

pub(super) fn apps(policy: &Members<'_>, roles: &Definitions) -> Read<Apps> {
    let mut by_id = HashMap::new();
    let mut names = Names::new();
    let listed = policy.or("apps", Vec::new(), |node| {
        if let Some(values) = node.value().as_array()
            && values.len() > MAX_APPS
        {
            return Err(node.too_many(values.len(), MAX_APPS));
        }
        let mut index: usize = 0;
        node.list(&format!("[{}]", APP.example), |element| {
            let app = listed_app(element, index, roles, &mut by_id, &mut names);
            index = index.saturating_add(1);
            app
        })
    });
    let unlisted = App {
        id: None,
        name: None,
        access: Access::Allow,
        roles: None,
        deployments: None,
        limits: Vec::new(),
        caps: Caps::default(),
    };
    let default_app = policy.or("default_app", unlisted, |node| {
        default_app(node, roles, &mut names)
    });
    Ok(Apps {
        listed: listed?,
        by_id,
        default_app: default_app?,
    })
}

fn listed_app(
    node: &Node<'_>,
    index: usize,
    roles: &Definitions,
    by_id: &mut HashMap<Guid, usize>,
    names: &mut Names,
) -> Read<App> {
    let members = node.members(&APP)?;
    let id = members.required("app_id", "add the application's (client) id", |node| {
        unique_id(node, index, by_id)
    });
    let name = match members.get("name") {
        Some(node) => unique_name(&node, names),
        // Another application could be named by this id.
        None => id.and_then(|id| claim_name(&id.to_string(), node, names)),
    };
    let access = access(&members);
    let roles = members.optional("roles", |node| roles::of_app(node, roles));
    let deployments = members.optional("deployments", deployments);
    let limits = limits_of(&members);
    let caps = caps(&members);
    Ok(App {
        id: Some(id?),
        name: Some(name?),
        access: access?,
        roles: roles?,
        deployments: deployments?,
        limits: limits?,
        caps: caps?,
    })
}

fn default_app(node: &Node<'_>, roles: &Definitions, names: &mut Names) -> Read<App> {
    let members = node.members(&DEFAULT_APP)?;
    let name = members.optional("name", |node| unique_name(node, names));
    let access = access(&members);
    let roles = members.optional("roles", |node| roles::of_app(node, roles));
    let deployments = members.optional("deployments", deployments);
    let limits = limits_of(&members);
    let caps = caps(&members);
    Ok(App {
        id: None,
        name: name?,
        access: access?,
        roles: roles?,
        deployments: deployments?,
        limits: limits?,
        caps: caps?,
    })
}

fn access(members: &Members<'_>) -> Read<Access> {
    let choices = [("allow", Access::Allow), ("deny", Access::Deny)];
    members.or("access", Access::Allow, |node| node.choice(&choices))
}

fn limits_of(members: &Members<'_>) -> Read<Vec<Limit>> {
    members.or("limits", Vec::new(), limits)
}

fn unique_id(node: &Node<'_>, index: usize, by_id: &mut HashMap<Guid, usize>) -> Read<Guid> {
    let text = node.string(EXAMPLE_ID)?;
    let Some(id) = Guid::parse(text) else {
        let problem = format!("{} is not a GUID", quoted(text));
        let remedy = format!("write the application's (client) id, such as \"{EXAMPLE_ID}\"");
        return Err(node.note(problem, remedy));
    };
    match by_id.entry(id) {
        Entry::Vacant(entry) => {
            entry.insert(index);
            Ok(id)
        }
        Entry::Occupied(first) => {
            let problem = format!("is listed already at apps[{}].app_id", first.get());
            Err(node.note(problem, "list each application once"))
        }
    }
}

fn unique_name(node: &Node<'_>, names: &mut Names) -> Read<String> {
    claim_name(&label(node)?, node, names)
}

fn claim_name(name: &str, at: &Node<'_>, names: &mut Names) -> Read<String> {
    match names.entry(name.to_owned()) {
        Entry::Vacant(entry) => {
            entry.insert(at.path());
            Ok(name.to_owned())
        }
        Entry::Occupied(first) => {
            let problem = format!("the name {} is taken by {}", quoted(name), first.get());
            Err(at.note(problem, "give each application a name of its own"))
        }
    }
}
