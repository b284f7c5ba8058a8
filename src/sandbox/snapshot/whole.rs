//! A module that starts after its initialization: the whole form of a snapshot, as one command that
//! any runtime for WASI preview 1 can run.

use std::collections::HashMap;

use wasm_encoder as encode;
use wasmparser::{DataKind, ExternalKind, Operator, Parser, Payload, TypeRef};

use super::split::{SplitModule, encoded_export, encoded_memory, invalid};
use super::{INITIALIZE, RUN, START, WIZER_INITIALIZE};
use crate::sandbox::imports::PREVIEW1;

/// Function that ends a guest with an exit code.
const PROC_EXIT: &str = "proc_exit";

/// Contents of an image.
struct Image<'a> {
    n_pages: u64,
    /// Encoded values of the globals, by name.
    globals: HashMap<&'a str, &'a [u8]>,
    segments: Vec<(i32, &'a [u8])>,
}

impl<'a> Image<'a> {
    fn read(bytes: &'a [u8]) -> wasmparser::Result<Self> {
        let mut image = Self {
            n_pages: 0,
            globals: HashMap::new(),
            segments: Vec::new(),
        };
        let mut values = Vec::new();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::MemorySection(memories) => {
                    for memory in memories {
                        image.n_pages = memory?.initial;
                    }
                }
                Payload::GlobalSection(globals) => {
                    for global in globals {
                        let range = global?.init_expr.get_binary_reader().range();
                        values.push(&bytes[range]);
                    }
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        let export = export?;
                        if export.kind == ExternalKind::Global {
                            let value = values.get(export.index as usize).copied();
                            image.globals.insert(export.name, value.unwrap_or_default());
                        }
                    }
                }
                Payload::DataSection(segments) => {
                    for segment in segments {
                        let segment = segment?;
                        if let DataKind::Active { offset_expr, .. } = segment.kind
                            && let Operator::I32Const { value } =
                                offset_expr.get_operators_reader().read()?
                        {
                            image.segments.push((value, segment.data));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(image)
    }
}

impl SplitModule<'_> {
    /// Returns the module with the memory and the globals of an image, as a command.
    ///
    /// # Errors
    /// A sentence for the user if the entry returns an exit code and the module does not import the
    /// function that ends a guest with it.
    pub(in crate::sandbox) fn whole(&self, image: &[u8]) -> Result<Vec<u8>, String> {
        let image = Image::read(image).map_err(invalid)?;
        let start = self.start_function()?;
        let mut module = encode::Module::new();
        for payload in Parser::new(0).parse_all(self.bytes) {
            let payload = payload.map_err(invalid)?;
            let section = payload.as_section();
            match payload {
                Payload::TypeSection(types) if start.is_some() => {
                    let n_types = types.count();
                    let mut bytes = leb128(n_types + 1);
                    bytes.extend(self.list(&types.range(), n_types)?);
                    // A function without parameters and results.
                    bytes.extend([0x60, 0, 0]);
                    module.section(&raw(1, &bytes));
                }
                Payload::FunctionSection(functions) if start.is_some() => {
                    let n_functions = functions.count();
                    let mut bytes = leb128(n_functions + 1);
                    bytes.extend(self.list(&functions.range(), n_functions)?);
                    bytes.extend(leb128(self.n_types));
                    module.section(&raw(3, &bytes));
                }
                Payload::MemorySection(_) => {
                    let mut memory = encoded_memory(self.memory);
                    memory.minimum = image.n_pages;
                    let mut memories = encode::MemorySection::new();
                    memories.memory(memory);
                    module.section(&memories);
                }
                Payload::GlobalSection(globals) => {
                    module.section(&self.globals(globals, &image)?);
                }
                Payload::ExportSection(_) => {
                    module.section(&self.command_exports(start.as_ref()));
                }
                Payload::DataCountSection { .. } => {}
                Payload::CodeSectionStart { range, count, .. } => {
                    let mut bytes = leb128(count + u32::from(start.is_some()));
                    bytes.extend(self.list(&range, count)?);
                    bytes.extend(start.iter().flat_map(|start| start.body.clone()));
                    module.section(&raw(10, &bytes));
                }
                Payload::CodeSectionEntry(_) => {}
                Payload::DataSection(_) => {
                    module.section(&data_section(&image));
                }
                _ => {
                    if let Some((id, range)) = section {
                        module.section(&raw(id, &self.bytes[range]));
                    }
                }
            }
        }
        Ok(module.finish())
    }

    /// Returns the entries of a section that is a list, without their number.
    fn list(&self, range: &std::ops::Range<usize>, n_entries: u32) -> Result<&[u8], String> {
        let start = range.start + leb128_length(&self.bytes[range.clone()]);
        debug_assert!(leb128(n_entries).len() <= range.len());
        self.bytes
            .get(start..range.end)
            .ok_or_else(|| "its sections are truncated".to_owned())
    }

    /// Returns `_start` for an entry that returns an exit code; `None` if the entry is a command.
    fn start_function(&self) -> Result<Option<StartFunction>, String> {
        if self.entry != RUN {
            return Ok(None);
        }
        let is_function = |import: &&wasmparser::Import<'_>| matches!(import.ty, TypeRef::Func(_));
        let exit = self
            .imports
            .iter()
            .filter(is_function)
            .position(|import| import.module == PREVIEW1 && import.name == PROC_EXIT)
            .ok_or_else(|| {
                format!(
                    "its entry `{RUN}` returns an exit code, but it does not import `{PROC_EXIT}`, \
                     which a command needs for it"
                )
            })?;
        let mut body = encode::Function::new([]);
        let entry = self.export_index(RUN).unwrap_or_default();
        body.instructions()
            .call(entry)
            .call(u32::try_from(exit).unwrap_or(u32::MAX))
            .end();
        let mut bytes = Vec::new();
        encode::Encode::encode(&body, &mut bytes);
        Ok(Some(StartFunction {
            index: self.n_functions,
            body: bytes,
        }))
    }

    fn export_index(&self, name: &str) -> Option<u32> {
        let export = self.exports.iter().find(|export| export.name == name)?;
        Some(export.index)
    }

    fn globals(
        &self,
        globals: wasmparser::GlobalSectionReader<'_>,
        image: &Image<'_>,
    ) -> Result<encode::GlobalSection, String> {
        let names: HashMap<u32, &str> = self
            .state
            .iter()
            .map(|(index, name)| (*index, name.as_str()))
            .collect();
        let mut section = encode::GlobalSection::new();
        for (index, global) in (0..).zip(globals.into_iter_with_offsets()) {
            let (offset, global) = global.map_err(invalid)?;
            let value = global.init_expr.get_binary_reader().range();
            let ty = &self.bytes[offset..value.start];
            let saved = names.get(&index).and_then(|name| image.globals.get(name));
            let value = match saved {
                Some(saved) => saved,
                None => &self.bytes[value],
            };
            section.raw(&[ty, value].concat());
        }
        Ok(section)
    }

    /// Returns the exports of the command: without those that start it, and with `_start`.
    fn command_exports(&self, start: Option<&StartFunction>) -> encode::ExportSection {
        let mut section = encode::ExportSection::new();
        let entry = match start {
            Some(start) => Some(start.index),
            None => self.export_index(self.entry),
        };
        let dropped = [WIZER_INITIALIZE, INITIALIZE, START, self.entry];
        for export in &self.exports {
            if !dropped.contains(&export.name) {
                section.export(export.name, encoded_export(export.kind), export.index);
            }
        }
        section.export(START, encode::ExportKind::Func, entry.unwrap_or_default());
        section
    }
}

/// Function that runs the entry and ends the guest with its exit code.
struct StartFunction {
    index: u32,
    body: Vec<u8>,
}

fn data_section(image: &Image<'_>) -> encode::DataSection {
    let mut section = encode::DataSection::new();
    for (offset, data) in &image.segments {
        let offset = encode::ConstExpr::i32_const(*offset);
        section.active(0, &offset, data.iter().copied());
    }
    section
}

fn raw(id: u8, data: &[u8]) -> encode::RawSection<'_> {
    encode::RawSection { id, data }
}

fn leb128(value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::Encode::encode(&value, &mut bytes);
    bytes
}

/// Returns the length of the number at the start of a section.
fn leb128_length(bytes: &[u8]) -> usize {
    1 + bytes.iter().take_while(|byte| **byte >= 0x80).count()
}
