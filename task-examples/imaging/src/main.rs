//! The program that is built to `modules/imaging.wasm`.

fn main() -> std::process::ExitCode {
    imaging::run()
}
