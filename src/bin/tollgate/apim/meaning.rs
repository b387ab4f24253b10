//! What policy expressions stand for: the application, a header, a condition on either, the statuses that
//! count.

use std::collections::HashMap;

use super::expression::Expression;

/// What an expression stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Meaning {
    /// The application that calls.
    App,
    /// Another claim of the token.
    Claim(String),
    /// The token.
    Token,
    /// Its claims.
    Claims,
    /// A request header, by its lower-case name, or a piece of it.
    Header(String),
    /// A text of the policy's own.
    Text(String),
    /// The subscription or user of API Management.
    Subscriber,
    /// The caller's address.
    Address,
    /// Something else.
    Other,
}

/// What variables stand for.
pub(super) type Variables = HashMap<String, Meaning>;

impl Meaning {
    /// What an expression stands for.
    pub(super) fn of(expression: &Expression, variables: &Variables) -> Self {
        match expression {
            Expression::Text(text) => Self::Text(text.clone()),
            Expression::Index(of, arguments) => first_text(arguments)
                .map_or(Self::Other, |name| member(of, name, variables))
                .or_of_header(of, variables),
            Expression::Call(called, arguments) => match called.as_ref() {
                Expression::Member(of, method) => call(of, method, arguments, variables),
                _ => Self::Other,
            },
            Expression::Member(of, name) => property(of, name, expression, variables),
            Expression::Binary("??", left, _) => Self::of(left, variables),
            _ => Self::Other,
        }
    }

    /// An element of a split header is a piece of it.
    fn or_of_header(self, of: &Expression, variables: &Variables) -> Self {
        match (self, Self::of(of, variables)) {
            (Self::Other, found @ (Self::Header(_) | Self::App | Self::Claim(_))) => found,
            (found, _) => found,
        }
    }
}

fn first_text(arguments: &[Expression]) -> Option<&str> {
    match arguments.first()? {
        Expression::Text(text) => Some(text),
        _ => None,
    }
}

/// What stands under a name in variables, headers or claims.
fn member(of: &Expression, name: &str, variables: &Variables) -> Meaning {
    match path(of).as_deref() {
        Some("context.Variables") => variables.get(name).cloned().unwrap_or(Meaning::Other),
        Some("context.Request.Headers") => Meaning::Header(name.to_ascii_lowercase()),
        _ if Meaning::of(of, variables) == Meaning::Claims => match name {
            "appid" | "azp" => Meaning::App,
            other => Meaning::Claim(other.to_owned()),
        },
        _ => Meaning::Other,
    }
}

fn call(of: &Expression, method: &str, arguments: &[Expression], variables: &Variables) -> Meaning {
    match method {
        "GetValueOrDefault" => {
            first_text(arguments).map_or(Meaning::Other, |name| member(of, name, variables))
        }
        "AsJwt" => match Meaning::of(of, variables) {
            Meaning::Header(name) if name == "authorization" => Meaning::Token,
            _ => Meaning::Other,
        },
        "First" | "FirstOrDefault" | "Last" | "LastOrDefault" | "Split" | "Substring" | "Skip"
        | "Replace" | "Trim" | "ToArray" | "ToLower" | "ToLowerInvariant" | "ToString"
        | "ToUpper" | "ToUpperInvariant" => Meaning::of(of, variables),
        _ => Meaning::Other,
    }
}

fn property(of: &Expression, name: &str, whole: &Expression, variables: &Variables) -> Meaning {
    match path(whole).as_deref() {
        Some("string.Empty" | "String.Empty") => return Meaning::Text(String::new()),
        Some(
            "context.Subscription.Id"
            | "context.Subscription.Key"
            | "context.Subscription.Name"
            | "context.User.Id",
        ) => return Meaning::Subscriber,
        Some("context.Request.IpAddress") => return Meaning::Address,
        _ => {}
    }
    match (Meaning::of(of, variables), name) {
        (Meaning::Token, "Claims") => Meaning::Claims,
        (Meaning::Token, "Subject") => Meaning::Claim("sub".to_owned()),
        (Meaning::Token, "Id") => Meaning::Claim("jti".to_owned()),
        _ => Meaning::Other,
    }
}

/// `context.Request.Headers` and the like.
fn path(expression: &Expression) -> Option<String> {
    match expression {
        Expression::Name(name) => Some(name.clone()),
        Expression::Member(of, name) => Some(format!("{}.{name}", path(of)?)),
        _ => None,
    }
}

/// Which requests a condition is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    /// Those of these applications.
    Apps(Vec<String>),
    /// Those of all others.
    NotApps(Vec<String>),
    /// Those with this header.
    Header(String),
}

/// Reads a condition; `None` where it is about something else.
pub(super) fn condition(expression: &Expression, variables: &Variables) -> Option<Condition> {
    use Condition::{Apps, Header, NotApps};
    match expression {
        Expression::Not(inner) => match condition(inner, variables)? {
            Apps(apps) => Some(NotApps(apps)),
            NotApps(apps) => Some(Apps(apps)),
            Header(_) => None,
        },
        Expression::Binary("||", left, right) => {
            match (condition(left, variables)?, condition(right, variables)?) {
                (Apps(left), Apps(right)) => Some(Apps([left, right].concat())),
                _ => None,
            }
        }
        Expression::Binary("&&", left, right) => {
            match (condition(left, variables)?, condition(right, variables)?) {
                (NotApps(left), NotApps(right)) => Some(NotApps([left, right].concat())),
                _ => None,
            }
        }
        Expression::Binary("==", left, right) => equal(left, right, variables),
        Expression::Binary("!=", left, right) => match equal(left, right, variables) {
            Some(Apps(apps)) => Some(NotApps(apps)),
            Some(_) => None,
            None => is_not_empty(left, right, variables),
        },
        Expression::Call(called, arguments) => called_condition(called, arguments, variables),
        _ => None,
    }
}

fn equal(left: &Expression, right: &Expression, variables: &Variables) -> Option<Condition> {
    match (Meaning::of(left, variables), Meaning::of(right, variables)) {
        (Meaning::App, Meaning::Text(app)) | (Meaning::Text(app), Meaning::App) => {
            Some(Condition::Apps(vec![app]))
        }
        _ => match (left, right) {
            (inner, Expression::Truth(true)) | (Expression::Truth(true), inner) => {
                condition(inner, variables)
            }
            _ => None,
        },
    }
}

fn is_not_empty(left: &Expression, right: &Expression, variables: &Variables) -> Option<Condition> {
    let is_nothing = match right {
        Expression::Name(name) => name == "null",
        other => Meaning::of(other, variables) == Meaning::Text(String::new()),
    };
    match Meaning::of(left, variables) {
        Meaning::Header(name) if is_nothing => Some(Condition::Header(name)),
        _ => None,
    }
}

fn called_condition(
    called: &Expression,
    arguments: &[Expression],
    variables: &Variables,
) -> Option<Condition> {
    let Expression::Member(of, method) = called else {
        return None;
    };
    match (method.as_str(), of.as_ref(), arguments) {
        ("Equals", Expression::Name(_), [left, right, ..]) => equal(left, right, variables),
        ("Equals", left, [right, ..]) => equal(left, right, variables),
        ("ContainsKey", headers, [Expression::Text(name)])
            if path(headers).as_deref() == Some("context.Request.Headers") =>
        {
            Some(Condition::Header(name.to_ascii_lowercase()))
        }
        ("Contains", Expression::List(values), [app])
            if Meaning::of(app, variables) == Meaning::App =>
        {
            let apps = values.iter().map(|value| match value {
                Expression::Text(text) => Some(text.clone()),
                _ => None,
            });
            apps.collect::<Option<Vec<_>>>().map(Condition::Apps)
        }
        _ => None,
    }
}

/// The statuses for which a condition on the answer holds; `None` where it is about something else.
pub(super) fn statuses(expression: &Expression) -> Option<Vec<u16>> {
    let mut found = Vec::new();
    for status in 100..=599 {
        if holds(expression, i64::from(status))? {
            found.push(status);
        }
    }
    Some(found)
}

fn holds(expression: &Expression, status: i64) -> Option<bool> {
    match expression {
        Expression::Truth(value) => Some(*value),
        Expression::Not(inner) => Some(!holds(inner, status)?),
        Expression::Binary("&&", left, right) => {
            Some(holds(left, status)? && holds(right, status)?)
        }
        Expression::Binary("||", left, right) => {
            Some(holds(left, status)? || holds(right, status)?)
        }
        Expression::Binary(operator, left, right) => {
            let (left, right) = (value(left, status)?, value(right, status)?);
            match *operator {
                "==" => Some(left == right),
                "!=" => Some(left != right),
                ">=" => Some(left >= right),
                "<=" => Some(left <= right),
                ">" => Some(left > right),
                "<" => Some(left < right),
                _ => None,
            }
        }
        _ => None,
    }
}

fn value(expression: &Expression, status: i64) -> Option<i64> {
    match expression {
        Expression::Number(number) => Some(*number),
        other => (path(other)? == "context.Response.StatusCode").then_some(status),
    }
}

/// What the parts of a key stand for, without the texts that are the same for all: `"tpm-" + appid` is
/// as good as the application alone.
pub(super) fn parts(key: &Expression, variables: &Variables) -> Vec<Meaning> {
    if let Expression::Binary("+", left, right) = key {
        return [parts(left, variables), parts(right, variables)].concat();
    }
    match Meaning::of(key, variables) {
        Meaning::Text(_) => Vec::new(),
        found => vec![found],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apim::expression::read;

    const APP: &str = "aaaaaaaa-0000-0000-0000-000000000001";
    const JWT: &str = r#"context.Request.Headers.GetValueOrDefault("Authorization","").Split(' ').Last().AsJwt()"#;

    fn variables() -> Variables {
        [
            ("jwt".to_owned(), Meaning::Token),
            ("appId".to_owned(), Meaning::App),
        ]
        .into()
    }

    fn means(text: &str) -> Meaning {
        let expression = read(text).unwrap_or_else(|| panic!("not read: {text}"));
        Meaning::of(&expression, &variables())
    }

    #[test]
    fn the_application_in_all_its_spellings() {
        for text in [
            format!(r#"@({JWT}.Claims.GetValueOrDefault("appid", ""))"#),
            format!(r#"@({JWT}?.Claims.GetValueOrDefault("appid", string.Empty))"#),
            format!(r#"@({JWT}.Claims["appid"].FirstOrDefault())"#),
            format!(r#"@((string){JWT}.Claims.GetValueOrDefault("azp") ?? "none")"#),
            format!(r#"@{{ var jwt = {JWT}; return jwt.Claims.GetValueOrDefault("appid"); }}"#),
            format!("@{{\n  // the caller\n  string t = {JWT}.Claims.GetValueOrDefault(\"appid\", \"\");\n  return t.ToLower();\n}}"),
            r#"@(context.Request.Headers["Authorization"].First().Split(' ')[1].AsJwt().Claims["appid"][0])"#.to_owned(),
            r#"@(((Jwt)context.Variables["jwt"]).Claims.GetValueOrDefault("appid", "unknown"))"#.to_owned(),
            r#"@(context.Variables.GetValueOrDefault<Jwt>("jwt").Claims.GetValueOrDefault("azp", ((Jwt)context.Variables["jwt"]).Claims.GetValueOrDefault("appid","")))"#.to_owned(),
            r#"@((string)context.Variables["appId"])"#.to_owned(),
            r#"@(context.Variables.GetValueOrDefault<string>("appId", "x"))"#.to_owned(),
        ] {
            assert_eq!(means(&text), Meaning::App, "{text}");
        }
    }

    #[test]
    fn what_else_counters_are_kept_by() {
        for (text, expected) in [
            ("@(context.Request.IpAddress)", Meaning::Address),
            ("@(context.Subscription?.Id)", Meaning::Subscriber),
            ("@(context.Subscription.Key)", Meaning::Subscriber),
            (r#"@("all")"#, Meaning::Text("all".into())),
            (
                r#"@(((Jwt)context.Variables["jwt"]).Subject)"#,
                Meaning::Claim("sub".into()),
            ),
            (
                r#"@(context.Request.Headers.GetValueOrDefault("X-Team",""))"#,
                Meaning::Header("x-team".into()),
            ),
            (r#"@(context.Variables["unknown"])"#, Meaning::Other),
            (
                r#"@(context.Request.Headers["X"].First().AsJwt().Claims["appid"])"#,
                Meaning::Other,
            ),
        ] {
            assert_eq!(means(text), expected, "{text}");
        }
    }

    #[test]
    fn keys_are_known_by_their_parts() {
        let parts = |text| parts(&read(text).unwrap(), &variables());
        assert_eq!(
            parts(r#"@("tpm-" + (string)context.Variables["appId"] + "-x")"#),
            [Meaning::App]
        );
        assert_eq!(parts(r#"@("all" + "-" + "of-them")"#), []);
        assert_eq!(
            parts(r#"@((string)context.Variables["appId"] + context.Request.IpAddress)"#),
            [Meaning::App, Meaning::Address]
        );
    }

    #[test]
    fn conditions_on_the_application_and_on_keys() {
        use Condition::{Apps, Header, NotApps};
        let one = || vec![APP.to_owned()];
        let other = || vec![APP.to_owned(), "b".to_owned()];
        let app = r#"(string)context.Variables["appId"]"#;
        for (text, expected) in [
            (format!("@({app} == \"{APP}\")"), Some(Apps(one()))),
            (format!("@(\"{APP}\" == {app})"), Some(Apps(one()))),
            (
                format!("@(({app} == \"{APP}\") == true)"),
                Some(Apps(one())),
            ),
            (
                format!("@({JWT}.Claims.GetValueOrDefault(\"appid\", \"\") == \"{APP}\")"),
                Some(Apps(one())),
            ),
            (
                format!("@({JWT}.Claims.GetValueOrDefault(\"appid\", \"\").Equals(\"{APP}\"))"),
                Some(Apps(one())),
            ),
            (
                format!("@({app} == \"{APP}\" || {app} == \"b\")"),
                Some(Apps(other())),
            ),
            (
                format!("@(new[] {{ \"{APP}\", \"b\" }}.Contains({app}))"),
                Some(Apps(other())),
            ),
            (
                format!(
                    "@(new string[] {{ \"{APP}\", \"b\" }}.Contains(context.Variables[\"appId\"]))"
                ),
                Some(Apps(other())),
            ),
            (format!("@(!({app} == \"{APP}\"))"), Some(NotApps(one()))),
            (
                format!("@({app} != \"{APP}\" && {app} != \"b\")"),
                Some(NotApps(other())),
            ),
            (
                format!("@({app} == \"{APP}\" && context.Operation.Id == \"x\")"),
                None,
            ),
            (
                r#"@(context.Request.Headers.ContainsKey("Api-Key"))"#.to_owned(),
                Some(Header("api-key".into())),
            ),
            (
                r#"@(context.Request.Headers.GetValueOrDefault("api-key","") != "")"#.to_owned(),
                Some(Header("api-key".into())),
            ),
            (r#"@(context.Operation.Id == "chat")"#.to_owned(), None),
        ] {
            let expression = read(&text).unwrap_or_else(|| panic!("not read: {text}"));
            assert_eq!(condition(&expression, &variables()), expected, "{text}");
        }
    }

    #[test]
    fn conditions_on_the_status_are_evaluated() {
        let found = |text| statuses(&read(text).unwrap());
        assert_eq!(
            found("@(context.Response.StatusCode == 200)"),
            Some(vec![200])
        );
        assert_eq!(
            found("@(context.Response.StatusCode >= 200 && context.Response.StatusCode < 300)"),
            Some((200..300).collect())
        );
        assert_eq!(
            found("@(context.Response.StatusCode == 200 || 201 == context.Response.StatusCode)"),
            Some(vec![200, 201])
        );
        assert_eq!(
            found("@(!(context.Response.StatusCode > 100))"),
            Some(vec![100])
        );
        assert_eq!(found("@(true)"), Some((100..600).collect()));
        assert_eq!(found("@(context.Response.Headers.Count == 1)"), None);
    }
}
