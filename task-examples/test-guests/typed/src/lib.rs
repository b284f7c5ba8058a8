//! A typed task that does what its parameters say, for tests of the host.
//!
//! Parameters: `steps`, a list of objects. Each has `do` and further keys, and is done in order;
//! the results become the metadiff `{"typed": [RESULT, ...]}`, unless a step ends the call before.
//! A step `{"do": "for", "component": C, "steps": [...]}` is done for that component only; `{"do":
//! "repeat", "n": N, "step": {...}}` does a step many times.
//!
//! | `do` | further keys | RESULT |
//! | --- | --- | --- |
//! | `args` | | the names of all parameters |
//! | `argv`, `env` | | arguments; names of the variables |
//! | `log` | `level`, `message`, `times` (1: as often the message is repeated) | null |
//! | `progress` | `fraction` (a number, or `"nan"`), `message` | null |
//! | `metadata` | `key` | the value, or null |
//! | `print` | `stream` (`stdout` or `stderr`), `text` | null |
//! | `list`, `write` | `path`, `text` | names; null, or the error |
//! | `sleep_ms` | `ms` | null |
//! | `allocate_mib` | `n` | `n`, written to and kept |
//! | `return` | `text` | ends the call with this metadiff |
//! | `images` | `names` | ends the call with an output of Fractal v2 that fits the parameters, see
//! [`images`] |
//! | `return_letters` | `n` | ends the call with a text of so many letters |
//! | `none`, `error` | `message`, `times` | ends the call without a metadiff; with an error |
//! | `exit` | `code` | ends the guest |
//! | `trap`, `panic`, `spin` | | ends the guest with a trap; never ends |
//!
//! A copy of the module whose file is called `v2_TYPE.wasm` describes a task of Fractal v2 of that
//! type.

use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

use bindings::mandelbox::task::host::{self, Level};

#[expect(unsafe_code, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ world: "task", path: "../../../wit" });
    export!(Task with_types_in self);
    use super::Task;
}

struct Task;

impl bindings::Guest for Task {
    fn run(args: String) -> Result<Option<String>, String> {
        let args: Value = serde_json::from_str(&args)
            .map_err(|err| format!("cannot read the parameters: {err}"))?;
        let mut results = Vec::new();
        match do_all(&args["steps"], &args, &mut results) {
            Ok(()) => Ok(Some(json!({ "typed": results }).to_string())),
            Err(End::Returned(metadiff)) => Ok(metadiff),
            Err(End::Failed(message)) => Err(message),
        }
    }

    fn describe() -> String {
        let name = std::env::args().next().unwrap_or_default();
        if let Some(task_type) = name
            .strip_prefix("v2_")
            .and_then(|name| name.strip_suffix(".wasm"))
        {
            return describe_v2(task_type).to_string();
        }
        let description = json!({
            "name": "Typed test",
            "input_type": "Any",
            "output_type": "Any",
            "meta": { "mandelbox": { "memory": "64MiB" } },
            "args_schema": {
                "type": "object",
                "properties": {
                    "steps": { "type": "array", "items": { "type": "object" }, "default": [{ "do": "args" }] }
                },
                "additionalProperties": false
            },
            "docs_info": "Does what its parameters say."
        });
        description.to_string()
    }
}

/// The description of a task of Fractal v2.
fn describe_v2(task_type: &str) -> Value {
    let mut entry = json!({
        "pkg_name": "typed-v2",
        "version": "1.2.0",
        "name": task_type,
        "type": task_type,
        "output_types": { "typed": true }
    });
    let schema = json!({
        "type": "object",
        "properties": { "steps": { "type": "array", "items": { "type": "object" } } },
        "additionalProperties": false
    });
    for side in ["non_parallel", "parallel"] {
        let has_both = task_type.ends_with("compound");
        if has_both || task_type.trim_start_matches("converter_") == side {
            entry[format!("args_schema_{side}")] = schema.clone();
            entry[format!("meta_{side}")] = json!({ "mandelbox": { "memory": "64MiB" } });
        }
    }
    entry
}

/// An output of Fractal v2. The call for an image has its URL as a parameter, and updates it; the
/// first call of a compound task has none, and returns an item for each of the step's names.
fn images(step: &Value, args: &Value) -> Value {
    if let Some(url) = args["zarr_url"].as_str() {
        let attributes = match args.get("init_args") {
            Some(init_args) => init_args.clone(),
            None => json!({ "seen": true }),
        };
        return json!({ "image_list_updates": [{ "zarr_url": url, "attributes": attributes }] });
    }
    let folder = args["zarr_dir"].as_str().unwrap_or_default();
    let names = step["names"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let items = names.map(
        |name| json!({ "zarr_url": format!("{folder}/{name}"), "init_args": { "from": name } }),
    );
    json!({ "parallelization_list": items.collect::<Value>() })
}

/// How a step ends the call.
enum End {
    Returned(Option<String>),
    Failed(String),
}

fn do_all(steps: &Value, args: &Value, results: &mut Vec<Value>) -> Result<(), End> {
    for step in steps.as_array().into_iter().flatten() {
        match step["do"].as_str().unwrap_or_default() {
            "for" if step["component"] == args["component"] => {
                do_all(&step["steps"], args, results)?
            }
            "for" => {}
            "repeat" => {
                for _ in 0..step["n"].as_u64().unwrap_or(0) {
                    do_step(&step["step"], args)?;
                }
            }
            _ => results.push(do_step(step, args)?),
        }
    }
    Ok(())
}

fn do_step(step: &Value, args: &Value) -> Result<Value, End> {
    let text = |key: &str| step[key].as_str().unwrap_or_default();
    let number = |key: &str| step[key].as_u64().unwrap_or(0);
    let message = || text("message").repeat(step["times"].as_u64().unwrap_or(1) as usize);
    match text("do") {
        "args" => {
            return Ok(args
                .as_object()
                .map(|args| args.keys().cloned().collect())
                .unwrap_or_default());
        }
        "argv" => return Ok(std::env::args().collect()),
        "env" => return Ok(std::env::vars().map(|(name, _)| name).collect()),
        "log" => host::log(level(text("level")), &message()),
        "progress" => host::progress(
            step["fraction"].as_f64().unwrap_or(f64::NAN) as f32,
            text("message"),
        ),
        "metadata" => {
            let value = host::metadata(text("key")).map(|text| serde_json::from_str(&text));
            return value
                .unwrap_or(Ok(Value::Null))
                .map_err(|err| End::Failed(format!("no JSON: {err}")));
        }
        "print" if text("stream") == "stderr" => print(std::io::stderr(), text("text")),
        "print" => print(std::io::stdout(), text("text")),
        "list" => return Ok(list(text("path")).unwrap_or_else(|err| json!(err.to_string()))),
        "write" => {
            return Ok(std::fs::write(text("path"), text("text"))
                .map_or_else(|err| json!(err.to_string()), Value::from));
        }
        "sleep_ms" => std::thread::sleep(Duration::from_millis(number("ms"))),
        "allocate_mib" => allocate(number("n")),
        "return" => return Err(End::Returned(Some(text("text").to_owned()))),
        "images" => return Err(End::Returned(Some(images(step, args).to_string()))),
        "return_letters" => return Err(End::Returned(Some("a".repeat(number("n") as usize)))),
        "none" => return Err(End::Returned(None)),
        "error" => return Err(End::Failed(message())),
        "exit" => std::process::exit(step["code"].as_i64().unwrap_or(0) as i32),
        "trap" => trap(),
        "panic" => panic!("the task was told to panic"),
        "spin" => loop {
            std::hint::black_box(0);
        },
        other => return Err(End::Failed(format!("no step is called {other:?}"))),
    }
    Ok(Value::Null)
}

/// Prints a text at once: nothing writes what is buffered when `run` returns.
fn print(mut stream: impl Write, text: &str) {
    // A test sees what is missing.
    let _ = stream
        .write_all(text.as_bytes())
        .and_then(|()| stream.flush());
}

fn level(name: &str) -> Level {
    match name {
        "trace" => Level::Trace,
        "debug" => Level::Debug,
        "warn" => Level::Warn,
        "error" => Level::Error,
        _ => Level::Info,
    }
}

fn list(path: &str) -> std::io::Result<Value> {
    let entries =
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = entries.collect::<std::io::Result<Vec<_>>>()?;
    names.sort();
    Ok(json!(names))
}

/// Takes memory, writes to each page of it and keeps it.
fn allocate(mib: u64) {
    const PAGE_BYTES: usize = 64 << 10;
    let mut memory = vec![0_u8; (mib as usize) << 20];
    memory
        .iter_mut()
        .step_by(PAGE_BYTES)
        .for_each(|byte| *byte = 1);
    std::hint::black_box(memory.leak());
}

fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}
