//! Escaping of any text for HTML and JSON, and templates.

use serde::Serialize;

use crate::text::escape::percent_encoded;
use crate::text::escaped;

/// Escapes text of a guest or a document for HTML, including quoted attributes.
pub(super) fn html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in escaped(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// Escapes the first characters of a long text, as [`html`] does.
pub(super) fn html_start(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        None => html(text),
        Some((end, _)) => html(&text[..end]) + " ...",
    }
}

/// Serializes a value as JSON for a `script` element: nothing in it ends the element or begins a
/// comment.
pub(super) fn script_json(value: &impl Serialize) -> String {
    let text =
        serde_json::to_string(value).expect("keys are strings, and writing to memory cannot fail");
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// Returns a relative link to a file, whose path may contain any characters.
pub(super) fn href(path: &str) -> String {
    format!("./{}", percent_encoded(path))
}

/// Encodes bytes as Base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0, |group, byte| group << 8 | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let is_padding = digit > chunk.len();
            let index = group >> (18 - 6 * digit) & 63;
            text.push(if is_padding {
                '='
            } else {
                char::from(DIGITS[index])
            });
        }
    }
    text
}

/// Replaces each `{{name}}` of a template. The inserted text is not searched again.
///
/// # Panics
/// If the template names a part that is not in `parts`, which no input can cause.
pub(super) fn fill(template: &str, parts: &[(&str, String)]) -> String {
    let mut pieces = template.split("{{");
    let mut page = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece
            .split_once("}}")
            .expect("the template closes its braces");
        let part = parts.iter().find(|(part, _)| *part == name);
        page.push_str(
            &part
                .unwrap_or_else(|| panic!("the template names {name}"))
                .1,
        );
        page.push_str(rest);
    }
    page
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_text_breaks_out() {
        assert_eq!(
            html("<b a='\"'>&\u{202e}"),
            "&lt;b a=&#39;&quot;&#39;&gt;&amp;\\u{202e}"
        );
        assert_eq!(html_start("<<<", 2), "&lt;&lt; ...");
        assert_eq!(
            script_json(&json!(["</script><!--"])),
            r#"["\u003c/script\u003e\u003c!--"]"#
        );
        assert_eq!(href("0_a/x:y \"?.err"), "./0_a/x%3Ay%20%22%3F.err");
        assert_eq!(
            fill("a{{x}}b{{y}}", &[("x", "{{y}}".into()), ("y", "2".into())]),
            "a{{y}}b2"
        );
    }

    #[test]
    fn base64_is_padded() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
