//! What leaves a gateway open, or writes keys into its log: in the configuration around the policies.

mod access_log;
mod envoy;
mod envoy_gateway;
mod interlock;
mod istio;
mod node;
mod resource;

use std::collections::HashSet;
use std::ops::Range;

use tollgate::policy::Policy;

use crate::document::Located;
use crate::place::PolicyFile;
use crate::report::{Finding, Severity};
use resource::Resource;

/// All files of one run: the resources of a gateway may be in several.
struct Configuration<'a> {
    /// Every document with the number of its file.
    documents: Vec<(usize, &'a Located)>,
    resources: Vec<Resource<'a>>,
    /// The spans of the policies, by file.
    policies: HashSet<(usize, Range<usize>)>,
    /// Headers and query parameters that carry API keys.
    keys: HashSet<String>,
}

/// Findings by the number of their file.
type Findings = Vec<(usize, Finding)>;

/// Findings about the configuration in each file.
pub(super) fn findings(files: &[PolicyFile]) -> Vec<Vec<Finding>> {
    let configuration = Configuration::new(files);
    let mut found = Findings::new();
    envoy::check(&configuration, &mut found);
    istio::check(&configuration, &mut found);
    envoy_gateway::check(&configuration, &mut found);
    access_log::check(&configuration, &mut found);
    let mut by_file = vec![Vec::new(); files.len()];
    for (file, finding) in found {
        if let Some(list) = by_file.get_mut(file) {
            list.push(finding);
        }
    }
    for list in &mut by_file {
        list.sort_by_key(|finding: &Finding| (finding.span.start, finding.severity));
        list.dedup();
    }
    by_file
}

/// Whether a file without a policy is a part of a gateway's configuration that is judged here.
pub(super) fn is_part(documents: &[Located]) -> bool {
    let documents: Vec<_> = documents.iter().map(|document| (0, document)).collect();
    let judged = resource::of(&documents).iter().any(Resource::is_judged);
    judged
        || documents
            .iter()
            .any(|(_, document)| envoy::is_part(document))
}

impl<'a> Configuration<'a> {
    fn new(files: &'a [PolicyFile]) -> Self {
        let numbered = || files.iter().enumerate();
        let documents: Vec<_> = numbered()
            .flat_map(|(file, read)| read.documents.iter().map(move |document| (file, document)))
            .collect();
        let policies = numbered().flat_map(|(file, read)| {
            let spans = read.policies.iter().map(|policy| policy.span.clone());
            spans.map(move |span| (file, span))
        });
        Self {
            resources: resource::of(&documents),
            documents,
            policies: policies.collect(),
            keys: keys(files),
        }
    }

    /// Whether a value of a file holds a policy of the module.
    fn holds_policy(&self, file: usize, value: &Located) -> bool {
        node::any(value, &mut |inner| {
            self.policies.contains(&(file, inner.span.clone()))
        })
    }
}

/// Names under which any of the policies looks for API keys, and those that it should.
fn keys(files: &[PolicyFile]) -> HashSet<String> {
    let mut keys: HashSet<String> = access_log::KEYS.iter().map(|&key| key.to_owned()).collect();
    for policy in files.iter().flat_map(|file| &file.policies) {
        if let Ok(policy) = Policy::parse(policy.configuration.as_bytes()) {
            keys.extend(policy.api_keys.headers);
            keys.extend(policy.api_keys.query);
        }
    }
    keys
}

fn error(span: Range<usize>, problem: impl Into<String>, remedy: impl Into<String>) -> Finding {
    finding(Severity::Error, span, problem.into(), remedy.into())
}

fn warning(span: Range<usize>, problem: impl Into<String>, remedy: impl Into<String>) -> Finding {
    finding(Severity::Warning, span, problem.into(), remedy.into())
}

fn note(span: Range<usize>, problem: String) -> Finding {
    finding(Severity::Note, span, problem, String::new())
}

fn finding(severity: Severity, span: Range<usize>, problem: String, remedy: String) -> Finding {
    Finding {
        severity,
        problem,
        remedy,
        span,
    }
}
