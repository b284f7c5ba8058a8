//! Opening of a folder that only this user and root can have written to.
//!
//! The cache of compiled modules contains native code that this user runs. It is not sufficient
//! that the folder belongs to the user: whoever can write to a folder above it can replace it,
//! between two uses or before the first one. So the path is walked from the root, and each folder
//! is opened from the previous one. Each folder must meet the rules of OpenSSH's `StrictModes`: it
//! belongs to the user or to root, and nobody else can write to it.
//!
//! A sticky folder such as `/tmp` may be writable for all, since nobody can replace the files of
//! others there. A link is followed if it is in such a folder and belongs to the user or to root.

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

/// Maximum number of links to follow on a path, the same as on Linux.
const MAX_LINKS: u32 = 40;
/// Flags that open a folder to look up its entries. This needs no permission to list the folder.
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
/// Mode of a folder that is created.
const PRIVATE: Mode = Mode::RWXU;
/// Bits of a mode.
const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_OTHERS: u32 = 0o002;
const STICKY: u32 = 0o1000;
const ANYTHING_FOR_OTHERS: u32 = 0o077;

/// Opens a folder that is private to this user. The folder and those above it are created if they
/// do not exist.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] with a sentence for the user if another user could have
/// written to the folder. Otherwise the operating system's error.
pub(crate) fn open_private(path: &Path) -> io::Result<Folder> {
    let path = std::path::absolute(path)?;
    let mut at = Folder::from(openat(CWD, "/", WALK_FLAGS, Mode::empty())?);
    let mut reached = PathBuf::from("/");
    check_above(&fstat(&at)?, &reached)?;
    // Components that remain to be walked, the next one last.
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
    // The walk has opened the folder for lookups only.
    at.open_folder(".")
}

/// Returns the components of a path, the last one first, without the root.
fn parts(path: &Path) -> Vec<OsString> {
    let is_walked =
        |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components()
        .rev()
        .filter(is_walked)
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// Checks the folder itself, which must belong to the user and be closed to all others.
fn check_private(stat: &Stat, path: &Path) -> io::Result<()> {
    let path = path.display();
    if stat.st_uid != geteuid().as_raw() {
        return refuse(format!("{path} belongs to another user"));
    }
    if mode(stat) & ANYTHING_FOR_OTHERS != 0 {
        return refuse(format!(
            "other users can access {path}; set its mode to 0700"
        ));
    }
    Ok(())
}

/// Checks a folder above it, whose entries only the user and root may be able to replace.
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
            "other users can write to {path} and could put other code there; remove their write \
             permission (chmod go-w), or name another folder with XDG_CACHE_HOME"
        ));
    }
    Ok(())
}

/// Returns the mode, whose type differs between systems.
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

/// Returns true for a user who can change what this user runs in any case.
fn is_trusted(uid: u32) -> bool {
    uid == geteuid().as_raw() || uid == 0 || is_unmapped_root(uid)
}

/// Returns true if this user is the only member of a group. Many systems create such a group for
/// each user. Only groups in the files of this machine count: a group from elsewhere may have any
/// members.
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

/// Returns true if a user ID represents root in a user namespace that does not map root, as in
/// containers of ordinary users. The same ID represents all other users that the namespace does not
/// map, and they cannot be distinguished from root.
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
