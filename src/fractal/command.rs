//! The command of a task: the module and its fixed arguments.

use std::path::{Path, PathBuf};

use crate::fractal::read::split_command;
use crate::problem::{Cursor, Problems};

/// A module and its fixed arguments, as a document names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// Path of the module.
    pub(crate) module: PathBuf,
    /// Arguments before those of the call.
    pub(crate) fixed_args: Vec<String>,
    /// True if the document names a Python script, which the module replaces.
    pub(crate) is_twin: bool,
}

/// Splits the executable of a manifest, or the command of a workflow.
///
/// An executable that ends in `.py` names the module of the same name next to it, so that one
/// manifest serves mandelbox and Fractal. The interpreter in front of a script is dropped.
///
/// * `is_command`: true for the command of a workflow, which is always split. The executable of a
///   manifest is one path, including its spaces, if there is such a file.
/// * `folder`: folder that paths are relative to.
///
/// Source: conformance rules V25, V28 and V54.
pub(crate) fn command_words(
    executable: &Cursor<'_>,
    is_command: bool,
    folder: &Path,
    problems: &mut Problems,
) -> Option<Command> {
    let text = executable.text(problems)?;
    let is_path =
        !is_command && (folder.join(text).exists() || !text.contains(char::is_whitespace));
    let mut words = if is_path {
        vec![text.to_owned()]
    } else {
        split_command(executable, text, problems)?
    };
    drop_interpreter(&mut words);
    let path = folder.join(words.remove(0));
    let twin = twin_of(&path);
    Some(Command {
        is_twin: twin.is_some(),
        module: twin.unwrap_or(path),
        fixed_args: words,
    })
}

/// Drops the interpreter in front of a script, which belongs to the machine that wrote the
/// document.
pub(crate) fn drop_interpreter(words: &mut Vec<String>) {
    if words.len() > 1 && is_python(&words[0]) && is_script(&words[1]) {
        words.remove(0);
    }
}

/// Returns the path of the module that replaces a script: that of the same name next to it. `None`
/// if the path is not that of a script.
pub(crate) fn twin_of(path: &Path) -> Option<PathBuf> {
    let is_script = path.extension().is_some_and(|extension| extension == "py");
    is_script.then(|| path.with_extension("wasm"))
}

fn is_script(word: &str) -> bool {
    Path::new(word)
        .extension()
        .is_some_and(|extension| extension == "py")
}

fn is_python(word: &str) -> bool {
    let name = Path::new(word).file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    // A module is an interpreter that the document itself brings.
    name.starts_with("python") && !name.ends_with(".wasm")
}

impl Command {
    /// Returns the path that the document names: a script if the module replaces one.
    pub(crate) fn named(&self) -> PathBuf {
        if self.is_twin {
            self.module.with_extension("py")
        } else {
            self.module.clone()
        }
    }

    /// Returns advice for the case that the module does not exist.
    pub(crate) fn advice(&self) -> String {
        if !self.is_twin || self.module.exists() {
            return String::new();
        }
        let script = self.module.with_extension("py");
        let name = script.file_name().unwrap_or_default().to_string_lossy();
        format!(
            "; mandelbox runs this module in place of `{name}`: build it, and put it beside it, or \
             name an environment that runs the script, with `--python`"
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn command(text: &str) -> (String, Vec<String>, bool) {
        let value = json!(text);
        let mut problems = Problems::default();
        let cursor = Cursor::new(Path::new("m"), &value);
        let command =
            command_words(&cursor, true, Path::new("/p"), &mut problems).expect("a command");
        let module = command.module.to_string_lossy().into_owned();
        (module, command.fixed_args, command.is_twin)
    }

    #[test]
    fn commands_name_modules() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let check = |text, module: &str, fixed: &[&str], is_twin| {
            assert_eq!(command(text), (module.to_owned(), words(fixed), is_twin));
        };
        check("tasks/x.wasm", "/p/tasks/x.wasm", &[], false);
        check("tasks/x.py", "/p/tasks/x.wasm", &[], true);
        check(
            "x.wasm segment 'a b'",
            "/p/x.wasm",
            &["segment", "a b"],
            false,
        );
        check("/e/bin/python3.11 /q/x.py -v", "/q/x.wasm", &["-v"], true);
        check("'a b/x.wasm'", "/p/a b/x.wasm", &[], false);
        check("python.wasm run", "/p/python.wasm", &["run"], false);
        check(
            "lib/python.wasm /task/x.py",
            "/p/lib/python.wasm",
            &["/task/x.py"],
            false,
        );
    }
}
