//! Streams of WASI 0.2 that write to files on the guest's own thread.
//!
//! The runtime's own stream sends each piece of a file to another thread and waits for it.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;
use wasmtime_wasi::p2::{DynOutputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::host::Host;

/// Replaces `descriptor.write-via-stream` of WASI 0.2.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut types = linker.instance("wasi:filesystem/types@0.2.12")?;
    types.func_wrap("[method]descriptor.write-via-stream", write_via_stream)
}

/// Maximum size of one write. A piece of this size stays in the cache of a core while it is copied
/// from the memory of the guest to the file.
const PIECE_BYTES: usize = 128 << 10;

type Stream = Result<Resource<DynOutputStream>, ErrorCode>;

fn write_via_stream(
    mut store: StoreContextMut<'_, Host>,
    (descriptor, offset): (Resource<Descriptor>, u64),
) -> wasmtime::Result<(Stream,)> {
    let table = store.data_mut().filesystem().table;
    let file = match table.get(&descriptor)? {
        Descriptor::Dir(_) => return Ok((Err(ErrorCode::BadDescriptor),)),
        Descriptor::File(file) if file.perms.write_not_permitted() => {
            return Ok((Err(ErrorCode::NotPermitted),));
        }
        Descriptor::File(file) => Arc::clone(&file.file),
    };
    let writer: DynOutputStream = Box::new(FileWriter {
        file,
        offset,
        closed: false,
    });
    Ok((Ok(table.push(writer)?),))
}

/// Stream that writes to a file from an offset on, without a buffer.
struct FileWriter {
    file: Arc<File>,
    offset: u64,
    closed: bool,
}

#[wasmtime_wasi::async_trait]
impl Pollable for FileWriter {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for FileWriter {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.check_write()?;
        if bytes.len() > PIECE_BYTES {
            return Err(StreamError::trap(
                "more bytes written than check-write permits",
            ));
        }
        match write_all_at(&self.file, &bytes, self.offset) {
            Ok(()) => {
                self.offset += bytes.len() as u64;
                Ok(())
            }
            Err(err) => {
                self.closed = true;
                Err(StreamError::LastOperationFailed(err.into()))
            }
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.check_write().map(|_| ())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        if self.closed {
            Err(StreamError::Closed)
        } else {
            Ok(PIECE_BYTES)
        }
    }
}

fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}
