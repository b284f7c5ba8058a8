//! Inspection of a module for its author. It reports everything at once, also for a module that the
//! sandbox refuses.

use std::collections::HashMap;

use serde::Serialize;
use wasmparser::component_types::ComponentEntityType;
use wasmparser::types::{EntityType, TypesRef};
use wasmparser::{MemoryType, Parser, Payload, TableType};

use super::compile::{is_small, why_invalid};
use super::engine::Sandbox;
use super::features::{self, MissingFeature, Validated};
use super::format::ModuleFormat;
use super::imports::{
    CoreImport, ImportState, PREVIEW1, Preview1, component_import, component_refusal, core_import,
    core_refusal, function_text,
};
use super::module::core_entry;
use super::snapshot;
use crate::model::ModuleFile;

/// Contents of a module.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// True for a WASM component, false for a core module.
    pub is_component: bool,
    /// Versions of WASI in the imports and exports, such as `preview1` or `0.2.6`; sorted.
    pub wasi: Vec<String>,
    /// Memories. For a WASM component, those of its core modules.
    pub memories: Vec<Memory>,
    /// Tables. For a WASM component, those of its core modules.
    pub tables: Vec<Table>,
    /// Imports, grouped by module or interface.
    pub imports: Vec<ImportedInterface>,
    /// Exports.
    pub exports: Vec<Export>,
    /// Disabled features that the module needs.
    pub missing_features: Vec<MissingFeature>,
    /// Snapshots of the module; `None` if it does not export `wizer.initialize`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotSupport>,
    /// Reasons for refusing the module, as sentences for the user. They cover features, imports and
    /// the entry of a core module.
    #[serde(skip)]
    pub refusals: Vec<String>,
}

/// Possibility of snapshots of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotSupport {
    /// Calls can start from a snapshot, and run the export with this name.
    Possible(&'static str),
    /// No snapshot is possible; the reason, as a sentence for the user.
    Impossible(String),
}

/// Linear memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Initial size in bytes.
    pub initial_bytes: u64,
    /// Maximum size in bytes; `None`: limited only by the size of an address.
    pub maximum_bytes: Option<u64>,
    /// True if threads can share the memory.
    pub shared: bool,
    /// True if the memory has 64-bit addresses.
    pub memory64: bool,
}

/// Table of references.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Initial number of elements.
    pub initial: u64,
    /// Maximum number of elements, if the module limits it.
    pub maximum: Option<u64>,
    /// Type of the elements, such as `funcref`.
    pub element: String,
}

/// Imports from one module or interface.
#[derive(Clone, Debug, Serialize)]
pub struct ImportedInterface {
    /// Name of a module, or of an interface such as `wasi:cli/stdout@0.2.6`.
    pub name: String,
    /// State of the interface: the worst state of its items.
    #[serde(flatten)]
    pub state: ImportState,
    /// Imported items.
    pub items: Vec<ImportedItem>,
}

/// Imported item.
#[derive(Clone, Debug, Serialize)]
pub struct ImportedItem {
    /// Name of the item in its module or interface.
    pub name: String,
    /// State of the item.
    #[serde(flatten)]
    pub state: ImportState,
}

/// Exported item.
#[derive(Clone, Debug, Serialize)]
pub struct Export {
    /// Name of the item.
    pub name: String,
    /// Kind of the item: `function`, `memory`, `interface`, `type` and so on.
    pub kind: &'static str,
    /// Type of a core module's function, such as `(i32) -> ()`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub function_type: Option<String>,
}

impl Sandbox {
    /// Inspects a module without running or compiling it.
    ///
    /// # Errors
    /// A sentence for the user if the file is not a valid module, whatever features are enabled.
    pub fn inspect(&self, module: &ModuleFile) -> Result<Inspection, String> {
        let mut found = inspect(&module.bytes, &self.linkers.preview1())?;
        if !found.is_component {
            found.snapshot = snapshot::inspect(&module.bytes).map(|found| match found {
                Ok(entry) => SnapshotSupport::Possible(entry),
                Err(why) => SnapshotSupport::Impossible(why),
            });
        }
        Ok(found)
    }
}

impl Sandbox {
    /// Refuses a large module that could not be called after compilation, since compiling takes a
    /// hundred times longer than inspecting.
    pub(super) fn refuse_at_once(&self, module: &ModuleFile) -> Result<(), String> {
        if is_small(module) {
            return Ok(());
        }
        // Without the search for snapshots, which reads all code again.
        let inspection = inspect(&module.bytes, &self.linkers.preview1())?;
        match inspection.refusal_at_once(module) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }
}

fn inspect(bytes: &[u8], preview1: &Preview1) -> Result<Inspection, String> {
    let is_component = ModuleFormat::of(bytes)? == ModuleFormat::Component;
    let invalid = |err: wasmparser::BinaryReaderError| why_invalid(bytes, &err);
    let Validated { types, missing } = features::validate(bytes).map_err(invalid)?;
    let mut found = Inspection {
        is_component,
        wasi: Vec::new(),
        memories: Vec::new(),
        tables: Vec::new(),
        imports: Vec::new(),
        exports: Vec::new(),
        missing_features: missing,
        snapshot: None,
        refusals: Vec::new(),
    };
    found
        .refusals
        .extend(features::refusal(&found.missing_features));
    if is_component {
        found
            .add_component(bytes, types.as_ref())
            .map_err(invalid)?;
    } else {
        found.add_core(types.as_ref(), preview1);
    }
    found.add_memories(bytes).map_err(invalid)?;
    found.wasi = wasi_versions(&found);
    Ok(found)
}

impl Inspection {
    /// Returns the reason for refusing a large module, which [`Sandbox::prepare`] would return
    /// without compiling it.
    pub(crate) fn refusal_at_once(&self, module: &ModuleFile) -> Option<String> {
        if is_small(module) || self.refusals.is_empty() {
            return None;
        }
        Some(self.refusals.join(". In addition, "))
    }

    fn add_core(&mut self, types: TypesRef<'_>, preview1: &Preview1) {
        let function = |ty: EntityType| match ty {
            EntityType::Func(id) | EntityType::FuncExact(id) => {
                let ty = types[id].unwrap_func();
                Some(function_text(ty.params().iter(), ty.results().iter()))
            }
            _ => None,
        };
        let imports: Vec<_> = types.core_imports().into_iter().flatten().collect();
        self.memories
            .extend(imports.iter().filter_map(|(_, _, ty)| match ty {
                EntityType::Memory(ty) => Some(Memory::new(*ty)),
                _ => None,
            }));
        let imports: Vec<_> = imports
            .into_iter()
            .map(|(module, name, ty)| CoreImport {
                module,
                name,
                function: function(ty),
            })
            .collect();
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        for import in &imports {
            let state = core_import(import, preview1);
            let index = *by_name.entry(import.module).or_insert_with(|| {
                let name = import.module.to_owned();
                self.imports.push(ImportedInterface {
                    name,
                    state: state.clone(),
                    items: Vec::new(),
                });
                self.imports.len() - 1
            });
            let interface = &mut self.imports[index];
            interface.state = worse(interface.state.clone(), state.clone());
            interface.items.push(ImportedItem {
                name: import.name.to_owned(),
                state,
            });
        }
        for (name, ty) in types.core_exports().into_iter().flatten() {
            let kind = match ty {
                EntityType::Func(_) | EntityType::FuncExact(_) => "function",
                EntityType::Table(_) => "table",
                EntityType::Memory(_) => "memory",
                EntityType::Global(_) => "global",
                EntityType::Tag(_) => "tag",
            };
            self.exports.push(Export {
                name: name.to_owned(),
                kind,
                function_type: function(ty),
            });
        }
        self.refusals.extend(core_refusal(&imports, preview1));
        let signature = |name: &str| {
            let export = self.exports.iter().find(|export| export.name == name)?;
            export.function_type.clone()
        };
        self.refusals.extend(core_entry(signature).err());
    }

    fn add_component(&mut self, bytes: &[u8], types: TypesRef<'_>) -> wasmparser::Result<()> {
        let mut names = Vec::new();
        for payload in top_level(bytes) {
            match payload? {
                Payload::ComponentImportSection(imports) => {
                    for import in imports {
                        names.push(import?.name.name);
                    }
                }
                Payload::ComponentExportSection(exports) => {
                    for export in exports {
                        let name = export?.name.name;
                        let kind = types
                            .component_item_for_export(name)
                            .map_or("function", |item| kind(item.ty));
                        self.exports.push(Export {
                            name: name.to_owned(),
                            kind,
                            function_type: None,
                        });
                    }
                }
                _ => {}
            }
        }
        for name in &names {
            let state = component_import(name);
            let ty = types.component_item_for_import(name).map(|item| item.ty);
            let mut items = Vec::new();
            if let Some(ComponentEntityType::Instance(id)) = ty {
                let functions = types[id]
                    .exports
                    .iter()
                    .filter(|(_, item)| matches!(item.ty, ComponentEntityType::Func(_)));
                items.extend(functions.map(|(name, _)| ImportedItem {
                    name: name.clone(),
                    state: state.clone(),
                }));
            }
            self.imports.push(ImportedInterface {
                name: (*name).to_owned(),
                state,
                items,
            });
        }
        self.refusals.extend(component_refusal(&names));
        Ok(())
    }

    fn add_memories(&mut self, bytes: &[u8]) -> wasmparser::Result<()> {
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::MemorySection(memories) => {
                    for memory in memories {
                        self.memories.push(Memory::new(memory?));
                    }
                }
                Payload::TableSection(tables) => {
                    for table in tables {
                        self.tables.push(Table::new(table?.ty));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Memory {
    fn new(ty: MemoryType) -> Self {
        /// Logarithm of the default page size.
        const PAGE: u32 = 16;
        let bytes = |n_pages: u64| n_pages.saturating_mul(1 << ty.page_size_log2.unwrap_or(PAGE));
        Self {
            initial_bytes: bytes(ty.initial),
            maximum_bytes: ty.maximum.map(bytes),
            shared: ty.shared,
            memory64: ty.memory64,
        }
    }
}

impl Table {
    fn new(ty: TableType) -> Self {
        Self {
            initial: ty.initial,
            maximum: ty.maximum,
            element: ty.element_type.to_string(),
        }
    }
}

/// Returns the payloads of a component itself, without those of nested modules and components.
fn top_level(bytes: &[u8]) -> impl Iterator<Item = wasmparser::Result<Payload<'_>>> {
    let mut depth = 0_usize;
    Parser::new(0).parse_all(bytes).filter(move |payload| {
        match payload {
            Ok(Payload::ModuleSection { .. } | Payload::ComponentSection { .. }) => depth += 1,
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    })
}

fn kind(ty: ComponentEntityType) -> &'static str {
    match ty {
        ComponentEntityType::Module(_) => "core module",
        ComponentEntityType::Func(_) => "function",
        ComponentEntityType::Value(_) => "value",
        ComponentEntityType::Type { .. } => "type",
        ComponentEntityType::Instance(_) => "interface",
        ComponentEntityType::Component(_) => "component",
    }
}

/// Returns the state of an interface with items of these states.
fn worse(a: ImportState, b: ImportState) -> ImportState {
    match (&a, &b) {
        (ImportState::Refused(_), _) => a,
        (_, ImportState::Refused(_)) => b,
        // Preview 1 is inert only in part.
        (ImportState::Inert(_), ImportState::Inert(_)) => a,
        _ => ImportState::Linked,
    }
}

fn wasi_versions(found: &Inspection) -> Vec<String> {
    let exported = found.exports.iter().map(|export| export.name.as_str());
    let names = found
        .imports
        .iter()
        .map(|interface| interface.name.as_str())
        .chain(exported);
    let version = |name: &str| match name {
        PREVIEW1 => Some("preview1".to_owned()),
        "wasi_unstable" => Some("preview0".to_owned()),
        _ => name
            .strip_prefix("wasi:")
            .and_then(|name| Some(name.split_once('@')?.1.to_owned())),
    };
    let mut versions: Vec<_> = names.filter_map(version).collect();
    versions.sort_by_key(|version| {
        version
            .split('.')
            .map(|part| part.parse().unwrap_or(0))
            .collect::<Vec<u32>>()
    });
    versions.dedup();
    versions
}
