//! Requests of documents: `meta.mandelbox`, and Fractal's `mem`, `cpus_per_task` and `needs_gpu`.
//! They can lower a limit, but never raise it.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use crate::json::{Map, Value};
use crate::model::{Grant, RequestedResource, Rights};
use crate::plan::Policy;
use crate::plan::planned::Requested;
use crate::problem::{Cursor, Problems};
use crate::text::units::{parse_memory, parse_time};
use crate::text::wording::did_you_mean;

/// Keys of `meta.mandelbox`.
const KEYS: [&str; 7] = [
    "memory",
    "timeout",
    "sha256",
    "metadata_keys",
    "metadata_in_args",
    "env",
    "mounts",
];

/// Fractal's key for the number of CPUs of a call.
const CPUS_KEY: &str = "cpus_per_task";
/// Fractal's key for tasks that need a GPU.
const GPU_KEY: &str = "needs_gpu";

/// Reads the requests from the meta of a workflow task.
///
/// * `meta_of`: returns the meta that applies, with the location of the given key.
/// * `folder`: folder of the package or the workflow; mounted folders are relative to it.
pub(crate) fn read_requested<'a>(
    meta_of: impl Fn(&str) -> Cursor<'a>,
    folder: &Path,
    policy: &Policy,
    problems: &mut Problems,
) -> Requested {
    let mut requested = Requested::default();
    if let Some(mem) = meta_of("mem").get_not_null("mem") {
        requested.memory_bytes = read_fractal_mem(&mem, problems);
    }
    if let Some(n_cpus) = meta_of(CPUS_KEY).get_not_null(CPUS_KEY) {
        requested.n_cpus = read_cpus(&n_cpus, problems);
    }
    if let Some(needs_gpu) = meta_of(GPU_KEY).get_not_null(GPU_KEY) {
        check_gpu(&needs_gpu, problems);
    }
    let Some(own) = meta_of("mandelbox").get_not_null("mandelbox") else {
        return requested;
    };
    let Some(keys) = own.object(problems) else {
        return requested;
    };
    for key in keys.keys() {
        let value = own.get_not_null(key);
        match (key.as_str(), value) {
            (_, None) => {}
            ("memory", Some(value)) => requested.memory_bytes = read_memory(&value, problems),
            ("timeout", Some(value)) => requested.wall_time = read_timeout(&value, problems),
            ("sha256", Some(value)) => requested.sha256 = value.text(problems).map(str::to_owned),
            ("metadata_keys", Some(value)) => {
                let keys = value.items(problems);
                requested.metadata_keys = Some(
                    keys.iter()
                        .filter_map(|key| key.text(problems).map(str::to_owned))
                        .collect(),
                );
            }
            ("metadata_in_args", Some(value)) => match value.value.as_bool() {
                Some(is_in_args) => requested.metadata_in_args = Some(is_in_args),
                None => value.wrong_type("a boolean", problems),
            },
            ("env", Some(value)) => requested.env = read_env(&value, policy, problems),
            ("mounts", Some(value)) => {
                requested.mounts = read_mounts(&value, folder, policy, problems)
            }
            (unknown, Some(value)) => {
                let meant = did_you_mean(unknown, KEYS);
                let text = format!(
                    "unknown key `{unknown}`; the known keys are {}{meant}",
                    KEYS.join(", ")
                );
                problems.add(value.location(), text);
            }
        }
    }
    requested
}

/// Returns the keys of the meta of a workflow task, for backends that request resources.
///
/// * `meta_of`: as for [`read_requested`].
pub(crate) fn read_resources<'a>(
    meta_of: impl Fn(&str) -> Cursor<'a>,
    meta: &Map<String, Value>,
) -> Vec<RequestedResource> {
    let resource = |(key, value): (&String, &Value)| {
        let (file, pointer) = meta_of(key).get(key)?.origin();
        Some(RequestedResource {
            key: key.clone(),
            value: value.clone(),
            file,
            pointer,
        })
    };
    let keys = meta.iter().filter(|(key, _)| *key != "mandelbox");
    keys.filter_map(resource).collect()
}

/// Reads the variables of the call: an object of names and values. The policy decides which names
/// are allowed.
fn read_env(env: &Cursor<'_>, policy: &Policy, problems: &mut Problems) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for (name, value) in env.object(problems).into_iter().flatten() {
        let location = env.location_of(name);
        match value {
            _ if !policy.env.contains(name) => {
                problems.add(
                    location,
                    format!(
                        "the policy does not allow a package to set the variable `{name}`; add it \
                         to `packages.env`"
                    ),
                );
            }
            Value::String(value) if !value.contains('\0') => {
                variables.push((name.clone(), value.clone()))
            }
            _ => problems.add(location, "must be a string without NUL"),
        }
    }
    variables
}

/// Reads the folders of the call: an object of guest paths and folders on the host. The policy
/// decides which folders are allowed.
fn read_mounts(
    mounts: &Cursor<'_>,
    folder: &Path,
    policy: &Policy,
    problems: &mut Problems,
) -> Vec<Grant> {
    let mut grants = Vec::new();
    for guest_path in mounts
        .object(problems)
        .into_iter()
        .flatten()
        .map(|(guest_path, _)| guest_path)
    {
        let Some(value) = mounts.get(guest_path) else {
            continue;
        };
        let Some(host_path) = value.text(problems) else {
            continue;
        };
        if !guest_path.starts_with('/') {
            problems.add(value.location(), "the path in the sandbox must be absolute");
            continue;
        }
        match folder.join(host_path).canonicalize() {
            Err(err) => problems.add(
                value.location(),
                format!("the folder `{host_path}` cannot be mounted: {err}"),
            ),
            Ok(real)
                if !policy
                    .mounts
                    .iter()
                    .any(|allowed| real.starts_with(allowed)) =>
            {
                let text = format!(
                    "the policy does not allow a package to mount `{}`; add the folder to \
                     `packages.mounts`",
                    real.display()
                );
                problems.add(value.location(), text);
            }
            Ok(real) if !real.is_dir() => problems.add(
                value.location(),
                format!("`{}` is not a folder; name a folder", real.display()),
            ),
            Ok(real) => {
                grants.push(Grant::new(real, guest_path.clone(), Rights::ReadOnly));
            }
        }
    }
    grants
}

/// Reads Fractal's `mem`: a number of MB (of 2^20 bytes, as in Slurm), or a text such as `10G`, in
/// which a G has 1000 MB.
///
/// Source: fractal-server 2.9.2, `_parse_mem_value` of the v1 Slurm configuration.
fn read_fractal_mem(mem: &Cursor<'_>, problems: &mut Problems) -> Option<u64> {
    let megabytes = match mem.value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => {
            let text = text.trim();
            let number = text.trim_end_matches(['M', 'G', 'T']);
            let factor = match &text[number.len()..] {
                "" | "M" => Some(1),
                "G" => Some(1_000),
                "T" => Some(1_000_000),
                _ => None,
            };
            number
                .parse::<u64>()
                .ok()
                .zip(factor)
                .and_then(|(number, factor)| number.checked_mul(factor))
        }
        _ => None,
    };
    let bytes = megabytes
        .and_then(|megabytes| megabytes.checked_mul(1 << 20))
        .filter(|bytes| *bytes > 0);
    if bytes.is_none() {
        problems.add(
            mem.location(),
            format!(
                "must be a whole number of MB or a string such as \"10G\" or \"1500M\", not {}",
                mem.value
            ),
        );
    }
    bytes
}

/// Reads Fractal's `cpus_per_task`: a whole number above 0, or a string with one.
///
/// Source: fractal-server 2.9.2, v1 Slurm configuration.
fn read_cpus(value: &Cursor<'_>, problems: &mut Problems) -> Option<NonZeroUsize> {
    let number = match value.value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    // A number that does not fit is more CPUs than any machine has, too.
    let n_cpus = number.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    let n_cpus = n_cpus.and_then(NonZeroUsize::new);
    if n_cpus.is_none() {
        let text = format!("must be a whole number above 0, not {}", value.value);
        problems.add(value.location(), text);
    }
    n_cpus
}

/// Checks Fractal's `needs_gpu`. The sandbox has no GPU.
fn check_gpu(value: &Cursor<'_>, problems: &mut Problems) {
    match value.value.as_bool() {
        Some(true) => problems.warn(
            value.location(),
            "mandelbox has no GPU for tasks, so this task runs on the CPU; choose a model or \
             options that suit a CPU if it has any",
        ),
        Some(false) => {}
        None => value.wrong_type("a boolean", problems),
    }
}

fn read_memory(value: &Cursor<'_>, problems: &mut Problems) -> Option<u64> {
    read_with_unit(value, "\"512MiB\"", parse_memory, problems)
}

fn read_timeout(value: &Cursor<'_>, problems: &mut Problems) -> Option<Duration> {
    read_with_unit(value, "\"30s\"", parse_time, problems)
}

/// Parses a text with a unit.
///
/// * `example`: the form to use in place of a number, whose unit is not known.
fn read_with_unit<T>(
    value: &Cursor<'_>,
    example: &str,
    parse: fn(&str) -> Result<T, String>,
    problems: &mut Problems,
) -> Option<T> {
    if let Value::Number(number) = value.value {
        problems.add(
            value.location(),
            format!("must be a string with a unit, such as {example}, not {number}"),
        );
        return None;
    }
    let text = value.text(problems)?;
    parse(text)
        .map_err(|message| problems.add(value.location(), message))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(meta: Value, expected: Result<Requested, &str>) {
        let mut problems = Problems::default();
        let policy = Policy {
            env: vec!["TZ".to_owned()],
            ..Policy::default()
        };
        let cursor = Cursor::new(Path::new("meta"), &meta);
        let requested = read_requested(|_| cursor.clone(), Path::new("."), &policy, &mut problems);
        match expected {
            Ok(expected) => {
                assert!(problems.is_empty(), "{problems}");
                assert_eq!(requested, expected);
            }
            Err(text) => assert!(problems.to_string().contains(text), "{problems}"),
        }
    }

    #[test]
    fn requests_are_read() {
        use serde_json::json;
        let with_memory = |bytes| {
            Ok(Requested {
                memory_bytes: Some(bytes),
                ..Requested::default()
            })
        };
        check(json!({}), Ok(Requested::default()));
        check(json!({"mem": 512}), with_memory(512 << 20));
        check(json!({"mem": "2G"}), with_memory(2000 << 20));
        check(
            json!({"mem": "2G", "mandelbox": {"memory": "64 MiB"}}),
            with_memory(64 << 20),
        );
        check(json!({"mem": "lots"}), Err("meta: /mem: must be"));
        for n_cpus in [json!(4), json!("4"), json!(" 4 ")] {
            let expected = Requested {
                n_cpus: NonZeroUsize::new(4),
                ..Requested::default()
            };
            check(json!({ "cpus_per_task": n_cpus }), Ok(expected));
        }
        check(json!({"cpus_per_task": null}), Ok(Requested::default()));
        for wrong in [json!(0), json!(-1), json!(1.5), json!("two"), json!([2])] {
            check(
                json!({ "cpus_per_task": wrong }),
                Err("meta: /cpus_per_task: must be a whole number above 0, not "),
            );
        }
        check(json!({"needs_gpu": false}), Ok(Requested::default()));
        check(
            json!({"needs_gpu": "no"}),
            Err("meta: /needs_gpu: must be a boolean, not a string"),
        );
        check(
            json!({"mem": "1.5G"}),
            Err("must be a whole number of MB or a string such as \"10G\" or \"1500M\""),
        );
        check(
            json!({"mandelbox": {"timeout": "soon"}}),
            Err("/mandelbox/timeout"),
        );
        check(
            json!({"mandelbox": {"timeout": "5M"}}),
            Err("/mandelbox/timeout: must be a time"),
        );
        check(
            json!({"mandelbox": {"timeout": 30}}),
            Err("must be a string with a unit, such as \"30s\", not 30"),
        );
        check(
            json!({"mandelbox": {"memory": 500}}),
            Err("must be a string with a unit, such as \"512MiB\", not 500"),
        );
        check(
            json!({"mandelbox": {"memory": "500"}}),
            Err("write \"500M\" for 500 MiB"),
        );
        check(
            json!({"mandelbox": {"network": true}}),
            Err("unknown key `network`"),
        );
        check(
            json!({"mandelbox": {"env": {"TZ": "UTC"}}}),
            Ok(Requested {
                env: vec![("TZ".to_owned(), "UTC".to_owned())],
                ..Requested::default()
            }),
        );
        check(
            json!({"mandelbox": {"env": {"A": "b"}}}),
            Err("meta: /mandelbox/env/A: the policy does not"),
        );
        check(
            json!({"mandelbox": {"mounts": {"/etc": "/etc"}}}),
            Err("the policy does not allow a package to mount"),
        );
        check(
            json!({"mandelbox": {"mounts": {"etc": "/etc"}}}),
            Err("must be absolute"),
        );
        check(
            json!({"mandelbox": []}),
            Err("must be an object, not an array"),
        );
    }

    #[test]
    fn a_gpu_is_a_warning() {
        let mut problems = Problems::default();
        let meta = serde_json::json!({ "needs_gpu": true });
        let cursor = Cursor::new(Path::new("meta"), &meta);
        let policy = Policy::default();
        read_requested(|_| cursor.clone(), Path::new("."), &policy, &mut problems);
        assert!(problems.is_empty(), "{problems}");
        let warnings: Vec<_> = problems
            .warnings()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("meta: /needs_gpu: mandelbox has no GPU for tasks"));
    }
}
