//! Typed tasks: WASM components of the world in `wit/task.wit`. This module checks and calls their
//! exports, and defines the functions that they import.

use wasmtime::component::types::{self, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker, Type, WasmStr};
use wasmtime::{Engine, Store, StoreContextMut};

use super::host::Host;
use super::imports::both;
use super::invocation::{Entry, GuestEnd, TypedCall};
use super::reports::{GuestReports, cut};
use crate::model::{Limits, LogLevel, TaskMetadata};
use crate::text::bytes_text;

/// Prefix of the names of imports from the package of the world.
pub(super) const PACKAGE: &str = "mandelbox:task/";
/// Interface that the host provides.
pub(super) const HOST_INTERFACE: &str = "mandelbox:task/host@0.1.0";
/// Prefix of the names of imports that this host provides. A patch release adds no functions.
const COMPATIBLE_HOST: &str = "mandelbox:task/host@0.1.";
/// Name of the world in messages.
const WORLD: &str = "the world `task` of mandelbox:task@0.1.0 (wit/task.wit)";
const RUN_TYPE: &str = "func(args: string) -> result<option<string>, string>";
const DESCRIBE_TYPE: &str = "func() -> string";
/// Maximum size in bytes of the message of a failed call.
const MAX_ERROR_BYTES: usize = 4 << 10;

/// Data that the functions of the world need in the store of a call. A call of `describe` has none.
pub(super) struct TypedHost {
    metadata: TaskMetadata,
    pub(super) reports: GuestReports,
}

impl TypedHost {
    pub(super) fn of(entry: &Entry<'_>) -> Option<Self> {
        let Entry::Run(TypedCall {
            metadata, reports, ..
        }) = entry
        else {
            return None;
        };
        Some(Self {
            metadata: (*metadata).clone(),
            reports: reports.clone(),
        })
    }
}

/// [`LogLevel`] as the component model passes it.
#[derive(Clone, Copy, wasmtime::component::ComponentType, wasmtime::component::Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "the runtime constructs them from their numbers")]
enum WireLogLevel {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

impl From<WireLogLevel> for LogLevel {
    fn from(level: WireLogLevel) -> Self {
        match level {
            WireLogLevel::Trace => Self::Trace,
            WireLogLevel::Debug => Self::Debug,
            WireLogLevel::Info => Self::Info,
            WireLogLevel::Warn => Self::Warn,
            WireLogLevel::Error => Self::Error,
        }
    }
}

/// Defines the interface `host`.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut host = linker.instance(HOST_INTERFACE)?;
    host.func_wrap(
        "log",
        |store: StoreContextMut<'_, Host>, (level, message): (WireLogLevel, WasmStr)| {
            if let Some(typed) = &store.data().typed {
                typed.reports.log(level.into(), &message.to_str(&store)?);
            }
            Ok(())
        },
    )?;
    host.func_wrap(
        "progress",
        |store: StoreContextMut<'_, Host>, (fraction, message): (f32, WasmStr)| {
            if let Some(typed) = &store.data().typed {
                typed.reports.progress(fraction, &message.to_str(&store)?);
            }
            Ok(())
        },
    )?;
    host.func_wrap(
        "metadata",
        |store: StoreContextMut<'_, Host>, (key,): (WasmStr,)| {
            let Some(typed) = &store.data().typed else {
                return Ok((None,));
            };
            Ok((typed.metadata.get(&key.to_str(&store)?),))
        },
    )
}

/// Returns true if a component that cannot be linked imports other functions or types from the
/// interface
/// `host` than this host has: the component links if this interface is replaced.
fn is_host_interface_wrong(engine: &Engine, component: &Component) -> bool {
    let mut linker = Linker::<Host>::new(engine);
    let linked = wasmtime_wasi::p2::add_to_linker_async(&mut linker)
        .and_then(|()| linker.define_unknown_imports_as_traps(component))
        .and_then(|()| linker.instantiate_pre(component));
    linked.is_ok()
}

/// Functions that a typed task exports.
pub(super) struct TypedEntry {
    run: ComponentExportIndex,
    describe: ComponentExportIndex,
}

impl TypedEntry {
    /// Finds the functions in a component. The error is a sentence for the user.
    pub(super) fn find(component: &Component) -> Result<Self, String> {
        let run = find_export(component, "run", RUN_TYPE, is_run);
        let (run, describe) = both(
            run,
            find_export(component, "describe", DESCRIBE_TYPE, is_describe),
        )?;
        Ok(Self { run, describe })
    }
}

/// Typed task that is ready to be instantiated.
pub(super) struct TypedPre {
    pub(super) pre: InstancePre<Host>,
    entry: TypedEntry,
    /// True if the task can access files.
    pub(super) has_files: bool,
}

/// Returns true if this host provides an interface of the world's package.
pub(super) fn is_compatible(import: &str) -> bool {
    import.starts_with(COMPATIBLE_HOST)
}

/// Returns true if a component is meant as a typed task: it exports a function of the world, or
/// imports from its package.
pub(super) fn is_typed(engine: &Engine, component: &types::Component) -> bool {
    let is_own = |item: ComponentItem| matches!(item, ComponentItem::ComponentFunc(_));
    let mut exports = component.exports(engine);
    exports.any(|(name, item)| ["run", "describe"].contains(&name) && is_own(item.ty))
        || component
            .imports(engine)
            .any(|(name, _)| name.starts_with(PACKAGE))
}

impl TypedPre {
    /// Links a component of the world. The error is a sentence for the user.
    pub(super) fn new(
        engine: &Engine,
        linker: &Linker<Host>,
        component: &Component,
        entry: TypedEntry,
        unlinked: impl Fn(&wasmtime::Error) -> String,
    ) -> Result<Self, String> {
        let component_type = component.component_type();
        let pre = linker.instantiate_pre(component).map_err(|err| {
            if is_host_interface_wrong(engine, component) {
                format!(
                    "the WASM component's import of `{HOST_INTERFACE}` has other functions or \
                     types than {WORLD}; build it again from that file: {err:#}"
                )
            } else {
                unlinked(&err)
            }
        })?;
        let has_files = component_type
            .imports(engine)
            .any(|(name, _)| name.starts_with("wasi:filesystem/"));
        Ok(Self {
            pre,
            entry,
            has_files,
        })
    }

    /// Runs a call to its end.
    pub(super) async fn run(
        &self,
        store: &mut Store<Host>,
        entry: &Entry<'_>,
        limits: &Limits,
    ) -> wasmtime::Result<GuestEnd> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let returned = match entry {
            Entry::Run(TypedCall { args, .. }) => {
                type Returned = (Result<Option<String>, String>,);
                let run =
                    instance.get_typed_func::<(&str,), Returned>(&mut *store, self.entry.run)?;
                run.call_async(store, (*args,)).await?.0
            }
            Entry::Describe => {
                let describe =
                    instance.get_typed_func::<(), (String,)>(&mut *store, self.entry.describe)?;
                Ok(Some(describe.call_async(store, ()).await?.0))
            }
            _ => {
                return Ok(GuestEnd::HostFailed(
                    "a typed task was called as a command".to_owned(),
                ));
            }
        };
        Ok(match returned {
            Ok(Some(text)) if text.len() as u64 > limits.call_output_bytes => {
                let limit = bytes_text(limits.call_output_bytes);
                GuestEnd::ReturnedTooMuch(format!("it returned a text larger than {limit}"))
            }
            Ok(text) => GuestEnd::Returned(text),
            Err(message) => GuestEnd::Failed(cut(&message, MAX_ERROR_BYTES)),
        })
    }
}

fn find_export(
    component: &Component,
    name: &str,
    expected: &str,
    fits: impl Fn(&types::ComponentFunc) -> bool,
) -> Result<ComponentExportIndex, String> {
    match component.get_export(None, name) {
        Some((ComponentItem::ComponentFunc(function), index)) if fits(&function) => Ok(index),
        Some((ComponentItem::ComponentFunc(function), _)) => Err(format!(
            "the WASM component's export `{name}` is `{}`, but in {WORLD} it is `{expected}`; \
             build it again from that file",
            function_text(&function)
        )),
        _ => Err(format!(
            "the WASM component has no function `{name}: {expected}`, which {WORLD} exports; a \
             typed task has both `run` and `describe`"
        )),
    }
}

fn is_run(function: &types::ComponentFunc) -> bool {
    let is_option =
        |ty: Option<Type>| matches!(ty, Some(Type::Option(option)) if option.ty() == Type::String);
    let is_result = |ty: Type| match ty {
        Type::Result(result) => is_option(result.ok()) && result.err() == Some(Type::String),
        _ => false,
    };
    function.params().map(|(_, ty)| ty).eq([Type::String]) && results_are(function, is_result)
}

fn is_describe(function: &types::ComponentFunc) -> bool {
    function.params().len() == 0 && results_are(function, |ty| ty == Type::String)
}

fn results_are(function: &types::ComponentFunc, fits: impl Fn(Type) -> bool) -> bool {
    function.results().len() == 1 && function.results().all(fits)
}

/// Returns the type of a function as WIT writes it.
fn function_text(function: &types::ComponentFunc) -> String {
    let params: Vec<_> = function
        .params()
        .map(|(name, ty)| format!("{name}: {}", type_text(&ty)))
        .collect();
    let results: Vec<_> = function
        .results()
        .map(|ty| format!(" -> {}", type_text(&ty)))
        .collect();
    format!("func({}){}", params.join(", "), results.concat())
}

fn type_text(ty: &Type) -> String {
    let or_none = |ty: Option<Type>| ty.map_or("_".to_owned(), |ty| type_text(&ty));
    match ty {
        Type::String => "string".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::U32 => "u32".to_owned(),
        Type::S32 => "s32".to_owned(),
        Type::U64 => "u64".to_owned(),
        Type::S64 => "s64".to_owned(),
        Type::List(list) => format!("list<{}>", type_text(&list.ty())),
        Type::Option(option) => format!("option<{}>", type_text(&option.ty())),
        Type::Result(result) if result.ok().is_none() && result.err().is_none() => {
            "result".to_owned()
        }
        Type::Result(result) => format!(
            "result<{}, {}>",
            or_none(result.ok()),
            or_none(result.err())
        ),
        _ => "...".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_here_is_the_one_that_authors_get() {
        let wit = include_str!("../../wit/task.wit");
        let (package, interface) = HOST_INTERFACE.split_once("/host").expect("the interface");
        for line in [
            format!("package {package}{interface};"),
            format!("export run: {RUN_TYPE};"),
            format!("export describe: {DESCRIBE_TYPE};"),
        ] {
            assert!(wit.lines().any(|text| text.trim() == line), "{line}");
        }
        assert!(
            HOST_INTERFACE.starts_with(COMPATIBLE_HOST)
                && WORLD.contains(&format!("{package}{interface}"))
        );
    }
}
