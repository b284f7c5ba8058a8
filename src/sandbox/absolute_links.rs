//! Resolution of symbolic links with absolute paths that stay inside the folders of a call.
//!
//! The runtime resolves a path beneath one folder, so it refuses every absolute link, even a link
//! in `/data/in` to `/data/in/real`. When the runtime has refused a path, this module walks the
//! path component by component and reads each link. An absolute link continues in the folder of the
//! call with whose path its target starts. The result is a path without links below a folder of the
//! call. The runtime then resolves this path beneath that folder and applies the rights of the
//! folder.
//!
//! The walk is not a security boundary, because the runtime checks its result. Somebody who changes
//! links during the walk can only make it fail, or make it end at another file of the same call.

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

/// Maximum number of links to follow, the same as on Linux.
const MAX_LINKS: usize = 40;
/// Maximum number of components to walk, of the path and of the targets of its links.
const MAX_PARTS: usize = 256;

/// Path below a folder of the call.
#[derive(Debug, PartialEq)]
pub(super) struct Resolved {
    /// Index of the folder, in the order in which the guest got the folders.
    pub(super) folder: usize,
    /// Relative path below the folder, without links.
    pub(super) path: String,
}

/// Reason why a path was not resolved.
#[derive(Debug, PartialEq)]
pub(super) enum NotResolved {
    /// No absolute link was resolved, so the answer of the runtime is final.
    NoAbsoluteLink,
    /// A link leads out of the folders of the call.
    LeadsOut {
        /// Path of the link on the host.
        link: PathBuf,
        /// Target of the link.
        target: PathBuf,
    },
}

impl GuestFolders {
    /// Resolves the links of a path.
    ///
    /// * `folder`: index of the folder that the path is relative to.
    /// * `follow`: true to follow a link at the end of the path.
    pub(super) fn resolve(
        &self,
        folder: usize,
        path: &str,
        follow: bool,
    ) -> Result<Resolved, NotResolved> {
        let mut walk = Walk {
            folders: self,
            folder,
            resolved: PathBuf::new(),
            remaining: Vec::new(),
            has_absolute_link: false,
        };
        walk.add(Path::new(path));
        walk.run(follow || path.ends_with('/'))?;
        let path = walk
            .resolved
            .to_str()
            .filter(|_| walk.has_absolute_link)
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

/// Calls a method of the runtime that looks up a path, and converts its answer for the guest.
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
    host.note_number_lookup(folder.rep(), &path);
    let answer = look_at!(host, metadata_hash_at, folder, flags, path.clone());
    let Some((folder, path)) = host.resolve_again(&answer, &folder, flags, &path)? else {
        return Ok((answer,));
    };
    let answer = look_at!(host, metadata_hash_at, folder, flags, path);
    host.filesystem().table.delete(folder)?;
    Ok((answer,))
}

impl Host {
    /// Resolves a path of preview 1 that the runtime has refused. Returns the number of a folder
    /// and the path below it.
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

    /// Resolves a path of WASI 0.2 that the runtime has refused. The folder that it returns is a
    /// new resource, which the caller must delete.
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

    /// Calls [`Self::resolve_refused_at`] if the runtime has refused the path.
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

    /// Resolves the links of a path, and warns about a link that leads out of the folders of the
    /// call.
    fn resolve(&mut self, folder: usize, path: &str, follow: bool) -> Option<Resolved> {
        match self.folders.resolve(folder, path, follow) {
            Ok(resolved) => Some(resolved),
            Err(NotResolved::NoAbsoluteLink) => None,
            Err(NotResolved::LeadsOut { link, target }) => {
                self.warnings.warn(&format!(
                    "{}: the symbolic link leads to {}, which tasks cannot access; grant that \
                     folder as well, or replace the link by the files",
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
    /// Path so far, without links.
    resolved: PathBuf,
    /// Components that remain to be walked, the next one last.
    remaining: Vec<PathBuf>,
    has_absolute_link: bool,
}

impl Walk<'_> {
    fn run(&mut self, follow: bool) -> Result<(), NotResolved> {
        let (mut n_links, mut n_parts) = (0, 0);
        while let Some(part) = self.remaining.pop() {
            n_parts += 1;
            if n_parts > MAX_PARTS {
                return Err(NotResolved::NoAbsoluteLink);
            }
            if part == Path::new("..") {
                if !self.resolved.pop() {
                    return Err(NotResolved::NoAbsoluteLink);
                }
                continue;
            }
            let path = self.resolved.join(part);
            let is_followed = follow || !self.remaining.is_empty();
            let folder = self.folders.of_index(self.folder).filter(|_| is_followed);
            match folder.and_then(|folder| read_link(&folder.dir.dir, &path)) {
                None => self.resolved = path,
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
        self.has_absolute_link = true;
        self.folder = folder;
        self.resolved = PathBuf::new();
        self.add(&rest);
        Ok(())
    }

    fn add(&mut self, path: &Path) {
        let parts = path
            .components()
            .rev()
            .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
        self.remaining
            .extend(parts.map(|part| PathBuf::from(part.as_os_str())));
    }
}

/// Returns the target of the link at a path. `None` if the file is not a link, or if the path
/// passes through another link.
#[cfg(target_os = "linux")]
fn read_link(folder: &File, path: &Path) -> Option<PathBuf> {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2, readlinkat};

    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let link = openat2(folder, path, flags, Mode::empty(), resolve).ok()?;
    // This fails if the file is not a link.
    let text = readlinkat(&link, "", Vec::new()).ok()?;
    Some(OsString::from_vec(text.into_bytes()).into())
}

/// Returns `None`, since this system cannot open a path beneath a folder.
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

    /// Resolves a path in folder `a` of the two folders `a` and `b` of a call. The links are
    /// created in `a`, with `@` in a target replaced by the folder that contains both.
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
