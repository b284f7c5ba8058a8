//! Functions of the host that guests can import.

use std::time::Duration;

use wasmtime::component::Linker as ComponentLinker;
use wasmtime::{Caller, Engine, Extern, ExternType, Linker, Store};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p1::wasi_snapshot_preview1;

use super::host::Host;
use super::imports::{PREVIEW1, Preview1, function_text};
use super::{
    absolute_links, entry_stream, errno, file_writer, lookup, read_directory, set_times,
    special_files, typed,
};

/// Linkers that provide WASI to the two kinds of modules. Sockets are linked, but they refuse every
/// address.
pub(super) struct Linkers {
    pub(super) core: Linker<Host>,
    pub(super) component: ComponentLinker<Host>,
}

impl Linkers {
    pub(super) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut core = Linker::new(engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut core, |host: &mut Host| &mut host.wasi)?;
        core.allow_shadowing(true);
        // The original function traps for exit codes from 126 on, and the code is lost.
        core.func_wrap(PREVIEW1, "proc_exit", |code: i32| -> wasmtime::Result<()> {
            Err(I32Exit(code).into())
        })?;
        errno::link_core(&mut core)?;
        core.func_wrap_async(PREVIEW1, "poll_oneoff", |caller, params| {
            Box::new(poll_oneoff(caller, params))
        })?;
        special_files::guard_core(&mut core)?;
        lookup::link(&mut core)?;
        set_times::link_core(&mut core)?;
        read_directory::link(&mut core)?;
        core.allow_shadowing(false);

        let mut component = ComponentLinker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut component)?;
        component.allow_shadowing(true);
        errno::link_component(&mut component)?;
        special_files::guard_component(&mut component)?;
        file_writer::link(&mut component)?;
        entry_stream::link(&mut component)?;
        absolute_links::link(&mut component)?;
        set_times::link_component(&mut component)?;
        component.allow_shadowing(false);
        typed::link(&mut component)?;
        Ok(Self { core, component })
    }

    /// Returns the functions of preview 1 that core modules can import.
    pub(super) fn preview1(&self) -> Preview1 {
        let mut store = Store::new(self.core.engine(), Host::idle());
        let items: Vec<_> = self
            .core
            .iter(&mut store)
            .map(|(_, name, item)| (name.to_owned(), item))
            .collect();
        let function = |(name, item): (String, Extern)| match item.ty(&store) {
            ExternType::Func(ty) => Some((name, function_text(ty.params(), ty.results()))),
            _ => None,
        };
        items.into_iter().filter_map(function).collect()
    }
}

/// Replaces `poll_oneoff`. The original function blocks the thread if the guest only sleeps, and no
/// limit could then end the guest.
async fn poll_oneoff(
    mut caller: Caller<'_, Host>,
    (subscriptions, events, n, n_ready): (i32, i32, i32, i32),
) -> wasmtime::Result<i32> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        wasmtime::bail!("the module does not export its memory, which WASI needs");
    };
    if let Some(time) = only_sleeps(memory.data(&caller), subscriptions, n) {
        tokio::time::sleep(time).await;
        let mut event = [0; EVENT_BYTES];
        let userdata = slice_at(memory.data(&caller), subscriptions, 8)?;
        event[..8].copy_from_slice(userdata);
        memory.write(&mut caller, address(events), &event)?;
        memory.write(&mut caller, address(n_ready), &1_u32.to_le_bytes())?;
        return Ok(0);
    }
    let fuel = wasmtime::AsContextMut::as_context_mut(&mut caller).hostcall_fuel();
    let (bytes, host) = memory.data_and_store_mut(&mut caller);
    wasi_snapshot_preview1::WasiSnapshotPreview1::set_hostcall_fuel(&mut host.wasi, fuel);
    let mut guest = wiggle::GuestMemory::Unshared(bytes);
    wasi_snapshot_preview1::poll_oneoff(
        &mut host.wasi,
        &mut guest,
        subscriptions,
        events,
        n,
        n_ready,
    )
    .await
}

/// Size of WASI's `event`, whose other fields are 0 for a clock.
const EVENT_BYTES: usize = 32;
/// Size of WASI's `subscription`.
const SUBSCRIPTION_BYTES: usize = 48;

/// Returns the time to sleep, if the only subscription is to a clock and relative.
fn only_sleeps(memory: &[u8], subscriptions: i32, n: i32) -> Option<Duration> {
    if n != 1 {
        return None;
    }
    let subscription = slice_at(memory, subscriptions, SUBSCRIPTION_BYTES).ok()?;
    let (kind, flags) = (
        subscription[8],
        u16::from_le_bytes([subscription[40], subscription[41]]),
    );
    let is_relative_clock = kind == 0 && flags & 1 == 0;
    let nanoseconds = u64::from_le_bytes(subscription[24..32].try_into().ok()?);
    is_relative_clock.then_some(Duration::from_nanos(nanoseconds))
}

fn slice_at(memory: &[u8], pointer: i32, length: usize) -> wasmtime::Result<&[u8]> {
    let start = address(pointer);
    memory
        .get(start..start + length)
        .ok_or_else(|| wasmtime::format_err!("a pointer outside the module's memory"))
}

/// Converts a guest's pointer to an index.
fn address(pointer: i32) -> usize {
    pointer.cast_unsigned() as usize
}
