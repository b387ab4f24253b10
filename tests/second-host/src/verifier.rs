//! What a host may have behind the foreign function `verify_signature`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proxy_wasm_host::abi::v0_2_1::types::Status;
use rsa::pkcs8::DecodePublicKey;
use rsa::signature::Verifier as _;
use rsa::{PublicKey, pkcs1v15};
use sha2::{Sha256, Sha384, Sha512};

/// The foreign function: protobuf in, protobuf out.
pub type Verifier = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>, Status> + Send + Sync>;

/// Verifies RSA PKCS #1 signatures as Envoy does, and counts its calls.
#[must_use]
pub fn honest() -> (Verifier, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let verifier: Verifier = Arc::new(move |request| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(answer(verify(request).unwrap_or(false)))
    });
    (verifier, calls)
}

/// Accepts or refuses everything.
#[must_use]
pub fn constant(accepts: bool) -> Verifier {
    Arc::new(move |_| Ok(answer(accepts)))
}

/// Answers these bytes, whatever was asked.
#[must_use]
pub fn saying(bytes: &'static [u8]) -> Verifier {
    Arc::new(move |_| Ok(bytes.to_vec()))
}

/// `VerifySignatureResult`: 1 `result`, 2 `error`. A false bool is left out, as protobuf does.
fn answer(result: bool) -> Vec<u8> {
    if result {
        vec![0x08, 0x01]
    } else {
        b"\x12\x07invalid".to_vec()
    }
}

/// `VerifySignatureArguments`: 1 `hash_function`, 2 `public_key`, 3 `signature`, 4 `text`.
fn verify(request: &[u8]) -> Option<bool> {
    let fields = fields(request)?;
    let field = |number: u64| {
        fields
            .iter()
            .find(|(n, _)| *n == number)
            .map(|(_, bytes)| *bytes)
    };
    let key = PublicKey::from_public_key_der(field(2)?).ok()?;
    let signature = pkcs1v15::Signature::try_from(field(3)?).ok()?;
    let text = field(4)?;
    Some(match field(1)? {
        b"sha256" => pkcs1v15::VerifyingKey::<Sha256>::new(key)
            .verify(text, &signature)
            .is_ok(),
        b"sha384" => pkcs1v15::VerifyingKey::<Sha384>::new(key)
            .verify(text, &signature)
            .is_ok(),
        b"sha512" => pkcs1v15::VerifyingKey::<Sha512>::new(key)
            .verify(text, &signature)
            .is_ok(),
        _ => false,
    })
}

/// The length-delimited fields of a protobuf message.
fn fields(mut message: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        if tag & 7 != 2 {
            return None;
        }
        let length = usize::try_from(varint(&mut message)?).ok()?;
        fields.push((tag >> 3, message.get(..length)?));
        message = &message[length..];
    }
    Some(fields)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
