//! Envoy Gateway: an `EnvoyExtensionPolicy` with the module, what replaces it, and the interlock, by an
//! `EnvoyPatchPolicy` or by a `SecurityPolicy`.

use super::envoy::{FAILS_OPEN, is_fail_open};
use super::interlock::{self, CEL_REMEDY};
use super::node::{at, field, is_true, place, text};
use super::resource::{Resource, Target};
use super::{Configuration, Findings, error, note, warning};
use crate::document::Located;
use crate::report::Finding;

const ROUTER: &str = "envoy.filters.http.router";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const REMEDY: &str = "add an EnvoyPatchPolicy that puts the interlock before the router, as envoy/envoy-gateway.yaml has it";

pub(super) fn check(configuration: &Configuration<'_>, found: &mut Findings) {
    for policy in of_kind(configuration, "EnvoyExtensionPolicy") {
        if let Some(module) = module_of(configuration, policy) {
            let guard = Guard {
                configuration,
                policy,
                module,
            };
            guard.check(found);
        }
    }
    let patches = of_kind(configuration, "EnvoyPatchPolicy");
    for (patch, operation) in patches.flat_map(operations) {
        found.extend(opens(operation).map(|finding| (patch.file, finding)));
    }
}

fn of_kind<'a>(
    configuration: &'a Configuration<'a>,
    kind: &'static str,
) -> impl Iterator<Item = &'a Resource<'a>> {
    let resources = configuration.resources.iter();
    resources.filter(move |resource| resource.kind == kind)
}

/// The element of `wasm` or `dynamicModule` that is the module.
fn module_of<'a>(configuration: &Configuration<'_>, policy: &Resource<'a>) -> Option<&'a Located> {
    let lists = ["wasm", "dynamicModule"].map(|name| field(policy.spec, name));
    let mut elements = lists.into_iter().flatten().flat_map(Located::elements);
    elements.find(|element| {
        let named = text(element, &["name"]).is_some_and(|name| name.contains("tollgate"));
        named || configuration.holds_policy(policy.file, element)
    })
}

/// The policy that has the module, and what it is to guard.
struct Guard<'a> {
    configuration: &'a Configuration<'a>,
    policy: &'a Resource<'a>,
    module: &'a Located,
}

impl Guard<'_> {
    fn check(&self, found: &mut Findings) {
        if let Some(fail_open) = field(self.module, "failOpen").filter(|flag| is_true(Some(flag))) {
            let finding = error(fail_open.span.clone(), FAILS_OPEN, "write false");
            found.push((self.policy.file, finding));
        }
        self.interlocks(found);
        self.replacements(found);
        self.merged_backends(found);
    }

    /// The Gateways that the policy is attached to.
    fn gateways(&self) -> Vec<&str> {
        let targets = self.policy.targets().into_iter();
        let named = targets.filter(|target| target.kind == "Gateway");
        let mut gateways: Vec<_> = named.map(|target| target.name).collect();
        for (kind, selector) in self.policy.selectors() {
            let resources = of_kind(self.configuration, "Gateway");
            let selected =
                resources.filter(|gateway| kind == "Gateway" && selects(selector, gateway));
            gateways.extend(selected.map(|gateway| gateway.name));
        }
        gateways
    }

    // The interlock

    fn interlocks(&self, found: &mut Findings) {
        let patches = of_kind(self.configuration, "EnvoyPatchPolicy");
        let patches: Vec<_> = patches.filter(|patch| has_interlock(patch)).collect();
        let policies = of_kind(self.configuration, "SecurityPolicy");
        let policies: Vec<_> = policies.filter(|policy| is_cel_interlock(policy)).collect();
        if patches.is_empty() && policies.is_empty() {
            let problem = "no interlock: requests pass unchecked where another policy replaces this one, \
                or it is deleted or not yet there";
            found.push((self.policy.file, error(place(self.module), problem, REMEDY)));
        }
        let mut misses = Vec::new();
        let mut reach = |resource: &&&Resource<'_>| match self.misses(resource) {
            Some(finding) => {
                misses.push((resource.file, finding, self.is_of_another(resource)));
                false
            }
            None => true,
        };
        let patches: Vec<_> = patches.iter().filter(&mut reach).copied().collect();
        let policies: Vec<_> = policies.iter().filter(&mut reach).copied().collect();
        let none_reach = patches.is_empty() && policies.is_empty();
        for (file, finding, is_of_another) in misses {
            if none_reach || !is_of_another {
                found.push((file, finding));
            }
        }
        for patch in &patches {
            let faults = self.patch_faults(patch).into_iter();
            found.extend(faults.map(|finding| (patch.file, finding)));
            found.extend(self.late(patch));
        }
        for policy in &policies {
            let faults = authorization_faults(policy).into_iter();
            found.extend(faults.map(|finding| (policy.file, finding)));
            if patches.is_empty() {
                self.replaced_authorization(policy, found);
                let problem = "the only interlock is a SecurityPolicy: one on a route replaces it, and a route that comes first is open until it is there";
                let place = name_of(policy);
                found.push((policy.file, warning(place, problem, REMEDY)));
            }
        }
    }

    /// Why an interlock is not for the whole Gateway of the module's policy.
    fn misses(&self, interlock: &Resource<'_>) -> Option<Finding> {
        let gateways = self.gateways();
        let is_near = interlock.namespace == self.policy.namespace;
        let reaches = |target: &Target<'_>| {
            let is_class = interlock.kind == "EnvoyPatchPolicy" && target.kind == "GatewayClass";
            let is_gateway = target.kind == "Gateway" && target.section.is_none();
            is_class || (is_near && is_gateway && gateways.contains(&target.name))
        };
        let targets = interlock.targets();
        if targets.iter().any(reaches) {
            return None;
        }
        let problem =
            "this is not the whole Gateway of the module's policy, which gets no interlock";
        let remedy = format!("write {}, in its namespace", gateways.join(" or "));
        let target = targets.first().map(|target| place(target.place));
        Some(error(
            target.unwrap_or_else(|| name_of(interlock)),
            problem,
            remedy,
        ))
    }

    /// Whether it is attached to another Gateway that is in the files.
    fn is_of_another(&self, interlock: &Resource<'_>) -> bool {
        interlock.targets().iter().any(|target| {
            of_kind(self.configuration, "Gateway").any(|gateway| {
                (gateway.name, gateway.namespace) == (target.name, interlock.namespace)
                    && !self.gateways().contains(&gateway.name)
            })
        })
    }

    /// In one file the interlock comes before the routes of the Gateway.
    fn late(&self, interlock: &Resource<'_>) -> Option<(usize, Finding)> {
        let mut resources = self.configuration.resources.iter();
        let is_early = resources.any(|route| {
            route.kind.ends_with("Route")
                && route.file == interlock.file
                && route.order < interlock.order
                && self.is_ours(route.kind, route.name, route.namespace)
        });
        is_early.then(|| {
            let problem = "the interlock comes after a route: while the file is applied, requests may pass unchecked";
            let remedy = "put the EnvoyPatchPolicy first and the routes last";
            (interlock.file, warning(name_of(interlock), problem, remedy))
        })
    }

    /// What is wrong with an interlock by `EnvoyPatchPolicy`.
    fn patch_faults(&self, patch: &Resource<'_>) -> Vec<Finding> {
        let mut found = Vec::new();
        for (_, operation) in operations(patch) {
            let value = at(operation, &["operation", "value"]);
            if let Some(value) = value.filter(|value| interlock::is_meant(value)) {
                found.extend(interlock::faults(value));
                found.extend(position(operation));
            }
        }
        found.extend(self.names(patch));
        found
    }

    /// One operation for each listener of Envoy: those of a Gateway share one for each port.
    fn names(&self, patch: &Resource<'_>) -> Vec<Finding> {
        let names: Vec<_> = operations(patch)
            .filter(|(_, operation)| {
                let value = at(operation, &["operation", "value"]);
                value.is_some_and(interlock::is_meant)
            })
            .filter_map(|(_, operation)| field(operation, "name"))
            .collect();
        let is_named = |expected: &[String]| {
            let given = names.iter().filter_map(|name| name.as_str());
            given
                .into_iter()
                .any(|name| expected.iter().any(|right| right == name))
        };
        let mut found = Vec::new();
        let mut right = Vec::new();
        for gateway in self.visible_gateways() {
            for (port, listeners) in ports(gateway) {
                let full = |name: &str| format!("{}/{}/{name}", gateway.namespace, gateway.name);
                let mut expected: Vec<_> = listeners.iter().map(|name| full(name)).collect();
                expected.push(format!("tcp-{port}"));
                if !is_named(&expected) {
                    let problem = format!("the listener of port {port} has no interlock");
                    let name = expected.first().cloned().unwrap_or_default();
                    let remedy = format!("add an operation with name: {name}");
                    found.push(error(name_of(patch), problem, remedy));
                }
                right.extend(expected.clone());
                let quic: Vec<_> = listeners.iter().map(|name| full(name) + "-quic").collect();
                if self.speaks_http3(gateway) && !is_named(&quic) {
                    let problem = format!("the HTTP/3 listener of port {port} has no interlock");
                    let name = quic.first().cloned().unwrap_or_default();
                    let remedy = format!("add an operation with name: {name}");
                    found.push(error(name_of(patch), problem, remedy));
                }
                right.extend(quic);
                right.push(format!("udp-{port}"));
            }
        }
        let unknown = |name: &&&Located| {
            name.as_str()
                .is_some_and(|name| !right.iter().any(|right| right == name))
        };
        if let Some(name) = names.iter().find(unknown).filter(|_| !right.is_empty()) {
            let problem = "no listener has this name: none of the operations is applied";
            let remedy = format!("write {}", right.first().cloned().unwrap_or_default());
            found.push(error(name.span.clone(), problem, remedy));
        }
        // Where it is named wrongly, that says it all.
        let wrongly = found
            .iter()
            .any(|finding| finding.problem.starts_with("no listener"));
        found.retain(|finding| !wrongly || finding.problem.starts_with("no listener"));
        found
    }

    fn visible_gateways(&self) -> impl Iterator<Item = &Resource<'_>> {
        let names = self.gateways();
        of_kind(self.configuration, "Gateway").filter(move |gateway| {
            gateway.namespace == self.policy.namespace && names.contains(&gateway.name)
        })
    }

    fn speaks_http3(&self, gateway: &Resource<'_>) -> bool {
        of_kind(self.configuration, "ClientTrafficPolicy").any(|traffic| {
            let mut targets = traffic.targets().into_iter();
            let is_its_own = targets.any(|target| target.name == gateway.name);
            is_its_own && field(traffic.spec, "http3").is_some()
        })
    }

    /// A `SecurityPolicy` of a route takes the place of the Gateway's.
    fn replaced_authorization(&self, interlock: &Resource<'_>, found: &mut Findings) {
        for policy in of_kind(self.configuration, "SecurityPolicy") {
            if std::ptr::eq(policy.root, interlock.root) || !self.is_near(policy) {
                continue;
            }
            let has_own = field(policy.spec, "authorization").is_some();
            if is_merged(policy) && !has_own {
                continue;
            }
            if let Some(target) = self.attached(policy) {
                let problem = "replaces the SecurityPolicy with the interlock";
                let remedy = "write mergeType: StrategicMerge and no authorization, or add an EnvoyPatchPolicy with the interlock";
                found.push((policy.file, error(place(target), problem, remedy)));
            }
        }
    }

    // What takes the module's place

    /// Other policies on the Gateway, on a listener of it or on its routes.
    fn replacements(&self, found: &mut Findings) {
        for other in of_kind(self.configuration, "EnvoyExtensionPolicy") {
            if std::ptr::eq(other.root, self.policy.root) || !self.is_near(other) {
                continue;
            }
            let Some(target) = self.attached(other) else {
                continue;
            };
            if module_of(self.configuration, other).is_some() {
                continue;
            }
            let name = self.policy.name;
            if !is_merged(other) {
                let problem =
                    format!("replaces the policy {name:?} here: requests pass without the module");
                let remedy = "write mergeType: StrategicMerge, or take one policy for both";
                found.push((other.file, error(place(target), problem, remedy)));
            } else if let Some((key, _)) = other.spec.member("wasm") {
                let problem = format!(
                    "a merged list replaces that of the policy {name:?}: requests pass without the module"
                );
                let remedy = "add the module to this list too, or leave the list out";
                found.push((other.file, error(key.span.clone(), problem, remedy)));
            }
        }
    }

    fn is_near(&self, other: &Resource<'_>) -> bool {
        other.namespace == self.policy.namespace || !self.gateways().is_empty()
    }

    /// What of this Gateway another policy is attached to: where a route cannot be seen, it may be of this one.
    fn attached<'b>(&self, other: &Resource<'b>) -> Option<&'b Located> {
        let gateways = self.gateways();
        let named = other.targets().into_iter().find(|target| {
            if target.kind == "Gateway" {
                other.namespace == self.policy.namespace && gateways.contains(&target.name)
            } else {
                target.kind.ends_with("Route")
                    && self.is_ours(target.kind, target.name, other.namespace)
            }
        });
        if let Some(target) = named {
            return Some(target.place);
        }
        let selected = other.selectors().into_iter().find(|(kind, selector)| {
            let mut resources = self.configuration.resources.iter();
            resources.any(|resource| {
                resource.kind == *kind
                    && selects(selector, resource)
                    && if *kind == "Gateway" {
                        gateways.contains(&resource.name)
                    } else {
                        self.is_ours(kind, resource.name, resource.namespace)
                    }
            })
        });
        selected.map(|(_, selector)| selector)
    }

    /// Whether a route leads from this Gateway.
    fn is_ours(&self, kind: &str, name: &str, namespace: &str) -> bool {
        let mut routes =
            self.configuration.resources.iter().filter(|route| {
                (route.kind, route.name, route.namespace) == (kind, name, namespace)
            });
        routes.next().is_none_or(|route| {
            let parents = field(route.spec, "parentRefs").map_or(&[][..], Located::elements);
            let gateways = self.gateways();
            parents.iter().any(|parent| {
                let namespace = text(parent, &["namespace"]).unwrap_or(route.namespace);
                let name = text(parent, &["name"]).unwrap_or_default();
                namespace == self.policy.namespace && gateways.contains(&name)
            })
        })
    }

    /// `mergeBackends` gives the clusters other names than the policy's `cluster` has.
    fn merged_backends(&self, found: &mut Findings) {
        let routes: Vec<_> = clusters_of(self.module)
            .into_iter()
            .filter_map(|cluster| {
                let (namespace, rest) = cluster.strip_prefix("httproute/")?.split_once('/')?;
                Some((namespace.to_owned(), rest.split('/').next()?.to_owned()))
            })
            .collect();
        let is_exempt = |namespace: &str, name: &str| {
            of_kind(self.configuration, "BackendTrafficPolicy").any(|policy| {
                let mut targets = policy.targets().into_iter();
                policy.namespace == namespace
                    && targets.any(|target| target.kind == "HTTPRoute" && target.name == name)
            })
        };
        for proxy in of_kind(self.configuration, "EnvoyProxy") {
            let Some((key, _)) = proxy.spec.member("mergeBackends") else {
                continue;
            };
            for (namespace, name) in &routes {
                let finding = if is_exempt(namespace, name) {
                    let problem = format!(
                        "does not merge the route {namespace}/{name}, which the module fetches keys by, while a BackendTrafficPolicy is attached to it"
                    );
                    note(key.span.clone(), problem)
                } else {
                    let problem = format!(
                        "renames the cluster of the route {namespace}/{name}: the module gets no keys, and every call 503"
                    );
                    let remedy = format!(
                        "attach a BackendTrafficPolicy to the route {name}, which is then not merged"
                    );
                    warning(key.span.clone(), problem, remedy)
                };
                found.push((proxy.file, finding));
            }
        }
    }
}

/// What is wrong with an interlock by `SecurityPolicy`.
fn authorization_faults(policy: &Resource<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let authorization = field(policy.spec, "authorization");
    let default = authorization.and_then(|rules| field(rules, "defaultAction"));
    if let Some(default) = default.filter(|action| action.as_str() != Some("Deny")) {
        let problem = "what no rule allows passes";
        found.push(error(default.span.clone(), problem, "write Deny"));
    }
    for rule in rules_of(policy) {
        if text(rule, &["action"]) == Some("Deny") {
            continue;
        }
        match field(rule, "cel") {
            None => {
                let problem = "allows what the module has not let pass";
                found.push(error(place(rule), problem, CEL_REMEDY));
            }
            Some(cel) => {
                if let Some(problem) = interlock::cel_fault(cel.as_str().unwrap_or_default()) {
                    found.push(error(cel.span.clone(), problem, CEL_REMEDY));
                }
            }
        }
    }
    found
}

/// The clusters that the module calls.
fn clusters_of(module: &Located) -> Vec<String> {
    let config = field(module, "config");
    let issuers = config.and_then(|config| field(config, "issuers"));
    let issuers = issuers.map_or(&[][..], Located::elements);
    let clusters = issuers
        .iter()
        .filter_map(|issuer| text(issuer, &["cluster"]));
    clusters.map(str::to_owned).collect()
}

/// The name of a resource in its metadata.
fn name_of(resource: &Resource<'_>) -> std::ops::Range<usize> {
    place(field(resource.root, "metadata").unwrap_or(resource.root))
}

fn selects(selector: &Located, resource: &Resource<'_>) -> bool {
    field(selector, "matchLabels").is_none_or(|labels| resource.has_labels(labels))
}

fn is_merged(policy: &Resource<'_>) -> bool {
    let kind = text(policy.spec, &["mergeType"]);
    kind.is_some_and(|kind| kind != "Replace")
}

/// The operations of an `EnvoyPatchPolicy`.
fn operations<'a>(
    patch: &'a Resource<'a>,
) -> impl Iterator<Item = (&'a Resource<'a>, &'a Located)> {
    let list = field(patch.spec, "jsonPatches").map_or(&[][..], Located::elements);
    list.iter().map(move |operation| (patch, operation))
}

fn has_interlock(patch: &Resource<'_>) -> bool {
    operations(patch).any(|(_, operation)| {
        let value = at(operation, &["operation", "value"]);
        value.is_some_and(interlock::is_meant)
    })
}

/// Where an operation puts the interlock, when that is not before the router.
fn position(patch: &Located) -> Option<Finding> {
    let remedy =
        "write op: add with jsonPath: \"..http_filters[?(@.name=='envoy.filters.http.router')]\"";
    let of_listener = field(patch, "type");
    if let Some(kind) = of_listener.filter(|kind| kind.as_str() != Some(LISTENER)) {
        let problem = "the filters are the listener's";
        return Some(error(
            kind.span.clone(),
            problem,
            format!("write {LISTENER}"),
        ));
    }
    let operation = field(patch, "operation")?;
    if let Some(op) = field(operation, "op").filter(|op| op.as_str() != Some("add")) {
        let problem = "takes the place of another filter";
        return Some(error(op.span.clone(), problem, remedy));
    }
    if let Some(path) = field(operation, "path") {
        let last = path.as_str().unwrap_or_default().rsplit('/').next();
        let problem = match last {
            Some("-") => "puts the interlock after the router",
            Some("0") => "puts the interlock before the module",
            _ => "counts filters, and other policies change how many there are",
        };
        return Some(error(path.span.clone(), problem, remedy));
    }
    let found = field(operation, "jsonPath");
    let is_router = found
        .and_then(Located::as_str)
        .is_some_and(|path| path.contains("http_filters") && path.contains(ROUTER));
    let span = found.map_or_else(|| place(operation), |path| path.span.clone());
    let problem = "does not put the interlock before the router";
    (!is_router).then(|| error(span, problem, remedy))
}

/// An operation that has requests pass when the module fails.
fn opens(patch: &Located) -> Option<Finding> {
    let operation = field(patch, "operation")?;
    let value = field(operation, "value")?;
    let paths = ["path", "jsonPath"].map(|name| text(operation, &[name]).unwrap_or_default());
    let sets = |name: &str| paths.iter().any(|path| path.ends_with(name));
    let is_open = (sets("failure_policy") && is_fail_open(value))
        || (sets("fail_open") && is_true(Some(value)));
    is_open.then(|| error(value.span.clone(), FAILS_OPEN, "write FAIL_RELOAD"))
}

/// The ports of a Gateway's HTTP listeners, each with their names.
fn ports<'a>(gateway: &Resource<'a>) -> Vec<(String, Vec<&'a str>)> {
    let mut ports: Vec<(String, Vec<&str>)> = Vec::new();
    let listeners = field(gateway.spec, "listeners").map_or(&[][..], Located::elements);
    for listener in listeners {
        if !matches!(text(listener, &["protocol"]), Some("HTTP" | "HTTPS")) {
            continue;
        }
        let port =
            field(listener, "port").map_or_else(String::new, |port| port.to_value().to_json());
        let name = text(listener, &["name"]).unwrap_or_default();
        match ports.iter_mut().find(|(known, _)| *known == port) {
            Some((_, names)) => names.push(name),
            None => ports.push((port, vec![name])),
        }
    }
    ports
}

fn rules_of<'a>(policy: &Resource<'a>) -> &'a [Located] {
    at(policy.spec, &["authorization", "rules"]).map_or(&[], Located::elements)
}

/// Whether a `SecurityPolicy` is meant as the interlock.
fn is_cel_interlock(policy: &Resource<'_>) -> bool {
    rules_of(policy).iter().any(interlock::mentions_the_module)
}
