//! `tollgate roles import` and `tollgate operations`.

use serde_json::{Value, json};
use tollgate::operations::rows;
use tollgate::policy::Policy;

use crate::common::policy;
use crate::run::{file, in_repository, tollgate, with_input};

const PREFIX: &str = "Microsoft.CognitiveServices/accounts/OpenAI/";

/// As `az role definition list` prints one.
fn role(name: &str, granted: &[&str], withheld: &[&str]) -> Value {
    json!({
        "assignableScopes": ["/"], "description": "", "id": "/subscriptions/x", "name": "5e0bd9bd-7b93-4f28-af87-19fc36ad61bf",
        "permissions": [{ "actions": [], "condition": null, "conditionVersion": null,
            "dataActions": granted, "notActions": [], "notDataActions": withheld }],
        "roleName": name, "roleType": "CustomRole", "type": "Microsoft.Authorization/roleDefinitions",
    })
}

fn chat() -> Value {
    let action = format!("{PREFIX}deployments/chat/completions/action");
    let read = format!("{PREFIX}*/read");
    let files = format!("{PREFIX}files/read");
    role(
        "Chat \"only\"",
        &[
            &action,
            &read,
            "Microsoft.CognitiveServices/accounts/TextAnalytics/*",
        ],
        &[&files],
    )
}

#[test]
fn operations_are_those_of_the_documentation() {
    let out = tollgate(&["operations", "--format", "csv"]).well();
    let document = std::fs::read_to_string(in_repository("docs/operations.md")).unwrap();
    let documented = document.lines().filter(|line| line.contains("| `/openai"));
    let documented: Vec<String> = documented
        .map(|line| {
            let cells = line
                .trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().trim_matches('`'));
            cells.collect::<Vec<_>>().join(",")
        })
        .collect();
    let lines: Vec<&str> = out.lines().skip(1).collect();
    assert_eq!(lines, documented);
    let listed = tollgate(&["operations"]).well();
    assert_eq!(listed.lines().count(), rows().count());
    assert!(
        listed
            .lines()
            .next()
            .unwrap()
            .starts_with("POST    /openai/deployments/{deployment}/chat/completions  "),
        "{listed}"
    );
}

#[test]
fn a_role_lets_through_what_it_grants() {
    let of = |name: &str| {
        let out = tollgate(&["operations", "--role", name, "--format", "json"]).well();
        serde_json::from_str::<Value>(&out)
            .unwrap()
            .as_array()
            .unwrap()
            .clone()
    };
    let user = of("Cognitive Services OpenAI User");
    let granted = |rows: &[Value], action: &str| rows.iter().any(|row| row["action"] == action);
    assert!(
        granted(&user, "deployments/chat/completions/action") && !granted(&user, "files/write")
    );
    assert_eq!(of("5e0bd9bd-7b93-4f28-af87-19fc36ad61bd"), user);
    let contributor = of("cognitive services openai contributor");
    assert!(granted(&contributor, "files/write") && contributor.len() > user.len());
    let said = tollgate(&["operations", "--role", "Cognitive Service OpenAI User"]).ended(2);
    assert!(
        said.contains("is not a role")
            && said.contains("did you mean \"Cognitive Services OpenAI User\"?"),
        "{said}"
    );
}

#[test]
fn roles_of_azure_become_roles_of_a_policy_that_grant_the_same() {
    let path = file("role.json", &json!([chat()]).to_string());
    let ran = tollgate(&["roles", "import", &path]);
    assert!(
        ran.err
            .contains("TextAnalytics/* is no action of Azure OpenAI"),
        "{}",
        ran.err
    );
    let short: Value = serde_json::from_str(&ran.well()).unwrap();
    let expected = json!({ "Chat \"only\"": {
        "data_actions": [format!("{PREFIX}deployments/chat/completions/action"), format!("{PREFIX}*/read")],
        "not_data_actions": [format!("{PREFIX}files/read")],
    }});
    assert_eq!(short["roles"], expected);

    let permissions = |roles: &Value| {
        let apps = json!({ "roles": roles, "default_app": { "roles": ["Chat \"only\""] } });
        let policy = Policy::parse(policy(&apps).to_string().as_bytes()).unwrap();
        policy.apps.default_app.roles.unwrap()
    };
    let granted = permissions(&short["roles"]);
    assert_eq!(granted, permissions(&json!([chat()])));
    let arguments = ["operations", "--roles", &path, "--role", "Chat \"only\""];
    let listed = tollgate(&arguments).well();
    assert_eq!(
        listed.lines().count(),
        rows().filter(|row| granted.grant(row.action)).count()
    );
    let actions: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.rsplit(' ').next())
        .collect();
    assert!(
        actions.contains(&"models/read") && !actions.contains(&"files/read"),
        "{listed}"
    );
}

#[test]
fn roles_come_in_every_form_that_azure_has() {
    let resource = json!({ "id": "x", "name": "5e0bd9bd-7b93-4f28-af87-19fc36ad61bf", "type": "y",
        "properties": { "roleName": "R", "permissions": chat()["permissions"] } });
    for document in [chat(), json!([chat()]), resource.clone(), json!([resource])] {
        let ran = with_input(&["roles", "import", "-"], &document.to_string());
        assert!(
            ran.well().contains("deployments/chat/completions/action"),
            "{document}"
        );
    }
    let built_in = role(
        "Cognitive Services OpenAI User",
        &[&format!("{PREFIX}*/read")],
        &[],
    );
    let ran = with_input(
        &["roles", "import", "-"],
        &json!([built_in, chat()]).to_string(),
    );
    assert!(
        ran.err
            .contains("Cognitive Services OpenAI User is built in"),
        "{}",
        ran.err
    );
    assert!(ran.well().contains("Chat"));
}

#[test]
fn what_is_no_role_is_said_with_its_place() {
    let mut conditional = chat();
    conditional["permissions"][0]["condition"] = "x".into();
    let pretty = format!("{:#}", json!([conditional]));
    let said = with_input(&["roles", "import", "-"], &pretty).ended(2);
    assert!(said.contains("conditions are not evaluated here"), "{said}");
    let line = pretty
        .lines()
        .position(|line| line.contains("\"condition\":"))
        .unwrap()
        + 1;
    assert!(said.contains(&format!("standard input:{line}:")), "{said}");
    // The place is right behind a role that is left out, too.
    let built_in = role("Cognitive Services OpenAI User", &[], &[]);
    let pretty = format!("{:#}", json!([built_in, conditional]));
    let said = with_input(&["roles", "import", "-"], &pretty).ended(2);
    let line = pretty
        .lines()
        .position(|line| line.contains("\"condition\": \"x\""))
        .unwrap()
        + 1;
    assert!(said.contains(&format!("standard input:{line}:")), "{said}");
    for (bad, problem) in [
        ("[", "EOF while parsing"),
        ("7", "expected an object"),
        ("[]", "no role with actions of Azure OpenAI"),
        ("[{\"roleName\":\"x\"}]", "permissions"),
    ] {
        let said = with_input(&["roles", "import", "-"], bad).ended(2);
        assert!(said.contains(problem), "{bad}: {said}");
    }
}
