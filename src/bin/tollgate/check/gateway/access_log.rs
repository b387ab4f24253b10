//! Access logs that hold API keys or tokens.

use std::collections::HashSet;
use std::ops::Range;

use super::envoy::holds_module;
use super::node::{at, each_map, field, is_named, is_true, place, text, typed};
use super::resource::Resource;
use super::{Configuration, Findings, warning};
use crate::document::Located;
use crate::report::Finding;

/// Where keys are sent, whatever a policy says.
pub(super) const KEYS: [&str; 5] = [
    "api-key",
    "x-api-key",
    "ocp-apim-subscription-key",
    "subscription-key",
    "api_key",
];
/// Headers that carry tokens; browsers send theirs in the last.
const TOKENS: [&str; 4] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "sec-websocket-protocol",
];
/// Headers that hold a whole path.
const PATHS: [&str; 5] = [
    ":path",
    "x-envoy-original-path",
    "x-original-url",
    "x-rewrite-url",
    "x-forwarded-uri",
];

const WHOLE_PATH: &str = "the query is logged too, where some clients put API keys";
const PATH_REMEDY: &str = "write %PATH(NQ)%, the path without its query";
const DEFAULT_FORMAT: &str =
    "the default format logs whole paths, with the query where some clients put API keys";
const FORMAT_REMEDY: &str = "give it a format with %PATH(NQ)%, as envoy/envoy.yaml has it";

pub(super) fn check(configuration: &Configuration<'_>, found: &mut Findings) {
    let log = Log {
        keys: &configuration.keys,
    };
    for (file, document) in &configuration.documents {
        each_map(document, &mut |map| {
            let is_ours = || holds_module(configuration, *file, map);
            if let Some(logs) = field(map, "access_log").filter(|_| is_ours()) {
                let mut own = Vec::new();
                log.loggers(logs, &mut own);
                found.extend(own.into_iter().map(|finding| (*file, finding)));
            }
        });
    }
    for resource in &configuration.resources {
        let mut own = Vec::new();
        match resource.kind {
            "EnvoyFilter" => each_map(resource.spec, &mut |map| {
                if let Some(logs) = field(map, "access_log") {
                    log.loggers(logs, &mut own);
                }
            }),
            "EnvoyProxy" => log.envoy_proxy(resource, &mut own),
            "Telemetry" => log.telemetry(resource, &mut own),
            "Gateway" => own.extend(log_of_gateway(configuration, resource)),
            _ => log.mesh(resource.spec, &mut own),
        }
        found.extend(own.into_iter().map(|finding| (resource.file, finding)));
    }
}

struct Log<'a> {
    keys: &'a HashSet<String>,
}

impl Log<'_> {
    /// A list of Envoy's access loggers.
    fn loggers(&self, logs: &Located, found: &mut Vec<Finding>) {
        for logger in logs.elements() {
            let Some((kind, body)) = field(logger, "typed_config").and_then(typed) else {
                continue;
            };
            let formats = ["log_format", "format", "json_format", "typed_json_format"];
            let has_format = formats.iter().any(|name| field(body, name).is_some());
            let at = place(logger);
            match kind {
                "FileAccessLog" | "StdoutAccessLog" | "StderrAccessLog" if !has_format => {
                    found.push(warning(at, DEFAULT_FORMAT, FORMAT_REMEDY));
                }
                "HttpGrpcAccessLogConfig" => {
                    found.push(warning(
                        at,
                        format!("sends whole paths: {WHOLE_PATH}"),
                        FORMAT_REMEDY,
                    ));
                }
                _ => {}
            }
            self.format(body, found);
        }
    }

    /// Every text of a format; `additional_request_headers_to_log` are names.
    fn format(&self, value: &Located, found: &mut Vec<Finding>) {
        if let Some(format) = value.as_str() {
            found.extend(self.operators(format, value.span.clone()));
        }
        for inner in value.elements() {
            self.format(inner, found);
        }
        for (key, inner) in value.members() {
            if is_named(&key.name, "additional_request_headers_to_log")
                || key.name == "requestHeaders"
            {
                for name in inner.elements() {
                    let problem = name.as_str().and_then(|name| self.of_header(name));
                    let span = name.span.clone();
                    found.extend(problem.map(|(problem, remedy)| warning(span, problem, remedy)));
                }
            }
            self.format(inner, found);
        }
    }

    fn operators(&self, format: &str, span: Range<usize>) -> Vec<Finding> {
        let operators = operators(format);
        let wrong = operators.iter().filter_map(|(name, arguments)| {
            let (problem, remedy) = self.of_operator(name, arguments)?;
            let operator = if arguments.is_empty() {
                format!("%{name}%")
            } else {
                format!("%{name}({arguments})%")
            };
            Some(warning(
                span.clone(),
                format!("{operator}: {problem}"),
                remedy,
            ))
        });
        wrong.collect()
    }

    fn of_operator(&self, name: &str, arguments: &str) -> Option<(String, &'static str)> {
        match name {
            "REQ" | "REQUEST_HEADER" => {
                let mut headers = arguments.split('?');
                headers.find_map(|header| self.of_header(header))
            }
            // It cuts the query off.
            "REQ_WITHOUT_QUERY" => {
                let headers = arguments.split('?').map(|header| self.of_header(header));
                headers.flatten().find(|(problem, _)| problem != WHOLE_PATH)
            }
            "PATH" => {
                let first = arguments.split(':').next().unwrap_or_default();
                (first != "NQ").then(|| (WHOLE_PATH.to_owned(), PATH_REMEDY))
            }
            "QUERY_PARAMS" => Some((WHOLE_PATH.to_owned(), "leave it out")),
            "QUERY_PARAM" => self.of_header(arguments),
            "CEL" => self.of_expression(arguments),
            _ => None,
        }
    }

    fn of_header(&self, name: &str) -> Option<(String, &'static str)> {
        let name = name.trim().to_ascii_lowercase();
        let folded = name.replace('_', "-");
        if PATHS.contains(&name.as_str()) {
            Some((WHOLE_PATH.to_owned(), PATH_REMEDY))
        } else if TOKENS.contains(&folded.as_str()) {
            let remedy =
                "leave it out: %FILTER_STATE(wasm.tollgate.app_id:PLAIN)% identifies the caller";
            Some(("tokens are logged".to_owned(), remedy))
        } else if self.keys.contains(&name) || self.keys.contains(&folded) {
            Some(("API keys are logged".to_owned(), "leave it out"))
        } else {
            None
        }
    }

    fn of_expression(&self, expression: &str) -> Option<(String, &'static str)> {
        let compact: String = expression.split_whitespace().collect();
        let compact = compact.replace('"', "'").to_ascii_lowercase();
        if compact.contains("request.path") || compact.contains("request.query") {
            return Some((WHOLE_PATH.to_owned(), "write request.url_path"));
        }
        let mut names = compact.split("request.headers['").skip(1);
        let named = names.find_map(|rest| self.of_header(rest.split('\'').next()?));
        let whole = || {
            let rest = compact.replace("request.headers['", "");
            let problem = "tokens and API keys are logged".to_owned();
            rest.contains("request.headers")
                .then_some((problem, "leave it out"))
        };
        named.or_else(whole)
    }

    /// `EnvoyProxy` of Envoy Gateway.
    fn envoy_proxy(&self, proxy: &Resource<'_>, found: &mut Vec<Finding>) {
        let Some(log) = at(proxy.spec, &["telemetry", "accessLog"]) else {
            return;
        };
        if is_true(field(log, "disable")) {
            return;
        }
        let settings = field(log, "settings").map_or(&[][..], Located::elements);
        if settings.is_empty() {
            found.push(warning(place(log), DEFAULT_FORMAT, FORMAT_REMEDY));
        }
        for setting in settings {
            let sinks = field(setting, "sinks").map_or(&[][..], Located::elements);
            let is_service = |sink: &Located| text(sink, &["type"]) == Some("ALS");
            if let Some(sink) = sinks.iter().find(|sink| is_service(sink)) {
                found.push(warning(
                    place(sink),
                    format!("sends whole paths: {WHOLE_PATH}"),
                    FORMAT_REMEDY,
                ));
            }
            if field(setting, "format").is_none() && !sinks.iter().all(is_service) {
                found.push(warning(place(setting), DEFAULT_FORMAT, FORMAT_REMEDY));
            }
            self.format(setting, found);
        }
    }

    /// `Telemetry` of Istio: the provider that is built in has the default format.
    fn telemetry(&self, telemetry: &Resource<'_>, found: &mut Vec<Finding>) {
        let logs = field(telemetry.spec, "accessLogging").map_or(&[][..], Located::elements);
        for log in logs {
            let providers = field(log, "providers").map_or(&[][..], Located::elements);
            let built_in = |provider: &&Located| text(provider, &["name"]) == Some("envoy");
            if let Some(provider) = providers.iter().find(built_in) {
                let remedy = "name a provider of meshConfig with a format that has %PATH(NQ)%";
                found.push(warning(place(provider), DEFAULT_FORMAT, remedy));
            }
        }
    }

    /// `meshConfig` of Istio, wherever it is.
    fn mesh(&self, value: &Located, found: &mut Vec<Finding>) {
        each_map(value, &mut |map| {
            if let Some(format) = field(map, "accessLogFormat") {
                self.format(format, found);
            } else if let Some(file) = field(map, "accessLogFile")
                && file.as_str().is_some_and(|file| !file.is_empty())
            {
                let remedy = "add accessLogFormat with %PATH(NQ)%";
                found.push(warning(file.span.clone(), DEFAULT_FORMAT, remedy));
            }
            if let Some((key, log)) = map.member("envoyFileAccessLog") {
                match field(log, "logFormat") {
                    Some(format) => self.format(format, found),
                    None => found.push(warning(key.span.clone(), DEFAULT_FORMAT, FORMAT_REMEDY)),
                }
            }
        });
    }
}

/// Envoy Gateway logs whole paths unless an `EnvoyProxy` of the Gateway says otherwise.
fn log_of_gateway(configuration: &Configuration<'_>, gateway: &Resource<'_>) -> Option<Finding> {
    let mut resources = configuration.resources.iter();
    let is_guarded = resources.any(|resource| {
        let mut targets = resource.targets().into_iter();
        resource.kind == "EnvoyExtensionPolicy"
            && configuration.holds_policy(resource.file, resource.spec)
            && targets.any(|target| target.name == gateway.name)
    });
    if !is_guarded {
        return None;
    }
    let class = field(gateway.spec, "gatewayClassName");
    let span = class.map_or_else(|| place(gateway.root), |class| class.span.clone());
    let remedy = "add an EnvoyProxy with telemetry.accessLog, as envoy/envoy-gateway.yaml has it, \
        and name it in infrastructure.parametersRef";
    let finding = warning(
        span,
        format!("Envoy Gateway's access log: {DEFAULT_FORMAT}"),
        remedy,
    );
    let proxies = || {
        let resources = configuration.resources.iter();
        resources.filter(|resource| resource.kind == "EnvoyProxy")
    };
    let has_log = |proxy: &Resource<'_>| at(proxy.spec, &["telemetry", "accessLog"]).is_some();
    match text(gateway.spec, &["infrastructure", "parametersRef", "name"]) {
        Some(name) => match proxies().find(|proxy| proxy.name == name) {
            Some(proxy) => (!has_log(proxy)).then_some(finding),
            None => {
                let problem = format!(
                    "the EnvoyProxy {name:?} is not in these files: without telemetry.accessLog in it {DEFAULT_FORMAT}"
                );
                let reference = at(gateway.spec, &["infrastructure", "parametersRef"]);
                let remedy = "check the file of the EnvoyProxy too";
                reference.map(|reference| warning(place(reference), problem, remedy))
            }
        },
        // A class may name it.
        None => (!proxies().any(has_log)).then_some(finding),
    }
}

/// The command operators of a format, such as `%REQ(:PATH):20%`: name and arguments.
fn operators(format: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = format;
    while let Some((_, after)) = rest.split_once('%') {
        let end = after.find(|letter: char| !(letter.is_ascii_uppercase() || letter == '_'));
        let (name, tail) = after
            .split_at_checked(end.unwrap_or(after.len()))
            .unwrap_or((after, ""));
        let Some(inside) = tail.strip_prefix('(') else {
            rest = tail.strip_prefix('%').unwrap_or(tail);
            found.push((name.to_owned(), String::new()));
            continue;
        };
        let Some((arguments, after)) = arguments(inside) else {
            rest = tail;
            continue;
        };
        found.push((name.to_owned(), arguments.to_owned()));
        rest = after;
    }
    found
}

/// The text before the parenthesis that ends an operator, and what follows the operator.
fn arguments(text: &str) -> Option<(&str, &str)> {
    for (at, _) in text.match_indices(')') {
        let (inside, tail) = text.split_at_checked(at)?;
        let tail = tail.strip_prefix(')')?;
        let tail = tail.strip_prefix(':').map_or(tail, |length| {
            length.trim_start_matches(|digit: char| digit.is_ascii_digit())
        });
        if let Some(rest) = tail.strip_prefix('%') {
            return Some((inside, rest));
        }
    }
    None
}
