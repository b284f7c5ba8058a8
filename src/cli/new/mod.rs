//! `mandelbox new`: a task package that builds and runs as it is.

mod name;
mod templates;

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Answer;
use crate::cli::author_arguments::NewArguments;
use crate::cli::shared_arguments::FractalArgument;
use crate::run::exit_code;
use crate::text::escaped;
use crate::text::wording::shell_word;
use name::check_name;
use templates::Template;

pub(super) use templates::{Kind, Language};

pub(super) fn new(arguments: &NewArguments) -> Answer {
    let (folder, template) = match checked(arguments) {
        Ok(checked) => checked,
        Err(text) => return Answer::text(format!("error: {text}\n"), exit_code::WRONG_INPUT),
    };
    let name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let version = arguments.fractal;
    match create(&folder, template.files(&name, version)) {
        Ok(()) => Answer::text(
            next_steps(&folder, &name, template, version),
            exit_code::SUCCESS,
        ),
        Err(err) => {
            let text = format!(
                "error: failed to create {}: {err}\n",
                escaped(&folder.to_string_lossy())
            );
            Answer::text(text, exit_code::HOST_FAILED)
        }
    }
}

/// Checks the arguments. Returns the absolute path of the package's folder, and its template.
///
/// # Errors
/// A message for the user.
fn checked(arguments: &NewArguments) -> Result<(PathBuf, &'static Template), String> {
    let template = Template::find(arguments.lang, arguments.kind).ok_or(
        "no template for this language and kind; write typed tasks in rust, python or js, and \
         commands in rust, c or go",
    )?;
    let shown = escaped(&arguments.name.to_string_lossy());
    let name = arguments
        .name
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    check_name(name, template)
        .map_err(|text| format!("{shown}: not a valid package name: {text}"))?;
    let folder = std::path::absolute(&arguments.name)
        .map_err(|err| format!("{shown}: has no absolute path: {err}"))?;
    if !folder.parent().is_some_and(Path::is_dir) {
        return Err(format!(
            "{shown}: its parent folder does not exist; create it first"
        ));
    }
    match std::fs::read_dir(&folder) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(format!(
                "{shown}: exists and is not empty; choose another name"
            )),
            None => Ok((folder, template)),
        },
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok((folder, template)),
        Err(err) => Err(format!("{shown}: cannot be created: {err}")),
    }
}

/// Creates the folder with all files, or not at all.
fn create(folder: &Path, files: impl Iterator<Item = (&'static str, Vec<u8>)>) -> io::Result<()> {
    let parent = folder.parent().unwrap_or(Path::new("/"));
    // `tempfile` would create a private folder. Apply the user's umask instead, as for other
    // folders.
    let permissions = Permissions::from_mode(0o777);
    let temporary = tempfile::Builder::new()
        .prefix(".mandelbox-new-")
        .permissions(permissions)
        .tempdir_in(parent)?;
    for (path, contents) in files {
        let path = temporary.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
        let mut file = File::create_new(&path)?;
        file.write_all(&contents)?;
        if contents.starts_with(b"#!") {
            let mode = file.metadata()?.permissions().mode();
            // Whoever may read the script may run it. Ignore errors: a file system without modes
            // refuses the change, and lets everyone run the file.
            let _ = file.set_permissions(Permissions::from_mode(mode | (mode & 0o444) >> 2));
        }
    }
    std::fs::rename(temporary.path(), folder)?;
    // Renamed, so there is nothing left to remove under its old name.
    let _ = temporary.keep();
    Ok(())
}

fn next_steps(folder: &Path, name: &str, template: &Template, version: FractalArgument) -> String {
    // A typed task of version 1 has no manifest: it describes itself.
    let checked = match (version, template.kind) {
        (FractalArgument::V1, Kind::Typed) => format!("{name}.wasm"),
        _ => ".".to_owned(),
    };
    let options = match version {
        FractalArgument::V1 => "--input images --output results",
        FractalArgument::V2 => "--zarr-dir results --read images --set \"0.folder=$PWD/images\"",
    };
    format!(
        "created {}\nnext steps (`README.md` has more):\n  cd {}\n  ./build\n  \
         mandelbox check {checked}\n  mandelbox test .\n  \
         mandelbox run workflow.json {options}\n",
        escaped(&folder.to_string_lossy()),
        escaped(&shell_word(folder.display()))
    )
}
