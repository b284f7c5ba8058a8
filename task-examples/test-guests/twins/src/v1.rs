//! Tasks of version 1.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Call, create_folder, log, stamp, write};

pub(crate) fn run(name: &str, call: &Call) -> Result<(), String> {
    match name {
        "dummy" => dummy(call),
        "dummy_parallel" => dummy_parallel(call),
        "copy_args" => {
            let copied = fs::copy(&call.args_file, &call.output_file);
            copied.map_err(|err| format!("{}: {err}", call.output_file))?;
            eprintln!("This goes to standard error");
            println!("This goes to standard output");
            Ok(())
        }
        "null" => call.write_output(&Value::Null),
        "nothing" => Ok(()),
        other => Err(format!("there is no twin {other:?}")),
    }
}

fn dummy(call: &Call) -> Result<(), String> {
    log("[dummy] ENTERING");
    fail_on_request(call)?;
    let output = call.text("output_path");
    create_folder(output)?;
    let index = call.value("index").as_i64().unwrap_or(0);
    let path = Path::new(output).join(format!("{index}.dummy.result.json"));
    let earlier = fs::read(&path).ok();
    let earlier = earlier.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut results: Vec<Value> = earlier.unwrap_or_default();
    results.push(result(call, None));
    write(&path, pretty(&Value::Array(results)))?;
    sleep(call);
    let n = call.value("number_components").as_i64().unwrap_or(3);
    let components: Vec<String> = (0..n).map(|component| component.to_string()).collect();
    call.write_output(&json!({ "dummy": format!("dummy {index}"), "index": components }))
}

fn dummy_parallel(call: &Call) -> Result<(), String> {
    log("[dummy_parallel] ENTERING");
    fail_on_request(call)?;
    sleep(call);
    let (output, component) = (call.text("output_path"), call.text("component"));
    create_folder(output)?;
    let name = component.replace([' ', '/', '.'], "_");
    let path = Path::new(output).join(format!("{name}.dummy_parallel.result.json"));
    write(&path, pretty(&result(call, Some(component))))?;
    call.write_output(&json!({ "test_parallel": 1 }))
}

fn message(call: &Call) -> &str {
    match call.text("message") {
        "" => "default message",
        message => message,
    }
}

fn fail_on_request(call: &Call) -> Result<(), String> {
    if call.value("raise_error") == Value::Bool(true) {
        return Err(format!("ValueError: {}", message(call)));
    }
    Ok(())
}

fn sleep(call: &Call) {
    if let Some(seconds) = call.value("sleep_time").as_f64() {
        std::thread::sleep(Duration::from_secs_f64(seconds));
    }
}

fn result(call: &Call, component: Option<&str>) -> Value {
    let mut result = json!({
        "task": "DUMMY TASK",
        "timestamp": stamp::now().of_json(),
        "input_paths": call.value("input_paths"),
        "output_path": call.text("output_path"),
        "metadata": call.value("metadata"),
        "message": message(call),
    });
    if let Some(component) = component {
        result["component"] = component.into();
    }
    result
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}
