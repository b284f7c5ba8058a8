//! Bytes → a module that is ready to be instantiated, or the reason why not.

use serde::{Deserialize, Serialize};
use wasmtime::component::types::{self, ComponentItem};
use wasmtime::component::{Component, Type};
use wasmtime::{Engine, ExternType, InstancePre, Module, Precompiled};
use wasmtime_wasi::p2::bindings::CommandPre;

use super::compile::CompiledCode;
use super::host::{Host, Linkers, PREVIEW1};
use super::typed::{self, TypedPre};

/// What a module's first bytes say that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModuleFormat {
    /// A core module.
    Core,
    /// A WASM component.
    Component,
}

impl ModuleFormat {
    /// The error is a sentence for the user.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, String> {
        match bytes {
            [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(Self::Core),
            [0, b'a', b's', b'm', _, _, 1, 0, ..] => Ok(Self::Component),
            _ => Err(why_not_wasm(bytes)),
        }
    }
}

impl std::fmt::Display for ModuleFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Core => "core module",
            Self::Component => "WASM component",
        })
    }
}

/// What a module is, found from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModuleKind {
    /// A core module of WASI preview 1 with `_start`, or with `_initialize` and an export with the empty name.
    CommandP1,
    /// A component of WASI 0.2 that exports `wasi:cli/run`.
    CommandP2,
    /// A component of the world in `wit/task.wit`.
    Typed,
}

impl std::fmt::Display for ModuleKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CommandP1 => "command (WASI preview 1 core module)",
            Self::CommandP2 => "command (WASI 0.2 component)",
            Self::Typed => "typed task (component of the world mandelbox:task)",
        })
    }
}

/// A compiled module with its imports resolved.
pub(super) enum PreparedModule {
    Core { pre: InstancePre<Host>, entry: CoreEntry },
    Component(CommandPre<Host>),
    Typed(TypedPre),
}

/// How a core module is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CoreEntry {
    /// The export `_start`.
    Start,
    /// `_initialize`, if it is there, then the export with the empty name.
    Default,
}

impl PreparedModule {
    pub(super) fn kind(&self) -> ModuleKind {
        match self {
            Self::Core { .. } => ModuleKind::CommandP1,
            Self::Component(_) => ModuleKind::CommandP2,
            Self::Typed(_) => ModuleKind::Typed,
        }
    }

    /// Whether a guest can do anything with files.
    pub(super) fn has_files(&self) -> bool {
        match self {
            Self::Core { .. } | Self::Component(_) => true,
            Self::Typed(typed) => typed.has_files,
        }
    }

    /// Links compiled code; the error is a sentence for the user.
    pub(super) fn new(engine: &Engine, linkers: &Linkers, code: &CompiledCode) -> Result<Self, String> {
        match code {
            CompiledCode::Core(module) => Self::new_core(linkers, module),
            CompiledCode::Component(component) => Self::new_component(engine, linkers, component),
        }
    }

    fn new_core(linkers: &Linkers, module: &Module) -> Result<Self, String> {
        let foreign: Vec<_> = module
            .imports()
            .filter(|import| import.module() != PREVIEW1)
            .map(|import| format!("{}::{}", import.module(), import.name()))
            .collect();
        if !foreign.is_empty() {
            return Err(foreign_imports(&foreign));
        }
        let entry = core_entry(module)?;
        let pre = linkers.core.instantiate_pre(module).map_err(|err| unlinked(&err))?;
        Ok(Self::Core { pre, entry })
    }

    fn new_component(engine: &Engine, linkers: &Linkers, component: &Component) -> Result<Self, String> {
        let component_type = component.component_type();
        if typed::is_typed(engine, &component_type) {
            return Self::new_typed(engine, linkers, component);
        }
        let foreign: Vec<_> =
            component_type.imports(engine).map(|(name, _)| name.to_owned()).filter(|name| !is_wasi(name)).collect();
        if !foreign.is_empty() {
            return Err(foreign_imports(&foreign));
        }
        let exports: Vec<_> = component_type.exports(engine).map(|(name, _)| name.to_owned()).collect();
        if !exports.iter().any(|name| name.starts_with("wasi:cli/run@0.2.")) {
            let exports = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
            return Err(format!(
                "the WASM component exports neither `wasi:cli/run@0.2` (a command) nor `run` (a typed task), so there is \
                 nothing to run; it exports {exports}"
            ));
        }
        if !has_plain_run(engine, &component_type) {
            return Err(
                "the WASM component's `wasi:cli/run` must have a function `run` without parameters that gives a \
                        `result`; build it as a command"
                    .to_owned(),
            );
        }
        let pre = linkers.component.instantiate_pre(component).map_err(|err| unlinked(&err))?;
        CommandPre::new(pre).map(Self::Component).map_err(|err| unlinked(&err))
    }

    fn new_typed(engine: &Engine, linkers: &Linkers, component: &Component) -> Result<Self, String> {
        let component_type = component.component_type();
        let names = component_type.imports(engine).map(|(name, _)| name.to_owned());
        let foreign: Vec<_> = names.filter(|name| !is_wasi(name) && !name.starts_with(typed::PACKAGE)).collect();
        if !foreign.is_empty() {
            return Err(foreign_imports(&foreign));
        }
        TypedPre::new(engine, &linkers.component, component, unlinked).map(Self::Typed)
    }
}

/// Whether a component's import is of the WASI that every guest gets.
fn is_wasi(name: &str) -> bool {
    name.starts_with("wasi:") && name.contains("@0.2.") && !name.starts_with("wasi:http")
}

/// Whether `wasi:cli/run` is what WASI says: `run: func() -> result`.
fn has_plain_run(engine: &Engine, component: &types::Component) -> bool {
    let interface = component.exports(engine).find(|(name, _)| name.starts_with("wasi:cli/run@0.2."));
    let Some((_, ComponentItem::ComponentInstance(interface))) = interface.map(|(name, item)| (name, item.ty)) else {
        return false;
    };
    let run = interface.exports(engine).find(|(name, _)| *name == "run").map(|(_, item)| item.ty);
    let Some(ComponentItem::ComponentFunc(run)) = run else { return false };
    let is_plain = |ty: Type| matches!(ty, Type::Result(result) if result.ok().is_none() && result.err().is_none());
    run.params().len() == 0 && run.results().len() == 1 && run.results().all(is_plain)
}

/// Finds how a core module is started; a function with parameters or results is no entry.
fn core_entry(module: &Module) -> Result<CoreEntry, String> {
    let is_plain = |name: &str| match module.get_export(name) {
        Some(ExternType::Func(function)) => Some(function.params().len() == 0 && function.results().len() == 0),
        _ => None,
    };
    match (is_plain("_start"), is_plain("")) {
        (Some(true), _) => Ok(CoreEntry::Start),
        (None, Some(true)) if is_plain("_initialize") != Some(false) => Ok(CoreEntry::Default),
        (None, None) => Err("the module has no entry: neither `_start` nor an export with the empty name. It is a \
                             library, or it was built without a main function; build it as a command"
            .to_owned()),
        _ => Err(
            "the module's entry (`_start`, or `_initialize` and the export with the empty name) must be a function \
                  without parameters and results"
                .to_owned(),
        ),
    }
}

fn foreign_imports(names: &[String]) -> String {
    format!("the module imports what is outside WASI and no sandbox gives: {}", names.join(", "))
}

fn unlinked(err: &wasmtime::Error) -> String {
    format!("the module asks for an import that WASI does not have: {err:#}")
}

/// Says what a file is that is not WebAssembly, as far as its first bytes tell.
fn why_not_wasm(bytes: &[u8]) -> String {
    let start = bytes.trim_ascii_start();
    let text = |prefix: &[u8]| start.len() >= prefix.len() && start[..prefix.len()].eq_ignore_ascii_case(prefix);
    let precompiled = matches!(Engine::detect_precompiled(bytes), Some(Precompiled::Module | Precompiled::Component));
    let what = if bytes.is_empty() {
        "it is empty"
    } else if precompiled {
        "it is precompiled native code, which a sandbox cannot contain; name the .wasm file that it was made from"
    } else if bytes.starts_with(b"\x7fELF") {
        "it is a native program (ELF); tasks are WebAssembly modules only"
    } else if bytes.starts_with(b"MZ") || bytes.starts_with(b"\xcf\xfa\xed\xfe") {
        "it is a native program; tasks are WebAssembly modules only"
    } else if bytes.starts_with(b"#!") {
        "it is a script; tasks are WebAssembly modules only, a script needs an interpreter built for WASI"
    } else if text(b"<!doctype") || text(b"<html") {
        "it is an HTML page, perhaps a download that failed"
    } else if start.starts_with(b"(module") || start.starts_with(b"(component") {
        "it is WebAssembly text (WAT); translate it to a .wasm file first"
    } else if bytes.starts_with(b"\0asm") {
        "its version of the binary format is not known"
    } else {
        "its first bytes are not those of one"
    };
    format!("is not a WebAssembly module: {what}")
}

#[cfg(all(test, feature = "compiler"))]
mod tests {
    use crate::policy::Policy;
    use crate::sandbox::{Sandbox, SandboxOptions};
    use crate::workflow::ModuleFile;

    fn refusal(bytes: &[u8]) -> String {
        let sandbox = Sandbox::new(&SandboxOptions::default()).expect("a sandbox");
        let module = ModuleFile::from_bytes("m.wasm".into(), bytes.to_vec());
        sandbox.prepare(&module, Policy::default().compile_time).expect_err("refused")
    }

    fn wat(text: &str) -> Vec<u8> {
        wat::parse_str(text).expect("valid WAT")
    }

    #[test]
    fn what_is_no_module_is_named() {
        assert!(refusal(b"").contains("empty"));
        assert!(refusal(b"\x7fELF\x02").contains("native program"));
        assert!(refusal(b"#!/bin/sh\n").contains("script"));
        assert!(refusal(b"\n<!DOCTYPE html>").contains("HTML page"));
        assert!(refusal(b"(module)").contains("WAT"));
        assert!(refusal(b"\0asm\x01\0\0\0garbage").contains("no valid WebAssembly module"));
        assert!(refusal(b"\0asm\x09\0\0\0").contains("version"));
    }

    #[test]
    fn precompiled_code_is_refused() {
        let sandbox = Sandbox::new(&SandboxOptions::default()).expect("a sandbox");
        let code = sandbox.engine.precompile_module(&wat("(module)")).expect("compiles");
        assert!(refusal(&code).contains("precompiled"));
    }

    #[test]
    fn modules_that_would_do_nothing_are_refused() {
        assert!(refusal(&wat("(module)")).contains("no entry"));
        assert!(refusal(&wat("(component)")).contains("exports nothing"));
    }

    #[test]
    fn foreign_imports_are_named() {
        let text = refusal(&wat(r#"(module (import "env" "system" (func)) (func (export "_start")))"#));
        assert!(text.contains("env::system"), "{text}");
        let text = refusal(&wat(r#"(module (import "wasi_unstable" "fd_write" (func)) (func (export "_start")))"#));
        assert!(text.contains("wasi_unstable::fd_write"), "{text}");
        let text =
            refusal(&wat(r#"(module (import "wasi_snapshot_preview1" "fork" (func)) (func (export "_start")))"#));
        assert!(text.contains("fork"), "{text}");
    }

    #[test]
    fn features_that_are_off_are_refused() {
        let start = r#"(func (export "_start"))"#;
        for memory in ["(memory 1 1 shared)", "(memory i64 1)", "(memory 1) (memory 1)"] {
            assert!(refusal(&wat(&format!("(module {memory} {start})"))).contains("no valid"), "{memory}");
        }
    }
}
