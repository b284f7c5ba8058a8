//! The folders that a guest sees, opened once for all calls of a worker that have the same ones.
//!
//! This is the one step from a path to a right: what is opened here is all that a guest can reach.

use std::os::fd::AsFd;

use rustix::fs::fstat;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtx, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::listing::real_path;
use super::lookup::{GuestFolder, GuestFolders};
use crate::model::{Grant, Rights};

/// Folders that were opened, and the grants that they were opened for.
#[derive(Default)]
pub(super) struct OpenFolders {
    grants: Vec<Grant>,
    opened: WasiFilesystemCtx,
    by_name: GuestFolders,
}

impl OpenFolders {
    /// The folders of these grants; those that are open already are not opened again.
    ///
    /// # Errors
    /// A sentence for the user if one cannot be opened.
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
    // Before the folders, which copy this setting: file access on the own thread is several times
    // faster. The one call that would sleep on the thread is replaced in `host`.
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

/// Fails for a folder that is not the one that was granted. What is looked at here is what the
/// guest gets.
fn check_identities(grants: &[Grant], opened: Option<&[GuestFolder]>) -> Result<(), String> {
    for (index, grant) in grants.iter().enumerate() {
        let Some(identity) = grant.identity else {
            continue;
        };
        let found = opened.and_then(|opened| fstat(&opened.get(index)?.dir.dir).ok());
        if found.map(|stat| crate::folder::identity(&stat)) != Some(identity) {
            return Err(format!(
                "{} was replaced while the call was prepared; make it again",
                grant.host_path.display()
            ));
        }
    }
    Ok(())
}

/// What the opened folders are taken from.
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
