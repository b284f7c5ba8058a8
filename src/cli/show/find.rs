//! The call that a user means: by its item, its index, or the end of a path or URL.

use crate::event::{CallHistory, KnownCall};
use crate::json::Value;
use crate::text::escaped;
use crate::text::wording::did_you_mean;

/// Index of a batch in its task, and of a call in the batch.
pub(super) type CallKey = (u32, usize);

/// Number of calls that a message lists.
const MAX_LISTED: usize = 5;

/// Returns true if a call is the one that is named.
type IsMeant<'n> = dyn Fn(CallKey, &KnownCall) -> bool + 'n;

/// Finds a call.
///
/// * `named`: in this order, the item, the index or batch and index, or the end of a path or URL.
///
/// # Errors
/// A sentence for the user, if no call or more than one is meant.
pub(super) fn find_call(calls: &CallHistory, named: &str) -> Result<CallKey, String> {
    let ways: [&IsMeant<'_>; 3] = [
        &|_, call| has_item(call, named),
        &|key, _| has_index(key, named),
        &|_, call| item_text(call).is_some_and(|text| ends_with(&text, named)),
    ];
    for is_meant in ways {
        let meant = calls.calls().filter(|(key, call)| is_meant(**key, call));
        let mut keys = meant.map(|(key, _)| *key);
        let Some(first) = keys.next() else {
            continue;
        };
        let others: Vec<_> = keys.by_ref().take(MAX_LISTED - 1).collect();
        if others.is_empty() {
            return Ok(first);
        }
        let listed = std::iter::once(first).chain(others);
        let listed: Vec<_> = listed.map(|key| key_text(calls, key)).collect();
        let more = match keys.count() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        return Err(format!(
            "more than one call matches; name one by its index: {}{more}",
            listed.join(", ")
        ));
    }
    let items: Vec<_> = calls
        .calls()
        .filter_map(|(_, call)| item_text(call))
        .collect();
    let advice = escaped(&did_you_mean(named, items.iter().map(String::as_str)));
    Err(format!(
        "no call that has started has this item or index; without it, `mandelbox show` lists the \
         calls{advice}"
    ))
}

/// Returns the text by which [`find_call`] finds a call.
pub(super) fn key_text(calls: &CallHistory, (batch, index): CallKey) -> String {
    let has_batches = calls.calls().any(|((other, _), _)| *other != batch);
    if has_batches {
        format!("{batch}:{index}")
    } else {
        index.to_string()
    }
}

/// Returns an item as its users know it: the text of a string, the URL of an image with further
/// arguments, any other value as JSON; `None` for a single call.
pub(super) fn item_text(call: &KnownCall) -> Option<String> {
    Some(match call.item.as_ref()? {
        Value::String(text) => text.clone(),
        Value::Object(item) => match item.get("zarr_url") {
            Some(Value::String(url)) => url.clone(),
            _ => Value::Object(item.clone()).to_string(),
        },
        other => other.to_string(),
    })
}

fn has_item(call: &KnownCall, named: &str) -> bool {
    let json_text = |item: &Value| item.to_string();
    let texts = [item_text(call), call.item.as_ref().map(json_text)];
    texts.iter().flatten().any(|text| text == named)
}

fn has_index((batch, index): CallKey, named: &str) -> bool {
    match named.split_once(':') {
        Some((of, named)) => of.parse() == Ok(batch) && named.parse() == Ok(index),
        None => named.parse() == Ok(index),
    }
}

/// Returns true if a path or URL ends with these parts of it.
fn ends_with(path: &str, named: &str) -> bool {
    let (path, named) = (path.trim_end_matches('/'), named.trim_end_matches('/'));
    let start = path.strip_suffix(named);
    !named.is_empty() && start.is_some_and(|start| start.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_parts_of_a_path_are_its_end() {
        assert!(ends_with("/data/plate.zarr/B/03/0", "0"));
        assert!(ends_with("https://host/plate.zarr/B/03/", "03"));
        assert!(ends_with("plate.zarr/B/03", "B/03/"));
        assert!(!ends_with("plate.zarr/B/03", "3"));
        assert!(!ends_with("03", "03"), "it is the item itself");
        assert!(!ends_with("plate.zarr/", "/"));
    }

    #[test]
    fn an_index_can_have_a_batch() {
        assert!(has_index((0, 7), "7") && has_index((1, 7), "7") && has_index((1, 7), "1:7"));
        assert!(!has_index((0, 7), "1:7") && !has_index((0, 7), "8") && !has_index((0, 7), ""));
    }
}
