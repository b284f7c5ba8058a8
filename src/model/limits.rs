//! Limits of one call.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::text::bytes_text;

/// Limits on the resources of one call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of all memories and tables of the call together; default 4 GiB.
    pub memory_bytes: u64,
    /// Wall time, counted from the start of the guest; default none.
    pub wall_time: Option<Duration>,
    /// Bytes kept of stdout and of stderr, each; default 16 MiB. Further bytes are counted and
    /// dropped, and the guest continues.
    pub output_bytes: u64,
    /// Bytes of an output; default 16 MiB.
    pub call_output_bytes: u64,
    /// Files, folders and streams that are open at the same time; default 1,000.
    pub open_files: usize,
    /// Bytes of a module's file; default 64 MiB.
    pub module_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 4 << 30,
            wall_time: None,
            output_bytes: 16 << 20,
            call_output_bytes: 16 << 20,
            open_files: 1000,
            module_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// Returns the limits for a call in which a task describes itself.
    pub fn for_description(&self) -> Self {
        /// Maximum time for the description.
        const TIMEOUT: Duration = Duration::from_secs(10);
        /// Maximum size of the description, in bytes.
        const MAX_BYTES: u64 = 1 << 20;
        /// Memory of that call: enough for interpreters, even if other calls may have more.
        const MEMORY_BYTES: u64 = 512 << 20;
        // All fields, so that a new one is not forgotten.
        let Self {
            memory_bytes,
            wall_time,
            output_bytes: _,
            call_output_bytes,
            open_files,
            module_bytes,
        } = *self;
        Self {
            memory_bytes: memory_bytes.min(MEMORY_BYTES),
            wall_time: Some(wall_time.unwrap_or(TIMEOUT).min(TIMEOUT)),
            output_bytes: 0,
            call_output_bytes: call_output_bytes.min(MAX_BYTES),
            open_files,
            module_bytes,
        }
    }

    /// Returns these limits with the memory and wall time that a document requests, at most those
    /// of `maximum`. The text is a warning if the document requested more.
    pub fn clamp_to(
        &self,
        memory_bytes: Option<u64>,
        wall_time: Option<Duration>,
        maximum: &Self,
    ) -> (Self, Option<String>) {
        let mut limits = self.clone();
        limits.memory_bytes = memory_bytes.unwrap_or(limits.memory_bytes);
        limits.wall_time = wall_time.or(limits.wall_time);
        let mut kept = Vec::new();
        if limits.memory_bytes > maximum.memory_bytes {
            limits.memory_bytes = maximum.memory_bytes;
            kept.push(format!("{} of memory", bytes_text(maximum.memory_bytes)));
        }
        if let Some(max_time) = maximum.wall_time
            && limits.wall_time.is_none_or(|time| time > max_time)
        {
            limits.wall_time = Some(max_time);
            kept.push(format!("{} s of time", max_time.as_secs_f64()));
        }
        let text = (!kept.is_empty()).then(|| {
            format!(
                "requests more than the policy allows; the limit stays at {}",
                kept.join(" and ")
            )
        });
        (limits, text)
    }

    /// Returns the names of the limits that exceed those of `maximum`, as in the policy file.
    pub(crate) fn above(&self, maximum: &Self) -> Vec<&'static str> {
        // All fields, so that a new one is not forgotten.
        let Self {
            memory_bytes,
            wall_time,
            output_bytes,
            call_output_bytes,
            open_files,
            module_bytes,
        } = *self;
        // No time limit exceeds any time limit.
        let time = |limit: Option<Duration>| limit.unwrap_or(Duration::MAX);
        let is_above = [
            ("memory", memory_bytes > maximum.memory_bytes),
            ("timeout", time(wall_time) > time(maximum.wall_time)),
            ("output", output_bytes > maximum.output_bytes),
            ("call_output", call_output_bytes > maximum.call_output_bytes),
            ("open_files", open_files > maximum.open_files),
            ("module", module_bytes > maximum.module_bytes),
        ];
        is_above
            .into_iter()
            .filter(|(_, above)| *above)
            .map(|(key, _)| key)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_have_ten_seconds_and_no_more_than_a_call() {
        let wall_time = |given| {
            let limits = Limits {
                wall_time: given,
                ..Limits::default()
            };
            limits.for_description().wall_time
        };
        let [short, usual, long] = [1, 10, 60].map(Duration::from_secs);
        assert_eq!(wall_time(None), Some(usual));
        assert_eq!(wall_time(Some(long)), Some(usual));
        assert_eq!(wall_time(Some(short)), Some(short));
    }
}
