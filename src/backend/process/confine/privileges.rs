//! Layers that are attributes of the process: capabilities, `no_new_privs`, dumpability.

use std::os::unix::fs::MetadataExt;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, geteuid, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::super::layers::{Confinement, Layer, LayerState};
use crate::model::Grant;

/// Capabilities that let the superuser access files of other users, as it can in thread mode.
/// Landlock restricts which files.
const OF_OTHERS_FILES: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::FOWNER);

/// Closes all files except stdin, stdout and stderr: a shell or another program may have left files
/// open that grant access, such as a socket. Call it before this process opens files itself.
#[cfg(feature = "cli")]
#[expect(unsafe_code, reason = "files are closed by number")]
pub(crate) fn close_inherited_files() {
    let first = 3_u32;
    // SAFETY: nothing in this process owns a descriptor yet; see above.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if closed == 0 {
        return;
    }
    // Linux before 5.9.
    let names = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    let numbers: Vec<i32> = names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers.into_iter().filter(|number| *number >= 3) {
        // SAFETY: as above. Closing the descriptor of the listing itself, already closed, fails
        // without effect.
        unsafe { libc::close(number) };
    }
}

pub(super) fn gain_none(confinement: &mut Confinement) {
    let (state, detail) = match set_no_new_privs(true) {
        Ok(()) => (LayerState::InForce, "no_new_privs".to_owned()),
        Err(err) => (
            LayerState::Missing,
            format!("failed to set no_new_privs: {err}"),
        ),
    };
    confinement.add(Layer::NoNewPrivileges, state, detail);
}

/// Drops all capabilities; keeps [`OF_OTHERS_FILES`] if a granted folder belongs to another user.
pub(super) fn drop_capabilities(folders: &[Grant], confinement: &mut Confinement) {
    let own = geteuid().as_raw();
    let is_others = |grant: &Grant| {
        std::fs::metadata(&grant.host_path).is_ok_and(|metadata| metadata.uid() != own)
    };
    let kept = match capabilities(None) {
        Ok(had) if folders.iter().any(is_others) => had.effective & OF_OTHERS_FILES,
        _ => CapabilitySet::empty(),
    };
    // These fail for a process without capabilities, which has nothing to drop.
    let _ = clear_ambient_capability_set();
    for capability in CapabilitySet::all().iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    let (state, detail) = match set_capabilities(None, sets) {
        Ok(()) if kept.is_empty() => (LayerState::InForce, "none"),
        Ok(()) => (
            LayerState::InForce,
            "only DAC_OVERRIDE and FOWNER: a granted folder belongs to another user",
        ),
        Err(err) => {
            return confinement.add(
                Layer::Capabilities,
                LayerState::Missing,
                format!("failed to drop them: {err}"),
            );
        }
    };
    confinement.add(Layer::Capabilities, state, detail);
}

pub(super) fn hide_memory(confinement: &mut Confinement) {
    let no_core = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let (state, detail) = match hidden.and(no_core) {
        Ok(()) => (LayerState::InForce, "not dumpable".to_owned()),
        Err(err) => (LayerState::Missing, format!("failed to hide it: {err}")),
    };
    confinement.add(Layer::Memory, state, detail);
}
