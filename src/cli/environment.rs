//! The environment variables that count: two of Fractal's, where the cache goes, what the terminal
//! is, and with the feature `otel` those that say whether spans are exported; how is said by those
//! that OpenTelemetry's own crates read.
#![expect(
    clippy::disallowed_methods,
    reason = "the one place where the environment is read"
)]

use std::path::PathBuf;

use crate::fractal::v1::DEFAULT_TASKS_INCLUDE_IMAGE;

/// `FRACTAL_LOCAL_CONFIG_FILE`: the local backend's configuration. An empty value counts as none.
pub(super) fn local_config_file() -> Option<PathBuf> {
    std::env::var_os("FRACTAL_LOCAL_CONFIG_FILE")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// Where compiled modules are kept: `XDG_CACHE_HOME`, else `.cache` in `HOME`; none without either.
pub(super) fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("mandelbox").join("modules"))
}

/// Whether the terminal cannot move its cursor, as `TERM` says.
pub(super) fn terminal_is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// `FRACTAL_RUNNER_TASKS_INCLUDE_IMAGE`: names of tasks, with `;` between them; case and blanks
/// count.
pub(super) fn tasks_include_image() -> Vec<String> {
    match std::env::var("FRACTAL_RUNNER_TASKS_INCLUDE_IMAGE") {
        Ok(names) => names.split(';').map(str::to_owned).collect(),
        Err(_) => DEFAULT_TASKS_INCLUDE_IMAGE.map(str::to_owned).to_vec(),
    }
}

/// Whether spans are exported: where an endpoint is named (`OTEL_EXPORTER_OTLP_ENDPOINT`,
/// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) or `OTEL_TRACES_EXPORTER` is `otlp`, unless that or
/// `OTEL_SDK_DISABLED` says not.
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

/// `OTEL_EXPORTER_OTLP_TRACES_TIMEOUT`, `OTEL_EXPORTER_OTLP_TIMEOUT`: milliseconds that a request
/// may take, else 10 s.
#[cfg(feature = "otel")]
pub(super) fn otlp_timeout() -> std::time::Duration {
    let variable = |name: &str| std::env::var(name).ok()?.parse().ok();
    let milliseconds = variable("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
        .or_else(|| variable("OTEL_EXPORTER_OTLP_TIMEOUT"));
    std::time::Duration::from_millis(milliseconds.unwrap_or(10_000))
}

/// Whether `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL` or `OTEL_EXPORTER_OTLP_PROTOCOL` is `http/json`;
/// all else is `http/protobuf`.
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

/// Whether the environment says how many spans wait for their export, or how many are sent at a
/// time.
#[cfg(feature = "otel")]
pub(super) fn sets_trace_queue() -> bool {
    ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"]
        .iter()
        .any(|name| std::env::var_os(name).is_some())
}

/// `TRACEPARENT` and `TRACESTATE`: the span that this program was started in, by the names that
/// HTTP headers have.
#[cfg(feature = "otel")]
pub(super) fn trace_context() -> std::collections::HashMap<String, String> {
    let variable = |name: &str| Some((name.to_ascii_lowercase(), std::env::var(name).ok()?));
    ["TRACEPARENT", "TRACESTATE"]
        .into_iter()
        .filter_map(variable)
        .collect()
}
