//! A module of `tests/hostile/` and the outcome that its first line promises.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// One module and how its calls may end.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) outcomes: Vec<String>,
    text: String,
}

/// Reads `tests/hostile/`; a file without a proper first line fails the test.
pub(super) fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let prelude = fs::read_to_string(folder.join("prelude.wat")).expect("there");
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| Case::read(path, &prelude))
        .collect()
}

impl Case {
    fn read(path: &Path, prelude: &str) -> Self {
        const KNOWN: [&str; 8] = [
            "refused",
            "succeeded",
            "exited",
            "failed",
            "trapped",
            "timed_out",
            "memory_exceeded",
            "bad_output",
        ];
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let mut text = fs::read_to_string(path).expect("text");
        let first = text
            .lines()
            .next()
            .unwrap_or_default()
            .strip_prefix(";; outcome: ");
        let parts = first
            .and_then(|line| line.split_once("; tries: "))
            .filter(|(_, tries)| !tries.is_empty());
        let (outcomes, _) = parts
            .unwrap_or_else(|| panic!("{name}: first line must be `;; outcome: ...; tries: ...`"));
        let outcomes: Vec<_> = outcomes.split('|').map(str::to_owned).collect();
        for outcome in &outcomes {
            assert!(
                KNOWN.contains(&outcome.as_str()),
                "{name}: unknown outcome {outcome}"
            );
        }
        if name != "prelude" && !text.contains("\n(module") && !text.contains("\n(component") {
            text = format!("{prelude}{text}");
        }
        Self {
            name,
            outcomes,
            text,
        }
    }

    /// Time limit of each call. It is short for modules that never end by themselves, and long
    /// enough for the others on a busy machine.
    pub(super) fn timeout(&self) -> Duration {
        match self.outcomes.as_slice() {
            [outcome] if outcome == "timed_out" => Duration::from_millis(250),
            _ => Duration::from_secs(1),
        }
    }

    /// Compiles the module; `@ROOT@` in it stands for the project's folder.
    pub(super) fn module(&self, root: &Path) -> Vec<u8> {
        let text = self.text.replace(
            "@ROOT@",
            root.to_str().expect("UTF-8").trim_end_matches('/'),
        );
        wat::parse_str(text).unwrap_or_else(|err| panic!("{}: {err}", self.name))
    }
}
