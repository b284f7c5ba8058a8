//! The one test binary: every test here runs the real program or the library's public functions.

#![allow(
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "tests make files and start the program"
)]

mod absolute_links;
mod addresses;
mod args_schema;
mod authors_v2;
mod batch;
mod batch_streams;
mod cache_folder;
mod check;
mod compile;
mod confined;
mod corpora;
mod crash;
mod damaged_log;
mod described;
mod documents;
mod embedded;
mod exec;
mod exec_command;
mod file_errors;
mod file_systems;
mod fractal;
mod fractal_tables;
mod fractal_v2;
mod fractal_v2_defences;
mod fractal_v2_documents;
mod fractal_v2_resume;
mod fractal_v2_scale;
mod hostile;
mod imaging;
mod interpreters;
mod languages;
mod library;
mod limits;
mod listing;
mod lock;
mod manual;
mod memory;
mod metadiffs;
mod mistakes;
mod new;
mod other_tasks;
mod package_test;
mod planted;
mod processes;
mod processes_wasi;
mod project;
mod recorded;
mod report;
mod result_files;
mod resume;
mod retries;
mod reuse;
mod ro_crate;
mod run;
mod run_options;
mod runs;
mod sandbox;
mod show;
mod signals;
mod slurm;
mod slurm_cases;
mod slurm_cluster;
mod slurm_disturbed;
mod slurm_ends;
mod snapshot;
mod snapshot_calls;
mod snapshot_changes;
mod snapshot_hostile;
mod snapshot_runs;
mod snapshots;
mod starters;
mod status;
mod stopped;
mod strace;
mod system_limits;
mod task_files;
#[cfg(feature = "otel")]
mod telemetry;
mod tidy;
mod tracing;
mod typed;
mod typed_v2;
mod wasi_testsuite;
mod wheels;
mod wrong_documents;
mod wrong_modules;
