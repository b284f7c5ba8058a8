//! Opening a folder into which nobody but this user and root can have put anything.
//!
//! What is in the cache of compiled modules runs as native code. That the folder is the user's own
//! is not enough: whoever can write to one of the folders above it can put another in its place,
//! between two uses or before the first. So the path is walked from the root, each folder opened
//! from the one before, and each must be as `StrictModes` of OpenSSH has it: owned by the user or
//! by root, and writable by nobody else. A sticky folder such as `/tmp` may be written to by all,
//! since nobody can replace there what is another's. A link is followed if it lies in such a folder
//! and belongs to the user or to root.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, readlinkat, statat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::folder::Folder;

/// Links on a path that are followed at most, as by Linux.
const MAX_LINKS: u32 = 40;
/// Flags that open a folder to look up what is in it, which needs no right to list it.
#[cfg(target_os = "linux")]
const WALK_FLAGS: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const WALK_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// The mode of what is created.
const PRIVATE: Mode = Mode::RWXU;
/// Bits of a mode.
const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_OTHERS: u32 = 0o002;
const STICKY: u32 = 0o1000;
const ANYTHING_FOR_OTHERS: u32 = 0o077;

/// Opens a folder of this user's alone, which is created if it is not there, with the folders above
/// it.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] with a sentence for the user if another user could have put something there; else the
/// operating system's.
pub(super) fn open_private(path: &Path) -> io::Result<Folder> {
    let path = std::path::absolute(path)?;
    let mut at = Folder::from(openat(CWD, "/", WALK_FLAGS, Mode::empty())?);
    let mut reached = PathBuf::from("/");
    check_above(&fstat(&at)?, &reached)?;
    // What is still to be walked, the next last.
    let mut pending = parts(&path);
    let mut n_links = 0;
    while let Some(name) = pending.pop() {
        let is_last = pending.is_empty();
        if name == ".." {
            reached.pop();
        } else {
            reached.push(&name);
        }
        match statat(&at, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => match mkdirat(&at, &name, PRIVATE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(err) => return Err(err.into()),
            },
            Ok(link) if FileType::from_raw_mode(link.st_mode) == FileType::Symlink && !is_last => {
                if !is_trusted(link.st_uid) {
                    return refuse(format!(
                        "the link {} belongs to another user",
                        reached.display()
                    ));
                }
                n_links += 1;
                if n_links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = PathBuf::from(OsString::from_vec(
                    readlinkat(&at, &name, Vec::new())?.into_bytes(),
                ));
                pending.extend(parts(&target));
                reached.pop();
                if target.is_absolute() {
                    at = Folder::from(openat(CWD, "/", WALK_FLAGS, Mode::empty())?);
                    reached = PathBuf::from("/");
                }
                continue;
            }
            found => drop(found?),
        }
        at = match openat(&at, &name, WALK_FLAGS, Mode::empty()) {
            Ok(folder) => Folder::from(folder),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => {
                return refuse(format!("{} is not a folder", reached.display()));
            }
            Err(err) => return Err(err.into()),
        };
        if !is_last {
            check_above(&fstat(&at)?, &reached)?;
        }
    }
    check_private(&fstat(&at)?, &reached)?;
    at.open_folder(".")
}

/// The components of a path, the last first, without what only says where it begins.
fn parts(path: &Path) -> Vec<OsString> {
    let is_walked =
        |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components()
        .rev()
        .filter(is_walked)
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// The folder itself: the user's, and closed to all others.
fn check_private(stat: &Stat, path: &Path) -> io::Result<()> {
    let path = path.display();
    if stat.st_uid != geteuid().as_raw() {
        return refuse(format!("{path} belongs to another user"));
    }
    if mode(stat) & ANYTHING_FOR_OTHERS != 0 {
        return refuse(format!(
            "other users can get into {path}; make its mode 0700"
        ));
    }
    Ok(())
}

/// A folder above it: only the user and root can put something else in place of what is in it.
fn check_above(stat: &Stat, path: &Path) -> io::Result<()> {
    let path = path.display();
    let mode = mode(stat);
    if !is_trusted(stat.st_uid) {
        return refuse(format!(
            "{path} belongs to another user (uid {}), who could put other code there; name \
             another folder with XDG_CACHE_HOME",
            stat.st_uid
        ));
    }
    let is_open = mode & WRITABLE_BY_OTHERS != 0
        || (mode & WRITABLE_BY_GROUP != 0 && !is_own_group(stat.st_gid));
    if is_open && mode & STICKY == 0 {
        return refuse(format!(
            "other users can write to {path}, and so put other code there; take that right away \
             (chmod go-w), or name \
             another folder with XDG_CACHE_HOME"
        ));
    }
    Ok(())
}

/// The mode, whose type differs between systems.
#[allow(
    clippy::useless_conversion,
    reason = "it is of another type on other systems"
)]
fn mode(stat: &Stat) -> u32 {
    u32::from(stat.st_mode)
}

fn refuse<T>(text: String) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// Whether a user could change what this one runs anyway.
fn is_trusted(uid: u32) -> bool {
    uid == geteuid().as_raw() || uid == 0 || is_unmapped_root(uid)
}

/// Whether a group has no member but this user, as many systems create one for each user. Only what
/// the files of this machine say counts: a group from elsewhere may have any members.
fn is_own_group(gid: u32) -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let uid = geteuid().as_raw();
    let (passwd, groups) = (read("/etc/passwd"), read("/etc/group"));
    let accounts: Vec<Vec<&str>> = passwd
        .lines()
        .map(|line| line.split(':').collect())
        .collect();
    let number = |fields: &[&str], index: usize| fields.get(index)?.parse::<u32>().ok();
    let of_group = || {
        accounts
            .iter()
            .filter(|account| number(account, 3) == Some(gid))
    };
    let is_own_account = |account: &Vec<&str>| number(account, 2) == Some(uid);
    let groups = groups
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let group = groups
        .into_iter()
        .find(|group| number(group, 2) == Some(gid));
    let is_member = |name: &&str| {
        accounts
            .iter()
            .filter(|account| is_own_account(account))
            .any(|own| own[0] == *name)
    };
    let has_others = |members: &str| {
        members
            .split(',')
            .filter(|name| !name.is_empty())
            .any(|name| !is_member(&name))
    };
    of_group().count() > 0
        && of_group().all(is_own_account)
        && group.is_some_and(|group| !has_others(group.get(3).unwrap_or(&"")))
}

/// Whether a number is what stands for root's where this process runs in a user namespace that has
/// no root, as containers of ordinary users do. It stands for all others that the namespace does
/// not have too, which cannot be told apart.
#[cfg(target_os = "linux")]
fn is_unmapped_root(uid: u32) -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let map = read("/proc/self/uid_map");
    let has_root = map
        .lines()
        .any(|line| line.split_whitespace().next() == Some("0"));
    !map.is_empty() && !has_root && read("/proc/sys/kernel/overflowuid").trim().parse() == Ok(uid)
}

#[cfg(not(target_os = "linux"))]
fn is_unmapped_root(_: u32) -> bool {
    false
}
