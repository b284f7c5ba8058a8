//! The workflow tasks of a run from its history: with their args, which no event has.
//!
//! Records are read as a stream, and only the workflow tasks are kept. The records also hold the
//! metadata and the lists of items, either of which can be larger than everything else in memory.

use std::fmt;
use std::io::BufReader;
use std::path::Path;

use jiff::Timestamp;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::event::{RunSummary, TaskSummary};
use crate::folder::open_plain_file;
use crate::json::{Map, Value, next_value_of, read_stream};
use crate::model::record_names::{HISTORY_FILE, RESULT_FILE};

/// Reads the workflow task of each task of `summary`, in order, from the last records of the run.
/// It is `None` for a task without a history item, such as the task in which a run was killed.
pub(super) fn read_workflow_tasks(
    work_dir: &Path,
    summary: &RunSummary,
) -> Vec<Option<Map<String, Value>>> {
    let open = |name| {
        open_plain_file(&work_dir.join(name))
            .map(BufReader::new)
            .ok()
    };
    // Only the result has a failed task; a killed run has no result.
    let of_result = match summary.end {
        Some(_) => open(RESULT_FILE).and_then(|file| read_stream(file, Key("history")).ok()),
        None => None,
    };
    let items =
        of_result.or_else(|| open(HISTORY_FILE).and_then(|file| read_stream(file, Items).ok()));
    let mut items = items.unwrap_or_default();
    let take = |task: &TaskSummary| {
        let mut items = items.iter_mut().rev();
        let item = items.find(|item| item.is_of(task, summary.started));
        match item.and_then(|item| item.workflow_task.take()) {
            Some(Value::Object(workflow_task)) => Some(workflow_task),
            _ => of_log(task, summary),
        }
    };
    summary.tasks.iter().map(take).collect()
}

/// Returns the workflow task from the event log, which has it if there is no history.
fn of_log(task: &TaskSummary, summary: &RunSummary) -> Option<Map<String, Value>> {
    let planned = summary.run.as_ref()?.tasks.iter();
    let mut planned = planned.filter(|planned| planned.task == task.order);
    planned.next()?.workflow_task.clone()
}

/// The keys of a history item that are used.
#[derive(Default)]
struct Item {
    workflow_task: Option<Value>,
    /// The object that mandelbox adds to Fractal's keys.
    mandelbox: Value,
}

impl Item {
    /// Returns true if the item is of this task, in a run that started at `run_started`. Items of
    /// earlier runs may precede it.
    fn is_of(&self, task: &TaskSummary, run_started: Timestamp) -> bool {
        let started = self.mandelbox["started"]
            .as_str()
            .and_then(|time| time.parse::<Timestamp>().ok());
        let order = self
            .workflow_task
            .as_ref()
            .and_then(|workflow_task| workflow_task["order"].as_u64());
        order == Some(task.order)
            && self.mandelbox["module_sha256"].as_str() == Some(&task.module_sha256)
            && started.is_some_and(|started| started >= run_started)
    }
}

/// The history under a key of an object; all other keys are skipped.
struct Key(&'static str);

/// A history.
struct Items;

/// A history item.
struct OneItem;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Vec<Item>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Vec<Item>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut items = None;
        while let Some(key) = entries.next_key::<String>()? {
            if key == self.0 {
                items = Some(entries.next_value_seed(Items)?);
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        items.ok_or_else(|| A::Error::custom("there is no history"))
    }
}

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Vec<Item>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<Item>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = array.next_element_seed(OneItem)? {
            items.push(item);
        }
        Ok(items)
    }
}

impl<'de> DeserializeSeed<'de> for OneItem {
    type Value = Item;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneItem {
    type Value = Item;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a history item")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut item = Item::default();
        while let Some(key) = entries.next_key::<String>()? {
            match key.as_str() {
                "workflowtask" => item.workflow_task = Some(next_value_of(&mut entries)?),
                "mandelbox" => item.mandelbox = next_value_of(&mut entries)?,
                _ => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(item)
    }
}
