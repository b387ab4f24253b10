//! Where a policy stands: alone in a file, or inside a configuration of Envoy, Istio or Envoy
//! Gateway; and where in it a JSON path leads.

use std::ops::Range;

use crate::document::{self, Data, Key, Located, Malformed};
use crate::failure::Failure;
use crate::report::{self, Finding, Severity, Text};

/// A file with the policies in it.
#[derive(Debug)]
pub(crate) struct PolicyFile {
    pub(crate) name: String,
    pub(crate) text: String,
    /// What the file holds, with its places; nothing where it is text that is no JSON.
    pub(crate) documents: Vec<Located>,
    pub(crate) policies: Vec<Embedded>,
}

/// A policy in a file.
#[derive(Debug)]
pub(crate) struct Embedded {
    /// Where it stands in the file, when it is not the whole of it.
    pub(crate) path: Option<String>,
    /// The value of the file that is or holds it.
    pub(crate) span: Range<usize>,
    /// By its content or by its plugin's name; where there is one plugin alone, it is taken for the module.
    pub(crate) is_ours: bool,
    /// What the module receives.
    pub(crate) configuration: String,
    /// The policy with its places; an error where it is text that is no JSON.
    pub(crate) read: Result<Located, Malformed>,
    /// The text that `read` tells places of.
    shown: Shown,
}

/// The text that findings about a policy are shown in.
#[derive(Debug)]
enum Shown {
    /// The file's own.
    File,
    /// Lines of the file, each so many bytes further on: a block of YAML.
    Lines(Vec<(usize, usize)>),
    /// The policy's, because the file has it in another form, escaped or folded.
    Own { name: String, text: String },
}

/// Why a file has no policies.
#[derive(Debug)]
pub(crate) enum NoPolicy {
    /// It is no document.
    Malformed(Malformed),
    /// There is none in it.
    Nowhere,
}

/// Members by which a configuration of Envoy or Kubernetes is known.
const OF_GATEWAYS: [&str; 9] = [
    "static_resources",
    "staticResources",
    "dynamic_resources",
    "kind",
    "resources",
    "configs",
    "http_filters",
    "filter_chains",
    "admin",
];

/// What a configuration is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Yaml,
}

/// Members by which a policy is known. Every good one has `issuers`.
const OF_POLICY: [&str; 6] = [
    "issuers",
    "apps",
    "default_app",
    "api_keys",
    "public_paths",
    "forward",
];

impl PolicyFile {
    /// Finds the policies of a file.
    pub(crate) fn read(name: String, text: String) -> Result<Self, Box<(Self, NoPolicy)>> {
        let mut file = Self {
            name,
            text,
            documents: Vec::new(),
            policies: Vec::new(),
        };
        match find(&file.name, &file.text) {
            Ok((documents, policies)) => {
                (file.documents, file.policies) = (documents, policies);
                if file.policies.is_empty() {
                    Err(Box::new((file, NoPolicy::Nowhere)))
                } else {
                    Ok(file)
                }
            }
            Err(malformed) => Err(Box::new((file, NoPolicy::Malformed(malformed)))),
        }
    }

    /// The only policy, for commands that take one.
    pub(crate) fn only(&self) -> Result<&Embedded, Failure> {
        match self.policies.as_slice() {
            [only] => Ok(only),
            several => Err(Failure::with_remedy(
                format!("{}: {} policies", self.name, several.len()),
                "give a file with one",
            )),
        }
    }

    /// The file's own text.
    pub(crate) fn whole(&self) -> Text<'_> {
        Text {
            name: &self.name,
            text: &self.text,
        }
    }

    /// The text that an embedded policy's findings are shown in.
    pub(crate) fn shown<'a>(&'a self, policy: &'a Embedded) -> Text<'a> {
        match &policy.shown {
            Shown::File | Shown::Lines(_) => self.whole(),
            Shown::Own { name, text } => Text { name, text },
        }
    }
}

impl Embedded {
    /// A finding at a JSON path, as the policy's parser writes it.
    pub(crate) fn finding(
        &self,
        severity: Severity,
        path: &str,
        problem: &str,
        remedy: &str,
    ) -> Finding {
        let span = match &self.read {
            Err(malformed) => malformed.at..malformed.at.saturating_add(1),
            Ok(root) => {
                let wants_name = problem == "unknown key" || problem.starts_with("has no effect");
                span_of(root, path, wants_name)
            }
        };
        Finding {
            severity,
            problem: format!("{path}: {problem}"),
            remedy: remedy.to_owned(),
            span: self.in_file(span),
        }
    }

    /// A span of the policy as one of the text that is shown.
    fn in_file(&self, span: Range<usize>) -> Range<usize> {
        let Shown::Lines(lines) = &self.shown else {
            return span;
        };
        let shift = |at: usize| {
            let line = lines.iter().rev().find(|(inner, _)| *inner <= at);
            line.map_or(at, |(inner, outer)| {
                at.saturating_sub(*inner).saturating_add(*outer)
            })
        };
        shift(span.start)..shift(span.end)
    }
}

fn find(name: &str, text: &str) -> Result<(Vec<Located>, Vec<Embedded>), Malformed> {
    let format = format_of(name, text);
    let roots = match format {
        Format::Json => match document::read_json(text) {
            Ok(root) => vec![root],
            // The module says more about it: a policy that is no JSON is one all the same.
            Err(malformed) => {
                let whole = Embedded {
                    path: None,
                    span: 0..text.len(),
                    is_ours: true,
                    configuration: text.to_owned(),
                    read: Err(malformed),
                    shown: Shown::File,
                };
                return Ok((Vec::new(), vec![whole]));
            }
        },
        Format::Yaml => document::read_yaml(text)?,
    };
    let whole = |root: &Located| Embedded {
        path: None,
        span: root.span.clone(),
        is_ours: true,
        configuration: match format {
            Format::Json => text.to_owned(),
            Format::Yaml => root.to_value().to_json(),
        },
        read: Ok(root.clone()),
        shown: Shown::File,
    };
    if let [root] = roots.as_slice()
        && is_policy(root)
    {
        let policy = whole(root);
        return Ok((roots, vec![policy]));
    }
    let mut found = Vec::new();
    for root in &roots {
        search(root, &mut String::new(), &mut found);
    }
    // A JSON object of something else may be a policy all the same, with a slip in every name.
    if let (Format::Json, [], [root]) = (format, found.as_slice(), roots.as_slice())
        && is_object(root)
    {
        let policy = whole(root);
        return Ok((roots, vec![policy]));
    }
    // Beside other plugins, those that have a policy of this one.
    if found.len() > 1 {
        found.retain(|candidate| candidate.is_ours);
    }
    let policies = found
        .into_iter()
        .filter_map(|candidate| embedded(&candidate, name, text))
        .collect();
    Ok((roots, policies))
}

fn format_of(name: &str, text: &str) -> Format {
    let ends_with = |end: &str| name.to_ascii_lowercase().ends_with(end);
    if ends_with(".json") {
        Format::Json
    } else if ends_with(".yaml") || ends_with(".yml") {
        Format::Yaml
    } else if text.trim_start().starts_with('{') {
        Format::Json
    } else {
        Format::Yaml
    }
}

fn is_policy(value: &Located) -> bool {
    let has_any = OF_POLICY.iter().any(|name| value.get(name).is_some());
    is_object(value) && (has_any || value.members().is_empty())
}

/// An object that is no configuration of a gateway.
fn is_object(value: &Located) -> bool {
    let is_map = matches!(value.data, Data::Map(_));
    is_map && !OF_GATEWAYS.iter().any(|name| value.get(name).is_some())
}

/// The configuration of a plugin.
struct Candidate<'a> {
    path: String,
    value: &'a Located,
    is_ours: bool,
}

/// Looks for plugins: Envoy's `PluginConfig` (with `vm_config`), Istio's `WasmPlugin`, Envoy
/// Gateway's `EnvoyExtensionPolicy`.
fn search<'a>(value: &'a Located, path: &mut String, found: &mut Vec<Candidate<'a>>) {
    let kind = value.get("kind").and_then(Located::as_str);
    if let ("WasmPlugin", Some(spec)) = (kind.unwrap_or_default(), value.get("spec")) {
        add(spec, "pluginConfig", &join(path, "spec"), found);
        return;
    }
    if let ("EnvoyExtensionPolicy", Some(list)) = (
        kind.unwrap_or_default(),
        value.get("spec").and_then(|spec| spec.get("wasm")),
    ) {
        for (index, element) in list.elements().iter().enumerate() {
            let at = format!("{}[{index}]", join(path, "spec.wasm"));
            add(element, "config", &at, found);
        }
        return;
    }
    let is_plugin = value.get("vm_config").is_some() || value.get("vmConfig").is_some();
    if is_plugin && add(value, "configuration", path, found) {
        return;
    }
    for (key, inner) in value.members() {
        let length = path.len();
        *path = join(path, &key.name);
        search(inner, path, found);
        path.truncate(length);
    }
    for (index, inner) in value.elements().iter().enumerate() {
        let length = path.len();
        path.push_str(&format!("[{index}]"));
        search(inner, path, found);
        path.truncate(length);
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Takes the member of a plugin that holds its configuration: the structure, the text, or either in a
/// typed message.
fn add<'a>(plugin: &'a Located, member: &str, path: &str, found: &mut Vec<Candidate<'a>>) -> bool {
    let Some(mut value) = plugin.get(member) else {
        return false;
    };
    let mut path = join(path, member);
    if value.get("@type").is_some()
        && let Some(inner) = value.get("value")
    {
        value = inner;
        path.push_str(".value");
    }
    let named = |name: &str| {
        let name = plugin.get(name).and_then(Located::as_str);
        name.is_some_and(|name| name.contains("tollgate"))
    };
    let text = value.as_str().unwrap_or_default();
    let is_empty = value.members().is_empty();
    let looks_so =
        (is_policy(value) && !is_empty) || OF_POLICY.iter().any(|key| text.contains(key));
    found.push(Candidate {
        path,
        value,
        is_ours: looks_so || named("name") || named("root_id") || named("url"),
    });
    true
}

fn embedded(candidate: &Candidate<'_>, name: &str, text: &str) -> Option<Embedded> {
    let value = candidate.value;
    let path = Some(candidate.path.clone());
    let (inner, literal) = match &value.data {
        Data::Map(_) => {
            return Some(Embedded {
                path,
                span: value.span.clone(),
                is_ours: candidate.is_ours,
                configuration: value.to_value().to_json(),
                read: Ok(value.clone()),
                shown: Shown::File,
            });
        }
        Data::Text { text, literal } => (text.clone(), *literal),
        Data::Plain(_) | Data::List(_) => return None,
    };
    let lines = literal.then(|| lines_of_block(text, value.span.start, &inner));
    let shown = match lines.flatten() {
        Some(lines) => Shown::Lines(lines),
        None => {
            let (line, _) = report::position(text, value.span.start);
            Shown::Own {
                name: format!("{name}:{line} ({})", candidate.path),
                text: inner.clone(),
            }
        }
    };
    Some(Embedded {
        path,
        span: value.span.clone(),
        is_ours: candidate.is_ours,
        read: document::read_json(&inner),
        configuration: inner,
        shown,
    })
}

/// For every line of a literal block (`|`) where it begins: in the block's text, and in the file.
/// `None` when the file's lines are not the block's after all.
fn lines_of_block(file: &str, header: usize, block: &str) -> Option<Vec<(usize, usize)>> {
    // The marker is on the header's line, or the content begins right here.
    let from = file.get(header..)?;
    let mut outer = if from.starts_with('|') {
        header.saturating_add(from.find('\n')?).saturating_add(1)
    } else {
        file.get(..header)?
            .rfind('\n')
            .map_or(0, |end| end.saturating_add(1))
    };
    let mut inner: usize = 0;
    let mut lines = Vec::new();
    let mut indent = None;
    for line in block.split_inclusive('\n') {
        let rest = file.get(outer..)?;
        let found = rest.split_inclusive('\n').next()?;
        if indent.is_none() && !line.trim().is_empty() {
            indent = Some(
                found
                    .len()
                    .checked_sub(found.trim_start_matches(' ').len())?
                    .checked_sub(line.len().checked_sub(line.trim_start_matches(' ').len())?)?,
            );
        }
        let start = outer.saturating_add(indent.unwrap_or_default().min(found.len()));
        let same = file.get(start..)?.starts_with(line.trim_end());
        if !same {
            return None;
        }
        lines.push((inner, start));
        inner = inner.saturating_add(line.len());
        outer = outer.saturating_add(found.len());
    }
    Some(lines)
}

/// Where a path leads. A value that is a structure is shown by its name; what is missing, by what
/// it is missing in.
pub(crate) fn span_of(root: &Located, path: &str, wants_name: bool) -> Range<usize> {
    let mut key: Option<&Key> = None;
    let mut value = root;
    let mut rest = path.trim_start_matches('$');
    while let Some((step, after)) = next_step(rest) {
        let found = match &step {
            Step::Element(index) => value.elements().get(*index).map(|element| (None, element)),
            Step::Member(name) => {
                let found = value.members().iter().find(|(key, _)| name.is(&key.name));
                found.map(|(key, value)| (Some(key), value))
            }
        };
        let Some((found_key, found_value)) = found else {
            return start_of(key, value);
        };
        (key, value) = (found_key, found_value);
        rest = after;
    }
    match key {
        Some(key) if wants_name => key.span.clone(),
        _ if value.is_composite() => start_of(key, value),
        _ => value.span.clone(),
    }
}

fn start_of(key: Option<&Key>, value: &Located) -> Range<usize> {
    let start = value.span.start;
    let first = start..start.saturating_add(1);
    key.map_or(first, |key| key.span.clone())
}

enum Step {
    Element(usize),
    Member(Name),
}

/// A member's name as a path has it: a long one is cut in the middle.
struct Name {
    text: String,
    cut: bool,
}

impl Name {
    fn is(&self, name: &str) -> bool {
        if !self.cut {
            return self.text == name;
        }
        let (head, tail) = self.text.split_once("...").unwrap_or((&self.text, ""));
        name.starts_with(head) && name.ends_with(tail)
    }
}

/// The first step of a path such as `apps[2].limits[0].per` or `roles["Chat only"]`.
fn next_step(path: &str) -> Option<(Step, &str)> {
    let path = path.strip_prefix('.').unwrap_or(path);
    if let Some(rest) = path.strip_prefix("[\"") {
        let (text, after) = quoted(rest)?;
        let cut = text.chars().count() > 80;
        return Some((Step::Member(Name { text, cut }), after.strip_prefix(']')?));
    }
    if let Some(rest) = path.strip_prefix('[') {
        let (index, after) = rest.split_once(']')?;
        return Some((Step::Element(index.parse().ok()?), after));
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (text, after) = path.split_at_checked(end)?;
    let text = text.to_owned();
    let member = Step::Member(Name { text, cut: false });
    (end > 0).then_some((member, after))
}

/// A text in Rust's quotes, after the first of them, and what follows the last.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut plain = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((plain, text.get(at.saturating_add(1)..)?)),
            '\\' => match characters.next()?.1 {
                'n' => plain.push('\n'),
                'r' => plain.push('\r'),
                't' => plain.push('\t'),
                '0' => plain.push('\0'),
                'u' => {
                    let digits: String = characters
                        .by_ref()
                        .map(|(_, digit)| digit)
                        .skip_while(|digit| *digit == '{')
                        .take_while(|digit| *digit != '}')
                        .collect();
                    plain.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                }
                other => plain.push(other),
            },
            other => plain.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<'a>(text: &'a str, path: &str) -> &'a str {
        let root = document::read_json(text).unwrap();
        &text[span_of(&root, path, false)]
    }

    #[test]
    fn paths_lead_to_values_names_and_what_lacks_them() {
        let text = r#"{"apps":[{"app_id":"x"},{"limits":[{"per":60}]}],"roles":{"Chat \"only\"":{},"a.b":1}}"#;
        for (path, expected) in [
            ("apps[1].limits[0].per", "60"),
            ("apps[0].app_id", "\"x\""),
            ("apps[0].name", "{"),
            ("apps[1].limits", "\"limits\""),
            ("apps[1].limits[0].calls", "{"),
            ("apps[7]", "\"apps\""),
            (r#"roles["Chat \"only\""]"#, r#""Chat \"only\"""#),
            (r#"roles["a.b"]"#, "1"),
            ("issuers", "{"),
            ("$", "{"),
        ] {
            assert_eq!(shown(text, path), expected, "{path}");
        }
    }

    #[test]
    fn long_names_are_found_though_they_are_cut() {
        let name = "n".repeat(100);
        let text = format!("{{\"{name}\": 7}}");
        let path = format!("[\"{}...{}\"]", "n".repeat(60), "n".repeat(20));
        assert_eq!(shown(&text, &path), "7");
    }

    #[test]
    fn names_are_read_as_rust_writes_them() {
        for name in ["a\"b", "\u{202e}x", "a\\b", "\n\r\t\0", "é"] {
            let written = format!("{name:?}]");
            let (read, rest) = quoted(&written[1..]).unwrap();
            assert_eq!((read.as_str(), rest), (name, "]"));
        }
    }
}
