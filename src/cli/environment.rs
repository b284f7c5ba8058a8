//! The environment variables that count: two of Fractal's, and where the cache goes.
#![expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]

use std::path::PathBuf;

use crate::runner::DEFAULT_TASKS_INCLUDE_IMAGE;

/// `FRACTAL_LOCAL_CONFIG_FILE`: the local backend's configuration.
pub(super) fn local_config_file() -> Option<PathBuf> {
    std::env::var_os("FRACTAL_LOCAL_CONFIG_FILE").map(PathBuf::from)
}

/// Where compiled modules are kept: `XDG_CACHE_HOME`, else `.cache` in `HOME`; none without either.
pub(super) fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("mandelbox").join("modules"))
}

/// `FRACTAL_RUNNER_TASKS_INCLUDE_IMAGE`: names of tasks, with `;` between them; case and blanks count.
pub(super) fn tasks_include_image() -> Vec<String> {
    match std::env::var("FRACTAL_RUNNER_TASKS_INCLUDE_IMAGE") {
        Ok(names) => names.split(';').map(str::to_owned).collect(),
        Err(_) => DEFAULT_TASKS_INCLUDE_IMAGE.map(str::to_owned).to_vec(),
    }
}
