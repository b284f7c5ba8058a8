//! Number of calls in a job, and number of them that run at the same time: Fractal's heuristic.
//!
//! Source: fractal-server 2.9.2 and 2.24.2, `heuristics`.

/// Bounds of a job and of the number of jobs: the keys of `batching_config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchingConfig {
    /// CPUs of a job, if there are few calls.
    pub(super) target_cpus_per_job: u64,
    /// CPUs of a job at most.
    pub(super) max_cpus_per_job: u64,
    /// Memory of a job in MB, if there are few calls.
    pub(super) target_mem_per_job: u64,
    /// Memory of a job in MB at most.
    pub(super) max_mem_per_job: u64,
    /// Number of jobs, if there are few calls.
    pub(super) target_num_jobs: u64,
    /// Number of jobs at most.
    pub(super) max_num_jobs: u64,
}

/// The calls of a batch and the resources of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    /// Number of calls, at least 1.
    pub(super) n_calls: u64,
    /// CPUs of a call, at least 1.
    pub(super) cpus: u64,
    /// Memory of a call in MB; 0: not limited.
    pub(super) mem_mb: u64,
    /// `tasks_per_job` of the task.
    pub(super) tasks_per_job: Option<u64>,
    /// `parallel_tasks_per_job` of the task.
    pub(super) parallel_tasks_per_job: Option<u64>,
}

/// Shape of the jobs of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JobShape {
    /// Calls of a job at most, at least 1.
    pub(super) tasks_per_job: u64,
    /// Calls of a job that run at the same time, at least 1.
    pub(super) parallel: u64,
}

impl JobShape {
    /// Number of jobs for this many calls.
    pub(super) fn n_jobs(self, n_calls: u64) -> u64 {
        n_calls.div_ceil(self.tasks_per_job)
    }

    /// Number of calls that run one after the other in a job.
    pub(super) fn rounds(self) -> u64 {
        self.tasks_per_job.div_ceil(self.parallel)
    }
}

/// Chooses the shape of the jobs.
///
/// # Errors
/// A sentence for the user if a call or a given shape exceeds the bounds.
pub(super) fn choose_shape(demand: &Demand, config: &BatchingConfig) -> Result<JobShape, String> {
    check_call(demand, config)?;
    match (demand.tasks_per_job, demand.parallel_tasks_per_job) {
        (None, None) => Ok(best_shape(demand, config)),
        (Some(tasks), Some(parallel)) => given_shape(demand, config, tasks, parallel),
        (Some(_), None) => Err(needs_other("tasks_per_job", "parallel_tasks_per_job")),
        (None, Some(_)) => Err(needs_other("parallel_tasks_per_job", "tasks_per_job")),
    }
}

fn needs_other(given: &str, missing: &str) -> String {
    format!("`{given}` is given without `{missing}`; give both, or neither")
}

fn check_call(demand: &Demand, config: &BatchingConfig) -> Result<(), String> {
    let max_cpus = config.max_cpus_per_job;
    if demand.cpus > max_cpus {
        return Err(format!(
            "a call needs {} CPUs, and a job has {max_cpus} at most (`max_cpus_per_job`); lower \
             `cpus_per_task`, or raise `max_cpus_per_job`",
            demand.cpus
        ));
    }
    let max_mem = config.max_mem_per_job;
    if demand.mem_mb > max_mem {
        return Err(format!(
            "a call needs {} MB, and a job has {max_mem} MB at most (`max_mem_per_job`); lower \
             `mem`, or raise `max_mem_per_job`",
            demand.mem_mb
        ));
    }
    Ok(())
}

fn given_shape(
    demand: &Demand,
    config: &BatchingConfig,
    tasks_per_job: u64,
    parallel: u64,
) -> Result<JobShape, String> {
    if tasks_per_job == 0 || parallel == 0 {
        return Err("`tasks_per_job` and `parallel_tasks_per_job` must be 1 or more".to_owned());
    }
    let shape = JobShape {
        tasks_per_job,
        parallel: parallel.min(tasks_per_job),
    };
    let cpus = shape.parallel.saturating_mul(demand.cpus);
    let mem_mb = shape.parallel.saturating_mul(demand.mem_mb);
    let n_jobs = shape.n_jobs(demand.n_calls);
    for (value, max, what, key) in [
        (
            cpus,
            config.max_cpus_per_job,
            "CPUs of a job",
            "max_cpus_per_job",
        ),
        (
            mem_mb,
            config.max_mem_per_job,
            "MB of a job",
            "max_mem_per_job",
        ),
        (n_jobs, config.max_num_jobs, "jobs", "max_num_jobs"),
    ] {
        if value > max {
            return Err(format!(
                "`tasks_per_job` {tasks_per_job} and `parallel_tasks_per_job` {parallel} give \
                 {value} {what}, which exceeds `{key}` {max}; change them, or raise `{key}`"
            ));
        }
    }
    Ok(shape)
}

fn best_shape(demand: &Demand, config: &BatchingConfig) -> JobShape {
    let shape = |parallel| JobShape {
        tasks_per_job: parallel,
        parallel,
    };
    let target = shape(fit(
        demand,
        config.target_cpus_per_job,
        config.target_mem_per_job,
    ));
    if target.n_jobs(demand.n_calls) <= config.target_num_jobs {
        return target;
    }
    let full = shape(fit(demand, config.max_cpus_per_job, config.max_mem_per_job));
    if full.n_jobs(demand.n_calls) <= config.max_num_jobs {
        return full;
    }
    JobShape {
        tasks_per_job: demand.n_calls.div_ceil(config.max_num_jobs.max(1)),
        parallel: full.parallel,
    }
}

/// Number of calls that fit into a job at the same time, at least 1.
fn fit(demand: &Demand, cpus: u64, mem_mb: u64) -> u64 {
    if demand.cpus > cpus || demand.mem_mb > mem_mb {
        return 1;
    }
    let by_cpus = cpus / demand.cpus.max(1);
    let by_mem = mem_mb.checked_div(demand.mem_mb).unwrap_or(u64::MAX);
    by_cpus.min(by_mem).max(1)
}

/// Distributes calls evenly over jobs: the sizes of two jobs differ by 1 at most. Returns the
/// number of calls of each job.
pub(super) fn spread(n_calls: usize, n_jobs: usize) -> Vec<usize> {
    let n_jobs = n_jobs.clamp(1, n_calls.max(1));
    let (size, n_larger) = (n_calls / n_jobs, n_calls % n_jobs);
    (0..n_jobs)
        .map(|job| size + usize::from(job < n_larger))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: BatchingConfig = BatchingConfig {
        target_cpus_per_job: 4,
        max_cpus_per_job: 16,
        target_mem_per_job: 10_000,
        max_mem_per_job: 32_000,
        target_num_jobs: 100,
        max_num_jobs: 1000,
    };

    fn demand(n_calls: u64, cpus: u64, mem_mb: u64) -> Demand {
        Demand {
            n_calls,
            cpus,
            mem_mb,
            tasks_per_job: None,
            parallel_tasks_per_job: None,
        }
    }

    #[test]
    fn shapes_are_those_of_fractal() {
        for (n_calls, cpus, mem_mb, expected) in [
            (10, 2, 1000, (2, 2)),
            (200, 2, 1000, (2, 2)),
            (201, 2, 1000, (8, 8)),
            (8000, 2, 1000, (8, 8)),
            (8001, 2, 1000, (9, 8)),
            (100_000, 2, 1000, (100, 8)),
            (10, 8, 1000, (1, 1)),
            (10, 2, 20_000, (1, 1)),
            // Without memory, only the CPUs count.
            (10, 2, 0, (2, 2)),
            (1, 16, 32_000, (1, 1)),
        ] {
            let shape = choose_shape(&demand(n_calls, cpus, mem_mb), &CONFIG).expect("a shape");
            let found = (shape.tasks_per_job, shape.parallel);
            assert_eq!(found, expected, "{n_calls} calls");
        }
    }

    #[test]
    fn a_given_shape_counts_within_the_bounds() {
        let given = |n_calls, tasks, parallel| {
            let demand = Demand {
                tasks_per_job: tasks,
                parallel_tasks_per_job: parallel,
                ..demand(n_calls, 2, 1000)
            };
            choose_shape(&demand, &CONFIG).map(|shape| (shape.tasks_per_job, shape.parallel))
        };
        assert_eq!(given(10, Some(5), Some(2)), Ok((5, 2)));
        assert_eq!(given(10, Some(2), Some(5)), Ok((2, 2)));
        assert_eq!(given(2000, Some(2), Some(2)), Ok((2, 2)));
        for (n_calls, tasks, parallel, expected) in [
            (10, Some(5), None, "`tasks_per_job` is given without"),
            (
                10,
                None,
                Some(5),
                "`parallel_tasks_per_job` is given without",
            ),
            (
                2001,
                Some(2),
                Some(2),
                "1001 jobs, which exceeds `max_num_jobs` 1000",
            ),
            (10, Some(9), Some(9), "18 CPUs of a job"),
            (10, Some(0), Some(1), "1 or more"),
        ] {
            let message = given(n_calls, tasks, parallel).expect_err(expected);
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_call_that_exceeds_a_job_is_refused() {
        for (cpus, mem_mb, expected) in [
            (17, 1000, "17 CPUs, and a job has 16 at most"),
            (2, 32_001, "32001 MB, and a job has 32000 MB at most"),
        ] {
            let message = choose_shape(&demand(1, cpus, mem_mb), &CONFIG).expect_err(expected);
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn calls_are_spread_evenly() {
        assert_eq!(spread(10, 4), [3, 3, 2, 2]);
        assert_eq!(spread(8, 4), [2, 2, 2, 2]);
        assert_eq!(spread(2, 4), [1, 1]);
        assert_eq!(spread(1, 1), [1]);
        let sizes = spread(8001, 890);
        assert_eq!(sizes.iter().sum::<usize>(), 8001);
        assert!(sizes.iter().all(|size| [8, 9].contains(size)));
    }
}
