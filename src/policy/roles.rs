//! `roles`: definitions beside Azure's built-in ones, and the roles of an application.

use super::reader::{Members, Node, Noted, Read, Shape};
use super::wording::{alternatives, closest, quoted};
use crate::guid::Guid;
use crate::json::Value;
use crate::operations::{Action, PREFIX};
use crate::roles::{BUILT_IN, Permissions};

/// Most roles that can be defined. A tenant of Azure holds as many (Azure RBAC limits).
const MAX_ROLES: usize = 5_000;

/// Most roles of one application.
const MAX_ROLES_OF_APP: usize = 100;

/// Most actions in one list of a role.
const MAX_ACTIONS: usize = 5_000;

/// Defined roles that a guess at a name looks at.
const MAX_GUESSED: usize = 100;

const DEFINITIONS: &str = concat!(
    r#"{"Chat only": {"data_actions": ["#,
    r#""Microsoft.CognitiveServices/accounts/OpenAI/deployments/chat/completions/action"]}}"#
);

const OF_APP: &str = r#"["Cognitive Services OpenAI User"]"#;

const ACTIONS: &str = r#"["Microsoft.CognitiveServices/accounts/OpenAI/*/read"]"#;

static SHORT: Shape = Shape {
    example: r#"{"data_actions": ["Microsoft.CognitiveServices/accounts/OpenAI/*/read"]}"#,
    keys: &["data_actions", "not_data_actions"],
    refused: &[],
};

/// A role as `az role definition list` writes it. What is not read here describes the role;
/// other keys could restrict it.
static AZURE: Shape = Shape {
    example: r#"{"roleName": "Chat only", "permissions": [{"dataActions": []}]}"#,
    keys: &[
        "roleName",
        "name",
        "permissions",
        "assignableScopes",
        "createdBy",
        "createdOn",
        "description",
        "id",
        "roleType",
        "type",
        "updatedBy",
        "updatedOn",
    ],
    refused: &[],
};

/// A role as Azure Resource Manager answers it.
static RESOURCE: Shape = Shape {
    example: r#"{"name": "...", "properties": {"roleName": "Chat only", "permissions": []}}"#,
    keys: &["id", "name", "properties", "type"],
    refused: &[],
};

const OPERATIONS: &str = r#"["deployments/chat/completions/action"]"#;

static PROPERTIES: Shape = Shape {
    example: r#"{"roleName": "Chat only", "permissions": [{"dataActions": []}]}"#,
    keys: &[
        "roleName",
        "permissions",
        "assignableScopes",
        "createdBy",
        "createdOn",
        "description",
        "isServiceRole",
        "type",
        "updatedBy",
        "updatedOn",
    ],
    refused: &[],
};

static PERMISSION: Shape = Shape {
    example: r#"{"dataActions": ["Microsoft.CognitiveServices/accounts/OpenAI/*/read"]}"#,
    keys: &[
        "actions",
        "notActions",
        "dataActions",
        "notDataActions",
        "condition",
        "conditionVersion",
    ],
    refused: &[],
};

/// All roles of a policy, the built-in ones among them.
pub(super) struct Definitions(Vec<Definition>);

struct Definition {
    /// As in Azure, letter case makes no other name.
    name: String,
    id: Option<Guid>,
    permissions: Permissions,
    /// Where it stands; `None` for a built-in role.
    path: Option<String>,
}

impl Definitions {
    fn built_in() -> Self {
        let mut definitions = Vec::with_capacity(BUILT_IN.len());
        for role in &BUILT_IN {
            definitions.push(Definition {
                name: role.name.to_owned(),
                id: role.guid(),
                permissions: role.permissions(),
                path: None,
            });
        }
        Self(definitions)
    }

    fn by_name(&self, name: &str) -> Option<&Definition> {
        let mut roles = self.0.iter();
        roles.find(|role| role.name.eq_ignore_ascii_case(name))
    }

    fn by_id(&self, id: Guid) -> Option<&Definition> {
        self.0.iter().find(|role| role.id == Some(id))
    }

    /// A role by its name or id. No name has the form of an id.
    fn find(&self, name_or_id: &str) -> Option<&Definition> {
        match Guid::parse(name_or_id) {
            Some(id) => self.by_id(id),
            None => self.by_name(name_or_id),
        }
    }

    /// Takes a role, whose name and id must be its own.
    fn define(
        &mut self,
        name: &str,
        id: Option<Guid>,
        permissions: Permissions,
        at: &Node<'_>,
    ) -> Read<()> {
        let own = self.0.iter_mut().find(|role| {
            // What Azure lists has the built-in roles, too, as they are now.
            role.path.is_none() && role.id == id && role.name.eq_ignore_ascii_case(name)
        });
        if let Some(built_in) = own {
            built_in.permissions = permissions;
            built_in.path = Some(at.path());
            return Ok(());
        }
        if let Some(first) = self.by_name(name) {
            return Err(first.note_taken("name", name, at));
        }
        if let Some(id) = id
            && let Some(first) = self.by_id(id)
        {
            return Err(first.note_taken("id", &id.to_string(), at));
        }
        self.0.push(Definition {
            name: name.to_owned(),
            id,
            permissions,
            path: Some(at.path()),
        });
        Ok(())
    }
}

impl Definition {
    fn note_taken(&self, what: &str, which: &str, at: &Node<'_>) -> Noted {
        let taken = format!("the {what} {}", quoted(which));
        match &self.path {
            Some(path) => at.note(
                format!("{taken} is taken by {path}"),
                "define each role once",
            ),
            None => at.note(
                format!("{taken} is that of a built-in role"),
                "leave the role out, or give yours another name and id",
            ),
        }
    }
}

/// The roles of a policy: the built-in ones, and those under `roles`. One whose error was noted is
/// among them by its name, so that others' mistakes with names are told too.
pub(super) fn definitions(policy: &Members<'_>) -> (Definitions, Read<()>) {
    let mut definitions = Definitions::built_in();
    let read = policy.or("roles", (), |node| read_all(node, &mut definitions));
    (definitions, read)
}

fn read_all(node: &Node<'_>, definitions: &mut Definitions) -> Read<()> {
    let count = match node.value() {
        Value::Array(roles) => roles.len(),
        Value::Object(roles) => roles.len(),
        _ => {
            let wanted = format!("an object such as {DEFINITIONS}, or an array of Azure's roles");
            return Err(node.expected(&wanted));
        }
    };
    if count > MAX_ROLES {
        return Err(node.too_many(count, MAX_ROLES));
    }
    if is_azure(node) {
        return azure(node, definitions);
    }
    let read = match node.value() {
        Value::Array(_) => node.list(AZURE.example, |role| azure(role, definitions)),
        _ => node.map(DEFINITIONS, |name, role| named(name, role, definitions)),
    };
    read.map(drop)
}

/// Whether an object is one of Azure's, and not one whose keys are names of roles.
fn is_azure(node: &Node<'_>) -> bool {
    has(node, "roleName") || has(node, "permissions") || has(node, "properties")
}

fn has(node: &Node<'_>, key: &str) -> bool {
    let object = node.value().as_object();
    object.is_some_and(|object| object.get(key).is_some())
}

/// A role under a name of the policy's choice.
fn named(name: &str, node: &Node<'_>, definitions: &mut Definitions) -> Read<()> {
    if is_azure(node) {
        let remedy = "put Azure's roles in an array, without names of your own";
        return Err(node.note("is a role in Azure's own form", remedy));
    }
    let mut role = Lists::default();
    let lists = short_lists(node, &mut role);
    role_name(name, node)?;
    definitions.define(name, None, role.permissions(), node)?;
    lists
}

fn short_lists(node: &Node<'_>, role: &mut Lists) -> Read<()> {
    let members = node.members(&SHORT)?;
    let granted = members.required("data_actions", "add the actions to grant", |node| {
        actions(node, &mut role.granted, Strictness::Known)
    });
    let withheld = members.or("not_data_actions", (), |node| {
        actions(node, &mut role.withheld, Strictness::Known)
    });
    granted.and(withheld)
}

/// A role in Azure's own form, as the command line or as Azure Resource Manager writes it.
fn azure(node: &Node<'_>, definitions: &mut Definitions) -> Read<()> {
    let is_resource = has(node, "properties");
    let outer = node.members(if is_resource { &RESOURCE } else { &AZURE })?;
    let id = outer.optional("name", guid);
    let properties = outer.get("properties");
    let inner = match &properties {
        Some(properties) => properties.members(&PROPERTIES)?,
        None => outer,
    };
    let mut role = Lists::default();
    // Several permissions are one role, which withholds what any of them withholds.
    let permissions = inner.required("permissions", "add Azure's permissions", |node| {
        let example = "[{\"dataActions\": []}]";
        node.list(example, |node| permission(node, &mut role))
    });
    let name = inner.required("roleName", "add the role's name", |node| {
        let name = node.string("Chat only")?;
        role_name(name, node).map(|()| name.to_owned())
    });
    definitions.define(&name?, id.unwrap_or(None), role.permissions(), node)?;
    permissions?;
    id.map(drop)
}

fn permission(node: &Node<'_>, role: &mut Lists) -> Read<()> {
    let members = node.members(&PERMISSION)?;
    let granted = members.or("dataActions", (), |node| {
        actions(node, &mut role.granted, Strictness::Any)
    });
    let withheld = members.or("notDataActions", (), |node| {
        actions(node, &mut role.withheld, Strictness::Any)
    });
    let condition = members.or("condition", (), |node| match node.value() {
        Value::Null => Ok(()),
        _ => Err(node.note(
            "conditions are not evaluated here",
            "name a role that has none",
        )),
    });
    granted.and(withheld).and(condition)
}

/// What the lists of a role name.
#[derive(Default)]
struct Lists {
    granted: Permissions,
    withheld: Permissions,
}

impl Lists {
    fn permissions(&self) -> Permissions {
        self.granted.without(self.withheld)
    }
}

fn role_name(name: &str, at: &Node<'_>) -> Read<()> {
    // An id for a name could pass for the role that has that id.
    let is_id = Guid::parse(name).is_some();
    if is_id || name.is_empty() || name.trim() != name || name.chars().any(char::is_control) {
        let problem = format!("{} is not a usable name for a role", quoted(name));
        return Err(at.note(problem, "write a name such as \"Chat only\""));
    }
    Ok(())
}

fn guid(node: &Node<'_>) -> Read<Guid> {
    let [example, ..] = BUILT_IN.each_ref().map(|role| role.id);
    let text = node.string(example)?;
    Guid::parse(text).ok_or_else(|| {
        let remedy = "write the role's id there, and its name under roleName";
        node.note(format!("{} is not a GUID", quoted(text)), remedy)
    })
}

/// Which actions a list may name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strictness {
    /// Any: Azure's own roles name those of other services too.
    Any,
    /// Those of Azure OpenAI. In a list that was written for this policy another is a slip, and
    /// in `not_data_actions` a hole.
    Known,
}

/// Adds the actions that a list names.
fn actions(node: &Node<'_>, named: &mut Permissions, strictness: Strictness) -> Read<()> {
    if let Some(actions) = node.value().as_array()
        && actions.len() > MAX_ACTIONS
    {
        return Err(node.too_many(actions.len(), MAX_ACTIONS));
    }
    let read = node.list(ACTIONS, |action| {
        let text = action.text(PREFIX)?;
        let found = Permissions::named(text);
        if found == Permissions::default() && strictness == Strictness::Known {
            let problem = format!("{} names no action of Azure OpenAI", quoted(text));
            return Err(action.note(problem, meant_action(text)));
        }
        *named = named.union(found);
        Ok(())
    });
    read.map(drop)
}

/// The operations that a limit is for: data actions, with or without [`PREFIX`].
pub(super) fn operations(node: &Node<'_>) -> Read<Permissions> {
    let mut named = Permissions::default();
    let read = node.filled_list(OPERATIONS, MAX_ACTIONS, |action| {
        let text = action.text("deployments/chat/completions/action")?;
        let found = match Permissions::named(text) {
            none if none == Permissions::default() => {
                Permissions::named(&format!("{PREFIX}{text}"))
            }
            found => found,
        };
        if found == Permissions::default() {
            let problem = format!("{} names no action of Azure OpenAI", quoted(text));
            return Err(action.note(problem, meant_action(text)));
        }
        named = named.union(found);
        Ok(())
    });
    read.map(|_| named)
}

fn meant_action(text: &str) -> String {
    let names = Action::ALL.iter().map(|action| action.short_name());
    let names: Vec<&str> = names.collect();
    let head = text.split_at_checked(PREFIX.len());
    let tail = head.filter(|(head, _)| head.eq_ignore_ascii_case(PREFIX));
    let tail = tail.map_or(text, |(_, tail)| tail);
    if Permissions::named(&format!("{PREFIX}{tail}")) != Permissions::default() {
        return format!("did you mean \"{PREFIX}{tail}\"?");
    }
    let holds = |name: &&&str| tail.contains('/') && name.contains(tail);
    let close = closest(tail, &names).or_else(|| names.iter().find(holds).copied());
    close.map_or_else(
        || format!("for example \"{PREFIX}*/read\""),
        |name| format!("did you mean \"{PREFIX}{name}\"?"),
    )
}

/// The roles of an application, as one set of permissions.
pub(super) fn of_app(node: &Node<'_>, definitions: &Definitions) -> Read<Permissions> {
    let mut permissions = Permissions::default();
    let roles = node.filled_list(OF_APP, MAX_ROLES_OF_APP, |role| {
        let name = role.string("Cognitive Services OpenAI User")?;
        let Some(found) = definitions.find(name) else {
            let problem = format!("{} is not a role", quoted(name));
            return Err(role.note(problem, meant_role(name, definitions)));
        };
        permissions = permissions.union(found.permissions);
        Ok(())
    });
    roles.map(|_| permissions)
}

fn meant_role(name: &str, definitions: &Definitions) -> String {
    let guessed = definitions.0.iter().take(MAX_GUESSED);
    let names: Vec<&str> = guessed.map(|role| role.name.as_str()).collect();
    closest(name, &names).map_or_else(
        || {
            let built_in = BUILT_IN.each_ref().map(|role| role.name);
            let built_in = alternatives(&built_in);
            format!("write {built_in}, or define it under roles")
        },
        |name| format!("did you mean {}?", quoted(name)),
    )
}
