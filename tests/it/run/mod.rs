//! `mandelbox run`, end to end.

mod calls;
mod folders;
mod records;

use crate::project::module;

fn swiss() -> String {
    module("swiss.wasm")
}
