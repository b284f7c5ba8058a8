//! Symbolic links with absolute paths that stay inside the folders of a call.
//!
//! The runtime resolves paths beneath one folder, where an absolute link leads out of it by
//! definition. But a link in `/data/in` to `/data/in/real` leads nowhere else. When the runtime has
//! refused a path, it is walked here, part by part, and each link in it is read: an absolute one
//! goes on in the folder of the call that its text begins with. What comes out is a path without
//! links below a folder of the call, which the runtime then resolves beneath that folder, with its
//! rights. So whoever changes the links meanwhile can make this walk fail, or make it end at
//! another file of the call's, and no more.

use std::fs::File;
use std::path::{Component, Path, PathBuf};

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorStat, ErrorCode, HostDescriptor, MetadataHashValue, PathFlags,
};

use super::errno::{self, forget_last};
use super::host::Host;
use super::lookup::GuestFolders;

/// WASI's `errno` for "operation not permitted", which the runtime has for a path that leads out of
/// a folder.
pub(super) const ERRNO_PERM: i32 = 63;

/// Links that are followed, as many as Linux does.
const MAX_LINKS: usize = 40;
/// Parts of the path, and of the links' texts, that are looked at.
const MAX_PARTS: usize = 256;

/// A path below a folder of the call.
#[derive(Debug, PartialEq)]
pub(super) struct Resolved {
    /// Which folder, in the order in which the guest got them.
    pub(super) folder: usize,
    /// The path below it, relative and without links.
    pub(super) path: String,
}

/// Why a path was not resolved.
#[derive(Debug, PartialEq)]
pub(super) enum NotResolved {
    /// No absolute link is in it; the runtime has answered already.
    NoAbsoluteLink,
    /// A link in it leads out of the folders of the call.
    LeadsOut {
        /// The link, on the host.
        link: PathBuf,
        /// What it says.
        target: PathBuf,
    },
}

impl GuestFolders {
    /// Resolves the links of a path.
    ///
    /// * `folder`: which folder the path is below.
    /// * `follow`: whether a link at the path's end is followed.
    pub(super) fn resolve(
        &self,
        folder: usize,
        path: &str,
        follow: bool,
    ) -> Result<Resolved, NotResolved> {
        let mut walk = Walk {
            folders: self,
            folder,
            done: PathBuf::new(),
            to_do: Vec::new(),
            met_absolute: false,
        };
        walk.add(Path::new(path));
        walk.run(follow || path.ends_with('/'))?;
        let path = walk
            .done
            .to_str()
            .filter(|_| walk.met_absolute)
            .ok_or(NotResolved::NoAbsoluteLink)?;
        let path = if path.is_empty() { "." } else { path };
        Ok(Resolved {
            folder: walk.folder,
            path: path.to_owned(),
        })
    }
}

/// Replaces `descriptor.stat-at` and `descriptor.metadata-hash-at` of WASI 0.2.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut types = linker.instance("wasi:filesystem/types@0.2.12")?;
    types.func_wrap_async("[method]descriptor.stat-at", |store, params| {
        Box::new(stat_at(store, params))
    })?;
    types.func_wrap_async("[method]descriptor.metadata-hash-at", |store, params| {
        Box::new(metadata_hash_at(store, params))
    })
}

/// Calls a method of the runtime that looks at a path, and returns its answer for the guest.
macro_rules! look_at {
    ($host:ident, $method:ident, $folder:ident, $flags:ident, $path:expr) => {{
        forget_last();
        let answer = $host
            .filesystem()
            .$method(Resource::new_borrow($folder.rep()), $flags, $path)
            .await;
        errno::answer(answer, &$host.warnings)?
    }};
}

type LookAt = (Resource<Descriptor>, PathFlags, String);

async fn stat_at(
    mut store: StoreContextMut<'_, Host>,
    (folder, flags, path): LookAt,
) -> wasmtime::Result<(Result<DescriptorStat, ErrorCode>,)> {
    let host = store.data_mut();
    let answer = look_at!(host, stat_at, folder, flags, path.clone());
    let Some((folder, path)) = host.resolve_again(&answer, &folder, flags, &path)? else {
        return Ok((answer,));
    };
    let answer = look_at!(host, stat_at, folder, flags, path);
    host.filesystem().table.delete(folder)?;
    Ok((answer,))
}

async fn metadata_hash_at(
    mut store: StoreContextMut<'_, Host>,
    (folder, flags, path): LookAt,
) -> wasmtime::Result<(Result<MetadataHashValue, ErrorCode>,)> {
    let host = store.data_mut();
    host.number_was_asked(folder.rep(), &path);
    let answer = look_at!(host, metadata_hash_at, folder, flags, path.clone());
    let Some((folder, path)) = host.resolve_again(&answer, &folder, flags, &path)? else {
        return Ok((answer,));
    };
    let answer = look_at!(host, metadata_hash_at, folder, flags, path);
    host.filesystem().table.delete(folder)?;
    Ok((answer,))
}

impl Host {
    /// Where a path leads that the runtime has refused, as preview 1 has it.
    pub(super) fn resolve_refused(
        &mut self,
        number: i32,
        path: &[u8],
        follow: bool,
    ) -> Option<(i32, String)> {
        let path = std::str::from_utf8(path).ok()?;
        let folder = self.folders.index_of_number(&mut self.wasi, number)?;
        let resolved = self.resolve(folder, path, follow)?;
        let number = self
            .folders
            .number_of_index(&mut self.wasi, resolved.folder)?;
        Some((number, resolved.path))
    }

    /// Where a path leads that the runtime has refused, as WASI 0.2 has it. The folder is a new
    /// resource, to be deleted.
    pub(super) fn resolve_refused_at(
        &mut self,
        folder: &Resource<Descriptor>,
        path: &str,
        follow: bool,
    ) -> wasmtime::Result<Option<(Resource<Descriptor>, String)>> {
        let Descriptor::Dir(dir) = self.filesystem().table.get(folder)?.clone() else {
            return Ok(None);
        };
        let resolved = self
            .folders
            .index_of_dir(&dir)
            .and_then(|folder| self.resolve(folder, path, follow));
        let Some(Resolved { folder, path }) = resolved else {
            return Ok(None);
        };
        let Some(dir) = self
            .folders
            .of_index(folder)
            .map(|folder| folder.dir.clone())
        else {
            return Ok(None);
        };
        Ok(Some((
            self.filesystem().table.push(Descriptor::Dir(dir))?,
            path,
        )))
    }

    /// [`Self::resolve_refused_at`], if the runtime has refused the path.
    fn resolve_again<T>(
        &mut self,
        answer: &Result<T, ErrorCode>,
        folder: &Resource<Descriptor>,
        flags: PathFlags,
        path: &str,
    ) -> wasmtime::Result<Option<(Resource<Descriptor>, String)>> {
        if !matches!(answer, Err(ErrorCode::NotPermitted)) {
            return Ok(None);
        }
        self.resolve_refused_at(folder, path, flags.contains(PathFlags::SYMLINK_FOLLOW))
    }

    /// Resolves the links of a path, and warns of one that leads out of the folders of the call.
    fn resolve(&mut self, folder: usize, path: &str, follow: bool) -> Option<Resolved> {
        match self.folders.resolve(folder, path, follow) {
            Ok(resolved) => Some(resolved),
            Err(NotResolved::NoAbsoluteLink) => None,
            Err(NotResolved::LeadsOut { link, target }) => {
                self.warnings.warn(&format!(
                    "{}: the symbolic link leads to {}, which tasks may not see; grant that \
                     folder as well, or put the \
                     files in place of the link",
                    link.display(),
                    target.display()
                ));
                None
            }
        }
    }
}

struct Walk<'a> {
    folders: &'a GuestFolders,
    folder: usize,
    /// The path so far, without links.
    done: PathBuf,
    /// Parts that follow, the next one last.
    to_do: Vec<PathBuf>,
    met_absolute: bool,
}

impl Walk<'_> {
    fn run(&mut self, follow: bool) -> Result<(), NotResolved> {
        let (mut n_links, mut n_parts) = (0, 0);
        while let Some(part) = self.to_do.pop() {
            n_parts += 1;
            if n_parts > MAX_PARTS {
                return Err(NotResolved::NoAbsoluteLink);
            }
            if part == Path::new("..") {
                if !self.done.pop() {
                    return Err(NotResolved::NoAbsoluteLink);
                }
                continue;
            }
            let path = self.done.join(part);
            let is_followed = follow || !self.to_do.is_empty();
            let folder = self.folders.of_index(self.folder).filter(|_| is_followed);
            match folder.and_then(|folder| read_link(&folder.dir.dir, &path)) {
                None => self.done = path,
                Some(target) => {
                    n_links += 1;
                    if n_links > MAX_LINKS {
                        return Err(NotResolved::NoAbsoluteLink);
                    }
                    self.follow(path, target)?;
                }
            }
        }
        Ok(())
    }

    fn follow(&mut self, link: PathBuf, target: PathBuf) -> Result<(), NotResolved> {
        if target.is_relative() {
            self.add(&target);
            return Ok(());
        }
        let Some((folder, rest)) = self.folders.holding(&target) else {
            let folder = self.folders.of_index(self.folder);
            let link =
                folder.map_or_else(|| link.clone(), |folder| folder.host_paths[0].join(&link));
            return Err(NotResolved::LeadsOut { link, target });
        };
        self.met_absolute = true;
        self.folder = folder;
        self.done = PathBuf::new();
        self.add(&rest);
        Ok(())
    }

    fn add(&mut self, path: &Path) {
        let parts = path
            .components()
            .rev()
            .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
        self.to_do
            .extend(parts.map(|part| PathBuf::from(part.as_os_str())));
    }
}

/// The text of the link at a path, if there is one and no other link leads to it.
#[cfg(target_os = "linux")]
fn read_link(folder: &File, path: &Path) -> Option<PathBuf> {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2, readlinkat};

    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let link = openat2(folder, path, flags, Mode::empty(), resolve).ok()?;
    // The system has an error for what is no link.
    let text = readlinkat(&link, "", Vec::new()).ok()?;
    Some(OsString::from_vec(text.into_bytes()).into())
}

/// Without a way to open a path beneath a folder, no link is read.
#[cfg(not(target_os = "linux"))]
fn read_link(_: &File, _: &Path) -> Option<PathBuf> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::fs::symlink;

    use wasmtime_wasi::FsPerms;
    use wasmtime_wasi::filesystem::{Dir, OpenMode};

    use super::*;
    use crate::sandbox::lookup::GuestFolder;

    /// Two folders of a call, `a` and `b`, with links in the first, and what a path below it comes
    /// to.
    #[track_caller]
    fn check(
        links: &[(&str, &str)],
        path: &str,
        follow: bool,
        expected: Result<(usize, &str), &str>,
    ) {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path().canonicalize().expect("there");
        for name in ["a/deep", "b/other"] {
            std::fs::create_dir_all(root.join(name)).expect("made");
        }
        for (link, target) in links {
            symlink(
                target.replace('@', root.to_str().expect("UTF-8")),
                root.join("a").join(link),
            )
            .expect("made");
        }
        let folder = |name: &str| GuestFolder {
            name: root.join(name).to_str().expect("UTF-8").to_owned(),
            host_paths: [root.join("alias").join(name), root.join(name)],
            dir: Dir::new(
                File::open(root.join(name)).expect("there"),
                FsPerms::ReadOnly,
                OpenMode::READ,
                true,
            ),
        };
        let resolved = GuestFolders::new(vec![folder("a"), folder("b")]).resolve(0, path, follow);
        match expected {
            Ok((folder, path)) => assert_eq!(
                resolved,
                Ok(Resolved {
                    folder,
                    path: path.to_owned()
                })
            ),
            Err("") => assert_eq!(resolved, Err(NotResolved::NoAbsoluteLink)),
            Err(link) => {
                assert!(
                    matches!(&resolved, Err(NotResolved::LeadsOut { link: found, .. }) if *found == root.join("alias/a").join(link))
                );
            }
        }
    }

    #[test]
    fn absolute_links_lead_to_folders_of_the_call() {
        check(&[("l", "@/a/deep")], "l", true, Ok((0, "deep")));
        check(
            &[("l", "@/a/deep")],
            "l/new.txt",
            false,
            Ok((0, "deep/new.txt")),
        );
        check(&[("l", "@/a/deep")], "l/", false, Ok((0, "deep")));
        check(&[("l", "@/a")], "./l", true, Ok((0, ".")));
        check(
            &[("l", "@/b/other/x")],
            "deep/../l",
            true,
            Ok((1, "other/x")),
        );
        check(
            &[("l", "m"), ("m", "deep/n"), ("deep/n", "@/b")],
            "l/other",
            true,
            Ok((1, "other")),
        );
        check(
            &[("l", "@/a/m/x"), ("m", "deep")],
            "l",
            true,
            Ok((0, "deep/x")),
        );
        check(&[("l", "@/alias/a/deep")], "l/x", true, Ok((0, "deep/x")));
        check(&[("l", "@/a/deep/..")], "l/x", true, Ok((0, "x")));
    }

    #[test]
    fn others_are_left_to_the_runtime() {
        check(&[("l", "@/a/deep")], "l", false, Err(""));
        check(&[("l", "deep")], "l", true, Err(""));
        check(&[("l", "../b")], "l", true, Err(""));
        check(&[("l", "@/a/../b")], "l", true, Err(""));
        check(&[("l", "@/a/l")], "l", true, Err(""));
        check(&[("l", "@/a/m"), ("m", "@/a/l")], "l/x", true, Err(""));
        check(&[("l", "@/a/deep")], &"deep/../".repeat(200), true, Err(""));
        check(&[("l", "@/ab")], "l", true, Err("l"));
        check(&[("l", "/")], "l/etc/passwd", true, Err("l"));
        check(
            &[("deep/l", "m"), ("deep/m", "@")],
            "deep/l",
            true,
            Err("deep/m"),
        );
    }
}
