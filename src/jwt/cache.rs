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

/// Tokens, found by their whole text.
///
/// When there is no room, one that was not used lately goes, chosen by chance: callers that take turns, more
/// of them than there is room for, then still find most of their tokens.
#[derive(Debug, Default)]
pub struct TokenCache {
    entries: Vec<Entry>,
    /// Places in `entries`.
    places: HashTable<usize>,
    bytes: usize,
    chance: u64,
}

#[derive(Debug)]
struct Entry {
    token: Box<[u8]>,
    cached: CachedToken,
    /// Found since it was last considered for going.
    used: bool,
}

impl TokenCache {
    /// Finds a token.
    pub fn find(&mut self, token: &[u8]) -> Option<CachedToken> {
        let place = self.place(token)?;
        let entry = self.entries.get_mut(place)?;
        entry.used = true;
        Some(entry.cached.clone())
    }

    /// Keeps a token whose signature is good.
    pub fn keep(&mut self, token: &[u8], issuer: usize, claims: Rc<Claims>) {
        self.forget(token);
        let entry = Entry {
            token: token.into(),
            cached: CachedToken { issuer, claims },
            used: false,
        };
        let weight = entry.weight();
        if weight > MAX_BYTES {
            return;
        }
        while self.entries.len() >= MAX_TOKENS || self.bytes.saturating_add(weight) > MAX_BYTES {
            let place = self.choose();
            self.remove(place);
        }
        self.bytes = self.bytes.saturating_add(weight);
        let place = self.entries.len();
        self.entries.push(entry);
        let entries = &self.entries;
        let again = |place: &usize| entries.get(*place).map_or(0, |entry| hash(&entry.token));
        self.places.insert_unique(hash(token), place, again);
    }

    /// Forgets a token, for example one that has expired.
    pub fn forget(&mut self, token: &[u8]) {
        if let Some(place) = self.place(token) {
            self.remove(place);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Number of tokens kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn place(&self, token: &[u8]) -> Option<usize> {
        let is_it = |place: &usize| {
            let entry = self.entries.get(*place);
            entry.is_some_and(|entry| is_same(&entry.token, token))
        };
        self.places.find(hash(token), is_it).copied()
    }

    /// The place of an entry that may go.
    fn choose(&mut self) -> usize {
        const TRIES: usize = 8;
        let mut place = 0;
        for _ in 0..TRIES {
            place = self.next_place();
            match self.entries.get_mut(place) {
                Some(entry) if entry.used => entry.used = false,
                _ => break,
            }
        }
        place
    }

    /// Any place (splitmix64: what is chosen decides nothing but speed).
    fn next_place(&mut self) -> usize {
        self.chance = self.chance.wrapping_add(SPREAD);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^= mixed >> 27;
        let count = u64::try_from(self.entries.len()).unwrap_or(u64::MAX);
        let place = mixed.checked_rem(count).unwrap_or(0);
        usize::try_from(place).unwrap_or(0)
    }

    fn remove(&mut self, place: usize) {
        let is_at = |wanted: usize| move |place: &usize| *place == wanted;
        if place >= self.entries.len() {
            return;
        }
        let last = self.entries.len().saturating_sub(1);
        // The last entry takes the place that becomes free.
        let moved = self.entries.get(last).map_or(0, |entry| hash(&entry.token));
        let gone = self.entries.swap_remove(place);
        self.bytes = self.bytes.saturating_sub(gone.weight());
        if let Ok(found) = self.places.find_entry(hash(&gone.token), is_at(place)) {
            found.remove();
        }
        if let Some(its) = self.places.find_mut(moved, is_at(last)) {
            *its = place;
        }
    }
}

const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

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

/// Whether two tokens are the same, eight bytes at a time: in a module, comparing slices goes byte by byte,
/// and a token has over a thousand.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (others, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    one.len() == other.len()
        && words
            .iter()
            .zip(others)
            .all(|(one, other)| word(one) == word(other))
        && rest == other_rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guid::Guid;
    use crate::json::{Object, Value};

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
    fn a_token_may_fill_the_cache() {
        let kept = |claims: Rc<Claims>| {
            let mut cache = TokenCache::default();
            cache.keep(b"small", 0, self::claims(0));
            cache.keep(b"a.b.c", 0, claims);
            cache.find(b"a.b.c").is_some()
        };
        let weight = |padding| {
            let (issuer, claims) = (0, claims(padding));
            Entry {
                token: (*b"a.b.c").into(),
                cached: CachedToken { issuer, claims },
                used: false,
            }
            .weight()
        };
        let most = MAX_BYTES - weight(0);
        assert_eq!(weight(most), MAX_BYTES);
        assert!(kept(claims(most)));
        assert!(!kept(claims(most + 1)));
        // So may two.
        let mut cache = TokenCache::default();
        cache.keep(b"c.b.a", 0, claims(most - weight(0)));
        cache.keep(b"a.b.c", 0, claims(0));
        assert_eq!((cache.len(), cache.bytes), (2, MAX_BYTES));
    }

    #[test]
    fn finds_only_the_very_same_token() {
        let mut cache = TokenCache::default();
        cache.keep(b"a.b.c", 3, claims(0));
        assert_eq!(cache.find(b"a.b.c").unwrap().issuer, 3);
        assert!(!cache.is_empty());
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
    fn callers_who_take_turns_find_most_of_their_tokens() {
        let mut cache = TokenCache::default();
        let callers = MAX_TOKENS * 11 / 10;
        let mut found = 0;
        for turn in 0..5 * callers {
            let token = token(turn % callers);
            match cache.find(&token) {
                Some(cached) => {
                    assert_eq!(cached.issuer, turn % callers);
                    found += 1;
                }
                None => cache.keep(&token, turn % callers, claims(0)),
            }
        }
        assert!(found > 2 * callers, "{found}");
    }

    #[test]
    fn what_is_forgotten_leaves_the_others_in_their_places() {
        let mut cache = TokenCache::default();
        for number in 0..100 {
            cache.keep(&token(number), number, claims(0));
        }
        for number in (0..100).step_by(3) {
            cache.forget(&token(number));
        }
        for number in 0..100 {
            let found = cache.find(&token(number)).map(|cached| cached.issuer);
            assert_eq!(found, (number % 3 != 0).then_some(number));
        }
    }

    #[test]
    fn claims_weigh_what_they_hold() {
        let plain = claims(0);
        let text = |length: usize| Value::String("x".repeat(length).into());
        let object = Object::from_members(vec![("key".into(), Value::Null)]).unwrap();
        let values = vec![text(100), Value::Object(object), Value::Bool(true)];
        let heavy = Claims {
            aud: vec!["a".repeat(10), "b".repeat(20)],
            uti: Some("u".repeat(7)),
            idtyp: Some("app".to_owned()),
            named: vec![("groups".to_owned(), Value::Array(values))],
            ..Claims::clone(&plain)
        };
        let named = "groups".len() + 100 + "key".len() + 5 * size_of::<Value<'_>>();
        let expected = plain.weight() + 10 + 20 + 7 + 3 + named;
        assert_eq!(heavy.weight(), expected);
        assert_eq!(claims(1_000).weight(), plain.weight() + 1_000);
        assert_eq!(plain.weight(), size_of::<Claims>());
    }

    #[test]
    fn is_bounded_in_bytes() {
        let mut cache = TokenCache::default();
        for number in 0..2_000 {
            cache.keep(&token(number), 0, claims(16 * 1024));
            assert!(cache.bytes <= MAX_BYTES);
            let bytes: usize = cache.entries.iter().map(Entry::weight).sum();
            assert_eq!(cache.bytes, bytes);
        }
        assert!(cache.len() > 500);
        cache.keep(b"too large", 0, claims(MAX_BYTES));
        assert!(cache.find(b"too large").is_none());
        cache.clear();
        assert!(cache.is_empty());
    }
}
