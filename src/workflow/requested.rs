//! What documents ask for: `meta.mandelbox` and Fractal's `mem`. They can lower a limit, never raise one.

use std::time::Duration;

use super::plan::Requested;
use super::problem::{Cursor, Problems};
use crate::json::Value;
use crate::sandbox::limits::parse_bytes;

/// Reads the requests from the meta that counts for a workflow task.
pub(super) fn read_requested(meta: &Cursor<'_>, problems: &mut Problems) -> Requested {
    let mut requested = Requested::default();
    if let Some(mem) = meta.get_not_null("mem") {
        requested.memory_bytes = read_fractal_mem(&mem, problems);
    }
    let Some(own) = meta.get_not_null("mandelbox") else { return requested };
    let Some(keys) = own.object(problems) else { return requested };
    for key in keys.keys() {
        let value = own.get_not_null(key);
        match (key.as_str(), value) {
            (_, None) => {}
            ("memory", Some(value)) => requested.memory_bytes = read_memory(&value, problems),
            ("timeout", Some(value)) => requested.wall_time = read_timeout(&value, problems),
            ("sha256", Some(value)) => requested.sha256 = value.text(problems).map(str::to_owned),
            ("metadata_keys", Some(value)) => {
                let keys = value.items(problems);
                requested.metadata_keys =
                    Some(keys.iter().filter_map(|key| key.text(problems).map(str::to_owned)).collect());
            }
            ("env" | "mounts", Some(value)) => {
                let text = "a package gets no environment variables and no mounts unless the operator grants them, \
                            which this version cannot do; remove the key";
                problems.add(value.place(), text);
            }
            (unknown, Some(value)) => {
                let text = format!("unknown key `{unknown}`; known are memory, timeout, sha256, metadata_keys");
                problems.add(value.place(), text);
            }
        }
    }
    requested
}

/// Fractal's `mem`: a number of MB (of 2^20 bytes, as Slurm counts), or a text such as `10G`, in which a G has 1000 MB.
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
            number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor))
        }
        _ => None,
    };
    let bytes = megabytes.and_then(|megabytes| megabytes.checked_mul(1 << 20)).filter(|bytes| *bytes > 0);
    if bytes.is_none() {
        problems.add(mem.place(), format!("must be a number of MB or a text such as \"10G\", not {}", mem.value));
    }
    bytes
}

fn read_memory(value: &Cursor<'_>, problems: &mut Problems) -> Option<u64> {
    let text = value.text(problems)?;
    parse_bytes(text).map_err(|message| problems.add(value.place(), message)).ok()
}

fn read_timeout(value: &Cursor<'_>, problems: &mut Problems) -> Option<Duration> {
    let text = value.text(problems)?;
    let timeout = humantime::parse_duration(text);
    timeout.map_err(|err| problems.add(value.place(), format!("must be a time such as \"30s\" or \"2h\": {err}"))).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn check(meta: Value, expected: Result<Requested, &str>) {
        let mut problems = Problems::default();
        let requested = read_requested(&Cursor::new(Path::new("meta"), &meta), &mut problems);
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
        let with_memory = |bytes| Ok(Requested { memory_bytes: Some(bytes), ..Requested::default() });
        check(json!({}), Ok(Requested::default()));
        check(json!({"mem": 512}), with_memory(512 << 20));
        check(json!({"mem": "2G"}), with_memory(2000 << 20));
        check(json!({"mem": "2G", "mandelbox": {"memory": "64 MiB"}}), with_memory(64 << 20));
        check(json!({"mem": "lots"}), Err("meta: /mem: must be"));
        check(json!({"mandelbox": {"timeout": "soon"}}), Err("/mandelbox/timeout"));
        check(json!({"mandelbox": {"network": true}}), Err("unknown key `network`"));
        check(json!({"mandelbox": {"env": {"A": "b"}}}), Err("/mandelbox/env"));
        check(json!({"mandelbox": []}), Err("must be an object, not an array"));
    }
}
