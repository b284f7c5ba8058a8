//! Instances that run one call after the other.
//!
//! The memory of a call from a snapshot differs from the image in the pages that the call has
//! written. Starting the next call in a new instance gives these pages back to the system, and the
//! next call faults them in again, one by one. Restoring their contents is faster. The kernel
//! reports them: a page that was written belongs to this process alone, and all others are pages of
//! the image.
//!
//! An instance has no state other than its memory and its numeric globals: [`super::split`] refuses
//! all other kinds. So after both are restored, a call cannot distinguish the instance from a new
//! one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use wasmtime::{Extern, Global, Instance, Memory, Store, Val};

use super::MEMORY;
use super::instance::Snapshot;
use crate::sandbox::host::Host;
use crate::sandbox::invocation::{Entry, Invocation};
use crate::sandbox::module::PreparedModule;

/// Size of a page of the system. Instances are not kept where it can have another size.
const PAGE_BYTES: usize = 4096;
/// Maximum size of the written pages of an instance that is kept. They stay resident.
const MAX_WRITTEN_BYTES: usize = 64 << 20;
/// Size of an entry of `/proc/self/pagemap`, number of entries that are looked at together, and the
/// bits of an entry.
const ENTRY_BYTES: usize = 8;
const ENTRIES_AT_ONCE: usize = 256;
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_OR_SHARED: u64 = 1 << 61;

/// Report of the kernel about the pages of this process.
pub(in crate::sandbox) struct PageMap(File);

impl PageMap {
    /// Opens the report. `None` if the system has none: instances are then not kept.
    pub(in crate::sandbox) fn open() -> Option<Self> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return None;
        }
        File::open("/proc/self/pagemap").ok().map(Self)
    }

    /// Returns the indices of the pages from an address on that are not pages of a file.
    fn written(&self, address: usize, n_pages: usize) -> std::io::Result<Vec<usize>> {
        let mut entries = vec![0; n_pages * ENTRY_BYTES];
        let offset = (address / PAGE_BYTES * ENTRY_BYTES) as u64;
        self.0.read_exact_at(&mut entries, offset)?;
        let mut written = Vec::new();
        for (index, block) in entries.chunks(ENTRIES_AT_ONCE * ENTRY_BYTES).enumerate() {
            // Most of a large memory is untouched, so its entries are all the same.
            let is_uniform = block[ENTRY_BYTES..] == block[..block.len() - ENTRY_BYTES];
            if is_uniform && !is_written(&block[..ENTRY_BYTES]) {
                continue;
            }
            for (position, entry) in block.chunks_exact(ENTRY_BYTES).enumerate() {
                if is_written(entry) {
                    written.push(index * ENTRIES_AT_ONCE + position);
                }
            }
        }
        Ok(written)
    }
}

/// Returns true for a page that is neither untouched nor a page of the image.
fn is_written(entry: &[u8]) -> bool {
    let bits = entry.try_into().map_or(PRESENT, u64::from_ne_bytes);
    bits & (PRESENT | SWAPPED) != 0 && bits & FILE_OR_SHARED == 0
}

/// Instance of a snapshot in its store, as it was after its instantiation.
pub(in crate::sandbox) struct KeptInstance {
    module: Arc<PreparedModule>,
    pub(in crate::sandbox) store: Store<Host>,
    parts: InstanceParts,
    /// Memory and tables of the instance, which count against the limit of each call.
    pub(in crate::sandbox) start_bytes: u64,
    /// The image in a memory that nothing writes to; `None` before the second call.
    pristine: Option<Pristine>,
}

/// Instance, and the parts of it that a call can change.
pub(in crate::sandbox) struct InstanceParts {
    instance: Instance,
    memory: Memory,
    /// Size of the memory in bytes after the instantiation.
    memory_bytes: usize,
    /// Globals and their values after the instantiation.
    globals: Vec<(Global, Val)>,
}

impl InstanceParts {
    /// Returns the parts of a new instance. `None` if it does not export its memory.
    pub(in crate::sandbox) fn of(
        snapshot: &Snapshot,
        instance: Instance,
        store: &mut Store<Host>,
    ) -> Option<Self> {
        let memory = instance.get_memory(&mut *store, MEMORY)?;
        let mut globals = Vec::with_capacity(snapshot.code.globals.len());
        for name in &snapshot.code.globals {
            let Some(Extern::Global(global)) = instance.get_export(&mut *store, name) else {
                return None;
            };
            globals.push((global, global.get(&mut *store)));
        }
        Some(Self {
            instance,
            memory,
            memory_bytes: memory.data_size(&*store),
            globals,
        })
    }
}

/// Instance of an image alone.
struct Pristine {
    store: Store<()>,
    memory: Memory,
}

impl Pristine {
    fn new(snapshot: &Snapshot) -> Option<Self> {
        let image = snapshot.image.module();
        let mut store = Store::new(image.engine(), ());
        let instance = Instance::new(&mut store, image, &[]).ok()?;
        let memory = instance.get_memory(&mut store, MEMORY)?;
        Some(Self { store, memory })
    }
}

impl KeptInstance {
    /// Keeps the instance of a call that has ended by itself.
    ///
    /// * `start_bytes`: memory that the instance needed before it ran.
    pub(in crate::sandbox) fn new(
        module: Arc<PreparedModule>,
        mut store: Store<Host>,
        parts: InstanceParts,
        start_bytes: u64,
    ) -> Self {
        // Closes the files of the call.
        *store.data_mut() = Host::idle();
        Self {
            module,
            store,
            parts,
            start_bytes,
            pristine: None,
        }
    }

    /// Returns true if a call of a module can run in this instance.
    pub(in crate::sandbox) fn can_run(
        &self,
        module: &Arc<PreparedModule>,
        invocation: &Invocation<'_>,
    ) -> bool {
        Arc::ptr_eq(&self.module, module)
            && matches!(invocation.entry, Entry::Command)
            // A new instance gives the error for the user.
            && self.start_bytes <= invocation.limits.memory_bytes
    }

    /// Ends a call that has ended by itself.
    pub(in crate::sandbox) fn idle(mut self) -> Self {
        *self.store.data_mut() = Host::idle();
        self
    }

    /// Restores the memory and the globals for the next call. `None` if that is not possible: a
    /// call has grown the memory, which cannot shrink, or has written most of it.
    pub(in crate::sandbox) fn restored(mut self, pages: &PageMap) -> Option<Self> {
        let memory = self.parts.memory;
        let PreparedModule::Snapshot(snapshot) = &*self.module else {
            return None;
        };
        let pristine = match self.pristine.take() {
            Some(pristine) => pristine,
            None => Pristine::new(snapshot)?,
        };
        let pristine = self.pristine.insert(pristine);
        let image = pristine.memory.data(&pristine.store);
        let own = memory.data_mut(&mut self.store);
        if own.len() != self.parts.memory_bytes || image.len() != own.len() {
            return None;
        }
        let n_pages = own.len() / PAGE_BYTES;
        let written = pages.written(own.as_ptr().addr(), n_pages).ok()?;
        if written.len() * PAGE_BYTES > MAX_WRITTEN_BYTES {
            return None;
        }
        for index in written {
            let range = index * PAGE_BYTES..(index + 1) * PAGE_BYTES;
            if own[range.clone()] != image[range.clone()] {
                own[range.clone()].copy_from_slice(&image[range]);
            }
        }
        for (global, value) in &self.parts.globals {
            global.set(&mut self.store, *value).ok()?;
        }
        Some(self)
    }

    /// Runs a call. Returns its exit code.
    pub(in crate::sandbox) async fn call(&mut self) -> wasmtime::Result<i32> {
        let PreparedModule::Snapshot(snapshot) = &*self.module else {
            wasmtime::bail!("only instances of snapshots are kept");
        };
        snapshot.run(self.parts.instance, &mut self.store).await
    }
}
