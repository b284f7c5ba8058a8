//! Linking of compiled code to a module that is ready to be instantiated, or the reason why it
//! cannot be.

#[cfg(feature = "compiler")]
use std::sync::Arc;

use wasmtime::component::types::{self, ComponentItem};
use wasmtime::component::{Component, Type};
use wasmtime::{Engine, ExternType, InstancePre, Module};
use wasmtime_wasi::p2::bindings::CommandPre;

use super::compile::CompiledCode;
use super::host::Host;
use super::imports::{CoreImport, both, component_refusal, core_refusal, function_text};
use super::linkers::Linkers;
#[cfg(feature = "compiler")]
use super::snapshot::{Snapshot, SnapshotCode};
use super::typed::{self, TypedEntry, TypedPre};
use crate::model::ModuleKind;

/// Compiled module with its imports resolved.
pub(super) enum PreparedModule {
    Core {
        pre: InstancePre<Host>,
        entry: CoreEntry,
    },
    Component(CommandPre<Host>),
    Typed(TypedPre),
    /// Code without a memory, which calls need a snapshot for.
    #[cfg(feature = "compiler")]
    SnapshotCode(Arc<SnapshotCode>),
    #[cfg(feature = "compiler")]
    Snapshot(Snapshot),
}

/// Way to start a core module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CoreEntry {
    /// The export `_start`.
    Start,
    /// `_initialize`, if it exists, and then the export with the empty name.
    Default,
    /// `_initialize`, if it exists, and then `run`, which returns the exit code. For modules that
    /// export `wizer.initialize`.
    Run,
}

impl PreparedModule {
    pub(super) fn kind(&self) -> ModuleKind {
        match self {
            Self::Core { .. } => ModuleKind::CommandP1,
            #[cfg(feature = "compiler")]
            Self::SnapshotCode(_) | Self::Snapshot(_) => ModuleKind::CommandP1,
            Self::Component(_) => ModuleKind::CommandP2,
            Self::Typed(_) => ModuleKind::Typed,
        }
    }

    /// Returns true if a guest can access files.
    pub(super) fn has_files(&self) -> bool {
        match self {
            Self::Core { .. } | Self::Component(_) => true,
            #[cfg(feature = "compiler")]
            Self::SnapshotCode(_) | Self::Snapshot(_) => true,
            Self::Typed(typed) => typed.has_files,
        }
    }

    /// Returns the size of the memory of a snapshot in bytes; 0 for other modules.
    #[cfg(feature = "compiler")]
    pub(super) fn snapshot_bytes(&self) -> u64 {
        match self {
            Self::Snapshot(snapshot) => snapshot.memory_bytes,
            _ => 0,
        }
    }

    /// Links compiled code. The error is a sentence for the user.
    pub(super) fn new(
        engine: &Engine,
        linkers: &Linkers,
        code: &CompiledCode,
    ) -> Result<Self, String> {
        match code {
            CompiledCode::Core(module) => Self::new_core(linkers, module),
            CompiledCode::Component(component) => Self::new_component(engine, linkers, component),
        }
    }

    /// Prepares the code of snapshots.
    #[cfg(feature = "compiler")]
    pub(super) fn new_snapshot_code(
        linkers: &Linkers,
        code: &CompiledCode,
    ) -> Result<Self, String> {
        match code {
            CompiledCode::Core(module) => {
                SnapshotCode::new(linkers, module).map(|code| Self::SnapshotCode(Arc::new(code)))
            }
            CompiledCode::Component(_) => Err("is a WASM component".to_owned()),
        }
    }

    /// Prepares a snapshot.
    ///
    /// * `of`: its code.
    #[cfg(feature = "compiler")]
    pub(super) fn new_snapshot(
        linkers: &Linkers,
        of: &Self,
        image: &CompiledCode,
    ) -> Result<Self, String> {
        match (of, image) {
            (Self::SnapshotCode(code), CompiledCode::Core(image)) => {
                Snapshot::new(linkers, Arc::clone(code), image).map(Self::Snapshot)
            }
            _ => Err("is not the image of a snapshot".to_owned()),
        }
    }

    fn new_core(linkers: &Linkers, module: &Module) -> Result<Self, String> {
        let linked = linkers.core.instantiate_pre(module).map_err(|err| {
            let imports: Vec<_> = module
                .imports()
                .map(|import| CoreImport::of(&import))
                .collect();
            core_refusal(&imports, &linkers.preview1()).unwrap_or_else(|| unlinked(&err))
        });
        let signature = |name: &str| match module.get_export(name) {
            Some(ExternType::Func(function)) => {
                Some(function_text(function.params(), function.results()))
            }
            _ => None,
        };
        let (pre, entry) = both(linked, core_entry(signature))?;
        Ok(Self::Core { pre, entry })
    }

    fn new_component(
        engine: &Engine,
        linkers: &Linkers,
        component: &Component,
    ) -> Result<Self, String> {
        let component_type = component.component_type();
        let imports: Vec<_> = component_type
            .imports(engine)
            .map(|(name, _)| name)
            .collect();
        let imports = match component_refusal(&imports) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        };
        if typed::is_typed(engine, &component_type) {
            let (_, entry) = both(imports, TypedEntry::find(component))?;
            return TypedPre::new(engine, &linkers.component, component, entry, unlinked)
                .map(Self::Typed);
        }
        both(imports, command_entry(engine, &component_type))?;
        let pre = linkers
            .component
            .instantiate_pre(component)
            .map_err(|err| unlinked(&err))?;
        CommandPre::new(pre)
            .map(Self::Component)
            .map_err(|err| unlinked(&err))
    }
}

/// Checks that a component can be called as a command.
fn command_entry(engine: &Engine, component: &types::Component) -> Result<(), String> {
    /// Number of exports that a message lists.
    const SHOWN: usize = 10;
    let exports: Vec<_> = component.exports(engine).map(|(name, _)| name).collect();
    if exports
        .iter()
        .any(|name| name.starts_with("wasi:cli/run@0.2."))
    {
        return if has_plain_run(engine, component) {
            Ok(())
        } else {
            Err(
                "the WASM component's `wasi:cli/run` must have a function `run` without \
                 parameters that returns a `result`; build it as a command"
                    .to_owned(),
            )
        };
    }
    let any = |start: &str| exports.iter().any(|name| name.starts_with(start));
    let advice = if any("wasi:cli/run@0.3.") {
        "it is a command of WASI 0.3: build it for WASI 0.2 (`wasm32-wasip2`)"
    } else if any("wasi:http/") {
        "it answers HTTP requests, as for Spin or `wasmtime serve`: give it a `main`, or the \
         world of wit/task.wit"
    } else {
        "it is a library, or of another world: build it as a command, or from wit/task.wit"
    };
    let more = if exports.len() > SHOWN { ", ..." } else { "" };
    let shown = if exports.is_empty() {
        "nothing".to_owned()
    } else {
        exports[..exports.len().min(SHOWN)].join(", ")
    };
    Err(format!(
        "the WASM component exports neither `wasi:cli/run@0.2` (a command) nor `run` and \
         `describe` (a typed task), so there is nothing to run; it exports {shown}{more}; {advice}"
    ))
}

/// Returns true if `wasi:cli/run` has the type that WASI specifies: `run: func() -> result`.
fn has_plain_run(engine: &Engine, component: &types::Component) -> bool {
    let interface = component
        .exports(engine)
        .find(|(name, _)| name.starts_with("wasi:cli/run@0.2."));
    let Some((_, ComponentItem::ComponentInstance(interface))) =
        interface.map(|(name, item)| (name, item.ty))
    else {
        return false;
    };
    let run = interface
        .exports(engine)
        .find(|(name, _)| *name == "run")
        .map(|(_, item)| item.ty);
    let Some(ComponentItem::ComponentFunc(run)) = run else {
        return false;
    };
    let is_plain = |ty: Type| matches!(ty, Type::Result(result) if result.ok().is_none() && result.err().is_none());
    run.params().len() == 0 && run.results().len() == 1 && run.results().all(is_plain)
}

/// Types of entries, as [`function_text`] writes them.
const PLAIN: &str = "() -> ()";
const EXIT_CODE: &str = "() -> (i32)";

/// Finds the entry of a core module. A function with parameters or results is not an entry.
///
/// * `signature`: returns the type of an exported function, from [`function_text`]; `None` if the
///   export is not a function.
pub(super) fn core_entry(signature: impl Fn(&str) -> Option<String>) -> Result<CoreEntry, String> {
    let is_plain = |name: &str| signature(name).map(|signature| signature == PLAIN);
    let initialize = is_plain("_initialize");
    let is_for_snapshots = is_plain("wizer.initialize") == Some(true)
        && signature("run").as_deref() == Some(EXIT_CODE);
    match (is_plain("_start"), is_plain("")) {
        (Some(true), _) => Ok(CoreEntry::Start),
        (None, Some(true)) if initialize != Some(false) => Ok(CoreEntry::Default),
        (None, None) if is_for_snapshots && initialize != Some(false) => Ok(CoreEntry::Run),
        (None, None) => {
            let advice = if is_plain("run").is_some() && is_plain("describe").is_some() {
                "It seems to be the core module of a typed task: build it for `wasm32-wasip2`, \
                 or convert it to a WASM component with `wasm-tools component new`"
            } else if initialize.is_some() {
                "It is a library (reactor): build it as a command, without \
                 `-mexec-model=reactor`, `--no-entry`, `-buildmode=c-shared` or a crate type \
                 `cdylib`"
            } else {
                "It is a library, or it was built without a main function or not for WASI; build \
                 it as a command: with a `main`, for `wasm32-wasip1`"
            };
            Err(format!(
                "the module has no entry: neither `_start` nor an export with the empty name. \
                 {advice}"
            ))
        }
        _ => Err(
            "the module's entry (`_start`, or `_initialize` and the export with the empty name) \
             must be a function without parameters and results; build it as a command, whose \
             `_start` the toolchain generates"
                .to_owned(),
        ),
    }
}

fn unlinked(err: &wasmtime::Error) -> String {
    format!("the module has an import that WASI does not provide: {err:#}")
}
