//! A task that does what its parameters say, for tests of the host.
//!
//! It understands the command lines of both versions of Fractal: version 1 here, version 2 in
//! [`v2`].
//!
//! In this order:
//! 1. The keys of `per_component[component]`, if there are any, replace those of the parameters.
//! 2. `refuse_existing`: fails if the metadiff file exists.
//! 3. `stdout`, `stderr`: text to print. `stderr_hex`: bytes to print, in hex.
//! 4. `sleep_ms`: waits.
//! 5. The metadiff file, by the first of these that is there: `echo` (true: all parameters as they
//!    were read; a list: those with these names), `metadiff_raw` (text), `metadiff` (a value;
//!    `"__null__"` is null and `"__missing__"` no file).
//! 6. `signal`: any name is a trap. Else `exit`: the exit code, by default 0.

mod v2;

use fractal_task::{Call, TaskError};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let done = match v2::Files::from_command_line() {
        Ok(Some(files)) => v2::act(&files),
        Ok(None) => Call::from_command_line().and_then(|call| act(&call)),
        Err(err) => Err(err),
    };
    fractal_task::exit_code(done)
}

fn act(call: &Call) -> Result<(), TaskError> {
    let parameters = parse_parameters(&call.read_args_text()?)
        .map_err(|err| TaskError::about("cannot use the parameters in", &call.args_file, err))?;
    let orders = orders_for_component(&parameters);

    if orders.get("refuse_existing") == Some(&Value::Bool(true)) && call.metadiff_file.exists() {
        print(io::stderr(), b"metadiff already exists\n")?;
        std::process::exit(1);
    }
    print_streams(&orders)?;
    pause(&orders)?;
    if let Some(text) = build_metadiff(&parameters, &orders) {
        call.write_metadiff_text(&text)?;
    }
    end(&orders)
}

/// `stdout`, `stderr` and `stderr_hex`, in this order.
fn print_streams(orders: &Map<String, Value>) -> Result<(), TaskError> {
    let text = |key| orders.get(key).and_then(Value::as_str).unwrap_or_default();
    print(io::stdout(), text("stdout").as_bytes())?;
    print(io::stderr(), text("stderr").as_bytes())?;
    let bytes = parse_hex(text("stderr_hex"))
        .ok_or_else(|| TaskError::new("stderr_hex has something else than pairs of hex digits"))?;
    print(io::stderr(), &bytes)
}

/// `sleep_ms`.
fn pause(orders: &Map<String, Value>) -> Result<(), TaskError> {
    let pause = Duration::try_from_secs_f64(number(orders, "sleep_ms") / 1000.0)
        .map_err(|err| TaskError::new(format!("sleep_ms: {err}")))?;
    if !pause.is_zero() {
        std::thread::sleep(pause);
    }
    Ok(())
}

/// `signal`, or else `exit`.
fn end(orders: &Map<String, Value>) -> ! {
    if orders.get("signal").is_some_and(Value::is_string) {
        trap();
    }
    std::process::exit(number(orders, "exit") as i32)
}

fn number(orders: &Map<String, Value>, key: &str) -> f64 {
    orders.get(key).and_then(Value::as_f64).unwrap_or(0.0)
}

/// Numbers keep their text, keys their order, and nesting has no limit but the stack.
fn parse_parameters(text: &str) -> Result<Map<String, Value>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.disable_recursion_limit();
    let parameters = Map::deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(parameters)
}

fn orders_for_component(parameters: &Map<String, Value>) -> Map<String, Value> {
    let mut orders = parameters.clone();
    let component = match parameters.get("component") {
        Some(Value::String(component)) => component.clone(),
        Some(other) => other.to_string(),
        None => return orders,
    };
    if let Some(own) = parameters
        .get("per_component")
        .and_then(|all| all.get(&component))
        .and_then(Value::as_object)
    {
        orders.extend(own.clone());
    }
    orders
}

fn build_metadiff(parameters: &Map<String, Value>, orders: &Map<String, Value>) -> Option<String> {
    let echo = |parameters: Map<String, Value>| {
        let mut metadiff = Map::new();
        metadiff.insert("echo".to_owned(), Value::Object(parameters));
        Value::Object(metadiff).to_string()
    };
    match orders.get("echo") {
        Some(Value::Bool(true)) => return Some(echo(parameters.clone())),
        Some(Value::Array(names)) => {
            let names = names.iter().filter_map(Value::as_str);
            let named =
                names.filter_map(|name| Some((name.to_owned(), parameters.get(name)?.clone())));
            return Some(echo(named.collect()));
        }
        _ => {}
    }
    if let Some(Value::String(text)) = orders.get("metadiff_raw") {
        return Some(text.clone());
    }
    match orders.get("metadiff")? {
        Value::String(text) if text == "__missing__" => None,
        Value::String(text) if text == "__null__" => Some("null".to_owned()),
        value => Some(value.to_string()),
    }
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .chars()
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    pairs
        .remainder()
        .is_empty()
        .then(|| pairs.map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}

fn print(mut stream: impl Write, bytes: &[u8]) -> Result<(), TaskError> {
    stream
        .write_all(bytes)
        .and_then(|()| stream.flush())
        .map_err(|err| TaskError::new(format!("cannot print: {err}")))
}

fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parameters: &str, expected: Option<&str>) {
        let parameters = parse_parameters(parameters).unwrap();
        let metadiff = build_metadiff(&parameters, &orders_for_component(&parameters));
        assert_eq!(metadiff.as_deref(), expected);
    }

    #[test]
    fn the_first_rule_that_applies_gives_the_metadiff() {
        check(
            r#"{"metadiff": 1, "echo": true}"#,
            Some(r#"{"echo":{"metadiff":1,"echo":true}}"#),
        );
        check(
            r#"{"echo": ["b", "a", "c"], "a": 1, "b": 2}"#,
            Some(r#"{"echo":{"b":2,"a":1}}"#),
        );
        check(
            r#"{"metadiff": 1, "metadiff_raw": "{not json"}"#,
            Some("{not json"),
        );
        check(r#"{"metadiff": "__null__"}"#, Some("null"));
        check(r#"{"metadiff": null}"#, Some("null"));
        check(r#"{"metadiff": "__missing__"}"#, None);
        check("{}", None);
    }

    #[test]
    fn a_component_has_orders_of_its_own() {
        let all = r#""per_component": {"a": {"metadiff": {"v": 2}}}, "metadiff": {"v": 1}"#;
        check(
            &format!(r#"{{"component": "a", {all}}}"#),
            Some(r#"{"v":2}"#),
        );
        check(
            &format!(r#"{{"component": "b", {all}}}"#),
            Some(r#"{"v":1}"#),
        );
    }

    #[test]
    fn numbers_keep_their_text_and_nesting_is_no_problem() {
        let numbers =
            r#"{"n":123456789012345678901234567890,"m":-18446744073709551617,"x":0.10,"y":1e+400}"#;
        check(&format!(r#"{{"metadiff": {numbers}}}"#), Some(numbers));
        let nested = format!("{}1{}", "[".repeat(300), "]".repeat(300));
        check(&format!(r#"{{"metadiff": {nested}}}"#), Some(&nested));
    }

    #[test]
    fn hex_is_read_in_pairs() {
        assert_eq!(parse_hex("fffe41"), Some(vec![0xff, 0xfe, 0x41]));
        assert_eq!((parse_hex("f"), parse_hex("zz")), (None, None));
    }
}
