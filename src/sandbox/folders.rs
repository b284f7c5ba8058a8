//! Folders that a guest sees, opened once for all calls of a worker that have the same grants.
//!
//! This is the only step from a path to a right: a guest can reach exactly the folders that are
//! opened here.

use std::os::fd::AsFd;

use rustix::fs::fstat;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtx, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::listing::real_path;
use super::lookup::{GuestFolder, GuestFolders};
use crate::model::{Grant, Rights};

/// Opened folders, and the grants that they were opened for.
#[derive(Default)]
pub(super) struct OpenFolders {
    grants: Vec<Grant>,
    opened: WasiFilesystemCtx,
    by_name: GuestFolders,
}

impl OpenFolders {
    /// Returns the folders of these grants. Folders that are already open are not opened again.
    ///
    /// # Errors
    /// A sentence for the user if a folder cannot be opened.
    pub(super) fn of(
        &mut self,
        grants: &[Grant],
    ) -> Result<(WasiFilesystemCtx, GuestFolders), String> {
        if self.grants != grants || grants.is_empty() {
            *self = Self::default();
            (self.opened, self.by_name) = open(grants)?;
            self.grants = grants.to_vec();
        }
        Ok((self.opened.clone(), self.by_name.clone()))
    }
}

fn open(grants: &[Grant]) -> Result<(WasiFilesystemCtx, GuestFolders), String> {
    let mut builder = WasiCtxBuilder::new();
    // Set this before the folders are opened, since they copy the setting. File access on the own
    // thread is several times faster. The one function that would block the thread is replaced in
    // `host`.
    builder.allow_blocking_current_thread(true);
    for grant in grants {
        let perms = match grant.rights {
            Rights::ReadOnly if !crate::model::WEAKENED => FsPerms::ReadOnly,
            Rights::ReadOnly | Rights::ReadWrite => FsPerms::ReadWrite,
        };
        builder
            .preopened_dir(&grant.host_path, &grant.guest_path, perms)
            .map_err(|err| format!("failed to open {}: {err:#}", grant.host_path.display()))?;
    }
    let mut wasi = Wasi {
        ctx: builder.build(),
        table: ResourceTable::new(),
    };
    let folders = wasi
        .filesystem()
        .get_directories()
        .map_err(|err| format!("failed to list the folders: {err:#}"))?;
    let by_name =
        grants
            .iter()
            .zip(folders)
            .map(|(grant, (folder, name))| match wasi.table.get(&folder) {
                Ok(Descriptor::Dir(dir)) => {
                    let real_path =
                        real_path(dir.dir.as_fd()).unwrap_or_else(|| grant.host_path.clone());
                    Some(GuestFolder {
                        name,
                        host_paths: [grant.host_path.clone(), real_path],
                        dir: dir.clone(),
                    })
                }
                _ => None,
            });
    let by_name: Option<Vec<_>> = by_name.collect();
    check_identities(grants, by_name.as_deref())?;
    let by_name = by_name.map(GuestFolders::new).unwrap_or_default();
    Ok((wasi.filesystem().ctx.clone(), by_name))
}

/// Fails if a folder is not the one that was granted. This checks the opened folders themselves, so
/// the guest gets what was checked.
fn check_identities(grants: &[Grant], opened: Option<&[GuestFolder]>) -> Result<(), String> {
    for (index, grant) in grants.iter().enumerate() {
        let Some(identity) = grant.identity else {
            continue;
        };
        let found = opened.and_then(|opened| fstat(&opened.get(index)?.dir.dir).ok());
        if found.map(|stat| crate::folder::identity(&stat)) != Some(identity) {
            return Err(format!(
                "{} was replaced while the call was being prepared; run the call again",
                grant.host_path.display()
            ));
        }
    }
    Ok(())
}

/// WASI state from which the opened folders are taken.
struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Wasi {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.ctx,
            table: &mut self.table,
        }
    }
}
