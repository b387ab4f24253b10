//! Verified tokens of one VM, so that a token's signature is checked once.
//!
//! The whole token is the key: two tokens that differ in one bit share nothing. Only good
//! tokens are kept, and only what their signature proves; time, audience, permissions and
//! limits are decided anew on every request.

use std::rc::Rc;

use hashbrown::HashTable;

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
    tokens: HashTable<Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    token: Box<[u8]>,
    cached: CachedToken,
}

impl TokenCache {
    /// Finds a token.
    pub fn find(&mut self, token: &[u8]) -> Option<CachedToken> {
        let hash = hash(token);
        if let Some(found) = self.young.tokens.find(hash, |entry| *entry.token == *token) {
            return Some(found.cached.clone());
        }
        let entry = self.old.take(hash, token)?;
        let found = entry.cached.clone();
        self.insert(entry);
        Some(found)
    }

    /// Keeps a token whose signature is good.
    pub fn keep(&mut self, token: &[u8], issuer: usize, claims: Rc<Claims>) {
        self.insert(Entry {
            token: token.into(),
            cached: CachedToken { issuer, claims },
        });
    }

    /// Forgets a token, for example one that has expired.
    pub fn forget(&mut self, token: &[u8]) {
        let hash = hash(token);
        self.young.take(hash, token);
        self.old.take(hash, token);
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

    fn insert(&mut self, entry: Entry) {
        let weight = entry.weight();
        if weight > MAX_BYTES / 2 {
            return;
        }
        let hash = hash(&entry.token);
        self.young.take(hash, &entry.token);
        if self.young.tokens.len() >= MAX_TOKENS / 2
            || self.young.bytes.saturating_add(weight) > MAX_BYTES / 2
        {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes = self.young.bytes.saturating_add(weight);
        let again = |entry: &Entry| self::hash(&entry.token);
        self.young.tokens.insert_unique(hash, entry, again);
    }
}

impl Generation {
    fn take(&mut self, hash: u64, token: &[u8]) -> Option<Entry> {
        let same = |entry: &Entry| *entry.token == *token;
        let (entry, _) = self.tokens.find_entry(hash, same).ok()?.remove();
        self.bytes = self.bytes.saturating_sub(entry.weight());
        Some(entry)
    }
}

impl Entry {
    fn weight(&self) -> usize {
        self.token
            .len()
            .saturating_add(self.cached.claims.weight())
            .saturating_add(ENTRY_OVERHEAD)
    }
}

/// From the end of a token, which is the end of its signature: as random as a hash, and what is kept
/// here was signed by an issuer, so no caller chooses it. The whole token is compared all the same.
fn hash(token: &[u8]) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = 0_u64;
    let mut rest = token;
    for _ in 0..3 {
        let Some((start, word)) = rest.split_last_chunk::<8>() else {
            break;
        };
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(SPREAD);
        rest = start;
    }
    hash
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
