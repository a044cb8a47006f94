//! Seals what is secret of an Instance's work, so that the broker holds nothing on its disk that could be read there: only the
//! operator and the agent of that Instance have the key.

use data_encoding::{BASE64_NOPAD, HEXLOWER};
use hmac::{Hmac, Mac};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::Sha256;
use thiserror::Error;

/// It was not sealed with this key, or changed since; or the system gives no random numbers.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the secret values cannot be sealed or opened: they are not of this instance's key")]
pub struct SealError;

/// The key of one Instance.
#[derive(Clone)]
pub struct SealKey(LessSafeKey, String);

impl SealKey {
    /// The key of the Instance with this uid, derived from the install's own: it need not be stored by the operator.
    ///
    /// # Errors
    /// Never for keys of the length that this makes.
    pub fn of_instance(install: &[u8], uid: &str) -> Result<Self, SealError> {
        // A key may have any length.
        let mac = Hmac::<Sha256>::new_from_slice(install).map_err(|_| SealError)?;
        Self::new(&mac.chain_update(b"seal/").chain_update(uid).finalize().into_bytes())
    }

    /// The key that a file holds in hexadecimal, as [`SealKey::text`] gives it.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        Self::new(&HEXLOWER.decode(text.trim().as_bytes()).map_err(|_| SealError)?)
    }

    fn new(key: &[u8]) -> Result<Self, SealError> {
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, key).map_err(|_| SealError)?;
        Ok(Self(LessSafeKey::new(unbound), HEXLOWER.encode(key)))
    }

    /// The key in hexadecimal, for the Secret that the agent's pod mounts.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.1
    }

    /// Seals: each time with another result.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn seal(&self, text: &[u8]) -> Result<String, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError)?;
        let mut sealed = text.to_vec();
        let with = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(with, Aad::empty(), &mut sealed).map_err(|_| SealError)?;
        Ok(BASE64_NOPAD.encode(&[&nonce[..], &sealed].concat()))
    }

    /// Opens what was sealed.
    ///
    /// # Errors
    /// It was not sealed with this key, or changed since.
    pub fn open(&self, sealed: &str) -> Result<Vec<u8>, SealError> {
        let sealed = BASE64_NOPAD.decode(sealed.as_bytes()).map_err(|_| SealError)?;
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or(SealError)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError)?;
        let mut text = sealed.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::empty(), &mut text).map_err(|_| SealError)?;
        Ok(opened.to_vec())
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_read_with_the_key_of_its_instance_only() {
        let key = SealKey::of_instance(b"install", "uid-1").unwrap();
        let sealed = key.seal(b"swordfish").unwrap();
        assert_ne!(sealed, key.seal(b"swordfish").unwrap());
        let agents = SealKey::parse(key.text()).unwrap();
        assert_eq!(agents.open(&sealed).unwrap(), b"swordfish");
        let other = SealKey::of_instance(b"install", "uid-2").unwrap();
        assert_eq!(other.open(&sealed), Err(SealError));
        let mut changed = sealed.into_bytes();
        changed[20] ^= 1;
        assert_eq!(key.open(&String::from_utf8(changed).unwrap()), Err(SealError));
        for nothing in ["", "AAAA", "!"] {
            assert_eq!(key.open(nothing), Err(SealError));
        }
        assert_eq!(format!("{key:?}"), "SealKey(…)");
    }
}
