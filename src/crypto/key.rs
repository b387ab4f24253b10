//! Public keys that are fit to verify tokens.

use std::fmt;

use p256::elliptic_curve::point::AffineCoordinates;
use rsa::{BoxedUint, PublicKey as RsaKey};

use super::der;
use crate::jwt::Algorithm;

/// Smallest RSA modulus, in bits (RFC 7518 section 3.3).
const RSA_MIN_BITS: usize = 2048;
/// Largest RSA modulus, in bits: the cost of a verification grows with its square.
const RSA_MAX_BITS: usize = 8192;
/// Smallest RSA exponent (FIPS 186-5 section 5.1).
const RSA_MIN_EXPONENT: u64 = 65_537;

/// A public key, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub(super) kind: KeyKind,
    /// SubjectPublicKeyInfo, DER: what the host's verifier takes.
    spki: Vec<u8>,
}

/// The key as the Rust crates take it.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum KeyKind {
    Rsa(Box<RsaKey>),
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
}

/// Why key material is not fit to verify tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The modulus is shorter than 2048 or longer than 8192 bits.
    RsaSize,
    /// The modulus is even, or begins with a zero byte (RFC 7518 section 2 wants none).
    RsaModulus,
    /// The exponent is even, below 65537 or beyond 33 bits.
    RsaExponent,
    /// The coordinates have the wrong length or are not on the curve.
    EcPoint,
}

impl fmt::Display for KeyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::RsaSize => "the RSA modulus is not between 2048 and 8192 bits",
            Self::RsaModulus => "the RSA modulus is even or begins with a zero byte",
            Self::RsaExponent => "the RSA exponent is even, below 65537 or beyond 33 bits",
            Self::EcPoint => "the coordinates are not a point of the curve",
        })
    }
}

impl PublicKey {
    /// An RSA key from its big-endian modulus and exponent.
    ///
    /// # Errors
    /// The key is too small, too large or malformed.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        if modulus.first() == Some(&0) || modulus.last().is_some_and(|byte| byte % 2 == 0) {
            return Err(KeyError::RsaModulus);
        }
        if modulus.len() > RSA_MAX_BITS / 8 {
            return Err(KeyError::RsaSize);
        }
        let exponent_value = rsa_exponent(exponent)?;
        let key = RsaKey::new_with_size_limits(
            BoxedUint::from_be_slice_vartime(modulus),
            BoxedUint::from(exponent_value),
            RSA_MIN_BITS..=RSA_MAX_BITS,
        )
        .map_err(|error| match error {
            rsa::Error::PublicExponentTooLarge | rsa::Error::PublicExponentTooSmall => {
                KeyError::RsaExponent
            }
            rsa::Error::InvalidModulus => KeyError::RsaModulus,
            _ => KeyError::RsaSize,
        })?;
        let spki = der::rsa_spki(modulus, exponent);
        Ok(Self {
            spki,
            kind: KeyKind::Rsa(Box::new(key)),
        })
    }

    /// A P-256 key from its coordinates, 32 bytes each.
    ///
    /// # Errors
    /// The coordinates are not a point of the curve.
    pub fn p256(x: &[u8], y: &[u8]) -> Result<Self, KeyError> {
        let point = uncompressed_point::<32>(x, y)?;
        let key = ec_point::<p256::AffinePoint>(x, y)
            .and_then(|point| p256::ecdsa::VerifyingKey::from_affine(point).ok())
            .ok_or(KeyError::EcPoint)?;
        Ok(Self {
            spki: der::p256_spki(&point),
            kind: KeyKind::P256(key),
        })
    }

    /// A P-384 key from its coordinates, 48 bytes each.
    ///
    /// # Errors
    /// The coordinates are not a point of the curve.
    pub fn p384(x: &[u8], y: &[u8]) -> Result<Self, KeyError> {
        let point = uncompressed_point::<48>(x, y)?;
        let key = ec_point::<p384::AffinePoint>(x, y)
            .and_then(|point| p384::ecdsa::VerifyingKey::from_affine(point).ok())
            .ok_or(KeyError::EcPoint)?;
        Ok(Self {
            spki: der::p384_spki(&point),
            kind: KeyKind::P384(key),
        })
    }

    /// Whether signatures of `algorithm` can be made with this kind of key.
    #[must_use]
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        match (&self.kind, algorithm) {
            (
                KeyKind::Rsa(_),
                Algorithm::Rs256
                | Algorithm::Rs384
                | Algorithm::Rs512
                | Algorithm::Ps256
                | Algorithm::Ps384
                | Algorithm::Ps512,
            )
            | (KeyKind::P256(_), Algorithm::Es256)
            | (KeyKind::P384(_), Algorithm::Es384) => true,
            (KeyKind::Rsa(_) | KeyKind::P256(_) | KeyKind::P384(_), _) => false,
        }
    }

    /// SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7), DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.kind {
            KeyKind::Rsa(_) => "PublicKey(RSA)",
            KeyKind::P256(_) => "PublicKey(P-256)",
            KeyKind::P384(_) => "PublicKey(P-384)",
        })
    }
}

/// An exponent of at most eight bytes, odd and large enough; the crate caps it at 33 bits.
fn rsa_exponent(bytes: &[u8]) -> Result<u64, KeyError> {
    let mut wide = [0_u8; 8];
    let start = wide
        .len()
        .checked_sub(bytes.len())
        .ok_or(KeyError::RsaExponent)?;
    if let Some(tail) = wide.get_mut(start..) {
        tail.copy_from_slice(bytes);
    }
    let exponent = u64::from_be_bytes(wide);
    if exponent % 2 == 0 || exponent < RSA_MIN_EXPONENT {
        return Err(KeyError::RsaExponent);
    }
    Ok(exponent)
}

/// A point from its coordinates. Unlike the crates' SEC 1 reader this needs no square roots,
/// which compressed points take and which weigh 10 KB in the module.
fn ec_point<Point: AffineCoordinates>(x: &[u8], y: &[u8]) -> Option<Point>
where
    Point::FieldRepr: for<'a> TryFrom<&'a [u8]>,
{
    let x = Point::FieldRepr::try_from(x).ok()?;
    let y = Point::FieldRepr::try_from(y).ok()?;
    Option::from(Point::from_coordinates(&x, &y))
}

/// SEC 1 section 2.3.3: `04 || x || y`.
fn uncompressed_point<const SIZE: usize>(x: &[u8], y: &[u8]) -> Result<Vec<u8>, KeyError> {
    if x.len() != SIZE || y.len() != SIZE {
        return Err(KeyError::EcPoint);
    }
    Ok([&[4_u8][..], x, y].concat())
}

#[cfg(test)]
mod tests {
    use super::super::known_answers as known;
    use super::*;

    /// The key material inside a SubjectPublicKeyInfo that OpenSSL wrote.
    fn tail(spki: &[u8], size: usize) -> &[u8] {
        &spki[spki.len() - size..]
    }

    #[test]
    fn keys_encode_as_openssl_does() {
        // ... modulus (256), INTEGER of size 3, exponent.
        let rsa = tail(known::RSA_SPKI, 261);
        let key = PublicKey::rsa(&rsa[..256], &[1, 0, 1]).unwrap();
        assert_eq!(key.spki(), known::RSA_SPKI);
        let (x, y) = tail(known::P256_SPKI, 64).split_at(32);
        assert_eq!(PublicKey::p256(x, y).unwrap().spki(), known::P256_SPKI);
        let (x, y) = tail(known::P384_SPKI, 96).split_at(48);
        assert_eq!(PublicKey::p384(x, y).unwrap().spki(), known::P384_SPKI);
    }

    #[test]
    fn weak_and_broken_keys_are_refused() {
        let modulus = &tail(known::RSA_SPKI, 261)[..256];
        let even = [&modulus[..255], &[2]].concat();
        for (modulus, exponent, error) in [
            (&[0xff; 255][..], &[1, 0, 1][..], KeyError::RsaSize),
            (&[0xff; 1025], &[1, 0, 1], KeyError::RsaSize),
            (&[&[0], modulus].concat(), &[1, 0, 1], KeyError::RsaModulus),
            (&even, &[1, 0, 1], KeyError::RsaModulus),
            (&[], &[1, 0, 1], KeyError::RsaSize),
            (modulus, &[1], KeyError::RsaExponent),
            (modulus, &[3], KeyError::RsaExponent),
            (modulus, &[1, 0, 0], KeyError::RsaExponent),
            (modulus, &[1, 0, 2], KeyError::RsaExponent),
            (modulus, &[], KeyError::RsaExponent),
            (modulus, &[1, 0, 0, 0, 0, 1], KeyError::RsaExponent),
            (modulus, &[1; 9], KeyError::RsaExponent),
        ] {
            assert_eq!(
                PublicKey::rsa(modulus, exponent),
                Err(error),
                "{exponent:?}"
            );
        }
        let ends_in_one = [&modulus[..255], &[1]].concat();
        assert!(PublicKey::rsa(&ends_in_one, &[1, 0, 1]).is_ok());
        assert!(PublicKey::rsa(&[0xff; 1024], &[1, 0, 1]).is_ok());
        let (x, y) = tail(known::P256_SPKI, 64).split_at(32);
        for (x, y) in [
            (x, x),
            (&x[..31], y),
            (x, &y[..31]),
            (&[0; 32], &[0; 32]),
            (&[0xff; 32], y),
        ] {
            assert_eq!(PublicKey::p256(x, y), Err(KeyError::EcPoint));
        }
    }

    #[test]
    fn both_coordinates_have_the_size_of_the_curve() {
        assert_eq!(
            uncompressed_point::<2>(&[1, 2], &[3, 4]),
            Ok(vec![4, 1, 2, 3, 4])
        );
        for (x, y) in [(&[1][..], &[3, 4][..]), (&[1, 2], &[3, 4, 5]), (&[], &[])] {
            assert_eq!(uncompressed_point::<2>(x, y), Err(KeyError::EcPoint));
        }
    }
}
