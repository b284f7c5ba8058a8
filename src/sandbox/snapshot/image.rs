//! Modules that contain nothing but a memory, and the values of the globals that belong to it.

use wasm_encoder as encode;
use wasmparser::{ConstExpr, MemoryType, Operator, Parser, Payload};
use wasmtime::Val;

use super::MEMORY;
use super::split::encoded_memory;
use crate::text::bytes_text;

/// Size of a page of WebAssembly. Each page of the memory is written as a whole or left out.
const PAGE_BYTES: usize = 64 << 10;
/// Size of the gaps up to which an image is written as a single segment. wasmtime maps an image
/// only if at least half of it is data, and otherwise copies it in every call.
const MAX_FILLED_BYTES: usize = 256 << 20;

/// Maximum size of the data of an image. A section of a module cannot have more than 4 GiB.
const MAX_DATA_BYTES: usize = 1 << 30;

/// Writer of an image.
pub(super) struct ImageWriter {
    memory: MemoryType,
    globals: encode::GlobalSection,
    exports: encode::ExportSection,
    data: encode::DataSection,
}

impl ImageWriter {
    pub(super) fn new(memory: MemoryType) -> Self {
        let mut exports = encode::ExportSection::new();
        exports.export(MEMORY, encode::ExportKind::Memory, 0);
        Self {
            memory,
            globals: encode::GlobalSection::new(),
            exports,
            data: encode::DataSection::new(),
        }
    }

    pub(super) fn segment(&mut self, offset: u32, data: &[u8]) {
        let offset = encode::ConstExpr::i32_const(offset.cast_signed());
        self.data.active(0, &offset, data.iter().copied());
    }

    /// Adds the value of a global. Returns false for a reference, which cannot be written.
    fn global(&mut self, name: &str, value: &Val) -> bool {
        let (ty, value) = match value {
            Val::I32(value) => (encode::ValType::I32, encode::ConstExpr::i32_const(*value)),
            Val::I64(value) => (encode::ValType::I64, encode::ConstExpr::i64_const(*value)),
            Val::F32(bits) => {
                let value = encode::Ieee32::new(*bits);
                (encode::ValType::F32, encode::ConstExpr::f32_const(value))
            }
            Val::F64(bits) => {
                let value = encode::Ieee64::new(*bits);
                (encode::ValType::F64, encode::ConstExpr::f64_const(value))
            }
            Val::V128(value) => {
                let value = value.as_u128().cast_signed();
                (encode::ValType::V128, encode::ConstExpr::v128_const(value))
            }
            _ => return false,
        };
        let index = self.globals.len();
        let ty = encode::GlobalType {
            val_type: ty,
            mutable: false,
            shared: false,
        };
        self.globals.global(ty, &value);
        self.exports.export(name, encode::ExportKind::Global, index);
        true
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let mut memories = encode::MemorySection::new();
        memories.memory(encoded_memory(self.memory));
        let mut module = encode::Module::new();
        module
            .section(&memories)
            .section(&self.globals)
            .section(&self.exports)
            .section(&self.data);
        module.finish()
    }
}

/// Returns the image of a memory as a module. The error is a sentence for the user.
///
/// * `maximum`: maximum size of the memory in pages, as the code imports it.
/// * `globals`: names and values of the mutable globals.
pub(super) fn write_image(
    memory: &[u8],
    maximum: Option<u64>,
    globals: &[(String, Val)],
) -> Result<Vec<u8>, String> {
    let segments = segments(memory);
    let n_bytes: usize = segments.iter().map(|(_, data)| data.len()).sum();
    if n_bytes > MAX_DATA_BYTES {
        return Err(format!(
            "its memory has {} of data after the start, more than the {} that a snapshot can have",
            bytes_text(n_bytes as u64),
            bytes_text(MAX_DATA_BYTES as u64)
        ));
    }
    let mut writer = ImageWriter::new(MemoryType {
        memory64: false,
        shared: false,
        initial: (memory.len() / PAGE_BYTES) as u64,
        maximum,
        page_size_log2: None,
    });
    for (name, value) in globals {
        if !writer.global(name, value) {
            return Err(format!("its global `{name}` contains a reference"));
        }
    }
    for (offset, data) in segments {
        // An address of 32 bits fits.
        writer.segment(u32::try_from(offset).unwrap_or(u32::MAX), data);
    }
    Ok(writer.finish())
}

/// Returns the runs of pages that are not all zero, with their addresses.
fn segments(memory: &[u8]) -> Vec<(usize, &[u8])> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (index, page) in memory.chunks(PAGE_BYTES).enumerate() {
        if is_zero(page) {
            continue;
        }
        let start = index * PAGE_BYTES;
        let end = start + page.len();
        match runs.last_mut() {
            Some((_, last)) if *last == start => *last = end,
            _ => runs.push((start, end)),
        }
    }
    let (Some((first, _)), Some((_, last))) = (runs.first(), runs.last()) else {
        return Vec::new();
    };
    let span = last - first;
    let n_bytes: usize = runs.iter().map(|(start, end)| end - start).sum();
    if span >= 2 * n_bytes && span - n_bytes <= MAX_FILLED_BYTES {
        runs = vec![(*first, *last)];
    }
    runs.into_iter()
        .map(|(start, end)| (start, &memory[start..end]))
        .collect()
}

fn is_zero(page: &[u8]) -> bool {
    static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    *page == ZEROS[..page.len()]
}

/// Checks an image that another process has made: it must contain a memory, constants and data, and
/// nothing else.
///
/// * `max_bytes`: maximum size of the memory.
///
/// Returns the size of the memory in bytes.
pub(in crate::sandbox) fn check_image(bytes: &[u8], max_bytes: u64) -> Result<u64, String> {
    let found = image_memory(bytes).map_err(|err| err.to_string());
    match found {
        Ok(Some(memory_bytes)) if memory_bytes <= max_bytes => Ok(memory_bytes),
        Ok(_) => Err("it is not the image of a memory".to_owned()),
        Err(text) => Err(text),
    }
}

/// Returns the size of the memory, or `None` if the module contains something else.
fn image_memory(bytes: &[u8]) -> wasmparser::Result<Option<u64>> {
    let mut n_pages = None;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::MemorySection(memories) if memories.count() == 1 && n_pages.is_none() => {
                for memory in memories {
                    let memory = memory?;
                    if memory.memory64 || memory.shared || memory.page_size_log2.is_some() {
                        return Ok(None);
                    }
                    n_pages = Some(memory.initial);
                }
            }
            Payload::GlobalSection(globals) => {
                for global in globals {
                    let global = global?;
                    if global.ty.mutable || !is_constant(&global.init_expr)? {
                        return Ok(None);
                    }
                }
            }
            Payload::Version { .. }
            | Payload::ExportSection(_)
            | Payload::DataSection(_)
            | Payload::End(_) => {}
            _ => return Ok(None),
        }
    }
    Ok(n_pages.and_then(|n_pages| n_pages.checked_mul(PAGE_BYTES as u64)))
}

fn is_constant(expression: &ConstExpr<'_>) -> wasmparser::Result<bool> {
    let mut operators = expression.get_operators_reader();
    let value = operators.read()?;
    let is_constant = matches!(
        value,
        Operator::I32Const { .. }
            | Operator::I64Const { .. }
            | Operator::F32Const { .. }
            | Operator::F64Const { .. }
            | Operator::V128Const { .. }
    );
    Ok(is_constant && matches!(operators.read()?, Operator::End))
}
