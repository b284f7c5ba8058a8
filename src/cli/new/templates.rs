//! Templates of new packages: the packages of `task-examples`, with another name.

use clap::ValueEnum;

use crate::cli::shared_arguments::FractalArgument;

/// Language of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Language {
    Rust,
    C,
    Go,
    Python,
    #[value(alias = "javascript")]
    Js,
}

/// Kind of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Kind {
    /// A program that reads its args from a file
    Command,
    /// A WASM component that receives its args in memory and describes itself
    Typed,
}

/// Package of `task-examples` that serves as a template.
pub(super) struct Template {
    pub(super) language: Language,
    pub(super) kind: Kind,
    /// Name of the package, which is replaced by that of the new package wherever it occurs.
    name: &'static str,
    /// Files of the package, except those of all packages.
    files: &'static [File],
    /// Its files for version 1 of Fractal.
    v1: &'static [File],
    /// Its files for version 2 of Fractal.
    v2: &'static [File],
}

/// Path in a package, and contents.
type File = (&'static str, &'static [u8]);

// The files are included through links in `templates`. Cargo leaves a folder with its own
// Cargo.toml out of the packaged crate, and `task-examples` is such a folder. It packages the
// target of a link under the name of the link.
macro_rules! example {
    ($folder:literal, $($path:literal),+) => {
        &[$(($path, include_bytes!(concat!("../../../templates/", $folder, "/", $path, ".template")))),+]
    };
}

/// All templates. The first one of a language is used if no kind is given.
static TEMPLATES: [Template; 6] = [
    Template {
        language: Language::Rust,
        kind: Kind::Command,
        name: "otsu-rust",
        files: example!(
            "otsu-rust",
            "build",
            ".gitignore",
            "Cargo.toml",
            "Cargo.lock",
            "src/main.rs",
            "src/task.rs"
        ),
        v1: example!(
            "otsu-rust/v1",
            "README.md",
            "__FRACTAL_MANIFEST__.json",
            "workflow.json"
        ),
        v2: example!(
            "otsu-rust",
            "README.md",
            "__FRACTAL_MANIFEST__.json",
            "workflow.json"
        ),
    },
    Template {
        language: Language::Rust,
        kind: Kind::Typed,
        name: "otsu-rust-typed",
        files: example!(
            "otsu-rust-typed",
            "build",
            ".gitignore",
            "Cargo.toml",
            "Cargo.lock",
            "src/lib.rs",
            "src/task.rs"
        ),
        v1: example!("otsu-rust-typed/v1", "README.md", "workflow.json"),
        v2: example!(
            "otsu-rust-typed",
            "README.md",
            "__FRACTAL_MANIFEST__.json",
            "workflow.json"
        ),
    },
    Template {
        language: Language::C,
        kind: Kind::Command,
        name: "otsu-c",
        files: example!(
            "otsu-c",
            "build",
            ".gitignore",
            "main.c",
            "json.c",
            "json.h"
        ),
        v1: example!(
            "otsu-c/v1",
            "README.md",
            "__FRACTAL_MANIFEST__.json",
            "workflow.json"
        ),
        v2: example!(
            "otsu-c",
            "README.md",
            "__FRACTAL_MANIFEST__.json",
            "workflow.json"
        ),
    },
    Template {
        language: Language::Go,
        kind: Kind::Command,
        name: "otsu-go",
        files: example!("otsu-go", "build", ".gitignore", "go.mod", "main.go"),
        v1: example!(
            "otsu-go/v1",
            "README.md",
            "__FRACTAL_MANIFEST__.json",
            "workflow.json"
        ),
        v2: example!(
            "otsu-go",
            "README.md",
            "__FRACTAL_MANIFEST__.json",
            "workflow.json"
        ),
    },
    Template {
        language: Language::Python,
        kind: Kind::Typed,
        name: "otsu-python",
        files: example!("otsu-python", "build", ".gitignore", "task.py"),
        v1: example!("otsu-python/v1", "README.md", "workflow.json"),
        v2: example!(
            "otsu-python",
            "README.md",
            "__FRACTAL_MANIFEST__.json",
            "workflow.json"
        ),
    },
    Template {
        language: Language::Js,
        kind: Kind::Typed,
        name: "otsu-js",
        files: example!(
            "otsu-js",
            "build",
            ".gitignore",
            "package.json",
            "build.mjs",
            "files.js",
            "task.js"
        ),
        v1: example!("otsu-js/v1", "README.md", "workflow.json"),
        v2: example!(
            "otsu-js",
            "README.md",
            "__FRACTAL_MANIFEST__.json",
            "workflow.json"
        ),
    },
];

/// Files of all packages.
static SHARED: &[File] = example!("otsu", "images/cells.pgm", "images/nuclei.pgm");

/// Test cases of all packages of version 1.
static CASES_V1: &[File] = example!(
    "otsu/v1",
    "tests/cut_off/args.json",
    "tests/cut_off/expected/error.txt",
    "tests/cut_off/input/cells.pgm",
    "tests/eight_bits/args.json",
    "tests/eight_bits/expected/metadiff.json",
    "tests/eight_bits/expected/output/cells_mask.pgm",
    "tests/eight_bits/input/cells.pgm",
    "tests/list/args.json",
    "tests/list/expected/metadiff.json",
    "tests/list/input/cells.pgm",
    "tests/list/input/notes.txt",
    "tests/list/input/nuclei.pgm",
    "tests/sixteen_bits/args.json",
    "tests/sixteen_bits/expected/metadiff.json",
    "tests/sixteen_bits/expected/output/nuclei_mask.pgm",
    "tests/sixteen_bits/input/nuclei.pgm"
);

/// Test cases of all packages of version 2.
static CASES_V2: &[File] = example!(
    "otsu",
    "tests/cut_off/args.json",
    "tests/cut_off/case.json",
    "tests/cut_off/expected/error.txt",
    "tests/cut_off/zarr_dir/cells/image.pgm",
    "tests/eight_bits/args.json",
    "tests/eight_bits/case.json",
    "tests/eight_bits/expected/output.json",
    "tests/eight_bits/expected/zarr_dir/cells/image.pgm",
    "tests/eight_bits/expected/zarr_dir/cells/mask.pgm",
    "tests/eight_bits/zarr_dir/cells/image.pgm",
    "tests/import/args.json",
    "tests/import/case.json",
    "tests/import/expected/output.json",
    "tests/import/expected/zarr_dir/cells/image.pgm",
    "tests/import/expected/zarr_dir/nuclei/image.pgm",
    "tests/import/input/cells.pgm",
    "tests/import/input/notes.txt",
    "tests/import/input/nuclei.pgm",
    "tests/sixteen_bits/args.json",
    "tests/sixteen_bits/case.json",
    "tests/sixteen_bits/expected/output.json",
    "tests/sixteen_bits/expected/zarr_dir/nuclei/image.pgm",
    "tests/sixteen_bits/expected/zarr_dir/nuclei/mask.pgm",
    "tests/sixteen_bits/zarr_dir/nuclei/image.pgm"
);

/// World of typed tasks.
const WORLD: File = ("wit/task.wit", include_bytes!("../../../wit/task.wit"));

/// Paths in the examples, and their replacements in a separate package.
const MOVED: [(&str, &str); 4] = [
    ("../../modules/", ""),
    ("../modules/", ""),
    ("../../../wit", "wit"),
    ("../../wit", "wit"),
];

impl Template {
    /// Returns the template of a language, of the given kind or else the first one.
    pub(super) fn find(language: Language, kind: Option<Kind>) -> Option<&'static Self> {
        TEMPLATES.iter().find(|template| {
            template.language == language && kind.is_none_or(|kind| template.kind == kind)
        })
    }

    /// Returns the files of a package with this name: paths and contents.
    pub(super) fn files(
        &self,
        name: &str,
        version: FractalArgument,
    ) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
        let world = (self.kind == Kind::Typed).then_some(&WORLD);
        let (files, cases) = match version {
            FractalArgument::V1 => (self.v1, CASES_V1),
            FractalArgument::V2 => (self.v2, CASES_V2),
        };
        let files = files.iter().chain(self.files).chain(cases);
        let files = files.chain(SHARED).chain(world);
        files.map(move |(path, contents)| (*path, self.renamed(path, contents, name)))
    }

    /// Returns the names of the crates in the template's Cargo.lock.
    pub(super) fn locked_crates(&self) -> impl Iterator<Item = &'static str> {
        let lock = self.files.iter().find(|(path, _)| *path == "Cargo.lock");
        let lines = lock
            .and_then(|(_, lock)| std::str::from_utf8(lock).ok())
            .unwrap_or_default()
            .lines();
        lines.filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
    }

    fn renamed(&self, path: &str, contents: &[u8], name: &str) -> Vec<u8> {
        // An image is not text and contains no name.
        let Ok(text) = std::str::from_utf8(contents) else {
            return contents.to_vec();
        };
        let moved = MOVED
            .iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        let renamed = moved.replace(self.name, name);
        if path == "Cargo.lock" {
            sorted_lock(&renamed)
        } else {
            renamed
        }
        .into_bytes()
    }
}

/// Sorts the packages of a Cargo.lock by name, as cargo does: a new name can change the order, and
/// `--locked` refuses a file in another order.
fn sorted_lock(lock: &str) -> String {
    const SEPARATOR: &str = "\n[[package]]\n";
    let mut parts = lock.trim_end().split(SEPARATOR);
    let head = parts.next().unwrap_or_default();
    let mut packages: Vec<_> = parts.map(str::trim_end).collect();
    packages.sort_unstable();
    let packages: String = packages
        .iter()
        .map(|package| format!("{SEPARATOR}{package}\n"))
        .collect();
    format!("{head}{packages}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_sorted_by_name() {
        let lock = "# head\nversion = 4\n\n[[package]]\nname = \"z\"\n\n[[package]]\nname = \
            \"b\"\ndependencies = [\n \"a\",\n]\n";
        let sorted = "# head\nversion = 4\n\n[[package]]\nname = \"b\"\ndependencies = [\n \
            \"a\",\n]\n\n[[package]]\nname = \"z\"\n";
        assert_eq!(sorted_lock(lock), sorted);
        assert_eq!(sorted_lock(sorted), sorted);
    }
}
