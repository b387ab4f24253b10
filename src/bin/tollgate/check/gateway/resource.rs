//! Resources of Kubernetes: their kinds and names, and what a policy is attached to.

use super::node::{at, field, text};
use crate::document::Located;

const DEFAULT_NAMESPACE: &str = "default";

/// A resource in one of the files.
#[derive(Clone, Copy)]
pub(super) struct Resource<'a> {
    pub(super) file: usize,
    /// Its number in the file, from the first on.
    pub(super) order: usize,
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    pub(super) root: &'a Located,
    pub(super) spec: &'a Located,
}

/// Kinds that say something about a gateway though there is no policy in the file.
const JUDGED: [&str; 11] = [
    "WasmPlugin",
    "EnvoyFilter",
    "Telemetry",
    "VirtualService",
    "EnvoyExtensionPolicy",
    "EnvoyPatchPolicy",
    "SecurityPolicy",
    "EnvoyProxy",
    "BackendTrafficPolicy",
    "HTTPRoute",
    "GRPCRoute",
];

/// The resources of documents, also those of a `List`.
pub(super) fn of<'a>(documents: &[(usize, &'a Located)]) -> Vec<Resource<'a>> {
    let mut found = Vec::new();
    for (file, document) in documents {
        add(*file, document, &mut found);
    }
    found
}

fn add<'a>(file: usize, root: &'a Located, found: &mut Vec<Resource<'a>>) {
    let Some(kind) = text(root, &["kind"]) else {
        return;
    };
    if let (true, Some(items)) = (kind.ends_with("List"), root.get("items")) {
        for item in items.elements() {
            add(file, item, found);
        }
        return;
    }
    found.push(Resource {
        file,
        order: found.len(),
        kind,
        name: text(root, &["metadata", "name"]).unwrap_or_default(),
        namespace: text(root, &["metadata", "namespace"]).unwrap_or(DEFAULT_NAMESPACE),
        root,
        spec: root.get("spec").unwrap_or(root),
    });
}

/// What a policy is attached to.
pub(super) struct Target<'a> {
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
    pub(super) section: Option<&'a str>,
    pub(super) place: &'a Located,
}

impl<'a> Resource<'a> {
    pub(super) fn is_judged(&self) -> bool {
        JUDGED.contains(&self.kind)
    }

    /// What `targetRef` and `targetRefs` name.
    pub(super) fn targets(&self) -> Vec<Target<'a>> {
        let one = field(self.spec, "targetRef").into_iter();
        let several = field(self.spec, "targetRefs").map_or(&[][..], Located::elements);
        one.chain(several)
            .map(|place| Target {
                kind: text(place, &["kind"]).unwrap_or_default(),
                name: text(place, &["name"]).unwrap_or_default(),
                section: text(place, &["sectionName"]),
                place,
            })
            .collect()
    }

    /// `targetSelectors`: the kind and the selector of each.
    pub(super) fn selectors(&self) -> Vec<(&'a str, &'a Located)> {
        let list = field(self.spec, "targetSelectors").map_or(&[][..], Located::elements);
        list.iter()
            .map(|selector| (text(selector, &["kind"]).unwrap_or_default(), selector))
            .collect()
    }

    /// Whether every label of a map is one of this resource's.
    pub(super) fn has_labels(&self, labels: &Located) -> bool {
        let own = at(self.root, &["metadata", "labels"]);
        labels.members().iter().all(|(key, value)| {
            let value_here = own.and_then(|own| own.get(&key.name));
            value_here.and_then(Located::as_str) == value.as_str()
        })
    }
}
