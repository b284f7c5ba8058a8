//! Explanations for text that is not JSON: another format, or a common mistake, with advice.

use std::borrow::Cow;

/// Recognizes another format from the whole text. `None` if the text may be meant as JSON.
pub(super) fn other_format(bytes: &[u8]) -> Option<&'static str> {
    const UTF_16: &str =
        "it is UTF-16 text, as `>` of Windows PowerShell writes it; save it as UTF-8";
    const PACKED: &str = "it is packed; unpack it and name the JSON file in it";
    const PROGRAM: &str = "it is a native program; name a JSON file";
    const IMAGE: &str = "it is an image; name a JSON file";
    const STARTS: [(&[u8], &str); 17] = [
        (
            b"\xef\xbb\xbf",
            "the text starts with a byte order mark; save it as plain UTF-8",
        ),
        (b"\xff\xfe\0\0", "it is UTF-32 text; save it as UTF-8"),
        (b"\0\0\xfe\xff", "it is UTF-32 text; save it as UTF-8"),
        (b"\xff\xfe", UTF_16),
        (b"\xfe\xff", UTF_16),
        (
            b"\0asm",
            "it is a WebAssembly module; name the JSON document that the module belongs to",
        ),
        (b"PK\x03\x04", PACKED),
        (b"\x1f\x8b", PACKED),
        (b"BZh", PACKED),
        (b"\xfd7zXZ\0", PACKED),
        (b"\x28\xb5\x2f\xfd", PACKED),
        (b"7z\xbc\xaf\x27\x1c", PACKED),
        (b"\x7fELF", PROGRAM),
        (b"MZ", PROGRAM),
        (b"\x89PNG", IMAGE),
        (b"II*\0", IMAGE),
        (
            b"version https://git-lfs",
            "it is a pointer of Git LFS in place of the file; get the file with `git lfs pull`",
        ),
    ];
    if let Some((_, what)) = STARTS.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Some(what);
    }
    match bytes {
        [0, 0, ..] => {
            return Some(
                "it begins with zero bytes, as after a power failure; restore it from a copy",
            );
        }
        // UTF-16 text whose first character is ASCII.
        [0, 1..=127, ..] | [1..=127, 0, ..] => return Some(UTF_16),
        _ => {}
    }
    let mut lines = bytes
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty());
    let Some(first) = lines.next() else {
        return Some("it is empty; restore it from a copy or write it again");
    };
    // YAML and TOML have comments that start with `#` as well.
    let line = std::iter::once(first)
        .chain(lines)
        .find(|line| !line.starts_with(b"#") || line.starts_with(b"#!"));
    let line = String::from_utf8_lossy(
        line.map(|line| &line[..line.len().min(200)])
            .unwrap_or_default(),
    );
    let begins = |starts: &[&str]| starts.iter().any(|start| line.starts_with(start));
    let is_key = |key: &str| {
        !key.is_empty()
            && key
                .chars()
                .all(|c| c.is_alphanumeric() || "_-. ".contains(c))
            && !key.starts_with(|c: char| c.is_ascii_digit())
    };
    if line.starts_with('<') {
        Some("it is an HTML or XML page, perhaps a download that failed; download the file itself")
    } else if begins(&["#!", "import ", "from ", "def ", "\"\"\""]) {
        Some("it is a script; name a JSON file")
    } else if begins(&["---", "- ", "%YAML"])
        || line
            .split_once(':')
            .is_some_and(|(key, rest)| is_key(key) && (rest.is_empty() || rest.starts_with(' ')))
    {
        Some("it is YAML; convert it to JSON")
    } else if line.split_once(" = ").is_some_and(|(key, _)| is_key(key)) {
        Some("it is TOML or another list of settings; convert it to JSON")
    } else {
        None
    }
}

/// Explains an error in text that is meant as JSON.
///
/// * `message`: message of the parser.
/// * `before`, `rest`: text before and after the location of the error.
pub(super) fn explained<'m>(message: &'m str, before: &[u8], rest: &[u8]) -> Cow<'m, str> {
    let rest = String::from_utf8_lossy(&rest[..rest.len().min(40)]);
    let rest = rest.trim_start();
    let is_number = rest.strip_prefix('-').unwrap_or(rest);
    let word: String = rest
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    let last = before.trim_ascii_end().last();
    let text = if is_number.starts_with("NaN") || is_number.starts_with('I') {
        "NaN and Infinity are not JSON; write null or a string instead"
    } else if message.contains("duplicate") {
        return Cow::Borrowed(message);
    } else if rest.starts_with("//") || rest.starts_with("/*") || rest.starts_with('#') {
        "JSON has no comments; remove this comment"
    } else if rest.starts_with('\'') {
        "a JSON string is in double quotes, not in single quotes; in Python, write the file with \
         `json.dump`"
    } else if rest.starts_with(['\u{201c}', '\u{201d}', '\u{201e}', '\u{ab}', '\u{bb}']) {
        "typographic quotes are not JSON; write plain double quotes"
    } else if rest.starts_with('\0')
        || message.contains("control character") && before.last() == Some(&0)
    {
        "a zero byte, as after a power failure; restore the file from a copy"
    } else if message.contains("control character") {
        "a line break or another control character in a string; write `\\n` or `\\t`, or close \
         the string with a double quote"
    } else if message.contains("trailing comma")
        || matches!(last, Some(b',')) && rest.starts_with(['}', ']'])
    {
        "a comma after the last entry; remove the comma"
    } else if message.contains("EOF") {
        return Cow::Owned(format!(
            "{message}: the text ends too early; restore it from a copy or complete it"
        ));
    } else if message.contains("invalid escape") {
        "a backslash begins an escape in JSON; write `\\\\` or, in a path, `/`"
    } else if message.contains("unicode code point") {
        return Cow::Owned(format!("{message}: it is not UTF-8; save it as UTF-8"));
    } else if message.contains("trailing characters") {
        return Cow::Owned(format!(
            "{message}: more text after the end of the value; remove it"
        ));
    } else if message.contains("key must be a string") {
        return Cow::Owned(format!(
            "{message}: write the key `{word}` in double quotes"
        ));
    } else if matches!(&*word, "True" | "False" | "None") {
        let json = match &*word {
            "True" => "true",
            "False" => "false",
            _ => "null",
        };
        return Cow::Owned(format!(
            "`{word}` is Python; write `{json}`, or write the file with `json.dump`"
        ));
    } else if message.contains("expected `,` or") {
        return Cow::Owned(format!(
            "{message}: a comma is missing before this, or a double quote ends a string too early"
        ));
    } else if message == "expected value"
        && matches!(&*word, "undefined" | "nil" | "null" | "nan" | "inf")
    {
        return Cow::Owned(format!("`{word}` is not a JSON value; write null"));
    } else {
        return Cow::Borrowed(message);
    };
    Cow::Borrowed(text)
}

#[cfg(test)]
mod tests {
    use crate::json::{DuplicateKeys, parse_json};

    #[track_caller]
    fn check(text: impl AsRef<[u8]>, expected: &str) {
        let err = parse_json(text.as_ref(), DuplicateKeys::Refuse).expect_err("no JSON");
        assert!(err.message.contains(expected), "{err}");
    }

    #[test]
    fn other_formats_are_named() {
        let utf16: Vec<u8> = "{\"a\": 1}"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        check([b"\xff\xfe", &*utf16].concat(), "UTF-16");
        check(utf16, "UTF-16");
        check(
            "{}".encode_utf16()
                .flat_map(u16::to_be_bytes)
                .collect::<Vec<_>>(),
            "UTF-16",
        );
        check([0; 100], "zero bytes");
        check(b"\0asm\x01\0\0\0", "WebAssembly module");
        check(b"PK\x03\x04...", "packed");
        check("name: w\ntask_list: []\n", "YAML");
        check("# a workflow\n", "comment");
        check("---\na: 1\n", "YAML");
        check("- a\n- b\n", "YAML");
        check("task_list:\n  - a\n", "YAML");
        check("name = \"w\"\n", "TOML");
        check("<!DOCTYPE html>", "HTML");
        check("import json\n", "a script");
        check("", "it is empty");
        check(" \n", "it is empty");
        check("\u{feff}{}", "byte order mark");
    }

    #[test]
    fn mistakes_are_explained() {
        check("{\n// first\n\"a\": 1}", "no comments");
        check("{\"a\": 1, /* b */ \"b\": 2}", "no comments");
        check("{\"a\": 1 # one\n}", "no comments");
        check("// workflow\n{}", "no comments");
        check("{'a': 1}", "double quotes");
        check("{\"a\": 'x'}", "double quotes");
        check("{\"a\": \u{201c}x\u{201d}}", "typographic quotes");
        check("{\"a\": 1,}", "remove the comma");
        check("[1, 2, ]", "remove the comma");
        check("{\"a\": True}", "write `true`");
        check("{\"a\": [False]}", "write `false`");
        check("{\"a\": None}", "write `null`");
        check("{\"a\": undefined}", "write null");
        check("{\"a\": NaN}", "NaN and Infinity");
        check("{a: 1}", "write the key `a` in double quotes");
        check("{\"a\": 1 \"b\": 2}", "a comma is missing");
        check("{\"a\": \"C:\\data\"}", "a backslash begins an escape");
        check("{\"a\": \"x\ny\"}", "line break");
        check("{\"a\": \"x\0y\"}", "zero byte");
        check("{\"a\": 1}\0\0\0", "zero byte");
        check("{\"a\": [1, 2", "ends too early");
        check("{\"a\": \"x", "ends too early");
        check("{} {}", "more text after the end");
        check(b"{\"a\": \"\xe4\"}", "save it as UTF-8");
        check("{\"a\": 1, \"a\": 2}", "duplicate key");
    }
}
