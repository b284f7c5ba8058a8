//! The start of a guest without a call's data, whose memory becomes an image.

use wasmtime::{Instance, Store};
use wasmtime_wasi::p1::wasi_snapshot_preview1;

use super::image::write_image;
use super::instance::Snapshot;
use super::{INITIALIZE, MEMORY, WIZER_INITIALIZE};
use crate::sandbox::host::Host;
use crate::sandbox::invocation::{GuestEnd, ImageSlot, Invocation};
use crate::sandbox::linkers::Linkers;

/// Number of the standard streams, which come before the folders of a guest.
const N_STREAMS: usize = 3;
/// WASI's file types of a folder and of a regular file.
const FOLDER_AND_FILE: [u8; 2] = [3, 4];
/// Sizes of WASI's `fdstat` and `prestat`.
const FDSTAT_BYTES: usize = 24;
const PRESTAT_BYTES: usize = 8;

impl Snapshot {
    /// Runs the initialization of a guest, and stores the image of its memory.
    ///
    /// Returns how the guest ended: [`GuestEnd::Failed`] if it left something that an image cannot
    /// contain.
    pub(in crate::sandbox) async fn initialize(
        &self,
        linkers: &Linkers,
        store: &mut Store<Host>,
        invocation: &Invocation<'_>,
        slot: &ImageSlot,
    ) -> wasmtime::Result<GuestEnd> {
        let instance = self.instantiate(linkers, store).await?;
        if instance.get_func(&mut *store, INITIALIZE).is_some() {
            call(&instance, store, INITIALIZE).await?;
        }
        call(&instance, store, WIZER_INITIALIZE).await?;
        let n_numbers = N_STREAMS
            .saturating_add(invocation.grants.len())
            .saturating_add(invocation.limits.open_files);
        if let Some(number) = open_file(store.data_mut(), n_numbers).await? {
            return Ok(GuestEnd::Failed(format!(
                "it left a file or folder open (descriptor {number}), which a call would not have; \
                 close it in `{WIZER_INITIALIZE}`"
            )));
        }
        match self.image(&instance, store)? {
            Ok(image) => {
                slot.put(image);
                Ok(GuestEnd::Exited(0))
            }
            Err(text) => Ok(GuestEnd::Failed(text)),
        }
    }

    fn image(
        &self,
        instance: &Instance,
        store: &mut Store<Host>,
    ) -> wasmtime::Result<Result<Vec<u8>, String>> {
        let mut globals = Vec::with_capacity(self.code.globals.len());
        for name in &self.code.globals {
            let Some(global) = instance.get_global(&mut *store, name) else {
                wasmtime::bail!("the code of a snapshot has no global `{name}`");
            };
            globals.push((name.clone(), global.get(&mut *store)));
        }
        let Some(memory) = instance.get_memory(&mut *store, MEMORY) else {
            wasmtime::bail!("the code of a snapshot has no memory");
        };
        let memory = memory.data(&*store);
        Ok(write_image(memory, self.code.max_pages, &globals))
    }
}

async fn call(instance: &Instance, store: &mut Store<Host>, name: &str) -> wasmtime::Result<()> {
    let function = instance.get_typed_func::<(), ()>(&mut *store, name)?;
    function.call_async(store, ()).await
}

/// Returns the number of an open file or folder other than the folders of the guest. Numbers have
/// no gaps when they are given, so they are below the number of files that a guest can open.
async fn open_file(host: &mut Host, n_numbers: usize) -> wasmtime::Result<Option<i32>> {
    let wasi = &mut host.wasi;
    for number in 0..i32::try_from(n_numbers).unwrap_or(i32::MAX) {
        let (mut fdstat, mut prestat) = ([0; FDSTAT_BYTES], [0; PRESTAT_BYTES]);
        let mut guest = wiggle::GuestMemory::Unshared(&mut fdstat);
        let found = wasi_snapshot_preview1::fd_fdstat_get(wasi, &mut guest, number, 0).await?;
        if found != 0 {
            continue;
        }
        let mut guest = wiggle::GuestMemory::Unshared(&mut prestat);
        let is_given = wasi_snapshot_preview1::fd_prestat_get(wasi, &mut guest, number, 0)? == 0;
        if FOLDER_AND_FILE.contains(&fdstat[0]) && !is_given {
            return Ok(Some(number));
        }
    }
    Ok(None)
}
