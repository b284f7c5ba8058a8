//! Rewriting of a core module into its code and its initial memory.
//!
//! The code imports its memory, has no data, and exports its mutable globals. Indices of functions
//! and the bytes of their bodies stay as they are, so the code is compiled once for all snapshots.
//! The initial memory is a module of its own, like the image of a snapshot.

use std::collections::HashSet;

use wasm_encoder as encode;
use wasmparser::{
    CompositeInnerType, DataKind, ExternalKind, KnownCustom, MemoryType, Name, Operator, Parser,
    Payload, RefType, TypeRef, ValType,
};

use super::image::ImageWriter;
use super::{ENTRIES, INITIALIZE, MEMORY, MEMORY_MODULE, Signature, WIZER_INITIALIZE};

/// Prefix of the names under which mutable globals are exported.
const GLOBAL_PREFIX: &str = "snapshot.global.";

/// Module of which snapshots can be made.
pub(in crate::sandbox) struct SplitModule<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) memory: MemoryType,
    pub(super) exports: Vec<wasmparser::Export<'a>>,
    pub(super) imports: Vec<wasmparser::Import<'a>>,
    /// Numbers of types and of functions, including imported ones.
    #[cfg(feature = "cli")]
    pub(super) n_types: u32,
    #[cfg(feature = "cli")]
    pub(super) n_functions: u32,
    /// Mutable globals, with the names under which the code exports them.
    pub(super) state: Vec<(u32, String)>,
    /// True for each of [`Self::state`] that the module does not export by itself.
    is_hidden: Vec<bool>,
    segments: Vec<(u32, &'a [u8])>,
    /// Name of the export that calls run.
    pub(in crate::sandbox) entry: &'static str,
}

/// Returns true if a core module offers an initialization for snapshots.
pub(in crate::sandbox) fn offers_snapshot(bytes: &[u8]) -> bool {
    Parser::new(0)
        .parse_all(bytes)
        .map_while(Result::ok)
        .any(|payload| match payload {
            Payload::ExportSection(exports) => exports
                .into_iter()
                .any(|export| export.is_ok_and(|export| export.name == WIZER_INITIALIZE)),
            _ => false,
        })
}

/// Sections of a module, as far as a snapshot depends on them.
#[derive(Default)]
struct Sections<'a> {
    types: Vec<Option<Signature>>,
    imports: Vec<wasmparser::Import<'a>>,
    /// Types of the functions, by their indices.
    functions: Vec<u32>,
    memories: Vec<MemoryType>,
    globals: Vec<wasmparser::GlobalType>,
    exports: Vec<wasmparser::Export<'a>>,
    has_start: bool,
    segments: Vec<(u32, &'a [u8])>,
    /// Index of the first function with an instruction that a snapshot does not allow, and the name
    /// of the instruction.
    refused: Option<(u32, &'static str)>,
    names: Vec<(u32, &'a str)>,
}

impl<'a> SplitModule<'a> {
    /// Reads a valid core module.
    ///
    /// # Errors
    /// A sentence for the user: the module is not valid, or no snapshot of it is possible, with
    /// every reason that was found.
    pub(in crate::sandbox) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        Self::of_sections(bytes, Sections::read(bytes, true)?)
    }

    /// Reads a module that [`Self::read`] has accepted. This is fast, since the instructions are
    /// not checked again.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn read_checked(bytes: &'a [u8]) -> Result<Self, String> {
        Self::of_sections(bytes, Sections::read(bytes, false)?)
    }

    fn of_sections(bytes: &'a [u8], sections: Sections<'a>) -> Result<Self, String> {
        let (reasons, entry) = sections.reasons();
        let (true, Some(entry), [memory]) = (reasons.is_empty(), entry, &sections.memories[..])
        else {
            return Err(format!(
                "a snapshot of it is not possible: {}",
                reasons.join("; ")
            ));
        };
        let (is_hidden, state) = sections.state().into_iter().unzip();
        #[cfg(feature = "cli")]
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Self {
            bytes,
            memory: *memory,
            #[cfg(feature = "cli")]
            n_types: count(sections.types.len()),
            #[cfg(feature = "cli")]
            n_functions: count(sections.functions.len()),
            imports: sections.imports,
            exports: sections.exports,
            state,
            is_hidden,
            segments: sections.segments,
            entry,
        })
    }

    /// Returns the module with its memory at the start.
    pub(in crate::sandbox) fn initial_image(&self) -> Vec<u8> {
        let mut writer = ImageWriter::new(self.memory);
        for (offset, data) in &self.segments {
            writer.segment(*offset, data);
        }
        writer.finish()
    }

    /// Returns the module with the code.
    ///
    /// # Errors
    /// A sentence for the user if the sections cannot be read.
    pub(in crate::sandbox) fn code(&self) -> Result<Vec<u8>, String> {
        let mut module = encode::Module::new();
        let mut imports = Some(self.import_section());
        for payload in Parser::new(0).parse_all(self.bytes) {
            let payload = payload.map_err(invalid)?;
            let Some((id, range)) = payload.as_section() else {
                continue;
            };
            let is_before_imports = matches!(
                payload,
                Payload::CustomSection(_) | Payload::TypeSection(_) | Payload::ImportSection(_)
            );
            if let Some(imports) = imports.take_if(|_| !is_before_imports) {
                module.section(&imports);
            }
            match payload {
                Payload::ImportSection(_)
                | Payload::MemorySection(_)
                | Payload::DataCountSection { .. }
                | Payload::DataSection(_) => {}
                Payload::ExportSection(_) => {
                    module.section(&self.export_section());
                }
                _ => {
                    let data = self.bytes.get(range).ok_or("its sections are truncated")?;
                    module.section(&encode::RawSection { id, data });
                }
            }
        }
        Ok(module.finish())
    }

    fn import_section(&self) -> encode::ImportSection {
        let mut section = encode::ImportSection::new();
        for import in &self.imports {
            if let TypeRef::Func(index) = import.ty {
                let ty = encode::EntityType::Function(index);
                section.import(import.module, import.name, ty);
            }
        }
        section.import(MEMORY_MODULE, MEMORY, encoded_memory(self.memory));
        section
    }

    fn export_section(&self) -> encode::ExportSection {
        let mut section = encode::ExportSection::new();
        for export in &self.exports {
            section.export(export.name, encoded_export(export.kind), export.index);
        }
        for ((index, name), is_hidden) in self.state.iter().zip(&self.is_hidden) {
            if *is_hidden {
                section.export(name, encode::ExportKind::Global, *index);
            }
        }
        section
    }
}

/// Converts the kind of an export.
pub(super) fn encoded_export(kind: ExternalKind) -> encode::ExportKind {
    match kind {
        ExternalKind::Func | ExternalKind::FuncExact => encode::ExportKind::Func,
        ExternalKind::Table => encode::ExportKind::Table,
        ExternalKind::Memory => encode::ExportKind::Memory,
        ExternalKind::Global => encode::ExportKind::Global,
        ExternalKind::Tag => encode::ExportKind::Tag,
    }
}

impl<'a> Sections<'a> {
    /// * `checks_code`: true to look for instructions that a snapshot does not allow.
    fn read(bytes: &'a [u8], checks_code: bool) -> Result<Self, String> {
        let mut sections = Self::default();
        let mut n_bodies = 0;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(invalid)?;
            if let Payload::CodeSectionEntry(body) = &payload {
                let n_imported = sections.imports.len();
                let index = u32::try_from(n_imported + n_bodies).unwrap_or(u32::MAX);
                n_bodies += 1;
                if checks_code && sections.refused.is_none() {
                    let refused = refused_instruction(body).map_err(invalid)?;
                    sections.refused = refused.map(|name| (index, name));
                }
                continue;
            }
            sections.add(payload).map_err(invalid)?;
        }
        Ok(sections)
    }

    fn add(&mut self, payload: Payload<'a>) -> wasmparser::Result<()> {
        match payload {
            Payload::TypeSection(groups) => {
                for group in groups {
                    let types = group?.into_types();
                    self.types
                        .extend(types.map(|ty| signature(&ty.composite_type.inner)));
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    if let TypeRef::Func(ty) = import.ty {
                        self.functions.push(ty);
                    }
                    self.imports.push(import);
                }
            }
            Payload::FunctionSection(types) => {
                for ty in types {
                    self.functions.push(ty?);
                }
            }
            Payload::MemorySection(memories) => {
                self.memories = memories.into_iter().collect::<Result<_, _>>()?;
            }
            Payload::GlobalSection(globals) => {
                for global in globals {
                    self.globals.push(global?.ty);
                }
            }
            Payload::ExportSection(exports) => {
                self.exports = exports.into_iter().collect::<Result<_, _>>()?;
            }
            Payload::StartSection { .. } => self.has_start = true,
            Payload::DataSection(segments) => {
                for segment in segments {
                    let segment = segment?;
                    self.add_segment(&segment)?;
                }
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(names) = section.as_known() {
                    self.names = function_names(names);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds a segment. Passive ones are of no use, since the instructions for them are refused.
    fn add_segment(&mut self, segment: &wasmparser::Data<'a>) -> wasmparser::Result<()> {
        let DataKind::Active { offset_expr, .. } = &segment.kind else {
            return Ok(());
        };
        let mut operators = offset_expr.get_operators_reader();
        match (operators.read()?, operators.read()?) {
            (Operator::I32Const { value }, Operator::End) => {
                self.segments.push((value.cast_unsigned(), segment.data));
            }
            // An address that is computed. No linker emits one for a module with its own memory.
            _ => self.refused = self.refused.or(Some((u32::MAX, "data"))),
        }
        Ok(())
    }

    /// Returns the mutable globals with the names under which the code exports them, and true for
    /// those that the module does not export.
    fn state(&self) -> Vec<(bool, (u32, String))> {
        let taken: HashSet<&str> = self.exports.iter().map(|export| export.name).collect();
        let mutable = (0..).zip(&self.globals).filter(|(_, ty)| ty.mutable);
        let named = mutable.map(|(index, _)| {
            let own = self
                .exports
                .iter()
                .find(|export| export.kind == ExternalKind::Global && export.index == index);
            if let Some(own) = own {
                return (false, (index, own.name.to_owned()));
            }
            let mut name = format!("{GLOBAL_PREFIX}{index}");
            while taken.contains(name.as_str()) {
                name.push('\'');
            }
            (true, (index, name))
        });
        named.collect()
    }

    /// Returns every reason why no snapshot is possible, and the entry of calls.
    fn reasons(&self) -> (Vec<String>, Option<&'static str>) {
        let mut reasons = Vec::new();
        if self.function_export(WIZER_INITIALIZE) != Some(Signature::Plain) {
            reasons.push(format!(
                "it exports no function `{WIZER_INITIALIZE}` without parameters and results, which \
                 starts it without a call's data"
            ));
        }
        if matches!(self.function_export(INITIALIZE), Some(found) if found != Signature::Plain) {
            reasons.push(format!("its `{INITIALIZE}` has parameters or results"));
        }
        let entry = ENTRIES
            .iter()
            .find(|(name, signature)| self.function_export(name) == Some(*signature))
            .map(|(name, _)| *name);
        if entry.is_none() {
            reasons.push("it exports neither `_start` nor `run: () -> i32`".to_owned());
        }
        let foreign = |import: &&wasmparser::Import<'_>| !matches!(import.ty, TypeRef::Func(_));
        if let Some(import) = self.imports.iter().find(foreign) {
            reasons.push(format!(
                "it imports `{}` of `{}`, which is no function",
                import.name, import.module
            ));
        }
        if self.memories.len() != 1 || self.memories[0].shared || self.memories[0].memory64 {
            reasons.push("it must have one memory of its own, with 32-bit addresses".to_owned());
        } else if !self.exports.iter().any(is_memory) {
            reasons.push(format!("it does not export its memory as `{MEMORY}`"));
        }
        if self.has_start {
            reasons.push("it has a start function, which would run again in each call".to_owned());
        }
        let unsaved = |ty: &wasmparser::GlobalType| ty.mutable && is_reference(ty.content_type);
        if let Some(index) = self.globals.iter().position(unsaved) {
            reasons.push(format!(
                "its mutable global {index} contains a reference, which cannot be saved"
            ));
        }
        match self.refused {
            Some((u32::MAX, _)) => {
                reasons.push("the address of a data segment is not a constant".to_owned());
            }
            Some((index, name)) => reasons.push(format!(
                "the function {} has the instruction `{name}`, whose effect a memory does not \
                 contain",
                self.function_text(index)
            )),
            None => {}
        }
        (reasons, entry)
    }

    fn function_export(&self, name: &str) -> Option<Signature> {
        let export = self
            .exports
            .iter()
            .find(|export| export.name == name && export.kind == ExternalKind::Func)?;
        let ty = self.functions.get(export.index as usize)?;
        Some(
            self.types
                .get(*ty as usize)
                .copied()
                .flatten()
                .unwrap_or(Signature::Other),
        )
    }

    fn function_text(&self, index: u32) -> String {
        const MAX_NAME_CHARS: usize = 200;
        let name = self.names.iter().find(|(named, _)| *named == index);
        match name {
            Some((_, name)) => {
                let name: String = name.chars().take(MAX_NAME_CHARS).collect();
                format!("{index} (`{name}`)")
            }
            None => index.to_string(),
        }
    }
}

fn is_memory(export: &wasmparser::Export<'_>) -> bool {
    export.name == MEMORY && export.kind == ExternalKind::Memory
}

fn is_reference(ty: ValType) -> bool {
    matches!(ty, ValType::Ref(RefType { .. }))
}

pub(super) fn invalid(err: wasmparser::BinaryReaderError) -> String {
    format!("is not a valid WebAssembly module: {err}")
}

fn signature(ty: &CompositeInnerType) -> Option<Signature> {
    let CompositeInnerType::Func(ty) = ty else {
        return None;
    };
    Some(match (ty.params(), ty.results()) {
        ([], []) => Signature::Plain,
        ([], [ValType::I32]) => Signature::ExitCode,
        _ => Signature::Other,
    })
}

/// Returns the name of the first instruction whose effect is not in the memory.
fn refused_instruction(
    body: &wasmparser::FunctionBody<'_>,
) -> wasmparser::Result<Option<&'static str>> {
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        let name = match operators.read()? {
            Operator::TableSet { .. } => "table.set",
            Operator::TableGrow { .. } => "table.grow",
            Operator::TableCopy { .. } => "table.copy",
            Operator::TableFill { .. } => "table.fill",
            Operator::TableInit { .. } => "table.init",
            Operator::ElemDrop { .. } => "elem.drop",
            Operator::DataDrop { .. } => "data.drop",
            Operator::MemoryInit { .. } => "memory.init",
            _ => continue,
        };
        return Ok(Some(name));
    }
    Ok(None)
}

/// Returns the names of functions. Names that cannot be read are left out: they are only for
/// messages.
fn function_names<'a>(sections: wasmparser::NameSectionReader<'a>) -> Vec<(u32, &'a str)> {
    let mut names = Vec::new();
    for section in sections.into_iter().map_while(Result::ok) {
        if let Name::Function(map) = section {
            let named = map.into_iter().map_while(Result::ok);
            names.extend(named.map(|naming| (naming.index, naming.name)));
        }
    }
    names
}

/// Converts the type of a memory.
pub(super) fn encoded_memory(ty: MemoryType) -> encode::MemoryType {
    encode::MemoryType {
        minimum: ty.initial,
        maximum: ty.maximum,
        memory64: ty.memory64,
        shared: ty.shared,
        page_size_log2: ty.page_size_log2,
    }
}
