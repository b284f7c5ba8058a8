//! Data of a store.

use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtxBuilder, WasiCtxView, WasiView};

use super::limits::MemoryBudget;
use super::lookup::GuestFolders;
use super::read_directory::Listings;
use super::typed::TypedHost;
use super::warnings::GuestWarnings;
use crate::model::Limits;

/// Data of a store: the WASI state of one call, its memory budget, and the state of a typed task.
pub(super) struct Host {
    pub(super) wasi: WasiP1Ctx,
    pub(super) budget: MemoryBudget,
    pub(super) typed: Option<TypedHost>,
    pub(super) folders: GuestFolders,
    pub(super) listings: Listings,
    pub(super) warnings: GuestWarnings,
}

impl Host {
    /// Data of a store in which no call runs.
    pub(super) fn idle() -> Self {
        Self {
            wasi: WasiCtxBuilder::new().build_p1(),
            budget: MemoryBudget::new(&Limits::default()),
            typed: None,
            folders: GuestFolders::default(),
            listings: Listings::default(),
            warnings: GuestWarnings::dropped(),
        }
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}
