//! Confinement of a worker process before it runs a guest: a second wall behind the WebAssembly
//! sandbox, for code that has escaped from it.
//!
//! Confinement is irrevocable and holds for threads that are started later. A layer that the kernel
//! or an outer sandbox lacks is reported and skipped: the worker runs without it.

#[cfg(target_os = "linux")]
mod landlock_layers;
#[cfg(target_os = "linux")]
mod privileges;
#[cfg(target_os = "linux")]
mod system_calls;

use super::layers::{Confinement, Layer};
use crate::model::Grant;

#[cfg(all(feature = "cli", target_os = "linux"))]
pub(crate) use privileges::close_inherited_files;

/// Confines this process, which must have a single thread.
///
/// * `folders`: all folders that its guests may access.
/// * `layers`: the layers to set up; tests leave some out.
#[cfg(target_os = "linux")]
pub(super) fn confine(folders: &[Grant], layers: &[Layer]) -> Confinement {
    use super::layers::LayerState;

    let mut confinement = Confinement::default();
    let has = |layer| layers.contains(&layer);
    // A worker does not outlive its parent.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    // The order matters: Landlock and seccomp need no_new_privs, and the seccomp filter refuses the
    // system calls that set up the other layers.
    if has(Layer::NoNewPrivileges) {
        privileges::gain_none(&mut confinement);
    }
    landlock_layers::restrict(folders, &has, &mut confinement);
    if has(Layer::Capabilities) {
        privileges::drop_capabilities(folders, &mut confinement);
    }
    if has(Layer::Memory) {
        privileges::hide_memory(&mut confinement);
    }
    if has(Layer::SystemCalls) {
        system_calls::restrict(&mut confinement);
    }
    for layer in Layer::ALL.into_iter().filter(|layer| !has(*layer)) {
        confinement.add(layer, LayerState::Missing, "turned off by a test");
    }
    confinement.0.sort_by_key(|report| report.layer);
    confinement
}

/// Reports every layer as missing.
#[cfg(not(target_os = "linux"))]
pub(super) fn confine(_: &[Grant], _: &[Layer]) -> Confinement {
    let mut confinement = Confinement::default();
    for layer in Layer::ALL {
        confinement.add(
            layer,
            super::layers::LayerState::Missing,
            "not available on this system",
        );
    }
    confinement
}

/// Does nothing on this system.
#[cfg(all(feature = "cli", not(target_os = "linux")))]
pub(crate) fn close_inherited_files() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::super::layers::LayerState;
    use super::*;
    use crate::model::Rights;

    #[test]
    fn what_is_not_granted_is_out_of_reach() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["in", "out", "other"] {
            std::fs::create_dir(path(name)).expect("made");
            std::fs::write(path(name).join("file"), name).expect("written");
        }
        let grant = |name: &str, rights| Grant::new(path(name), "", rights);
        let grants = [
            grant("in", Rights::ReadOnly),
            grant("out", Rights::ReadWrite),
        ];
        // These two hold for the thread that asks for them.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let confinement = confine(&grants, &[Layer::Files, Layer::Network]);
                if confinement.state(Layer::Files) == LayerState::Missing {
                    return;
                }
                let read = |name: &str| std::fs::read(path(name).join("file")).is_ok();
                assert_eq!(
                    [read("in"), read("out"), read("other")],
                    [true, true, false]
                );
                let write = |name: &str| std::fs::write(path(name).join("new"), "x").is_ok();
                assert_eq!(
                    [write("in"), write("out"), write("other")],
                    [false, true, false]
                );
                let is_kept_off = std::net::TcpListener::bind("127.0.0.1:0").is_err();
                assert!(is_kept_off || confinement.state(Layer::Network) == LayerState::Missing);
                assert_eq!(confinement.0.len(), Layer::ALL.len());
                assert_eq!(confinement.state(Layer::SystemCalls), LayerState::Missing);
            });
        });
    }
}
