//! Start of a call from a snapshot: an instance of the image, and an instance of the code that uses
//! its memory.

use std::sync::Arc;

use wasmtime::{Extern, ExternType, Instance, InstancePre, Module, Mutability, Store, ValType};

use super::{ENTRIES, MEMORY, MEMORY_MODULE, Signature};
use crate::sandbox::host::Host;
use crate::sandbox::imports::{CoreImport, core_refusal};
use crate::sandbox::linkers::Linkers;

/// Code of a module whose memory is imported.
pub(in crate::sandbox) struct SnapshotCode {
    module: Module,
    /// Name of the export that calls run.
    pub(super) entry: &'static str,
    pub(super) signature: Signature,
    /// Names of the mutable globals, whose values belong to the memory.
    pub(super) globals: Vec<String>,
    /// Maximum size of the memory in pages.
    pub(super) max_pages: Option<u64>,
}

impl SnapshotCode {
    /// Checks the imports of compiled code. The error is a sentence for the user.
    pub(in crate::sandbox) fn new(linkers: &Linkers, module: &Module) -> Result<Self, String> {
        let (mut memory, mut imports) = (None, Vec::new());
        for import in module.imports() {
            match import.ty() {
                ExternType::Memory(ty)
                    if (import.module(), import.name()) == (MEMORY_MODULE, MEMORY) =>
                {
                    memory = Some(ty);
                }
                _ => imports.push(CoreImport::of(&import)),
            }
        }
        if let Some(refusal) = core_refusal(&imports, &linkers.preview1()) {
            return Err(refusal);
        }
        let memory = memory.ok_or("its code does not import its memory")?;
        let is_entry = |(name, signature): &&(&str, Signature)| {
            matches!(module.get_export(name),
                Some(ExternType::Func(ty)) if signature_of(&ty) == *signature)
        };
        let (entry, signature) = ENTRIES.iter().find(is_entry).ok_or("it has no entry")?;
        let is_state = |ty: ExternType| match ty {
            ExternType::Global(ty) => ty.mutability() == Mutability::Var,
            _ => false,
        };
        let globals = module.exports().filter(|export| is_state(export.ty()));
        Ok(Self {
            globals: globals.map(|export| export.name().to_owned()).collect(),
            module: module.clone(),
            entry,
            signature: *signature,
            max_pages: memory.maximum(),
        })
    }
}

fn signature_of(ty: &wasmtime::FuncType) -> Signature {
    let results: Vec<_> = ty.results().collect();
    match (ty.params().len(), &results[..]) {
        (0, []) => Signature::Plain,
        (0, [ValType::I32]) => Signature::ExitCode,
        _ => Signature::Other,
    }
}

/// Code with the memory from which calls start.
pub(in crate::sandbox) struct Snapshot {
    pub(super) code: Arc<SnapshotCode>,
    pub(super) image: InstancePre<Host>,
    /// Size of the memory in bytes.
    pub(in crate::sandbox) memory_bytes: u64,
}

impl Snapshot {
    /// Prepares an image for instantiation. The error is a sentence for the user.
    pub(in crate::sandbox) fn new(
        linkers: &Linkers,
        code: Arc<SnapshotCode>,
        image: &Module,
    ) -> Result<Self, String> {
        let Some(ExternType::Memory(memory)) = image.get_export(MEMORY) else {
            return Err("the image of a snapshot has no memory".to_owned());
        };
        let image = linkers
            .core
            .instantiate_pre(image)
            .map_err(|err| format!("the image of a snapshot has imports: {err:#}"))?;
        Ok(Self {
            code,
            image,
            memory_bytes: memory.minimum().saturating_mul(memory.page_size()),
        })
    }

    /// Creates an instance whose memory and globals are those of the image.
    pub(in crate::sandbox) async fn instantiate(
        &self,
        linkers: &Linkers,
        store: &mut Store<Host>,
    ) -> wasmtime::Result<Instance> {
        let image = self.image.instantiate_async(&mut *store).await?;
        let Some(memory) = image.get_memory(&mut *store, MEMORY) else {
            wasmtime::bail!("the image of a snapshot has no memory");
        };
        // The memory belongs to the store, so each call needs a linker of its own. Its functions
        // are shared.
        let mut linker = linkers.core.clone();
        linker.define(&*store, MEMORY_MODULE, MEMORY, memory)?;
        let instance = linker
            .instantiate_async(&mut *store, &self.code.module)
            .await?;
        for name in &self.code.globals {
            let saved = image.get_export(&mut *store, name);
            let own = instance.get_export(&mut *store, name);
            // The memory with which a module starts has no globals.
            if let (Some(Extern::Global(saved)), Some(Extern::Global(own))) = (saved, own) {
                let value = saved.get(&mut *store);
                own.set(&mut *store, value)?;
            }
        }
        Ok(instance)
    }

    /// Runs the entry of an instance. Returns the exit code.
    pub(in crate::sandbox) async fn run(
        &self,
        instance: Instance,
        store: &mut Store<Host>,
    ) -> wasmtime::Result<i32> {
        let entry = self.code.entry;
        if self.code.signature == Signature::ExitCode {
            let run = instance.get_typed_func::<(), i32>(&mut *store, entry)?;
            return run.call_async(store, ()).await;
        }
        let start = instance.get_typed_func::<(), ()>(&mut *store, entry)?;
        start.call_async(store, ()).await?;
        Ok(0)
    }
}
