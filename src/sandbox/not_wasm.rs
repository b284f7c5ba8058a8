//! Recognition of files that are not WebAssembly modules, with advice.

use wasmtime::{Engine, Precompiled};

const NATIVE: &str = "it is a native program; a task is a WebAssembly module: build the program \
    for WASI (`wasm32-wasip1`)";
const SCRIPT: &str = "it is a script; a task is a WebAssembly module, and a script needs an \
    interpreter built for WASI as its package's executable";
const PACKED: &str = "it is packed; unpack it and name the .wasm file in it";

/// Returns a sentence for the user about a file that does not start like a module.
pub(super) fn why_not_wasm(bytes: &[u8]) -> String {
    let precompiled = matches!(
        Engine::detect_precompiled(bytes),
        Some(Precompiled::Module | Precompiled::Component)
    );
    let what = if bytes.is_empty() {
        "it is empty; build or download it again"
    } else if precompiled {
        "it is precompiled native code, which a sandbox cannot contain; name the .wasm file that \
         it was compiled from"
    } else {
        BINARY
            .iter()
            .find(|(start, _)| bytes.starts_with(start))
            .map_or_else(|| text(bytes), |(_, what)| what)
    };
    format!("is not a WebAssembly module: {what}")
}

/// First bytes of other formats.
const BINARY: [(&[u8], &str); 14] = [
    (b"\x7fELF", NATIVE),
    (b"MZ", NATIVE),
    (b"\xcf\xfa\xed\xfe", NATIVE),
    (b"\xca\xfe\xba\xbe", NATIVE),
    (b"#!", SCRIPT),
    (b"\x1f\x8b", PACKED),
    (b"PK\x03\x04", PACKED),
    (b"\xfd7zXZ\0", PACKED),
    (b"BZh", PACKED),
    (b"\x28\xb5\x2f\xfd", PACKED),
    (
        b"BC\xc0\xde",
        "it is LLVM bitcode; link it to a WebAssembly module, without `-flto` for object files",
    ),
    (
        b"!<arch>\n",
        "it is a library of object files; link it with a program",
    ),
    (
        b"version https://git-lfs",
        "it is a pointer of Git LFS in place of the file; get the file with `git lfs pull`",
    ),
    (
        b"\0asm",
        "its version of the binary format is unknown, or it is truncated; build or download it \
         again, for version 1",
    ),
];

fn text(bytes: &[u8]) -> &'static str {
    let start = bytes.trim_ascii_start();
    let begins = |prefix: &[u8]| {
        start.len() >= prefix.len() && start[..prefix.len()].eq_ignore_ascii_case(prefix)
    };
    if begins(b"<!doctype") || begins(b"<html") || begins(b"<?xml") {
        "it is an HTML page, perhaps a download that failed; look at it in a browser, and \
         download the file itself"
    } else if begins(b"(module") || begins(b"(component") || begins(b";;") {
        "it is WebAssembly text (WAT); translate it to a .wasm file first, with `wasm-tools parse`"
    } else if begins(b"{") || begins(b"[") {
        "it is JSON; name the .wasm file"
    } else if begins(b"import ") || begins(b"from ") || begins(b"def ") || begins(b"\"\"\"") {
        SCRIPT
    } else {
        "its first bytes are not those of a module; name a .wasm file"
    }
}

/// Returns true if a module ends in the middle of a section.
#[cfg(feature = "compiler")]
pub(super) fn is_cut_off(bytes: &[u8]) -> bool {
    /// Size of the magic number and the version.
    const HEADER: usize = 8;
    let mut position = HEADER;
    while position < bytes.len() {
        let Some((length, n)) = parse_leb128(&bytes[position + 1..]) else {
            return bytes.len() - position < 6;
        };
        position += 1 + n + length;
    }
    position > bytes.len()
}

/// Parses an unsigned 32-bit number. Returns the number and its length in bytes, or `None` if it
/// does not end.
#[cfg(feature = "compiler")]
fn parse_leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (n, byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((value, n + 1));
        }
    }
    None
}

#[cfg(all(test, feature = "compiler"))]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_is_cut_off_is_noticed_at_every_byte() {
        let bytes = wat::parse_str(
            r#"(module (memory 1) (data (i32.const 0) "abc") (func (export "_start")))"#,
        );
        let bytes = bytes.expect("valid WAT");
        let whole: Vec<_> = (8..=bytes.len())
            .filter(|end| !is_cut_off(&bytes[..*end]))
            .collect();
        // A module that ends after a whole section may be complete.
        assert!(
            whole.contains(&bytes.len()) && whole.len() <= 8,
            "{whole:?}"
        );
    }
}
