//! Istio: a `WasmPlugin` with the module, and the `EnvoyFilter` that has the interlock.

use super::envoy::{FAILS_OPEN, is_fail_open};
use super::interlock;
use super::node::{at, each_map, field, place, text};
use super::resource::Resource;
use super::{Configuration, Findings, error, warning};
use crate::document::Located;
use crate::report::Finding;

const ROUTER: &str = "envoy.filters.http.router";
const ROOT_NAMESPACE: &str = "istio-system";
const REMEDY: &str = "add an EnvoyFilter with applyTo: HTTP_FILTER, operation: INSERT_BEFORE, subFilter: \
    {name: envoy.filters.http.router} and the interlock, as envoy/istio.yaml has it";

pub(super) fn check(configuration: &Configuration<'_>, found: &mut Findings) {
    let of_kind = |kind| {
        let resources = configuration.resources.iter();
        resources.filter(move |resource| resource.kind == kind)
    };
    let patches: Vec<_> = of_kind("EnvoyFilter").flat_map(patches).collect();
    for plugin in of_kind("WasmPlugin") {
        if is_module(configuration, plugin) {
            one_plugin(plugin, &patches, found);
        }
    }
    for filter in of_kind("EnvoyFilter") {
        each_map(filter.spec, &mut |map| {
            if let Some(policy) = field(map, "failure_policy").filter(|value| is_fail_open(value)) {
                let finding = error(policy.span.clone(), FAILS_OPEN, "write FAIL_RELOAD");
                found.push((filter.file, finding));
            }
        });
    }
}

fn is_module(configuration: &Configuration<'_>, plugin: &Resource<'_>) -> bool {
    configuration.holds_policy(plugin.file, plugin.spec)
        || text(plugin.spec, &["url"]).is_some_and(|url| url.contains("tollgate"))
}

/// A patch of an `EnvoyFilter` that is meant to bring the interlock.
struct Patch<'a> {
    filter: &'a Resource<'a>,
    patch: &'a Located,
    value: &'a Located,
}

fn patches<'a>(filter: &'a Resource<'a>) -> Vec<Patch<'a>> {
    let list = field(filter.spec, "configPatches").map_or(&[][..], Located::elements);
    let patches = list.iter().filter_map(|patch| {
        let value = at(patch, &["patch", "value"])?;
        interlock::is_meant(value).then_some(Patch {
            filter,
            patch,
            value,
        })
    });
    patches.collect()
}

fn one_plugin(plugin: &Resource<'_>, patches: &[Patch<'_>], found: &mut Findings) {
    if let Some(strategy) = field(plugin.spec, "failStrategy").filter(|value| is_fail_open(value)) {
        let finding = error(strategy.span.clone(), FAILS_OPEN, "write FAIL_RELOAD");
        found.push((plugin.file, finding));
    }
    if patches.is_empty() {
        let problem = "no interlock: requests pass unchecked where this is deleted, cannot be fetched or fails open";
        let place = field(plugin.root, "metadata").map_or_else(|| place(plugin.root), place);
        found.push((plugin.file, error(place, problem, REMEDY)));
    }
    let misses: Vec<_> = patches.iter().map(|patch| patch.misses(plugin)).collect();
    let reach = |(patch, misses): (_, &Option<Finding>)| misses.is_none().then_some(patch);
    let mut reaching = patches.iter().zip(&misses).filter_map(reach).peekable();
    if reaching.peek().is_none() {
        let files = patches.iter().map(|patch| patch.filter.file);
        found.extend(files.zip(misses.iter().flatten().cloned()));
    }
    for patch in reaching {
        let faults = patch.faults().into_iter();
        found.extend(faults.map(|finding| (patch.filter.file, finding)));
        found.extend(late(patch.filter, plugin));
    }
}

/// In one file the interlock comes first: it is applied and deleted in that order.
fn late(filter: &Resource<'_>, plugin: &Resource<'_>) -> Option<(usize, Finding)> {
    let is_late = filter.file == plugin.file && filter.order > plugin.order;
    is_late.then(|| {
        let problem = "the interlock comes after the WasmPlugin: while the file is applied, requests may pass unchecked";
        let place = field(filter.root, "metadata").map_or_else(|| place(filter.root), place);
        let finding = warning(place, problem, "put the EnvoyFilter first and the WasmPlugin last");
        (filter.file, finding)
    })
}

impl Patch<'_> {
    fn faults(&self) -> Vec<Finding> {
        let mut found = interlock::faults(self.value);
        found.extend(self.position());
        found.extend(self.context());
        found
    }

    /// Only before the router it is surely after the module.
    fn position(&self) -> Option<Finding> {
        let applied = field(self.patch, "applyTo");
        if let Some(applied) = applied.filter(|to| to.as_str() != Some("HTTP_FILTER")) {
            let problem = "the interlock is an HTTP filter";
            return Some(error(applied.span.clone(), problem, "write HTTP_FILTER"));
        }
        let operation = at(self.patch, &["patch", "operation"]);
        let sub_filter = [
            "match",
            "listener",
            "filterChain",
            "filter",
            "subFilter",
            "name",
        ];
        let anchor = at(self.patch, &sub_filter);
        let problem = match operation.and_then(Located::as_str) {
            Some("INSERT_BEFORE") if anchor.and_then(Located::as_str) == Some(ROUTER) => {
                return None;
            }
            Some("INSERT_BEFORE") if anchor.is_none() => {
                "without a subFilter it is put first, before the module"
            }
            Some("INSERT_BEFORE" | "INSERT_AFTER")
                if anchor.and_then(Located::as_str) != Some(ROUTER) =>
            {
                "whether this is after the module depends on other resources"
            }
            Some("INSERT_FIRST") => "this puts the interlock before the module",
            Some("INSERT_AFTER" | "ADD") => "this puts the interlock after the router",
            _ => "this puts the interlock nowhere",
        };
        let place = [operation, anchor].into_iter().flatten().next_back();
        let wrong = match operation.and_then(Located::as_str) {
            Some("INSERT_BEFORE") => place,
            _ => operation,
        };
        let span = wrong.map_or_else(|| place_of(self.patch), |value| value.span.clone());
        let remedy =
            "write operation: INSERT_BEFORE with subFilter: {name: envoy.filters.http.router}";
        Some(error(span, problem, remedy))
    }

    /// The listeners of gateways.
    fn context(&self) -> Option<Finding> {
        let context = at(self.patch, &["match", "context"])?;
        let is_right = matches!(context.as_str(), Some("GATEWAY" | "ANY"));
        let problem = "these are not a gateway's listeners";
        (!is_right).then(|| error(context.span.clone(), problem, "write GATEWAY"))
    }

    /// Why it is not for all pods of the plugin.
    fn misses(&self, plugin: &Resource<'_>) -> Option<Finding> {
        let namespace = self.filter.namespace;
        if namespace != plugin.namespace && namespace != ROOT_NAMESPACE {
            let place = at(self.filter.root, &["metadata", "namespace"])
                .map_or_else(|| place_of(self.filter.root), |value| value.span.clone());
            let problem = "an EnvoyFilter is for the pods of its namespace alone";
            let remedy = format!("write the WasmPlugin's: {}", plugin.namespace);
            return Some(error(place, problem, remedy));
        }
        let labels = at(self.filter.spec, &["workloadSelector", "labels"])?;
        let selected = at(plugin.spec, &["selector", "matchLabels"]);
        if selected.is_none() && field(plugin.spec, "targetRefs").is_some() {
            return None;
        }
        let (key, value) = labels.members().iter().find(|(key, value)| {
            let here = selected.and_then(|selected| selected.get(&key.name));
            here.and_then(Located::as_str) != value.as_str()
        })?;
        let problem = format!(
            "the WasmPlugin runs in pods without the label {}: {}",
            key.name,
            value.as_str().unwrap_or_default()
        );
        let remedy = "write the labels of the WasmPlugin's selector";
        Some(error(key.span.clone(), problem, remedy))
    }
}

fn place_of(value: &Located) -> std::ops::Range<usize> {
    place(value)
}
