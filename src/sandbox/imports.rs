//! Imports that the sandbox provides or refuses, and advice on what a refused module was built for.

use std::collections::HashMap;

use wasmtime::ExternType;

use super::typed;

/// Name of the module that `wasm32-wasip1` imports from.
pub(super) const PREVIEW1: &str = "wasi_snapshot_preview1";

/// State of an import in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "state", content = "why", rename_all = "snake_case")]
pub enum ImportState {
    /// The sandbox provides the import.
    Linked,
    /// The sandbox provides functions that always fail; the reason.
    Inert(&'static str),
    /// The sandbox does not provide the import, so the module is refused; the reason.
    Refused(String),
}

/// Packages of WASI 0.2 that `wasi:cli/imports` consists of.
const WASI_PACKAGES: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];
const NO_SOCKETS: &str = "linked, but every address and every name lookup is refused";
const NO_SOCKETS_P1: &str = "linked, but a guest has no socket to use them on";

/// Import of a core module.
pub(super) struct CoreImport<'a> {
    pub(super) module: &'a str,
    pub(super) name: &'a str,
    /// Type of the function, from [`function_text`]; `None` if the import is not a function.
    pub(super) function: Option<String>,
}

impl<'a> CoreImport<'a> {
    /// Describes an import of a compiled module.
    pub(super) fn of(import: &wasmtime::ImportType<'a>) -> Self {
        let function = match import.ty() {
            ExternType::Func(ty) => Some(function_text(ty.params(), ty.results())),
            _ => None,
        };
        Self {
            module: import.module(),
            name: import.name(),
            function,
        }
    }
}

/// Functions of preview 1, and their types as text.
pub(super) type Preview1 = HashMap<String, String>;

/// Returns the type of a function as text.
pub(super) fn function_text<T: std::fmt::Display>(
    params: impl Iterator<Item = T>,
    results: impl Iterator<Item = T>,
) -> String {
    let list = |types: Vec<String>| types.join(", ");
    let params = list(params.map(|ty| ty.to_string()).collect());
    format!(
        "({params}) -> ({})",
        list(results.map(|ty| ty.to_string()).collect())
    )
}

/// Returns the state of a core module's import.
pub(super) fn core_import(import: &CoreImport<'_>, preview1: &Preview1) -> ImportState {
    if import.module == "wasi_unstable" {
        return ImportState::Refused("part of WASI preview 0, which is not supported".to_owned());
    }
    if import.module != PREVIEW1 {
        return ImportState::Refused(format!("not part of WASI preview 1 (`{PREVIEW1}`)"));
    }
    match (&import.function, preview1.get(import.name)) {
        (_, None) => ImportState::Refused("preview 1 has no such function".to_owned()),
        (function, Some(expected)) if function.as_ref() != Some(expected) => {
            let found = function.as_deref().unwrap_or("no function");
            ImportState::Refused(format!("here {found}, in preview 1 {expected}"))
        }
        _ if import.name.starts_with("sock_") => ImportState::Inert(NO_SOCKETS_P1),
        _ => ImportState::Linked,
    }
}

/// Returns the state of a WASM component's import, as far as it follows from the name.
pub(super) fn component_import(name: &str) -> ImportState {
    let refused = |text: &str| ImportState::Refused(text.to_owned());
    if name.starts_with(typed::PACKAGE) {
        return match typed::is_compatible(name) {
            true => ImportState::Linked,
            false => {
                ImportState::Refused(format!("this program provides `{}`", typed::HOST_INTERFACE))
            }
        };
    }
    let Some((package, rest)) = name
        .strip_prefix("wasi:")
        .and_then(|name| name.split_once('/'))
    else {
        return refused("part of neither WASI 0.2 nor mandelbox:task");
    };
    let version = rest.split_once('@').map_or("", |(_, version)| version);
    if package == "http" {
        return refused("a sandbox has no network");
    }
    if !WASI_PACKAGES.contains(&package) {
        return refused("not part of `wasi:cli/imports`, the only part of WASI that is supported");
    }
    if !version.starts_with("0.2.") || version.contains('-') {
        let shown = if version.is_empty() {
            "without a version"
        } else {
            version
        };
        return ImportState::Refused(format!(
            "WASI {shown} is not supported, only releases of WASI 0.2"
        ));
    }
    if package == "sockets" {
        ImportState::Inert(NO_SOCKETS)
    } else {
        ImportState::Linked
    }
}

/// Returns a sentence for the user about the imports of a core module that the sandbox does not
/// provide.
pub(super) fn core_refusal(imports: &[CoreImport<'_>], preview1: &Preview1) -> Option<String> {
    let mut names = Vec::new();
    let mut foreign = Vec::new();
    for import in imports {
        let ImportState::Refused(why) = core_import(import, preview1) else {
            continue;
        };
        let why = if import.module == PREVIEW1 {
            format!(" ({why})")
        } else {
            String::new()
        };
        names.push(format!("{}::{}{why}", import.module, import.name));
        foreign.push((import.module, import.name));
    }
    refusal(&names, core_origin(&foreign))
}

/// Returns a sentence for the user about the imports of a WASM component, like [`core_refusal`].
pub(super) fn component_refusal(imports: &[&str]) -> Option<String> {
    let is_refused = |name: &&&str| matches!(component_import(name), ImportState::Refused(_));
    let foreign: Vec<_> = imports
        .iter()
        .filter(is_refused)
        .map(|name| (*name).to_owned())
        .collect();
    let origin = component_origin(&foreign);
    refusal(&foreign, &origin)
}

fn refusal(names: &[String], origin: &str) -> Option<String> {
    /// Number of imports that a message lists.
    const SHOWN: usize = 10;
    if names.is_empty() {
        return None;
    }
    let more = names
        .len()
        .checked_sub(SHOWN)
        .filter(|more| *more > 0)
        .map(|more| format!(" and {more} more"));
    let shown = names[..names.len().min(SHOWN)].join(", ") + &more.unwrap_or_default();
    Some(format!(
        "the module has imports that the sandbox does not provide: {shown}; {origin}"
    ))
}

/// Returns what a core module with such imports was built for, with advice.
fn core_origin(foreign: &[(&str, &str)]) -> &'static str {
    let any =
        |is: &dyn Fn(&str, &str) -> bool| foreign.iter().any(|(module, name)| is(module, name));
    let env = || {
        foreign
            .iter()
            .filter(|(module, _)| *module == "env")
            .map(|(_, name)| *name)
    };
    if any(&|module, _| module == "wasi_unstable") {
        "that is WASI preview 0, from before 2020: build it with a current toolchain, for preview \
         1 (`wasm32-wasip1`)"
    } else if any(&|module, _| module.starts_with(typed::PACKAGE) || module.starts_with("wasi:")) {
        "it is the core module of a typed task or of another WASM component: build it for \
         `wasm32-wasip2`, or create the component with `wasm-tools component new`"
    } else if any(&|_, name| name == "thread-spawn") {
        "it was built with threads: build for `wasm32-wasip1` and not `wasm32-wasip1-threads`, \
         without `-pthread`"
    } else if any(&|module, name| module == "gojs" || (module == "go" && name.contains('.'))) {
        "it is a Go program for JavaScript: build it with `GOOS=wasip1 GOARCH=wasm`, in TinyGo \
         `-target=wasip1`"
    } else if any(&is_wasm_bindgen) {
        "it was built for JavaScript with wasm-bindgen: build a program with a `main` for \
         `wasm32-wasip1`, without wasm-bindgen and wasm-pack, and without the `js` features of \
         crates that it uses"
    } else if any(&|module, _| module.starts_with("wasix_")) {
        "it was built for WASIX: build it for plain WASI (`wasm32-wasip1`)"
    } else if any(&|module, _| module.starts_with("wasi_") && module != PREVIEW1) {
        "that is a proposal for WASI that is not supported: build without it"
    } else if any(&|_, name| name.starts_with("napi_")) {
        "it is an add-on for Node.js: build a program with a `main` for `wasm32-wasip1`"
    } else if any(&|module, _| module.starts_with("extism:")) {
        "it is a plug-in for Extism: make it a command, which reads its parameters from a file, \
         or a typed task, whose `run` gets them as text"
    } else if any(&|module, name| module == "env" && name == "__linear_memory") {
        "it is an object file: link it (call the compiler without `-c`)"
    } else if any(&|module, name| module.starts_with("GOT.") || name == "__memory_base") {
        "it is a library for dynamic linking: link it statically, without `-shared` and \
         `-sSIDE_MODULE`"
    } else if any(&is_emscripten) {
        "it was built by Emscripten for JavaScript: build it with a toolchain for WASI (wasi-sdk \
         or `zig cc -target wasm32-wasi`)"
    } else if env().any(|name| name == "abort")
        && env().all(|name| ["abort", "seed", "trace"].contains(&name) || name.contains('.'))
    {
        "it was built by AssemblyScript for JavaScript: add the package @assemblyscript/wasi-shim \
         and extend its asconfig.json"
    } else if env().next().is_some() {
        "imports from `env` belong to another host, or the linker did not find them: link the \
         library that defines them, and link without `--allow-undefined`, which hides what is \
         missing"
    } else if any(&|module, _| module == PREVIEW1) {
        "build it with a toolchain for WASI preview 1 (`wasm32-wasip1`), whose libc has the right \
         functions"
    } else {
        "it was built for a host that has them: build it for WASI preview 1 (`wasm32-wasip1`), \
         without the code that needs them"
    }
}

fn is_wasm_bindgen(module: &str, name: &str) -> bool {
    module == "wbg"
        || module.starts_with("__wbindgen")
        || name.starts_with("__wbindgen")
        || (module.starts_with("./") && module.ends_with(".js"))
}

fn is_emscripten(module: &str, name: &str) -> bool {
    const STARTS: [&str; 9] = [
        "emscripten_",
        "_emscripten_",
        "__syscall_",
        "invoke_",
        "__cxa_",
        "_embind_",
        "_abort_js",
        "_mmap_js",
        "_tzset_js",
    ];
    // Emscripten's optimizer renames the module of all imports to `a`, and shortens their names to
    // one or two letters.
    (module == "env" && STARTS.iter().any(|start| name.starts_with(start)))
        || (module == "a" && name.len() <= 2)
}

/// Returns what a WASM component with such imports was built for, with advice.
fn component_origin(foreign: &[String]) -> String {
    let any = |start: &str| foreign.iter().any(|name| name.starts_with(start));
    let any_wasi = |version: &str| {
        foreign
            .iter()
            .any(|name| name.starts_with("wasi:") && name.contains(version))
    };
    let origin = if any(typed::PACKAGE) {
        return format!(
            "it was built for another version of mandelbox's world, and this program provides \
             `{}`: build it again from the wit/task.wit of this version",
            typed::HOST_INTERFACE
        );
    } else if any_wasi("@0.3.") {
        "it was built for WASI 0.3: build it for WASI 0.2 (`wasm32-wasip2`)"
    } else if any_wasi("@0.2.0-rc") {
        "it was built for a draft of WASI 0.2: build it with a current toolchain"
    } else if any("fermyon:") || any("spin:") {
        "it was built for Spin: make it a command (`wasi:cli/run`) or a typed task (wit/task.wit)"
    } else if any("wasi:http/") {
        "there is no network: read from the input folders, and turn HTTP off in the build (for \
         componentize-js with `--disable http --disable fetch-event`)"
    } else {
        "build it without the code that needs these interfaces, or compose it with a WASM \
         component that provides them (`wac plug`)"
    };
    origin.to_owned()
}

/// Returns both results or both errors, so that an author who builds a module again knows of both.
pub(super) fn both<A, B>(a: Result<A, String>, b: Result<B, String>) -> Result<(A, B), String> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(text), Ok(_)) | (Ok(_), Err(text)) => Err(text),
        (Err(a), Err(b)) => Err(format!("{a}. In addition, {b}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_was_built_for_is_found() {
        for (imports, expected) in [
            (&[("wasi_unstable", "fd_write")][..], "preview 0"),
            (&[("env", "abort")], "AssemblyScript"),
            (
                &[("env", "abort"), ("env", "emscripten_resize_heap")],
                "Emscripten",
            ),
            (&[("a", "a"), ("a", "bc")], "Emscripten"),
            (&[("env", "abort"), ("env", "dgemm_")], "link the library"),
            (&[("gojs", "runtime.wasmExit")], "GOOS=wasip1"),
            (&[("./x_bg.js", "f")], "wasm-bindgen"),
            (&[("wbg", "f")], "wasm-bindgen"),
            (
                &[("mandelbox:task/host@0.1.0", "log")],
                "wasm-tools component new",
            ),
            (&[("extism:host/env", "length")], "Extism"),
            (&[("env", "memory"), ("wasi", "thread-spawn")], "threads"),
            (&[("env", "memory"), ("env", "napi_typeof")], "Node.js"),
            (&[("mine", "f")], "built for a host that has them"),
        ] {
            let imports: Vec<_> = imports
                .iter()
                .map(|(module, name)| CoreImport {
                    module,
                    name,
                    function: None,
                })
                .collect();
            let text = core_refusal(&imports, &Preview1::new()).expect("refused");
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn interfaces_of_components_are_distinguished() {
        for (name, expected) in [
            ("wasi:cli/run@0.3.0", "WASI 0.3.0 is not supported"),
            ("wasi:io/streams@0.2.0-rc-2023-11-10", "only releases"),
            ("wasi:keyvalue/store@0.2.0", "not part of"),
            ("wasi:logging/logging", "not part of"),
            ("wasi:cli/stdout", "without a version"),
            ("wasi:http/types@0.2.3", "no network"),
            ("mandelbox:task/host@0.9.0", "this program provides"),
            ("a:b/c", "neither WASI 0.2"),
        ] {
            let ImportState::Refused(text) = component_import(name) else {
                panic!("{name} is refused")
            };
            assert!(text.contains(expected), "{text}");
            assert!(component_refusal(&[name]).is_some());
        }
        assert_eq!(
            component_import("wasi:io/streams@0.2.99"),
            ImportState::Linked
        );
        assert!(matches!(
            component_import("wasi:sockets/tcp@0.2.0"),
            ImportState::Inert(_)
        ));
        assert_eq!(
            component_refusal(&["wasi:cli/stdout@0.2.6", "mandelbox:task/host@0.1.3"]),
            None
        );
    }
}
