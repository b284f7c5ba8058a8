//! Limit of open files: raises that of the process and divides it among the calls.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files reserved for the process itself: records, documents, and those of the runtime.
const RESERVED: u64 = 32;
/// Files that the host opens for a call: its output, and the pipes to its process.
const RESERVED_A_CALL: u64 = 8;
/// Minimum number of files of a call: the folders that it can access, its parameters, its output,
/// and some for its data.
const LEAST_OF_A_CALL: u64 = 16;

/// Raises the soft limit of this process to its hard limit. Returns the limit in force; `None` for
/// no limit.
pub(super) fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // If the limit cannot be raised, the old one applies.
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
    if raised.is_ok() {
        limit.maximum
    } else {
        limit.current
    }
}

/// Returns the number of calls that can run at a time within `limit`, at least 1.
pub(super) fn most_calls(limit: Option<u64>) -> usize {
    let Some(limit) = limit else {
        return usize::MAX;
    };
    let calls = limit.saturating_sub(RESERVED) / (RESERVED_A_CALL + LEAST_OF_A_CALL);
    usize::try_from(calls).unwrap_or(usize::MAX).max(1)
}

/// Returns the number of files that each of `n_calls` calls can open without taking any from
/// another call or from the records.
///
/// * `option`: sets the number of calls, for the message.
///
/// # Errors
/// A message for the user if that is too few for a call.
pub(super) fn of_a_call(limit: Option<u64>, n_calls: usize, option: &str) -> Result<usize, String> {
    let Some(limit) = limit else {
        return Ok(usize::MAX);
    };
    let n_calls = n_calls.max(1) as u64;
    let each = (limit.saturating_sub(RESERVED) / n_calls).saturating_sub(RESERVED_A_CALL);
    if each < LEAST_OF_A_CALL {
        let needed = RESERVED + n_calls * (RESERVED_A_CALL + LEAST_OF_A_CALL);
        let fewer = if n_calls > 1 {
            format!(", or lower `{option}`")
        } else {
            String::new()
        };
        return Err(format!(
            "{limit} open files are too few for `{option} {n_calls}`; raise the limit to \
             {needed}{fewer}"
        ));
    }
    Ok(usize::try_from(each).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_shared_by_the_calls() {
        assert_eq!(of_a_call(None, 1000, "--jobs"), Ok(usize::MAX));
        assert_eq!(of_a_call(Some(1024), 4, "--jobs"), Ok(240));
        for n_calls in [1, 2, 3, 100] {
            let needed = 32 + 24 * n_calls as u64;
            assert_eq!(of_a_call(Some(needed), n_calls, "--jobs"), Ok(16));
            assert_eq!(most_calls(Some(needed)), n_calls);
            let text = of_a_call(Some(needed - 1), n_calls, "--jobs").expect_err("one too few");
            assert!(
                text.contains(&format!("raise the limit to {needed}")),
                "{text}"
            );
        }
        assert_eq!(most_calls(Some(3)), 1);
    }
}
