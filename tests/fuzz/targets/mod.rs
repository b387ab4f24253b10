//! What is fuzzed: the functions of the core that take bytes from outside, and what holds for any bytes.
//!
//! A target says more than "does not crash". Where it can, it reads its input a second time, in the plainest
//! way there is, and the two must agree.

mod answers;
mod forms;
mod keys;
mod policies;
mod records;
mod requests;
mod tokens;

use std::rc::Rc;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use tollgate::crypto::{Crypto, HostVerifier};
use tollgate::gateway::{Gateway, Verdict};
use tollgate::policy::Policy;
use tollgate::store::MemoryStore;

use crate::common::{Bench, NOON, Random, code, policy};

/// A function of the core, under any bytes.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Inputs to begin with.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Panics where an invariant does not hold; otherwise says how far the input came.
    pub(crate) check: fn(&[u8]) -> String,
    /// Outcomes that a run has to come to, or it has not tested what it is there for.
    pub(crate) outcomes: &'static [&'static str],
    /// Texts that mean something to the function.
    pub(crate) words: &'static [&'static str],
}

pub(crate) const ALL: [&Target; 16] = [
    &tokens::CREDENTIAL,
    &tokens::TOKEN,
    &tokens::HEADER,
    &tokens::CLAIMS,
    &keys::KEY_SET,
    &keys::METADATA,
    &keys::SHARED_KEYS,
    &policies::POLICY,
    &policies::STRUCTURE,
    &requests::HEAD,
    &requests::PATH,
    &requests::BODY,
    &forms::FORM,
    &answers::JSON,
    &answers::EVENTS,
    &records::LIMITS,
];

/// The target of this name.
pub(crate) fn named(name: &str) -> &'static Target {
    ALL.into_iter().find(|target| target.name == name).unwrap()
}

/// A host whose verifier calls every signature good, so that what comes behind it is reached.
struct Agreeable;

impl HostVerifier for Agreeable {
    fn verify(&self, _: &str, _: &[u8], _: &[u8], message: &[u8]) -> Option<bool> {
        // The known answers have to come out right.
        Some(message != b"another message")
    }
}

fn agreeable() -> Crypto {
    Crypto::probe(Rc::new(Agreeable))
}

/// A gateway that has seen nothing yet.
fn bench(policy: &Rc<Policy>, crypto: Crypto) -> Bench {
    Bench {
        gateway: Gateway::new(Rc::clone(policy), "fuzz", crypto),
        store: Rc::new(MemoryStore::default()),
        now: NOON,
    }
}

/// A policy that trusts the signer, and more.
fn trusting(more: &Value) -> Rc<Policy> {
    Rc::new(Policy::parse(policy(more).to_string().as_bytes()).unwrap())
}

/// A verdict in a word.
fn outcome(verdict: &Verdict) -> String {
    code(verdict).map_or_else(|| "allowed".to_owned(), |code| format!("{code:?}"))
}

/// The members of a JSON object, by a parser that keeps repeats.
struct Members(Vec<(String, Value)>);

impl Members {
    fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// The one member of this name. More are a fault of whoever took the object.
    fn get(&self, name: &str) -> Option<&Value> {
        let mut found = self.0.iter().filter(|(known, _)| known == name);
        let value = found.next().map(|(_, value)| value);
        assert!(found.next().is_none(), "{name} is repeated");
        value
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(|value| value.as_str().unwrap())
    }

    fn are_unique(&self) -> bool {
        let mut names: Vec<_> = self.0.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.windows(2).all(|two| two[0] != two[1])
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Members;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Ways to cut an input: into single bytes, and twice by chance.
fn cuts(input: &[u8]) -> Vec<Vec<&[u8]>> {
    let sum = input.iter().fold(1, |sum: u64, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    let mut random = Random(sum | 1);
    let mut cuts = vec![random.cut(input), random.cut(input)];
    if (1..1024).contains(&input.len()) {
        cuts.push(input.chunks(1).collect());
    }
    cuts
}
