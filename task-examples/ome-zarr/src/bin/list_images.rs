//! The task "List images".

fn main() -> std::process::ExitCode {
    fractal_task::run(ome_zarr::list_images::list_images)
}
