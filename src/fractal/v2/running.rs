//! The task that runs: its images, its calls, and the effect of empty outputs.

use std::collections::HashSet;
use std::fmt::Display;

use super::image_list::Merged;

/// Calls that a message names; others are counted.
const MAX_SHOWN: usize = 5;

/// A task that runs.
pub(super) struct Running {
    /// URLs of the images that it was called for.
    pub(super) inputs: Vec<String>,
    pub(super) batch: RunningBatch,
}

/// The calls that run.
pub(super) enum RunningBatch {
    /// The single call of a task that is not compound.
    Single,
    /// The first call of a compound task.
    Init,
    /// A call for each image.
    Images,
    /// A call for each item that the first call returned: URLs of the items.
    Items(Vec<String>),
}

impl RunningBatch {
    pub(super) fn n_calls(&self, inputs: &[String]) -> usize {
        match self {
            Self::Single | Self::Init => 1,
            Self::Images => inputs.len(),
            Self::Items(urls) => urls.len(),
        }
    }
}

impl Running {
    /// Returns the inputs that count as changed by empty outputs: those of the calls that
    /// succeeded.
    ///
    /// Source: conformance rule V65, defect W18.
    pub(super) fn unchanged_inputs(&self, bad: &HashSet<usize>) -> Vec<&str> {
        let inputs = self.inputs.iter().map(String::as_str);
        match &self.batch {
            _ if bad.is_empty() => inputs.collect(),
            batch if bad.len() == batch.n_calls(&self.inputs) => Vec::new(),
            RunningBatch::Images => {
                let inputs = inputs.enumerate();
                let inputs = inputs.filter(|(call_index, _)| !bad.contains(call_index));
                inputs.map(|(_, url)| url).collect()
            }
            RunningBatch::Items(urls) => {
                let failed = bad.iter().filter_map(|call_index| urls.get(*call_index));
                let failed: HashSet<_> = failed.map(String::as_str).collect();
                let all: HashSet<_> = inputs.clone().collect();
                // An item can be an image that does not exist yet. If it failed, the inputs that
                // it was made from are not known.
                if failed.is_subset(&all) {
                    inputs.filter(|url| !failed.contains(url)).collect()
                } else {
                    Vec::new()
                }
            }
            RunningBatch::Single | RunningBatch::Init => Vec::new(),
        }
    }

    /// Returns the name of a call for messages.
    pub(super) fn call_name(&self, call_index: usize) -> String {
        let url = match &self.batch {
            RunningBatch::Single | RunningBatch::Init => None,
            RunningBatch::Images => self.inputs.get(call_index),
            RunningBatch::Items(urls) => urls.get(call_index),
        };
        match url {
            Some(url) => format!("call {call_index} ({url})"),
            None => "the call".to_owned(),
        }
    }
}

/// Returns the text for the log about images that were not changed as a user may expect.
///
/// Source: defects W33 and W34.
pub(super) fn note(running: &Running, merged: &Merged, sets_types: bool) -> Option<String> {
    let mut texts = Vec::new();
    if sets_types && !merged.is_empty {
        // A new image takes the place of its origin in later tasks.
        let is_left = |url: &&String| {
            let changed = [&merged.updated, &merged.removed, &merged.origins];
            changed.iter().all(|urls| !urls.contains(*url))
        };
        let n_left = running.inputs.iter().filter(is_left).count();
        if n_left > 0 {
            texts.push(format!(
                "{n_left} of {} images got no update, so they lack the output types of this task; \
                 later tasks may not select them",
                running.inputs.len()
            ));
        }
    }
    if merged.n_unknown_origins > 0 {
        texts.push(format!(
            "the origins of {} images are not in the image list; these images inherit no \
             attributes and types",
            merged.n_unknown_origins
        ));
    }
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// Joins texts of which there can be many.
pub(super) fn some_of<T: Display>(texts: impl ExactSizeIterator<Item = T>) -> String {
    let n_more = texts.len().saturating_sub(MAX_SHOWN);
    let shown: Vec<_> = texts.take(MAX_SHOWN).map(|text| text.to_string()).collect();
    let more = if n_more > 0 {
        format!("; {n_more} more")
    } else {
        String::new()
    };
    shown.join("; ") + &more
}
