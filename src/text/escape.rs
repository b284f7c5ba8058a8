//! Untrusted text from guests and documents, made safe for a terminal, a log or a message.

use std::fmt::Write as _;

/// Returns `text` with escapes for all characters that could mislead a terminal or a reader:
/// control characters (C0, DEL, C1), line and paragraph separators, and characters that change the
/// direction of text or hide it.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if is_misleading(c) => {
                // Writing to a string cannot fail.
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    safe
}

/// Encodes a path as a part of a URI. Slashes are kept.
pub fn percent_encoded(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Returns true for a character that must not occur in a line for people or in a file name.
pub fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_misleading_passes() {
        assert_eq!(escaped("plain é 中 😀"), "plain é 中 😀");
        assert_eq!(
            escaped("a\x1b[31mb\r\nc\u{9b}d\u{202e}e"),
            "a\\u{1b}[31mb\\r\\nc\\u{9b}d\\u{202e}e"
        );
        let everything: String = ('\0'..='\u{10ffff}').collect();
        assert!(!escaped(&everything).chars().any(is_misleading));
    }
}
