//! What a child gives up before it runs a guest: a second wall behind the sandbox.

#[cfg(target_os = "linux")]
pub(super) use linux::confine;

/// Confines nothing where there is no Landlock, and says so.
#[cfg(not(target_os = "linux"))]
pub(super) fn confine(_: &[crate::sandbox::Grant]) -> String {
    "no confinement on this system: the sandbox is the only wall".to_owned()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;

    use landlock::{
        ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
        RulesetStatus, path_beneath_rules,
    };

    use crate::sandbox::{Grant, Rights};

    /// The newest Landlock that is asked for; an older kernel gives what it has.
    const NEWEST: ABI = ABI::V6;

    /// Keeps this process, for ever, from all files but those below `folders` and from the network; and from gaining
    /// privileges. Returns what is in force, in one line.
    pub(in super::super) fn confine(folders: &[Grant]) -> String {
        // A parent that dies leaves no child behind.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        let no_new_privileges = rustix::thread::set_no_new_privs(true).is_ok();
        let landlock = match restrict(folders) {
            Ok(RulesetStatus::FullyEnforced) => "Landlock: files and network",
            Ok(RulesetStatus::PartiallyEnforced) => "Landlock: as far as this kernel has it",
            Ok(RulesetStatus::NotEnforced) | Err(_) => "no Landlock on this kernel: the sandbox is the only wall",
        };
        let privileges = if no_new_privileges { "no new privileges" } else { "no_new_privs could not be set" };
        format!("{landlock}; {privileges}")
    }

    fn restrict(folders: &[Grant]) -> Result<RulesetStatus, landlock::RulesetError> {
        let of = |rights: Rights| {
            let granted = folders.iter().filter(move |grant| grant.rights == rights);
            granted.map(|grant| grant.host_path.as_path()).filter(|path| Path::exists(path))
        };
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        // Everything but what makes or opens special files and runs programs.
        let write = read
            | AccessFs::WriteFile
            | AccessFs::RemoveDir
            | AccessFs::RemoveFile
            | AccessFs::MakeDir
            | AccessFs::MakeReg
            | AccessFs::MakeSym
            | AccessFs::Refer
            | AccessFs::Truncate;
        let status = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .create()?
            .add_rules(path_beneath_rules(of(Rights::ReadOnly), read))?
            .add_rules(path_beneath_rules(of(Rights::ReadWrite), write))?
            .restrict_self()?;
        Ok(status.ruleset)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_not_granted_is_out_of_reach() {
            let folder = tempfile::tempdir().expect("a folder");
            let path = |name: &str| folder.path().join(name);
            for name in ["in", "out", "other"] {
                std::fs::create_dir(path(name)).expect("made");
                std::fs::write(path(name).join("file"), name).expect("written");
            }
            let grant = |name: &str, rights| Grant { host_path: path(name), guest_path: String::new(), rights };
            let grants = [grant("in", Rights::ReadOnly), grant("out", Rights::ReadWrite)];
            // Landlock holds for the thread that asks for it.
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let in_force = confine(&grants);
                    if in_force.starts_with("no Landlock") {
                        return;
                    }
                    let read = |name: &str| std::fs::read(path(name).join("file")).is_ok();
                    assert_eq!([read("in"), read("out"), read("other")], [true, true, false]);
                    let write = |name: &str| std::fs::write(path(name).join("new"), "x").is_ok();
                    assert_eq!([write("in"), write("out"), write("other")], [false, true, false]);
                    assert!(std::net::TcpListener::bind("127.0.0.1:0").is_err() || !in_force.contains("network"));
                });
            });
        }
    }
}
