//! Environment variables that mandelbox reads: three of Fractal's, the location of the cache, the
//! type of the terminal, those that commands of SLURM need and those of a job; with the feature
//! `otel` also those that enable the export of spans. OpenTelemetry's crates read further variables
//! themselves.
#![expect(
    clippy::disallowed_methods,
    reason = "the one place where the environment is read"
)]

use std::ffi::OsString;
use std::path::PathBuf;

use crate::backend::{JobIdentity, PASSED_VARIABLES};
use crate::fractal::v1::DEFAULT_TASKS_INCLUDE_IMAGE;

/// Returns `FRACTAL_LOCAL_CONFIG_FILE`, the local backend's configuration, unless it is empty.
pub(super) fn local_config_file() -> Option<PathBuf> {
    std::env::var_os("FRACTAL_LOCAL_CONFIG_FILE")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// Returns `FRACTAL_SLURM_CONFIG_FILE`, the SLURM backend's configuration, unless it is empty.
pub(super) fn slurm_config_file() -> Option<PathBuf> {
    std::env::var_os("FRACTAL_SLURM_CONFIG_FILE")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// Returns the variables that commands of SLURM, and jobs, get from the environment.
pub(super) fn slurm_variables() -> Vec<(OsString, OsString)> {
    PASSED_VARIABLES
        .into_iter()
        .filter_map(|name| Some((name.into(), std::env::var_os(name)?)))
        .collect()
}

/// Returns the job of SLURM that this process is, as SLURM's commands name it, and its node.
pub(super) fn job_identity() -> JobIdentity {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let element = variable("SLURM_ARRAY_JOB_ID").zip(variable("SLURM_ARRAY_TASK_ID"));
    let job = match element {
        Some((id, element)) => Some(format!("{id}_{element}")),
        None => variable("SLURM_JOB_ID"),
    };
    JobIdentity {
        job: job.unwrap_or_default(),
        node: variable("SLURMD_NODENAME").unwrap_or_default(),
    }
}

/// Returns the folder of compiled modules, below `XDG_CACHE_HOME` or else below `.cache` in `HOME`;
/// `None` if neither is an absolute path.
pub(super) fn cache_folder() -> Option<PathBuf> {
    folder_of_cache("modules")
}

/// Returns the folder of unpacked wheels, which is next to that of [`cache_folder`].
pub(super) fn packages_folder() -> Option<PathBuf> {
    folder_of_cache("packages")
}

fn folder_of_cache(name: &str) -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("mandelbox").join(name))
}

/// Returns true if `TERM` is `dumb`: the terminal cannot move its cursor.
pub(super) fn terminal_is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Returns the task names in `FRACTAL_RUNNER_TASKS_INCLUDE_IMAGE`, which are separated by `;`. Case
/// and blanks are significant.
pub(super) fn tasks_include_image() -> Vec<String> {
    match std::env::var("FRACTAL_RUNNER_TASKS_INCLUDE_IMAGE") {
        Ok(names) => names.split(';').map(str::to_owned).collect(),
        Err(_) => DEFAULT_TASKS_INCLUDE_IMAGE.map(str::to_owned).to_vec(),
    }
}

/// Returns true if spans are exported: `OTEL_TRACES_EXPORTER` contains `otlp`, or is not set while
/// an endpoint is (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`).
/// `OTEL_SDK_DISABLED` overrides both.
#[cfg(feature = "otel")]
pub(super) fn exports_traces() -> bool {
    let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let is_disabled =
        text("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let has_endpoint = [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ]
    .into_iter()
    .any(|name| text(name).is_some());
    let is_chosen = text("OTEL_TRACES_EXPORTER").map_or(has_endpoint, |names| {
        names
            .split(',')
            .any(|name| name.trim().eq_ignore_ascii_case("otlp"))
    });
    is_chosen && !is_disabled
}

/// Returns the timeout of a request: `OTEL_EXPORTER_OTLP_TRACES_TIMEOUT` or
/// `OTEL_EXPORTER_OTLP_TIMEOUT` in milliseconds, by default 10 s.
#[cfg(feature = "otel")]
pub(super) fn otlp_timeout() -> std::time::Duration {
    let variable = |name: &str| std::env::var(name).ok()?.parse().ok();
    let milliseconds = variable("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
        .or_else(|| variable("OTEL_EXPORTER_OTLP_TIMEOUT"));
    std::time::Duration::from_millis(milliseconds.unwrap_or(10_000))
}

/// Returns true if `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`, or else `OTEL_EXPORTER_OTLP_PROTOCOL`, is
/// `http/json`. All other values mean `http/protobuf`.
#[cfg(feature = "otel")]
pub(super) fn otlp_is_json() -> bool {
    let names = [
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ];
    names
        .into_iter()
        .find_map(|name| std::env::var(name).ok())
        .is_some_and(|name| name == "http/json")
}

/// Returns true if the environment sets the length of the span queue or the size of its batches.
#[cfg(feature = "otel")]
pub(super) fn sets_trace_queue() -> bool {
    ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"]
        .iter()
        .any(|name| std::env::var_os(name).is_some())
}

/// Returns `TRACEPARENT` and `TRACESTATE`, the span in which this program was started, under the
/// names of the corresponding HTTP headers.
#[cfg(feature = "otel")]
pub(super) fn trace_context() -> std::collections::HashMap<String, String> {
    let variable = |name: &str| Some((name.to_ascii_lowercase(), std::env::var(name).ok()?));
    ["TRACEPARENT", "TRACESTATE"]
        .into_iter()
        .filter_map(variable)
        .collect()
}
