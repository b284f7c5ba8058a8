//! The task "Convert to OME-Zarr".

fn main() -> std::process::ExitCode {
    fractal_task::run(ome_zarr::convert::convert)
}
