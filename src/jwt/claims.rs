//! The claims of a token whose signature is good, with the types Entra ID gives them.
//!
//! Source: Microsoft identity platform, access token claims reference.

use std::fmt;

use crate::guid::Guid;
use crate::json::{Object, Value};
use crate::policy::{AppClaim, Issuer};

/// Most values of `aud`, `roles` or another array that are kept.
const MAX_VALUES: usize = 1000;

/// Longest `uti` or `idtyp` that is kept for the log, in bytes.
const MAX_SHORT_TEXT: usize = 128;

/// Claims of a verified token: what decisions, logs and forwarded headers need, no more.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    /// `iss`.
    pub iss: String,
    /// `ver`, where the issuer is an Entra tenant or the application depends on it.
    pub ver: Option<Version>,
    /// `aud`, one or many.
    pub aud: Vec<String>,
    /// `exp`, seconds since 1970.
    pub exp: i64,
    /// `nbf`, seconds since 1970.
    pub nbf: Option<i64>,
    /// `iat`, seconds since 1970.
    pub iat: Option<i64>,
    /// The application: `appid`, `azp` or the policy's claim.
    pub app_id: Guid,
    /// `tid`.
    pub tid: Option<Guid>,
    /// `oid`.
    pub oid: Option<Guid>,
    /// `uti`: the token's id, for the log.
    pub uti: Option<String>,
    /// `idtyp`: `app` or `user`, for the log.
    pub idtyp: Option<String>,
    /// Claims that the policy names (required or forwarded), as they are.
    pub named: Vec<(String, Value<'static>)>,
}

/// `ver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `1.0`
    V1,
    /// `2.0`
    V2,
}

/// What is wrong with a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// It is needed and not there.
    Missing(String),
    /// It is of the wrong type.
    Type(&'static str),
    /// Its value is none that is allowed.
    Value(&'static str),
    /// It is there twice, in other letters.
    Repeated(&'static str),
}

impl fmt::Display for ClaimError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(formatter, "claim {name:?} is missing"),
            Self::Type(name) => write!(formatter, "claim {name:?} has the wrong type"),
            Self::Value(name) => {
                write!(formatter, "claim {name:?} has a value that is not allowed")
            }
            Self::Repeated(name) => write!(formatter, "claim {name:?} is there twice"),
        }
    }
}

/// The claims of a token whose signature is good.
#[derive(Debug)]
pub struct Verified {
    /// What they are. With a fault, [`Claims::app_id`] is no application's.
    pub claims: Claims,
    /// What is wrong with those that name the application. It is a fault of the caller, and told when
    /// nothing is wrong with the token itself.
    pub fault: Option<ClaimError>,
}

impl Verified {
    /// Reads the claims of a verified payload.
    pub(super) fn read(
        payload: &Object<'_>,
        issuer: &Issuer,
        wanted: &[String],
    ) -> Result<Self, ClaimError> {
        let found = Found::new(payload);
        let mut fault = None;
        let ver = later(read_version(found.ver, issuer), &mut fault)?.flatten();
        let app_id = later(application(payload, &found, issuer, ver), &mut fault)?;
        let named = wanted
            .iter()
            .filter_map(|name| Some((name.clone(), payload.get(name)?.clone().into_owned())))
            .collect();
        let claims = Claims {
            iss: text(found.iss, "iss")?
                .ok_or_else(|| missing("iss"))?
                .to_owned(),
            ver,
            exp: date(found.exp, "exp")?.ok_or_else(|| missing("exp"))?,
            nbf: date(found.nbf, "nbf")?,
            iat: date(found.iat, "iat")?,
            aud: audiences(found.aud)?,
            app_id: app_id.unwrap_or(Guid::NIL),
            tid: guid(found.tenant()?, "tid")?,
            oid: guid(found.oid, "oid")?,
            uti: short_text(found.uti),
            idtyp: short_text(found.idtyp),
            named,
        };
        Ok(Self { claims, fault })
    }
}

/// Puts off what is wrong with a value; that it is of the wrong type, or there twice, is wrong with the token.
fn later<T>(
    read: Result<T, ClaimError>,
    fault: &mut Option<ClaimError>,
) -> Result<Option<T>, ClaimError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error @ (ClaimError::Missing(_) | ClaimError::Value(_))) => {
            fault.get_or_insert(error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Claims {
    /// A claim that the policy names.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Value<'static>> {
        self.named
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    /// Bytes that these claims hold, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        let texts = self
            .aud
            .iter()
            .map(String::len)
            .fold(self.iss.len(), usize::saturating_add);
        let named = self
            .named
            .iter()
            .map(|(name, value)| name.len().saturating_add(weight(value)));
        named
            .fold(texts, usize::saturating_add)
            .saturating_add(self.uti.as_ref().map_or(0, String::len))
            .saturating_add(self.idtyp.as_ref().map_or(0, String::len))
            .saturating_add(size_of::<Self>())
    }
}

/// The claims that every decision or the log needs, found in one pass.
#[derive(Default)]
struct Found<'p> {
    iss: Claim<'p>,
    ver: Claim<'p>,
    exp: Claim<'p>,
    nbf: Claim<'p>,
    iat: Claim<'p>,
    aud: Claim<'p>,
    appid: Claim<'p>,
    azp: Claim<'p>,
    tid: Claim<'p>,
    /// `tid` in other letters, such as `TID`.
    other_tid: bool,
    oid: Claim<'p>,
    uti: Claim<'p>,
    idtyp: Claim<'p>,
}

type Claim<'p> = Option<&'p Value<'p>>;

impl<'p> Found<'p> {
    fn new(payload: &'p Object<'p>) -> Self {
        let mut found = Self::default();
        for (name, value) in payload.iter() {
            let claim = match name {
                "iss" => &mut found.iss,
                "ver" => &mut found.ver,
                "exp" => &mut found.exp,
                "nbf" => &mut found.nbf,
                "iat" => &mut found.iat,
                "aud" => &mut found.aud,
                "appid" => &mut found.appid,
                "azp" => &mut found.azp,
                "tid" => &mut found.tid,
                "oid" => &mut found.oid,
                "uti" => &mut found.uti,
                "idtyp" => &mut found.idtyp,
                _ => {
                    found.other_tid |= name.eq_ignore_ascii_case("tid");
                    continue;
                }
            };
            *claim = Some(value);
        }
        found
    }

    /// One tenant: whoever reads names without their case would take the other for it, as
    /// Microsoft's own library sees it (IDX40011).
    fn tenant(&self) -> Result<Claim<'p>, ClaimError> {
        if self.other_tid && self.tid.is_some() {
            return Err(ClaimError::Repeated("tid"));
        }
        Ok(self.tid)
    }
}

fn missing(name: &str) -> ClaimError {
    ClaimError::Missing(name.to_owned())
}

fn weight(value: &Value<'_>) -> usize {
    let inner = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(weight).fold(0, usize::saturating_add),
        Value::Object(object) => object
            .iter()
            .map(|(name, value)| name.len().saturating_add(weight(value)))
            .fold(0, usize::saturating_add),
    };
    inner.saturating_add(size_of::<Value<'_>>())
}

fn text<'p>(claim: Claim<'p>, name: &'static str) -> Result<Option<&'p str>, ClaimError> {
    match claim {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ClaimError::Type(name)),
    }
}

/// A text that only the log shows: left out rather than refused when it is odd.
fn short_text(claim: Claim<'_>) -> Option<String> {
    let text = claim?.as_str()?;
    (text.len() <= MAX_SHORT_TEXT).then(|| text.to_owned())
}

fn guid(claim: Claim<'_>, name: &'static str) -> Result<Option<Guid>, ClaimError> {
    text(claim, name)?
        .map(|text| Guid::parse(text).ok_or(ClaimError::Type(name)))
        .transpose()
}

/// A NumericDate (RFC 7519 section 2): seconds, possibly with a fraction, which is cut off.
fn date(claim: Claim<'_>, name: &'static str) -> Result<Option<i64>, ClaimError> {
    /// 2^53: every whole number up to here is exact, and it is far beyond any date.
    const MAX: f64 = 9_007_199_254_740_992.0;
    let Some(value) = claim else {
        return Ok(None);
    };
    let Value::Number(number) = value else {
        return Err(ClaimError::Type(name));
    };
    if let Some(seconds) = number.as_i64() {
        return if seconds >= 0 {
            Ok(Some(seconds))
        } else {
            Err(ClaimError::Type(name))
        };
    }
    match number.as_f64() {
        Some(seconds) if (0.0..MAX).contains(&seconds) => {
            #[expect(
                clippy::as_conversions,
                clippy::cast_possible_truncation,
                reason = "in range by the guard; the fraction is meant to go"
            )]
            let whole = seconds as i64;
            Ok(Some(whole))
        }
        _ => Err(ClaimError::Type(name)),
    }
}

fn audiences(claim: Claim<'_>) -> Result<Vec<String>, ClaimError> {
    match claim {
        None => Ok(Vec::new()),
        Some(Value::String(audience)) => Ok(vec![audience.to_string()]),
        Some(Value::Array(values)) if values.len() <= MAX_VALUES => values
            .iter()
            .map(|value| {
                value
                    .as_str()
                    .map(str::to_owned)
                    .ok_or(ClaimError::Type("aud"))
            })
            .collect(),
        Some(_) => Err(ClaimError::Type("aud")),
    }
}

/// `ver` decides where the application stands, and must agree with the form of `iss`.
fn read_version(claim: Claim<'_>, issuer: &Issuer) -> Result<Option<Version>, ClaimError> {
    let needed = issuer.tenant.is_some() || issuer.app_claim == AppClaim::ByVersion;
    match claim {
        Some(Value::String(ver)) if ver == "1.0" => Ok(Some(Version::V1)),
        Some(Value::String(ver)) if ver == "2.0" => Ok(Some(Version::V2)),
        _ if !needed => Ok(None),
        None => Err(missing("ver")),
        Some(Value::String(_)) => Err(ClaimError::Value("ver")),
        Some(_) => Err(ClaimError::Type("ver")),
    }
}

fn application(
    payload: &Object<'_>,
    found: &Found<'_>,
    issuer: &Issuer,
    ver: Option<Version>,
) -> Result<Guid, ClaimError> {
    let (name, claim, other) = match (&issuer.app_claim, ver) {
        (AppClaim::Named(name), _) => (name.as_str(), payload.get(name), None),
        (AppClaim::ByVersion, Some(Version::V1)) => ("appid", found.appid, found.azp),
        (AppClaim::ByVersion, Some(Version::V2)) => ("azp", found.azp, found.appid),
        (AppClaim::ByVersion, None) => return Err(missing("ver")),
    };
    let id = |claim| guid(claim, "app id");
    let app_id = id(claim)?.ok_or_else(|| missing(name))?;
    // Optional claims can add the other version's name; two applications in one token is one
    // too many.
    if id(other)?.is_some_and(|other| other != app_id) {
        return Err(ClaimError::Value("app id"));
    }
    Ok(app_id)
}
