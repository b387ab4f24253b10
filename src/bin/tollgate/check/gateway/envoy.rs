//! Envoy's own configuration: bootstraps, listeners, and dumps of what a control plane sends.

use super::interlock::{self, REMEDY};
use super::node::{each_map, field, is_true, place, text, typed};
use super::{Configuration, Findings, error};
use crate::document::Located;
use crate::report::Finding;

const ROUTER: &str = "envoy.filters.http.router";

pub(super) fn check(configuration: &Configuration<'_>, found: &mut Findings) {
    for (file, document) in &configuration.documents {
        each_map(document, &mut |map| {
            let Some(filters) = field(map, "http_filters").map(Located::elements) else {
                return;
            };
            let chain = Chain {
                filters,
                module: filters
                    .iter()
                    .rposition(|filter| is_module(configuration, *file, filter)),
            };
            let mut own = Vec::new();
            chain.check(&mut own);
            found.extend(own.into_iter().map(|finding| (*file, finding)));
            if let Some(name) = chain.interlock_name() {
                switched_off(configuration, name, found);
            }
        });
        each_map(document, &mut |map| {
            if is_plugin(configuration, *file, map) {
                found.extend(fails_open(map).map(|finding| (*file, finding)));
            }
        });
    }
}

/// Whether a document without a policy has a listener with the module in it.
pub(super) fn is_part(document: &Located) -> bool {
    let mut is = false;
    each_map(document, &mut |map| {
        let filters = field(map, "http_filters").map_or(&[][..], Located::elements);
        is |= filters.iter().any(is_module_by_name);
    });
    is
}

/// Whether a listener or a connection manager runs the module.
pub(super) fn holds_module(
    configuration: &Configuration<'_>,
    file: usize,
    value: &Located,
) -> bool {
    let mut holds = false;
    each_map(value, &mut |map| {
        let filters = field(map, "http_filters").map_or(&[][..], Located::elements);
        holds |= filters
            .iter()
            .any(|filter| is_module(configuration, file, filter));
    });
    holds
}

fn is_module(configuration: &Configuration<'_>, file: usize, filter: &Located) -> bool {
    is_module_by_name(filter) || configuration.holds_policy(file, filter)
}

/// A Wasm filter of that name: its configuration may come from elsewhere (ECDS).
fn is_module_by_name(filter: &Located) -> bool {
    let named = |value: Option<&str>| value.is_some_and(|name| name.contains("tollgate"));
    let is_wasm = match field(filter, "config_discovery") {
        Some(discovery) => {
            let types = field(discovery, "type_urls").map_or(&[][..], Located::elements);
            types
                .iter()
                .any(|url| url.as_str().is_some_and(|url| url.ends_with(".Wasm")))
        }
        None => field(filter, "typed_config")
            .and_then(typed)
            .is_some_and(|(name, _)| name == "Wasm"),
    };
    let plugin = text(filter, &["typed_config", "config", "name"]);
    is_wasm && (named(text(filter, &["name"])) || named(plugin))
}

/// The HTTP filters of a listener.
struct Chain<'a> {
    filters: &'a [Located],
    /// Where the module is among them.
    module: Option<usize>,
}

impl<'a> Chain<'a> {
    fn check(&self, found: &mut Vec<Finding>) {
        let Some(module) = self.module.and_then(|index| self.filters.get(index)) else {
            return;
        };
        let mut interlocks = self.meant().peekable();
        if interlocks.peek().is_none() {
            let problem = "no interlock: requests pass unchecked where this filter is missing, replaced or fails open";
            found.push(error(place(module), problem, REMEDY));
        }
        found.extend(interlocks.flat_map(|(index, filter)| self.faults(index, filter)));
    }

    fn meant(&self) -> impl Iterator<Item = (usize, &'a Located)> {
        let numbered = self.filters.iter().enumerate();
        numbered.filter(|(_, filter)| interlock::is_meant(filter))
    }

    fn faults(&self, index: usize, filter: &Located) -> Vec<Finding> {
        let mut found = interlock::faults(filter);
        let router = self.filters.iter().position(is_router);
        if self.module.is_some_and(|module| index < module) {
            let problem = "the interlock is before the module, which has let nothing pass yet";
            found.push(error(place(filter), problem, "move it after the module"));
        }
        if router.is_some_and(|router| index > router) {
            let problem = "the interlock is after the router, which ends the chain";
            found.push(error(place(filter), problem, "move it before the router"));
        }
        found
    }

    /// The name of the interlock of a chain with the module.
    fn interlock_name(&self) -> Option<&'a str> {
        self.module?;
        self.meant().find_map(|(_, filter)| text(filter, &["name"]))
    }
}

fn is_router(filter: &Located) -> bool {
    let by_type = field(filter, "typed_config").and_then(typed);
    by_type.is_some_and(|(name, _)| name == "Router") || text(filter, &["name"]) == Some(ROUTER)
}

/// Routes that switch the interlock off for themselves.
fn switched_off(configuration: &Configuration<'_>, name: &str, found: &mut Findings) {
    for (file, document) in &configuration.documents {
        each_map(document, &mut |map| {
            let own = field(map, "typed_per_filter_config");
            let Some((key, value)) = own.and_then(|own| own.member(name)) else {
                return;
            };
            let mut faults = Vec::new();
            per_route(value, key.span.clone(), &mut faults);
            found.extend(faults.into_iter().map(|finding| (*file, finding)));
        });
    }
}

fn per_route(value: &Located, at: std::ops::Range<usize>, found: &mut Vec<Finding>) {
    const PROBLEM: &str = "the interlock is switched off here";
    match typed(value) {
        Some(("FilterConfig", body)) => {
            if is_true(field(body, "disabled")) {
                found.push(error(at, PROBLEM, "leave it out"));
            } else if let Some(inner) = field(body, "config") {
                per_route(inner, at, found);
            }
        }
        Some((_, body)) => match field(body, "rbac") {
            Some(rbac) => interlock::rules(rbac, at, found),
            None => found.push(error(at, PROBLEM, "leave it out")),
        },
        None => {}
    }
}

/// Whether a map is the module's `PluginConfig`.
fn is_plugin(configuration: &Configuration<'_>, file: usize, map: &Located) -> bool {
    let by_name = || text(map, &["name"]).is_some_and(|name| name.contains("tollgate"));
    field(map, "vm_config").is_some() && (by_name() || configuration.holds_policy(file, map))
}

/// A plugin that lets requests pass when its VM fails.
fn fails_open(plugin: &Located) -> impl Iterator<Item = Finding> {
    let policy = field(plugin, "failure_policy").filter(|policy| is_fail_open(policy));
    let flag = field(plugin, "fail_open").filter(|flag| is_true(Some(flag)));
    [
        (policy, "write FAIL_RELOAD"),
        (flag, "write failure_policy: FAIL_RELOAD"),
    ]
    .into_iter()
    .filter_map(|(member, remedy)| Some(error(member?.span.clone(), FAILS_OPEN, remedy)))
}

/// What is wrong with every setting of that kind.
pub(super) const FAILS_OPEN: &str = "requests pass unchecked when the module fails";

/// `FAIL_OPEN`, by name or by number.
pub(super) fn is_fail_open(policy: &Located) -> bool {
    use crate::document::Data;
    use tollgate::json::Value;
    match &policy.data {
        Data::Plain(Value::Number(number)) => number.as_u64() == Some(3),
        _ => policy.as_str() == Some("FAIL_OPEN"),
    }
}
