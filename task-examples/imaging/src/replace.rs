//! Puts a new folder or file in the place of an old one, so that one of the two is there whole at
//! any moment that counts.

use crate::about;
use fractal_task::TaskError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Makes a folder and puts it in the place of `target`, whether something is there or not.
///
/// It is made beside `target`, under the same name with `.part`; the old folder is `.old` for the
/// moment in which the new one takes its place. A task that is killed in between and called again
/// finds its way: see [`recover`].
///
/// * `make`: fills the empty folder that it gets.
///
/// # Errors
/// Those of `make`, and if a folder cannot be moved or removed. The old folder is still there then.
pub fn replace_folder<T>(
    target: &Path,
    make: impl FnOnce(&Path) -> Result<T, TaskError>,
) -> Result<T, TaskError> {
    let mut make = Some(make);
    let mut made = None;
    replace(target, &mut |part| {
        if let Some(make) = make.take() {
            made = Some(make(part)?);
        }
        Ok(())
    })?;
    Ok(made.expect("the folder was filled"))
}

/// [`replace_folder`] without a result, so that its code is in the module once.
fn replace(
    target: &Path,
    make: &mut dyn FnMut(&Path) -> Result<(), TaskError>,
) -> Result<(), TaskError> {
    recover(target)?;
    let (part, old) = (with_ending(target, ".part"), with_ending(target, ".old"));
    remove_folder(&part)?;
    let made = fs::create_dir_all(&part)
        .map_err(about("cannot make the folder", &part))
        .and_then(|()| make(&part));
    let moved = made.and_then(|()| {
        match fs::rename(target, &old) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(about("cannot move", target)(err));
            }
            _ => {}
        }
        fs::rename(&part, target).map_err(about("cannot move the new folder to", target))?;
        Ok(())
    });
    match moved {
        Ok(()) => remove_folder(&old),
        Err(err) => {
            // The first error is the one to report.
            let _ = recover(target);
            let _ = remove_folder(&part);
            Err(err)
        }
    }
}

/// Makes a file and puts it in the place of `target`, whether something is there or not. It is made
/// beside `target`, under the same name with `.part`.
///
/// * `make`: writes the file under the name that it gets.
///
/// # Errors
/// Those of `make`, and if the file cannot be moved. The old file is still there then.
pub fn replace_file(
    target: &Path,
    make: impl FnOnce(&Path) -> Result<(), TaskError>,
) -> Result<(), TaskError> {
    let part = with_ending(target, ".part");
    let moved = make(&part).and_then(|()| {
        fs::rename(&part, target).map_err(about("cannot move the new file to", target))
    });
    if moved.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&part);
    }
    moved
}

/// Ends what a killed call of [`replace_folder`] began: the old folder goes back where there is no
/// new one, and away where there is.
///
/// # Errors
/// If a folder cannot be moved or removed.
pub fn recover(target: &Path) -> Result<(), TaskError> {
    let old = with_ending(target, ".old");
    let is_there = |path: &Path| path.try_exists().map_err(about("cannot look for", path));
    match (is_there(&old)?, is_there(target)?) {
        (false, _) => Ok(()),
        (true, true) => remove_folder(&old),
        (true, false) => fs::rename(&old, target).map_err(about("cannot move back", &old)),
    }
}

fn remove_folder(folder: &Path) -> Result<(), TaskError> {
    match fs::remove_dir_all(folder) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(about("cannot remove", folder)(err))
        }
        _ => Ok(()),
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(begin: impl FnOnce(&Path), made: Result<(), &str>, expected: Result<&str, &str>) {
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("imaging-replace-{}-{n}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let target = folder.join("0");
        begin(&target);
        let result = replace_folder(&target, |part| {
            fs::write(part.join("new"), "").unwrap();
            made.map_err(TaskError::new)
        });
        assert_eq!(
            result.map_err(|err| err.to_string()),
            expected.map(|_| ()).map_err(str::to_owned)
        );
        if let Ok(file) = expected {
            assert!(target.join(file).exists());
            assert_eq!(fs::read_dir(&target).unwrap().count(), 1);
        } else if target.exists() {
            assert!(target.join("old").exists(), "the old folder stays");
        }
        let left = fs::read_dir(&folder)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name() != "0")
            .count();
        assert_eq!(left, 0, "nothing else stays");
        fs::remove_dir_all(&folder).unwrap();
    }

    fn make_old(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("old"), "").unwrap();
    }

    #[test]
    fn the_new_folder_replaces_the_old_one() {
        check(|_| {}, Ok(()), Ok("new"));
        check(make_old, Ok(()), Ok("new"));
    }

    #[test]
    fn a_failure_leaves_the_old_folder() {
        check(make_old, Err("full"), Err("full"));
        check(|_| {}, Err("full"), Err("full"));
    }

    #[test]
    fn a_file_takes_the_place_when_it_is_whole() {
        let folder =
            std::env::temp_dir().join(format!("imaging-replace-file-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let target = folder.join("a.csv");
        let write = |text: &'static str| {
            move |part: &Path| {
                fs::write(part, text).unwrap();
                if text == "half" {
                    Err(TaskError::new("full"))
                } else {
                    Ok(())
                }
            }
        };
        replace_file(&target, write("old")).unwrap();
        assert_eq!(
            replace_file(&target, write("half"))
                .unwrap_err()
                .to_string(),
            "full"
        );
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
        replace_file(&target, write("new")).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_killed_call_is_ended_by_the_next() {
        // Killed while the new folder was made, between the two moves, and before the old folder
        // was removed.
        check(
            |target| make_old(&with_ending(target, ".part")),
            Ok(()),
            Ok("new"),
        );
        check(
            |target| make_old(&with_ending(target, ".old")),
            Err("full"),
            Err("full"),
        );
        check(
            |target| {
                make_old(&with_ending(target, ".old"));
                make_old(target);
            },
            Ok(()),
            Ok("new"),
        );
    }
}
