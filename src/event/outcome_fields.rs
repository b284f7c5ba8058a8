//! Reader of the outcome of a call from the fields of an event.

use super::fields::Fields;
use crate::model::Outcome;

/// Takes the fields of an outcome.
///
/// # Errors
/// A sentence about the field that is wrong.
pub(super) fn read_outcome(fields: &mut Fields<'_>) -> Result<Outcome, String> {
    let outcome: String = fields.take("outcome")?;
    Ok(match outcome.as_str() {
        "succeeded" => Outcome::Succeeded {
            output: fields.take_object_or_null("output")?,
        },
        "exited" => Outcome::Exited {
            code: fields.take("code")?,
        },
        "failed" => Outcome::Failed {
            message: fields.take("message")?,
        },
        "trapped" => Outcome::Trapped {
            message: fields.take("message")?,
        },
        "timed_out" => Outcome::TimedOut {
            limit_s: fields.take("limit_s")?,
        },
        "memory_exceeded" => Outcome::MemoryExceeded {
            limit_bytes: fields.take("limit_bytes")?,
            asked_bytes: fields.take("asked_bytes")?,
        },
        "bad_output" => Outcome::BadOutput {
            message: fields.take("message")?,
        },
        "outputs_exceeded" => Outcome::OutputsExceeded {
            limit_bytes: fields.take("limit_bytes")?,
            asked_bytes: fields.take("asked_bytes")?,
        },
        "refused" => Outcome::Refused {
            message: fields.take("message")?,
        },
        "cancelled" => Outcome::Cancelled,
        "host_failed" => Outcome::HostFailed {
            message: fields.take("message")?,
        },
        "lost" => Outcome::Lost {
            message: fields.take("message")?,
        },
        "panicked" => Outcome::Panicked {
            message: fields.take("message")?,
        },
        unknown => {
            return Err(format!(
                "`outcome`: this version of mandelbox does not know `{unknown}`"
            ));
        }
    })
}
