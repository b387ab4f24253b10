//! From verified claims to a caller: what must hold at the moment of the request.

use std::rc::Rc;

use super::{ClaimError, Claims, Version};
use crate::guid::same_text;
use crate::json::Value;
use crate::policy::{ClaimMatch, Issuer, RequiredClaim, Tenant};

/// A caller whose token is good now, under this policy. Made only by [`Caller::admit`].
#[derive(Clone, Debug)]
pub struct Caller {
    claims: Rc<Claims>,
}

/// Which rule the claims break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimRefusal {
    /// `exp` and the skew have passed.
    Expired,
    /// `nbf` or `iat` lies in the future, beyond the skew.
    NotYetValid,
    /// No `aud` is one of the policy's.
    Audience,
    /// `iss`, `ver` and `tid` do not belong together.
    Tenant,
    /// A claim the policy requires is not there.
    ClaimNotFound(String),
    /// A claim the policy requires has none of the wanted values.
    ClaimValue(String),
    /// The application is not named, or not in the one way of the token's version.
    Application(ClaimError),
}

impl Caller {
    /// Checks claims against the time and the issuer's policy. Done on every request, also for
    /// a token that is known already.
    ///
    /// # Errors
    /// The first rule that is broken, in the order of the checks.
    pub fn admit(claims: &Rc<Claims>, issuer: &Issuer, now: i64) -> Result<Self, ClaimRefusal> {
        check_time(claims, issuer, now)?;
        check_audience(claims, issuer)?;
        if let Some(tenant) = &issuer.tenant {
            check_tenant(claims, tenant)?;
        }
        for required in &issuer.required_claims {
            check_required(claims, required)?;
        }
        Ok(Self {
            claims: Rc::clone(claims),
        })
    }

    /// The same for a token that is seen for the first time, with what is wrong with its application
    /// ([`Verified::fault`](super::Verified::fault)).
    ///
    /// # Errors
    /// As [`Caller::admit`], and the fault where nothing else is wrong.
    pub fn admit_first(
        claims: &Rc<Claims>,
        fault: Option<ClaimError>,
        issuer: &Issuer,
        now: i64,
    ) -> Result<Self, ClaimRefusal> {
        match (Self::admit(claims, issuer, now), fault) {
            // No version agrees with any form of iss.
            (Err(ClaimRefusal::Tenant), Some(fault)) if claims.ver.is_none() => {
                Err(ClaimRefusal::Application(fault))
            }
            (Ok(_), Some(fault)) => Err(ClaimRefusal::Application(fault)),
            (admitted, _) => admitted,
        }
    }

    /// The verified claims.
    #[must_use]
    pub fn claims(&self) -> &Rc<Claims> {
        &self.claims
    }

    /// The verified claims, to keep.
    #[must_use]
    pub fn into_claims(self) -> Rc<Claims> {
        self.claims
    }
}

fn check_time(claims: &Claims, issuer: &Issuer, now: i64) -> Result<(), ClaimRefusal> {
    let skew = i64::try_from(issuer.clock_skew).unwrap_or(i64::MAX);
    // RFC 7519 section 4.1.4: not accepted on or after exp.
    if now >= claims.exp.saturating_add(skew) {
        return Err(ClaimRefusal::Expired);
    }
    let latest_start = now.saturating_add(skew);
    let too_early = |date: Option<i64>| date.is_some_and(|date| date > latest_start);
    if too_early(claims.nbf) || too_early(claims.iat) {
        return Err(ClaimRefusal::NotYetValid);
    }
    Ok(())
}

/// Equal but for one trailing slash, which some Azure SDKs send and others do not.
fn check_audience(claims: &Claims, issuer: &Issuer) -> Result<(), ClaimRefusal> {
    let accepted = claims.aud.iter().any(|audience| {
        let audience = audience.strip_suffix('/').unwrap_or(audience);
        issuer
            .audiences
            .iter()
            .any(|wanted| same_text(wanted, audience))
    });
    if accepted {
        Ok(())
    } else {
        Err(ClaimRefusal::Audience)
    }
}

fn check_tenant(claims: &Claims, tenant: &Tenant) -> Result<(), ClaimRefusal> {
    let Some(tid) = claims.tid else {
        return Err(ClaimRefusal::ClaimNotFound("tid".to_owned()));
    };
    if tid != tenant.id {
        return Err(ClaimRefusal::ClaimValue("tid".to_owned()));
    }
    let version_of_iss = if claims.iss.ends_with("/v2.0") {
        Version::V2
    } else {
        Version::V1
    };
    if claims.ver != Some(version_of_iss) {
        return Err(ClaimRefusal::Tenant);
    }
    Ok(())
}

fn check_required(claims: &Claims, required: &RequiredClaim) -> Result<(), ClaimRefusal> {
    let value = claims.named(&required.name);
    // Without a value it says nothing.
    let Some(value) = value.filter(|value| !matches!(value, Value::Null)) else {
        return Err(ClaimRefusal::ClaimNotFound(required.name.clone()));
    };
    let holds = |wanted: &String| holds(value, wanted, required.separator.as_deref());
    let satisfied = required.values.is_empty()
        || match required.matching {
            ClaimMatch::All => required.values.iter().all(holds),
            ClaimMatch::Any => required.values.iter().any(holds),
        };
    if satisfied {
        Ok(())
    } else {
        Err(ClaimRefusal::ClaimValue(required.name.clone()))
    }
}

/// Whether a claim holds a value: as an element of an array, as a part of a separated string,
/// or as the whole of either.
fn holds(claim: &Value<'_>, wanted: &str, separator: Option<&str>) -> bool {
    let is_part = |text: &str| {
        separator.is_some_and(|separator| text.split(separator).any(|part| same_text(wanted, part)))
    };
    match claim {
        Value::String(text) => same_text(wanted, text) || is_part(text),
        Value::Array(values) => values
            .iter()
            .any(|value| value.as_str().is_some_and(|text| same_text(wanted, text))),
        Value::Bool(value) => wanted == if *value { "true" } else { "false" },
        Value::Number(number) => number.to_string() == wanted,
        Value::Null | Value::Object(_) => false,
    }
}
