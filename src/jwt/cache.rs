//! Verified tokens of one VM, so that a token's signature is checked once.
//!
//! The whole token is the key: two tokens that differ in one bit share nothing. Only good
//! tokens are kept, and only what their signature proves; time, audience, permissions and
//! limits are decided anew on every request.

use std::collections::HashMap;
use std::rc::Rc;

use super::Claims;

/// Most tokens kept.
const MAX_TOKENS: usize = 10_000;
/// Most bytes kept, tokens and claims together.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// What an entry costs beyond its token and claims: map slot, counts, allocator.
const ENTRY_OVERHEAD: usize = 128;

/// A verified token.
#[derive(Clone, Debug)]
pub struct CachedToken {
    /// Which of the policy's issuers signed it.
    pub issuer: usize,
    /// What it says.
    pub claims: Rc<Claims>,
}

/// Two generations of tokens: when the young one is half the bound, it becomes the old one and
/// the old one goes. A token in use moves back to the young, so what goes was not used lately.
#[derive(Debug, Default)]
pub struct TokenCache {
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    tokens: HashMap<Box<[u8]>, CachedToken>,
    bytes: usize,
}

impl TokenCache {
    /// Finds a token.
    pub fn find(&mut self, token: &[u8]) -> Option<CachedToken> {
        if let Some(found) = self.young.tokens.get(token) {
            return Some(found.clone());
        }
        let (token, found) = self.old.tokens.remove_entry(token)?;
        self.old.bytes = self.old.bytes.saturating_sub(weight(&token, &found));
        self.insert(token, found.clone());
        Some(found)
    }

    /// Keeps a token whose signature is good.
    pub fn keep(&mut self, token: &[u8], issuer: usize, claims: Rc<Claims>) {
        self.insert(token.into(), CachedToken { issuer, claims });
    }

    /// Forgets a token, for example one that has expired.
    pub fn forget(&mut self, token: &[u8]) {
        for generation in [&mut self.young, &mut self.old] {
            if let Some((token, entry)) = generation.tokens.remove_entry(token) {
                generation.bytes = generation.bytes.saturating_sub(weight(&token, &entry));
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.young = Generation::default();
        self.old = Generation::default();
    }

    /// Number of tokens kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young
            .tokens
            .len()
            .saturating_add(self.old.tokens.len())
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn insert(&mut self, token: Box<[u8]>, entry: CachedToken) {
        let weight = weight(&token, &entry);
        if weight > MAX_BYTES / 2 {
            return;
        }
        if self.young.tokens.len() >= MAX_TOKENS / 2
            || self.young.bytes.saturating_add(weight) > MAX_BYTES / 2
        {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes = self.young.bytes.saturating_add(weight);
        if let Some(replaced) = self.young.tokens.insert(token.clone(), entry) {
            self.young.bytes = self
                .young
                .bytes
                .saturating_sub(self::weight(&token, &replaced));
        }
    }
}

fn weight(token: &[u8], entry: &CachedToken) -> usize {
    token
        .len()
        .saturating_add(entry.claims.weight())
        .saturating_add(ENTRY_OVERHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guid::Guid;

    fn claims(padding: usize) -> Rc<Claims> {
        Rc::new(Claims {
            iss: "x".repeat(padding),
            ver: None,
            aud: Vec::new(),
            exp: 0,
            nbf: None,
            iat: None,
            app_id: Guid::parse("aaaaaaaa-0000-0000-0000-000000000001").unwrap(),
            tid: None,
            oid: None,
            uti: None,
            idtyp: None,
            named: Vec::new(),
        })
    }

    fn token(number: usize) -> Vec<u8> {
        format!("header.payload-{number}.signature").into_bytes()
    }

    #[test]
    fn finds_only_the_very_same_token() {
        let mut cache = TokenCache::default();
        cache.keep(b"a.b.c", 3, claims(0));
        assert_eq!(cache.find(b"a.b.c").unwrap().issuer, 3);
        for other in [&b"a.b.d"[..], b"a.b.", b"a.b.cc", b"", b"A.b.c"] {
            assert!(cache.find(other).is_none(), "{other:?}");
        }
        cache.forget(b"a.b.c");
        assert!(cache.find(b"a.b.c").is_none());
        assert!(cache.is_empty());
    }

    #[test]
    fn is_bounded_in_number_and_keeps_what_is_used() {
        let mut cache = TokenCache::default();
        cache.keep(b"hot", 0, claims(0));
        for number in 0..50_000 {
            cache.keep(&token(number), 0, claims(0));
            assert!(cache.find(b"hot").is_some(), "{number}");
            assert!(cache.len() <= MAX_TOKENS);
        }
    }

    #[test]
    fn is_bounded_in_bytes() {
        let mut cache = TokenCache::default();
        for number in 0..5_000 {
            cache.keep(&token(number), 0, claims(16 * 1024));
            assert!(cache.young.bytes + cache.old.bytes <= MAX_BYTES);
        }
        assert!(cache.len() > 500);
        cache.keep(b"too large", 0, claims(MAX_BYTES));
        assert!(cache.find(b"too large").is_none());
        cache.clear();
        assert!(cache.is_empty());
    }
}
