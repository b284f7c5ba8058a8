//! Names that a package may have: of a folder, a module file, and a crate or module of its
//! language.

use super::templates::{Language, Template};

const MAX_BYTES: usize = 64;

/// Names that rustc or cargo keep for themselves, beside the keywords.
const RUST_RESERVED: [&str; 10] = [
    "alloc",
    "build",
    "core",
    "deps",
    "examples",
    "incremental",
    "proc_macro",
    "proc-macro",
    "std",
    "test",
];
const RUST_KEYWORDS: [&str; 52] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
    "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl",
    "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref",
    "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "union", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];
/// Module paths of Go's own.
const GO_RESERVED: [&str; 3] = ["cmd", "go", "std"];

/// Whether a package of this template can have that name.
///
/// # Errors
/// Why not.
pub(super) fn check_name(name: &str, template: &Template) -> Result<(), String> {
    let is_letter = |c: char| c.is_ascii_alphabetic();
    if name.is_empty() || !name.starts_with(is_letter) || name.len() > MAX_BYTES {
        return Err(format!(
            "it must begin with a letter (a-z, A-Z) and have {MAX_BYTES} characters at most"
        ));
    }
    if let Some(odd) = name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || *c == '-' || *c == '_'))
    {
        return Err(format!(
            "it has {odd:?}; letters (a-z, A-Z), digits, - and _ are possible"
        ));
    }
    let reserved = match template.language {
        Language::Rust => {
            RUST_RESERVED.contains(&name)
                || RUST_KEYWORDS.contains(&name)
                || template.locked_crates().any(|n| n == name)
        }
        Language::Go => GO_RESERVED.contains(&name),
        Language::C | Language::Python | Language::Js => false,
    };
    if reserved {
        Err("its language has that name for something else".to_owned())
    } else {
        Ok(())
    }
}
