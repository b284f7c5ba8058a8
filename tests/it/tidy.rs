//! Promises about the repository itself.

use std::path::{Path, PathBuf};

fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir()
                && !["target", ".git", ".tools", "fetched", "mandelbox-runs"]
                    .contains(&name.as_str())
            {
                folders.push(path);
            } else if path.is_file() {
                files.push(path);
            }
        }
    }
    files
}

fn relative(path: &Path) -> String {
    path.strip_prefix(env!("CARGO_MANIFEST_DIR"))
        .expect("inside")
        .to_string_lossy()
        .into_owned()
}

#[test]
fn built_modules_have_one_home() {
    let modules = files()
        .into_iter()
        .map(|path| relative(&path))
        .filter(|path| path.ends_with(".wasm"));
    for path in modules {
        assert!(path.starts_with("task-examples/modules/"), "{path}");
    }
}

#[test]
fn source_files_stay_short() {
    for path in files()
        .into_iter()
        .filter(|path| relative(path).starts_with("src/"))
    {
        let n_lines = std::fs::read_to_string(&path)
            .expect("text")
            .lines()
            .count();
        assert!(n_lines <= 600, "{} has {n_lines} lines", relative(&path));
    }
}

#[test]
fn architecture_names_every_module_of_the_library_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).expect("there");
    let entries = std::fs::read_dir(root.join("src")).expect("a folder");
    for entry in entries {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        let slash = if entry.path().is_dir() { "/" } else { "" };
        let shown = format!("`src/{name}{slash}`");
        assert!(text.contains(&shown), "{shown} is not in ARCHITECTURE.md");
    }
    let is_path = |word: &&str| word.starts_with("src/") && !word.contains(' ');
    for word in text.split('`').filter(is_path) {
        let path = root.join(word);
        assert!(
            path.exists(),
            "ARCHITECTURE.md names {word}, which does not exist"
        );
    }
}

#[test]
fn templates_are_links_to_the_examples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let templates: Vec<_> = files()
        .into_iter()
        .filter(|path| relative(path).starts_with("templates/"))
        .collect();
    assert!(!templates.is_empty());
    for path in templates {
        let name = relative(&path);
        let name = name
            .trim_start_matches("templates/")
            .strip_suffix(".template")
            .expect("a suffix");
        let expected = root
            .join("task-examples")
            .join(name)
            .canonicalize()
            .expect("an example");
        assert!(
            path.is_symlink() && path.canonicalize().expect("there") == expected,
            "{name}"
        );
    }
}

#[test]
fn the_runtime_has_no_known_hole() {
    let lock = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock"))
        .expect("there");
    for name in ["wasmtime", "wasmtime-wasi", "wiggle"] {
        let version = lock
            .split(&format!("name = \"{name}\"\nversion = \""))
            .nth(1)
            .expect("locked");
        let version: Vec<u32> = version
            .split('"')
            .next()
            .expect("a version")
            .split('.')
            .map(|n| n.parse().expect("a number"))
            .collect();
        assert!(version >= vec![48, 0, 8], "{name} {version:?}");
    }
}

#[test]
fn every_defect_has_an_answer() {
    let tests: String = files()
        .iter()
        .filter(|path| {
            relative(path).starts_with("tests/it/") || relative(path).starts_with("src/")
        })
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .collect();
    // The tests of groups of recorded cases are made by a macro.
    let is_test = |name: &str| {
        tests.contains(&format!("fn {name}(")) || tests.contains(&format!("    {name} \""))
    };
    for (file, letter, n_defects) in [
        ("docs/fractal-defects.md", 'H', 37),
        ("docs/fractal-v2-defects.md", 'W', 34),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(path).expect("there");
        for number in 1..=n_defects {
            assert!(
                text.contains(&format!("| {letter}{number} |")),
                "{letter}{number}"
            );
        }
        let names = text
            .split('`')
            .filter_map(|word| word.strip_prefix("test:"));
        for name in names {
            assert!(is_test(name), "{name} is no test");
        }
    }
}

/// Each row of the table of folders names tests that are there.
#[test]
fn folders_of_the_security_policy_have_tests() {
    let policy = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SECURITY.md"))
        .expect("text");
    let rows: Vec<_> = policy
        .lines()
        .filter(|line| line.starts_with("| ") && line.matches(" | ").count() == 3)
        .collect();
    assert!(rows.len() > 10, "the table is there");
    let sources = files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let sources: String = sources
        .map(|path| std::fs::read_to_string(path).expect("text"))
        .collect();
    for row in &rows[2..] {
        let tests: Vec<_> = row
            .rsplit(" | ")
            .next()
            .expect("a column")
            .split('`')
            .skip(1)
            .step_by(2)
            .collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            assert!(
                sources.contains(&format!("fn {test}()")),
                "there is no test {test}: {row}"
            );
        }
    }
}

/// The modules of the library from the top, each with those that it may name. Every module above
/// `trace` may also name [`SHARED`].
const ARROWS: [(&str, &[&str]); 16] = [
    (
        "cli",
        &[
            "run", "report", "backend", "plan", "fractal", "sandbox", "workdir", "event",
        ],
    ),
    (
        "run",
        &["report", "backend", "plan", "fractal", "workdir", "event"],
    ),
    ("report", &["workdir", "event"]),
    ("backend", &["sandbox", "workdir", "event"]),
    ("plan", &["fractal"]),
    ("fractal", &[]),
    ("sandbox", &[]),
    ("workdir", &["event"]),
    ("event", &[]),
    ("trace", &["model", "json", "text"]),
    ("folder", &["model", "text"]),
    ("clock", &[]),
    ("problem", &["json", "text"]),
    ("model", &["json", "text"]),
    ("json", &["text"]),
    ("text", &[]),
];
const SHARED: [&str; 7] = [
    "trace", "folder", "clock", "problem", "model", "json", "text",
];
/// Modules of which another may name one part only.
const PARTS: [(&str, &str, &str); 2] = [
    ("run", "fractal", "fractal::dialect"),
    ("report", "workdir", "workdir::layout"),
];

/// Paths of other modules that a source file names and must not.
///
/// * `module`: the top-level module that the file is in.
fn forbidden_paths(module: &str, text: &str) -> Vec<String> {
    let position = ARROWS.iter().position(|(name, _)| *name == module);
    let position = position.unwrap_or_else(|| panic!("{module} is not in the table"));
    let is_above_shared = !SHARED.contains(&module);
    // Tests may name what they like.
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    let code: String = code
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let is_part_of_name =
        |at: usize| code[..at].ends_with(|c: char| c == '_' || c.is_alphanumeric());
    let starts = code.match_indices("crate::").map(|(at, _)| at);
    let paths = starts.filter(|at| !is_part_of_name(*at)).map(|at| {
        let rest = &code[at + "crate::".len()..];
        let end = rest.find(|c: char| c != ':' && c != '_' && !c.is_ascii_alphanumeric());
        &rest[..end.unwrap_or(rest.len())]
    });
    let is_forbidden = |path: &&str| {
        let target = path.split("::").next().unwrap_or_default();
        let is_allowed = target == module
            || ARROWS[position].1.contains(&target)
            || is_above_shared && SHARED.contains(&target);
        let mut parts = PARTS.iter();
        let is_outside_part = parts
            .any(|(from, to, part)| (*from, *to) == (module, target) && !path.starts_with(part));
        !is_allowed || is_outside_part
    };
    paths.filter(is_forbidden).map(str::to_owned).collect()
}

#[test]
fn modules_name_only_those_below_them() {
    for path in files() {
        let name = relative(&path);
        let Some(below) = name
            .strip_prefix("src/")
            .filter(|name| name.ends_with(".rs"))
        else {
            continue;
        };
        if ["lib.rs", "main.rs"].contains(&below) {
            continue;
        }
        let module = below.split('/').next().unwrap_or_default();
        let text = std::fs::read_to_string(&path).expect("text");
        let wrong = forbidden_paths(module.trim_end_matches(".rs"), &text);
        assert!(wrong.is_empty(), "{name} must not name {wrong:?}");
    }
}

#[test]
fn a_module_that_names_another_above_it_is_noticed() {
    for (module, text, expected) in [
        (
            "event",
            "use crate::workdir::WorkDir;\n",
            "workdir::WorkDir",
        ),
        (
            "fractal",
            "fn f(_: &crate::sandbox::Sandbox) {}\n",
            "sandbox::Sandbox",
        ),
        ("sandbox", "use crate::fractal::{a, b};\n", "fractal::"),
        ("text", "use crate::json::Value;\n", "json::Value"),
        (
            "run",
            "use crate::fractal::v1::Dataset;\n",
            "fractal::v1::Dataset",
        ),
        (
            "report",
            "use crate::workdir::WorkDir;\n",
            "workdir::WorkDir",
        ),
    ] {
        assert_eq!(forbidden_paths(module, text), [expected], "{module}");
    }
    let allowed =
        "use crate::fractal::dialect::Step;\n// crate::cli::x\nuse crate::model::Batch;\n";
    assert_eq!(forbidden_paths("run", allowed), [""; 0]);
    let test_only = "#[cfg(test)]\nmod tests {\n    use crate::run::Error;\n}\n";
    assert_eq!(forbidden_paths("text", test_only), [""; 0]);
}
