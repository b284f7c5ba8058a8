//! Paths as Fractal writes them.

use std::path::{Path, PathBuf};

/// Writes a path as Python's `pathlib` does: no doubled or trailing slash, no `.` part; `..` is
/// kept, and an empty path is `.`.
///
/// Source: conformance rule 29, from fractal-server's `TaskParameters`.
fn normalized_path(path: &str) -> PathBuf {
    let root = match path.bytes().take_while(|byte| *byte == b'/').count() {
        0 => "",
        2 => "//",
        _ => "/",
    };
    let parts: Vec<_> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let text = format!("{root}{}", parts.join("/"));
    PathBuf::from(if text.is_empty() { "." } else { &text })
}

/// Returns [`normalized_path`] of a path that is text; any other path is not changed.
pub(crate) fn normalized(path: &Path) -> PathBuf {
    path.to_str()
        .map_or_else(|| path.to_owned(), normalized_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_pathlibs() {
        let check = |path: &str, expected: &str| {
            assert_eq!(normalized_path(path), PathBuf::from(expected), "{path}")
        };
        check("/a//b/./c/", "/a/b/c");
        check("//a/b", "//a/b");
        check("///a", "/a");
        check("a/../b", "a/../b");
        check("", ".");
        check("./", ".");
        check("/", "/");
        assert_eq!(normalized_path("//a").to_str(), Some("//a"));
        assert_eq!(normalized_path("/a/").to_str(), Some("/a"));
    }
}
