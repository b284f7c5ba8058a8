//! How many files the process may have open, and how many of them each call gets.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files of the process itself: records, documents, and what the runtime has open.
const RESERVED: u64 = 32;
/// Files that the host has open for a call: its output, and the pipes to its process.
const RESERVED_A_CALL: u64 = 8;
/// Fewest files that a call can do with: the folders that it sees, its parameters, its output,
/// and some for its data.
const LEAST_OF_A_CALL: u64 = 16;

/// Raises the soft limit of this process to its hard one and returns what is in force; `None`: no
/// limit.
pub(super) fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, the limit that is there counts.
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

/// Calls that can run at a time within `limit`, at least 1.
pub(super) fn most_calls(limit: Option<u64>) -> usize {
    let Some(limit) = limit else {
        return usize::MAX;
    };
    let calls = limit.saturating_sub(RESERVED) / (RESERVED_A_CALL + LEAST_OF_A_CALL);
    usize::try_from(calls).unwrap_or(usize::MAX).max(1)
}

/// Files that each of `n_calls` calls can have open, so that none takes those of another or of the
/// records.
///
/// # Errors
/// A sentence for the user if that is too few to run anything.
pub(super) fn of_a_call(limit: Option<u64>, n_calls: usize) -> Result<usize, String> {
    let Some(limit) = limit else {
        return Ok(usize::MAX);
    };
    let n_calls = n_calls.max(1) as u64;
    let each = (limit.saturating_sub(RESERVED) / n_calls).saturating_sub(RESERVED_A_CALL);
    if each < LEAST_OF_A_CALL {
        let needed = RESERVED + n_calls * (RESERVED_A_CALL + LEAST_OF_A_CALL);
        let fewer = if n_calls > 1 { ", or lower --jobs" } else { "" };
        return Err(format!(
            "{limit} open files are too few for --jobs {n_calls}: raise it to {needed}{fewer}"
        ));
    }
    Ok(usize::try_from(each).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_shared_by_the_calls() {
        assert_eq!(of_a_call(None, 1000), Ok(usize::MAX));
        assert_eq!(of_a_call(Some(1024), 4), Ok(240));
        for n_calls in [1, 2, 3, 100] {
            let needed = 32 + 24 * n_calls as u64;
            assert_eq!(of_a_call(Some(needed), n_calls), Ok(16));
            assert_eq!(most_calls(Some(needed)), n_calls);
            let text = of_a_call(Some(needed - 1), n_calls).expect_err("one too few");
            assert!(text.contains(&format!("raise it to {needed}")), "{text}");
        }
        assert_eq!(most_calls(Some(3)), 1);
    }
}
