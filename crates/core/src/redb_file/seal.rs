//! Checksums over stored bytes and their key.

use xxhash_rust::xxh3::xxh3_64;

pub(crate) const SEAL_VERSION: u8 = 1;

/// Length in bytes of the version and checksum before the payload.
pub(crate) const SEAL: usize = 9;

/// Prefixes the payload with a version and a checksum over the payload and `salt` (its key).
pub(crate) fn seal(salt: u64, payload: &[&[u8]]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(SEAL + payload.iter().map(|part| part.len()).sum::<usize>());
    sealed.push(SEAL_VERSION);
    sealed.extend_from_slice(&[0; 8]);
    payload.iter().for_each(|part| sealed.extend_from_slice(part));
    let checksum = xxh3_64(&sealed[SEAL..]).wrapping_add(salt);
    sealed[1..SEAL].copy_from_slice(&checksum.to_le_bytes());
    sealed
}

/// Returns the payload that [`seal`] wrapped under the same salt, or `None` if any bit has changed.
pub(crate) fn unseal(salt: u64, sealed: &[u8]) -> Option<&[u8]> {
    let (head, payload) = sealed.split_at_checked(SEAL)?;
    let stored = u64::from_le_bytes(head[1..].try_into().ok()?);
    (head[0] == SEAL_VERSION && stored == xxh3_64(payload).wrapping_add(salt)).then_some(payload)
}

/// Returns the salt under which [`seal`] would have made `sealed`. A caller that knows the possible salts can verify it. `None`
/// if the version differs or bytes are missing.
pub(crate) fn salt_of(sealed: &[u8]) -> Option<u64> {
    let (head, payload) = sealed.split_at_checked(SEAL)?;
    let stored = u64::from_le_bytes(head[1..].try_into().ok()?);
    (head[0] == SEAL_VERSION).then(|| stored.wrapping_sub(xxh3_64(payload)))
}
