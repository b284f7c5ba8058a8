//! Valid names of a package: the name is used for a folder, for a module file, and for a crate or
//! module of its language.

use super::templates::{Language, Template};

const MAX_BYTES: usize = 64;

/// Names reserved by rustc or cargo, in addition to the keywords.
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
/// Module paths reserved by Go.
const GO_RESERVED: [&str; 3] = ["cmd", "go", "std"];

/// Checks that a package of this template can have a name.
///
/// # Errors
/// The reason, as a message for the user.
pub(super) fn check_name(name: &str, template: &Template) -> Result<(), String> {
    let is_letter = |c: char| c.is_ascii_alphabetic();
    if name.is_empty() || !name.starts_with(is_letter) || name.len() > MAX_BYTES {
        return Err(format!(
            "it must begin with a letter (a-z, A-Z) and have at most {MAX_BYTES} characters"
        ));
    }
    if let Some(invalid) = name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || *c == '-' || *c == '_'))
    {
        return Err(format!(
            "it contains {invalid:?}; use letters (a-z, A-Z), digits, `-` and `_`"
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
        Err("it is reserved in the language of the package; choose another name".to_owned())
    } else {
        Ok(())
    }
}
