//! What a request asks for: its data action, and the model that it runs.
//!
//! Only a path that every reader reads alike is an operation. Azure's router ignores letter case in
//! fixed segments, and so does this; whatever else servers, routers and proxies read in more
//! than one way (escapes, dots, empty segments, foreign characters) is [`Unread::Ambiguous`].

mod action;
mod table;

pub use action::{Action, PREFIX};
pub use table::Row;

use crate::request::reads_as;
use table::GROUPS;

/// Longest name of a deployment (Azure Resource Manager, `accounts/deployments`).
const MAX_DEPLOYMENT: usize = 64;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation<'a> {
    /// What a role must grant.
    pub action: Action,
    /// The deployment that the path or the query names, as it is written there.
    pub deployment: Option<&'a str>,
    /// Where the model is named.
    pub model: ModelPlace,
    /// It is on the surface with a dated API version.
    pub is_dated: bool,
}

/// Where a request names the model, that is the deployment, that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelPlace {
    /// It runs none.
    Nowhere,
    /// In the path.
    Path,
    /// In the query: `deployment`, or `model` under `/openai/v1/`.
    Query,
    /// In the body's `model`: at the top level of an object, or a field of a form.
    Body,
    /// In an earlier request, which was decided on then: this one goes on with it.
    Earlier,
    /// Where a gateway does not see it: in a file, in a nested object, in what was stored before.
    Elsewhere,
}

/// The methods that operations have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is its name")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

/// Why a request is no operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Two readers could read it differently.
    Ambiguous,
    /// No operation has this method and path.
    Unknown,
}

/// On which surfaces an operation exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surfaces {
    /// `/openai/` with a dated API version.
    Dated,
    /// `/openai/v1/`
    V1,
    /// Both.
    Both,
}

/// All operations.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    GROUPS.iter().flat_map(|group| group.rows)
}

impl<'a> Operation<'a> {
    /// Reads method, path and query.
    ///
    /// # Errors
    /// The path is ambiguous, or names no operation.
    pub fn read(method: &[u8], path: &'a [u8], query: Option<&'a [u8]>) -> Result<Self, Unread> {
        let path = canonical(path).ok_or(Unread::Ambiguous)?;
        let method = Method::read(method).ok_or(Unread::Unknown)?;
        let (surface, rest) = surface(path).ok_or(Unread::Unknown)?;
        let first = segments(rest).next().unwrap_or_default();
        let group = GROUPS
            .iter()
            .find(|group| group.name.as_bytes().eq_ignore_ascii_case(first))
            .ok_or(Unread::Unknown)?;
        let (row, deployment) = group
            .rows
            .iter()
            .filter(|row| row.method == method && row.surfaces.include(surface))
            .find_map(|row| Some((row, fit(row.path, rest)?)))
            .ok_or(Unread::Unknown)?;
        let deployment = match row.model {
            ModelPlace::Query => query_deployment(query.unwrap_or_default(), surface)?,
            _ => deployment,
        };
        Ok(Self {
            action: row.action,
            deployment,
            model: row.model,
            is_dated: surface == Surfaces::Dated,
        })
    }

    /// The same over a WebSocket, in whose messages anything can be asked for that its path takes: sessions of
    /// realtime models, and responses (Azure OpenAI, "WebSocket mode of the Responses API").
    ///
    /// # Errors
    /// There is no such WebSocket.
    pub fn over_websocket(self) -> Result<Self, Unread> {
        match self.action {
            Action::Realtime => Ok(self),
            Action::ResponsesRead | Action::ResponsesWrite => Ok(Self {
                action: Action::ResponsesWrite,
                deployment: None,
                model: ModelPlace::Elsewhere,
                ..self
            }),
            _ => Err(Unread::Unknown),
        }
    }

    /// Whether its body may be a form, which SDKs send where there is a file in it.
    #[must_use]
    pub fn takes_form(&self) -> bool {
        self.model == ModelPlace::Body
            && matches!(
                self.action,
                Action::Audio | Action::Images | Action::VideoGenerate
            )
    }

    /// Whether it runs a model whose answer says what it used.
    #[must_use]
    pub fn is_metered(&self) -> bool {
        self.action.uses_tokens() && self.model != ModelPlace::Nowhere
    }
}

impl Method {
    /// Letter case counts (RFC 9110 section 9.1).
    fn read(method: &[u8]) -> Option<Self> {
        Some(match method {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"PATCH" => Self::Patch,
            b"DELETE" => Self::Delete,
            _ => return None,
        })
    }
}

impl Surfaces {
    fn include(self, surface: Self) -> bool {
        self == Self::Both || self == surface
    }
}

/// Whether a text is a deployment's name and nothing else.
#[must_use]
pub fn is_deployment(text: &str) -> bool {
    (1..=MAX_DEPLOYMENT).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The path, if it has one reading: absolute, no empty segment, none that ends with a dot (`.`
/// and `..` are resolved, and some servers drop a trailing dot), and of segments' own characters
/// (`pchar` of RFC 3986 section 3.3) none that escapes (`%`) or brings parameters (`;`). One slash at its
/// end is left out, as by Azure's router.
fn canonical(path: &[u8]) -> Option<&str> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let mut before = b'/';
    for byte in path.strip_prefix(b"/")? {
        let passes = match byte {
            b'/' => !ends_badly(before),
            byte => PLAIN.get(usize::from(*byte)).is_some_and(|plain| *plain),
        };
        if !passes {
            return None;
        }
        before = *byte;
    }
    if ends_badly(before) {
        return None;
    }
    str::from_utf8(path).ok()
}

/// Whether a segment that ends with this byte, or with the slash that began it, has other readings.
fn ends_badly(last: u8) -> bool {
    matches!(last, b'/' | b'.')
}

/// The characters of a segment that has one reading, by byte.
#[expect(
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "computed while compiling, where a mistake does not compile"
)]
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut rest: &[u8] = b"-._~!$&'()*+,=:@\
        0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    while let [byte, after @ ..] = rest {
        plain[*byte as usize] = true;
        rest = after;
    }
    plain
};

/// The surface, and the path after its prefix.
fn surface(path: &str) -> Option<(Surfaces, &str)> {
    let rest = strip_segment(path.strip_prefix('/')?, "openai")?;
    Some(match strip_segment(rest, "v1") {
        Some(rest) => (Surfaces::V1, rest),
        None => (Surfaces::Dated, rest),
    })
}

fn strip_segment<'a>(path: &'a str, segment: &str) -> Option<&'a str> {
    let (first, rest) = path.split_at_checked(segment.len())?;
    if !first.eq_ignore_ascii_case(segment) {
        return None;
    }
    rest.strip_prefix('/')
}

/// Whether a path is of a template; answers the deployment that it names.
fn fit<'a>(template: &str, path: &'a str) -> Option<Option<&'a str>> {
    let mut deployment = None;
    let mut path_segments = segments(path);
    for wanted in segments(template) {
        let segment = path_segments.next()?;
        match wanted {
            b"{id}" => {}
            b"{deployment}" => deployment = Some(as_deployment(segment)?),
            fixed if fixed.eq_ignore_ascii_case(segment) => {}
            _ => return None,
        }
    }
    path_segments.next().is_none().then_some(deployment)
}

/// The segments of a path, as bytes: splitting text searches more than segments have.
fn segments(path: &str) -> impl Iterator<Item = &[u8]> {
    path.as_bytes().split(|byte| *byte == b'/')
}

fn as_deployment(segment: &[u8]) -> Option<&str> {
    // Before it is decoded: it may be long, and is looked at for every row of the table.
    if segment.len() > MAX_DEPLOYMENT {
        return None;
    }
    let segment = str::from_utf8(segment).ok()?;
    is_deployment(segment).then_some(segment)
}

/// The deployment that the query names. It must be there once at most, written plainly, and under
/// the one name that its surface has for it.
fn query_deployment(query: &[u8], surface: Surfaces) -> Result<Option<&str>, Unread> {
    let wanted = match surface {
        Surfaces::V1 => "model",
        Surfaces::Dated | Surfaces::Both => "deployment",
    };
    if !query.iter().all(u8::is_ascii_graphic) || query.iter().any(|byte| b";#".contains(byte)) {
        return Err(Unread::Ambiguous);
    }
    let mut found = None;
    for pair in query.split(|byte| *byte == b'&') {
        let end = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = pair
            .split_at_checked(end.unwrap_or(pair.len()))
            .unwrap_or_default();
        if !["deployment", "model"]
            .iter()
            .any(|known| reads_as(name, known))
        {
            continue;
        }
        let value = value
            .strip_prefix(b"=")
            .and_then(as_deployment)
            .filter(|_| name == wanted.as_bytes() && found.is_none());
        found = Some(value.ok_or(Unread::Ambiguous)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(method: &str, path: &'a str) -> Result<Operation<'a>, Unread> {
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query.as_bytes())),
            None => (path, None),
        };
        Operation::read(method.as_bytes(), path.as_bytes(), query)
    }

    /// A path of a template, with sample names in it.
    fn sample(row: &Row, surface: &str) -> String {
        let path = row
            .path
            .replace("{id}", "x-1")
            .replace("{deployment}", "gpt-4o");
        format!("{surface}{path}")
    }

    fn name(row: &Row) -> String {
        format!("{:?}", row.method).to_uppercase()
    }

    #[test]
    fn every_row_is_found_on_its_surfaces_and_there_only() {
        for row in rows() {
            let found = |surface| {
                let path = sample(row, surface);
                read(&name(row), &path)
                    .ok()
                    .map(|found| (found.action, found.model))
            };
            let expected = Some((row.action, row.model));
            let (dated, v1) = (found("/openai/"), found("/openai/v1/"));
            match row.surfaces {
                Surfaces::Both => assert_eq!((dated, v1), (expected, expected), "{row:?}"),
                Surfaces::Dated => assert_eq!((dated, v1), (expected, None), "{row:?}"),
                Surfaces::V1 => assert_eq!((dated, v1), (None, expected), "{row:?}"),
            }
        }
    }

    #[test]
    fn rows_stand_in_the_group_of_their_first_segment() {
        for group in GROUPS {
            for row in group.rows {
                assert_eq!(row.path.split('/').next(), Some(group.name));
                let path_names_it = row.path.contains("{deployment}");
                assert_eq!(path_names_it, row.model == ModelPlace::Path, "{row:?}");
            }
        }
    }

    #[test]
    fn no_row_hides_another() {
        for group in GROUPS {
            for (index, row) in group.rows.iter().enumerate() {
                let path = row.path.replace("{id}", "x").replace("{deployment}", "x");
                let first = group.rows.iter().position(|other| {
                    other.method == row.method && fit(other.path, &path).is_some()
                });
                assert_eq!(first, Some(index), "{row:?}");
            }
        }
    }

    #[test]
    fn every_action_is_that_of_an_operation() {
        for action in Action::ALL {
            assert!(rows().any(|row| row.action == *action), "{action}");
        }
    }

    #[test]
    fn letter_case_is_ignored_in_fixed_segments_and_kept_in_names() {
        let operation = read("POST", "/OpenAI/Deployments/GPT-4o/Chat/COMPLETIONS").unwrap();
        assert_eq!(operation.action, Action::ChatCompletions);
        assert_eq!(operation.deployment, Some("GPT-4o"));
        let operation = read("POST", "/OPENAI/V1/Chat/Completions").unwrap();
        assert_eq!(operation.model, ModelPlace::Body);
    }

    #[test]
    fn l6_a_slash_at_the_end_makes_no_other_operation() {
        for row in rows() {
            for surface in ["/openai/", "/openai/v1/"] {
                let path = sample(row, surface);
                let slashed = format!("{path}/?api-version=1");
                assert_eq!(
                    read(&name(row), &slashed),
                    read(&name(row), &path),
                    "{path}"
                );
            }
        }
        assert_eq!(read("GET", "/openai/"), Err(Unread::Unknown));
    }

    #[test]
    fn what_has_two_readings_is_ambiguous() {
        for path in [
            "",
            "/",
            "openai/models",
            "*",
            "//openai/models",
            "/openai//models",
            "/openai/models//",
            "/openai/models/./",
            "/openai/models./",
            "/openai/./models",
            "/openai/x/../models",
            "/openai/models/.",
            "/openai/models/..",
            "/openai/models/...",
            "/openai/models./x",
            "/openai/%6dodels",
            "/openai/models/a%2fb",
            "/openai/models/a%252fb",
            "/openai/models/a%",
            "/openai\\models",
            "/openai/models;x=1",
            "/openai/models/a;b",
            "/openai/models/a b",
            "/openai/models\t",
            "/openai/models\0",
            "/openai/models#x",
            "/openai/mod\u{e9}ls",
            "/openai/models/\u{ff0e}\u{ff0e}",
            "/openai/models/a|b",
            "/openai/models/\"",
            "/openai/models/<a>",
            "/openai/models/[a]",
            "http://host/openai/models",
        ] {
            assert_eq!(read("GET", path), Err(Unread::Ambiguous), "{path:?}");
        }
        let bytes = Operation::read(b"GET", b"/openai/models/\xff", None);
        assert_eq!(bytes, Err(Unread::Ambiguous));
    }

    #[test]
    fn what_no_row_has_is_unknown() {
        for (method, path) in [
            ("GET", "/openai"),
            ("GET", "/openai/v1"),
            ("GET", "/openai/v2/models"),
            ("GET", "/v1/models"),
            ("GET", "/models"),
            ("GET", "/x/openai/models"),
            ("GET", "/openai/v1/v1/models"),
            ("GET", "/openai/openai/models"),
            ("GET", "/openai/models/a/b"),
            ("HEAD", "/openai/models"),
            ("get", "/openai/models"),
            ("GET ", "/openai/models"),
            ("", "/openai/models"),
            ("OPTIONS", "/openai/models"),
            ("TRACE", "/openai/models"),
            ("GET", "/openai/deployments/gpt-4o/chat/completions"),
            ("POST", "/openai/deployments/gpt:4o/chat/completions"),
            ("POST", "/openai/deployments/gpt~4o/chat/completions"),
            ("POST", "/openai/v1/deployments/gpt-4o/chat/completions"),
            ("POST", "/openai/chat/completions"),
        ] {
            assert_eq!(read(method, path), Err(Unread::Unknown), "{method} {path}");
        }
    }

    #[test]
    fn what_runs_a_model_is_metered() {
        for (method, path, metered) in [
            ("POST", "/openai/deployments/gpt-4o/chat/completions", true),
            ("POST", "/openai/v1/responses", true),
            ("GET", "/openai/v1/realtime", true),
            ("POST", "/openai/v1/responses/r-1/cancel", false),
            ("GET", "/openai/v1/responses/r-1", false),
            ("GET", "/openai/operations/images/i-1", false),
            ("POST", "/openai/v1/files", false),
            ("GET", "/openai/deployments/gpt-4o", false),
        ] {
            let operation = read(method, path).unwrap();
            assert_eq!(operation.is_metered(), metered, "{method} {path}");
        }
    }

    #[test]
    fn over_a_websocket_there_are_sessions_and_responses() {
        let over = |method, path| read(method, path).unwrap().over_websocket();
        let session = read("GET", "/openai/v1/realtime?model=gpt-realtime").unwrap();
        assert_eq!(session.over_websocket(), Ok(session));
        assert_eq!(session.deployment, Some("gpt-realtime"));
        for (method, path) in [
            ("GET", "/openai/v1/responses"),
            ("GET", "/openai/responses/r-1"),
            ("POST", "/openai/v1/responses"),
        ] {
            let operation = over(method, path).unwrap();
            assert_eq!(operation.action, Action::ResponsesWrite, "{path}");
            assert_eq!(operation.model, ModelPlace::Elsewhere, "{path}");
            assert_eq!(operation.deployment, None, "{path}");
            assert!(operation.is_metered(), "{path}");
        }
        for (method, path) in [
            ("GET", "/openai/v1/models"),
            ("GET", "/openai/v1/chat/completions"),
            ("DELETE", "/openai/v1/responses/r-1"),
            ("POST", "/openai/deployments/gpt-4o/chat/completions"),
        ] {
            assert_eq!(over(method, path), Err(Unread::Unknown), "{path}");
        }
    }

    #[test]
    fn deployments_have_at_most_64_characters() {
        let path = |length| format!("/openai/deployments/{}/search", "d".repeat(length));
        assert!(read("POST", &path(64)).is_ok());
        assert_eq!(read("POST", &path(65)), Err(Unread::Unknown));
    }

    #[test]
    fn the_query_names_the_deployment_of_realtime_once() {
        for (path, deployment) in [
            (
                "/openai/realtime?api-version=1&deployment=rt-1",
                Some("rt-1"),
            ),
            ("/openai/realtime?deployment=rt-1", Some("rt-1")),
            ("/openai/v1/realtime?model=rt-1&x=deployment", Some("rt-1")),
            ("/openai/v1/realtime?intent=transcription", None),
            ("/openai/v1/realtime?", None),
            ("/openai/v1/realtime", None),
        ] {
            let operation = read("GET", path).unwrap();
            assert_eq!(operation.deployment, deployment, "{path}");
            assert_eq!(operation.model, ModelPlace::Query);
        }
        for query in [
            "deployment=a&deployment=b",
            "deployment=a&deployment=a",
            "deployment=a&Deployment=b",
            "deployment=a&deploymen%74=b",
            "deployment=a&deployment[]=b",
            "deployment=a&+deployment=b",
            "deploymen%74=a",
            "DEPLOYMENT=a",
            "deployment=a%62",
            "deployment=a+b",
            "deployment=",
            "deployment",
            "deployment=a&model=b",
            "model=a",
            "x=1;deployment=a",
            "deployment=a;b",
            "deployment=a#b",
            "deployment=\u{e9}",
        ] {
            let path = format!("/openai/realtime?{query}");
            assert_eq!(read("GET", &path), Err(Unread::Ambiguous), "{query}");
        }
        assert_eq!(
            read("GET", "/openai/v1/realtime?deployment=a"),
            Err(Unread::Ambiguous)
        );
    }
}
