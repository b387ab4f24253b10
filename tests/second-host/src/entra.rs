//! An identity provider that replies to the calls of a VM.

use serde_json::{Value, json};

use crate::callout::{Callout, Reply};
use crate::token::TENANT;
use crate::vm::Vm;

/// Where a policy finds the keys, without metadata.
const JWKS_URI: &str = "https://login.microsoftonline.com/common/discovery/v2.0/keys";

/// Entra ID, as the module sees it: a metadata document and a key set.
pub struct Entra {
    /// The key set it serves.
    pub jwks: Value,
    /// Requests for metadata so far.
    pub metadata_requests: u32,
    /// Requests for keys so far.
    pub key_requests: u32,
    failing: Option<Reply>,
}

impl Entra {
    /// Serves `jwks`.
    #[must_use]
    pub fn new(jwks: Value) -> Self {
        Self {
            jwks,
            metadata_requests: 0,
            key_requests: 0,
            failing: None,
        }
    }

    /// From here on, every call ends like this.
    pub fn fail(&mut self, with: Reply) {
        self.failing = Some(with);
    }

    /// From here on, every call is answered well.
    pub fn recover(&mut self) {
        self.failing = None;
    }

    /// Requests of both kinds so far.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.metadata_requests + self.key_requests
    }

    /// The address of the key set, for a policy that names it.
    #[must_use]
    pub fn jwks_uri() -> &'static str {
        JWKS_URI
    }

    /// Replies to everything that `vm` asked and asks in consequence.
    ///
    /// # Panics
    ///
    /// When the module does not stop asking.
    pub fn serve(&mut self, vm: &mut Vm) {
        for _ in 0..8 {
            let callouts = vm.callouts();
            if callouts.is_empty() {
                return;
            }
            for callout in callouts {
                let reply = self.reply(&callout);
                vm.reply(callout, reply);
            }
        }
        panic!("the module keeps asking: {:#?}", vm.callouts());
    }

    /// What it replies to one call.
    pub fn reply(&mut self, callout: &Callout) -> Reply {
        let path = callout.path();
        let metadata = path.contains("/.well-known/openid-configuration");
        if metadata {
            self.metadata_requests += 1;
        } else {
            self.key_requests += 1;
        }
        match &self.failing {
            Some(reply) => reply.clone(),
            None if metadata => Reply::json(&Self::metadata()),
            None if path.contains("/discovery/") => Reply::json(&self.jwks),
            None => Reply::with(404, "{}"),
        }
    }

    /// The tenant's v2.0 metadata document.
    #[must_use]
    pub fn metadata() -> Value {
        let base = format!("https://login.microsoftonline.com/{TENANT}");
        json!({
            "token_endpoint": format!("{base}/oauth2/v2.0/token"),
            "jwks_uri": format!("{base}/discovery/v2.0/keys"),
            "issuer": format!("{base}/v2.0"),
            "id_token_signing_alg_values_supported": ["RS256"],
            "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
            "tenant_region_scope": "EU",
            "cloud_instance_name": "microsoftonline.com",
        })
    }
}
