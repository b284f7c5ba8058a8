//! File names from text in documents.

use sha2::{Digest, Sha256};

use super::is_misleading;

/// Maximum size in bytes of a name that Fractal's rules leave unchanged. Additions keep the whole
/// name below 255 bytes.
const MAX_PLAIN_BYTES: usize = 190;
/// Maximum size in bytes of the readable part of a name with a suffix.
const MAX_PREFIX_BYTES: usize = 100;

/// Sanitizes text like Fractal: converts it to lower case, then replaces each ASCII punctuation and
/// white-space character by `_`.
///
/// Source: fractal-server 2.9.2, `sanitize_string`.
pub fn sanitize_string(text: &str) -> String {
    let is_replaced = |c: char| c.is_ascii_punctuation() || c.is_ascii_whitespace() || c == '\u{b}';
    let replace = |c: char| if is_replaced(c) { '_' } else { c };
    if text.is_ascii() {
        return text
            .bytes()
            .map(|byte| replace(byte.to_ascii_lowercase().into()))
            .collect();
    }
    // Python converts the whole string, as `to_lowercase` does (final sigma, dotted capital I).
    text.to_lowercase().chars().map(replace).collect()
}

/// Returns true if a sanitized name needs no suffix.
pub(crate) fn is_safe(name: &str) -> bool {
    name.len() <= MAX_PLAIN_BYTES && !name.chars().any(is_misleading)
}

/// Returns a readable prefix, `-`, 32 digits of the identity's SHA-256, and `-n` for the n-th
/// repetition. A name without a suffix contains no `-`, since the sanitizer replaces it.
pub(crate) fn suffixed(sanitized: &str, identity: &str, repeats: u32) -> String {
    let mut prefix: String = sanitized
        .chars()
        .map(|c| if is_misleading(c) { '_' } else { c })
        .collect();
    let mut end = prefix.len().min(MAX_PREFIX_BYTES);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    prefix.truncate(end);
    let digest = Sha256::digest(identity.as_bytes());
    let mut name = prefix + "-";
    for byte in &digest[..16] {
        name.push_str(&format!("{byte:02x}"));
    }
    if repeats > 0 {
        name.push_str(&format!("-{repeats}"));
    }
    name
}
