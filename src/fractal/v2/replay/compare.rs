//! Comparison of a replayed run with the recorded one.

use serde_json::json;

use super::{CallRecord, parse};
use crate::json::Value;

/// Compares JSON with numbers by value.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            let has = |(key, value): (&String, &Value)| y.get(key).is_some_and(|y| same(value, y));
            x.len() == y.len() && x.iter().all(has)
        }
        _ => a == b,
    }
}

pub(super) fn check(
    what: &str,
    is_same: bool,
    got: &Value,
    expected: &Value,
) -> Result<(), String> {
    let short = |value: &Value| value.to_string().chars().take(1500).collect::<String>();
    if is_same {
        return Ok(());
    }
    Err(format!(
        "{what}: {} instead of {}",
        short(got),
        short(expected)
    ))
}

pub(super) fn check_images(got: &Value, expected: &Value) -> Result<(), String> {
    if let Some(text) = expected["text"].as_str() {
        return check("images", same(got, &parse(text)), got, expected);
    }
    if let Some(images) = expected.get("json") {
        return check("images", same(got, images), got, images);
    }
    let images = got.as_array().expect("a list");
    let first = expected["first"].as_array().expect("a list");
    let last = expected["last"].as_array().expect("a list");
    let is_same = expected["count"] == images.len()
        && first.iter().zip(images).all(|(x, y)| same(x, y))
        && last
            .iter()
            .rev()
            .zip(images.iter().rev())
            .all(|(x, y)| same(x, y));
    check("images", is_same, got, expected)
}

/// A task without statuses counts as missing, and `submitted` is `failed` (defect W23).
pub(super) fn check_statuses(got: &Value, expected: &Value) -> Result<(), String> {
    let texts = [got, expected].map(|value| value.to_string().replace("submitted", "failed"));
    let [got, expected] = texts.map(|text| {
        let mut tasks = parse(&text).as_object().cloned().unwrap_or_default();
        tasks.retain(|_, statuses| *statuses != json!({}));
        tasks
    });
    for (order, statuses) in &expected {
        let own = &got.get(order).cloned().unwrap_or_default();
        let is_same = match statuses["count"].as_u64() {
            None => own == statuses,
            Some(count) => own.as_object().is_some_and(|own| {
                let mut own_statuses = own.values();
                own.len() as u64 == count
                    && own_statuses.all(|status| *status == statuses["statuses"][0])
            }),
        };
        check("statuses", is_same, own, statuses)?;
    }
    let is_same = got.len() == expected.len();
    check(
        "tasks with a status",
        is_same,
        &json!(got),
        &json!(expected),
    )
}

pub(super) fn check_call(call: &CallRecord, unit: &Value, files: &Value) -> Result<(), String> {
    if let Some(args) = files[&call.args_name].get("json") {
        check("args", same(&call.args, args), &call.args, args)?;
    } else if files.get("count").is_none() && files[&call.args_name].is_null() {
        return Err(format!("{} was not recorded", call.args_name));
    }
    let urls = &unit["zarr_urls"];
    match &call.item {
        Some(Value::Object(item)) => {
            check("url", urls[0] == item["zarr_url"], &item["zarr_url"], urls)
        }
        Some(url) => check("url", urls[0] == *url, url, urls),
        None => {
            let given = call.args.get("zarr_urls").cloned().unwrap_or(json!([]));
            let n_urls = given.as_array().map(Vec::len);
            let is_same = given == *urls || n_urls.is_some_and(|n| urls["count"] == n);
            check("urls", is_same, &given, urls)
        }
    }
}
