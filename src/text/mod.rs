//! Text for people: escaping, numbers with units, wording. All functions are pure.

mod amounts;
pub mod escape;
pub mod file_name;
pub mod units;
pub(crate) mod wording;

pub use amounts::{bytes_text, duration_text};
pub(crate) use amounts::{span, time_text, unreadable, whole_microseconds};
pub use escape::{escaped, is_misleading};
