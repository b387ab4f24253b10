//! What an imported policy needs of Envoy: clusters for the keys and for the backend.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;
use tollgate::url::{Scheme, Url};

use super::draft::Draft;

const HEAD: &str = "\
# What the policy needs of Envoy, to merge into a configuration such as envoy/envoy.yaml: by hand, or by
# Envoy itself with --config-yaml. The policy goes into the configuration of the filter.
";

/// A cluster and the host that it reaches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cluster {
    name: String,
    authority: String,
    tls: bool,
}

/// The configuration, in YAML.
pub(super) fn write(draft: &Draft) -> String {
    let mut clusters: BTreeSet<Cluster> = draft.issuers.iter().filter_map(of_issuer).collect();
    let backend = draft.backend.as_deref().and_then(Url::parse);
    if let Some(url) = &backend {
        clusters.insert(Cluster::new("azure_openai", url));
    }
    let mut text = HEAD.to_owned();
    if let Some(url) = &backend {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "#\n# The route to the backend:\n#   route: {{ cluster: azure_openai, host_rewrite_literal: {} }}",
            url.authority
        );
    }
    text.push_str("static_resources:\n  clusters:");
    if clusters.is_empty() {
        text.push_str(" []");
    }
    text.push('\n');
    for cluster in &clusters {
        cluster.write(&mut text);
    }
    text
}

fn of_issuer(issuer: &Value) -> Option<Cluster> {
    const ENTRA: &str = "https://login.microsoftonline.com";
    let member = |name: &str| issuer.get(name).and_then(Value::as_str);
    let name = member("cluster")?;
    let address = member("openid_config")
        .or_else(|| member("authority"))
        .unwrap_or(ENTRA);
    Some(Cluster::new(name, &Url::parse(address)?))
}

impl Cluster {
    fn new(name: &str, url: &Url) -> Self {
        Self {
            name: name.to_owned(),
            authority: url.authority.clone(),
            tls: url.scheme == Scheme::Https,
        }
    }

    fn write(&self, text: &mut String) {
        let port = if self.tls { "443" } else { "80" };
        let (host, port) = self
            .authority
            .split_once(':')
            .unwrap_or((&self.authority, port));
        let name = &self.name;
        let _ = write!(
            text,
            "    - name: {name}
      type: LOGICAL_DNS
      dns_lookup_family: V4_PREFERRED
      connect_timeout: 5s
      load_assignment:
        cluster_name: {name}
        endpoints:
          - lb_endpoints:
              - endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {port} }} }} }}
"
        );
        if self.tls {
            let _ = write!(
                text,
                "      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          sni: {host}
          common_tls_context:
            validation_context:
              trusted_ca: {{ filename: /etc/ssl/certs/ca-certificates.crt }}
              match_typed_subject_alt_names: [{{ san_type: DNS, matcher: {{ exact: {host} }} }}]
"
            );
        }
    }
}
