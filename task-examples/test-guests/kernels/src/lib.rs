//! Work of known kinds and sizes: the same code runs in a sandbox and natively, so that the two can
//! be compared.
//!
//! Every kernel repeats its work `n` times on data that it makes itself and returns a checksum,
//! which is the same wherever it runs.

mod files;
mod pixels;
mod text;

/// A kernel: how often it does its work, and the folder that it may use; returns a checksum.
pub type Kernel = fn(n: u32, folder: &std::path::Path) -> std::io::Result<u64>;

/// All kernels by name.
pub const KERNELS: [(&str, Kernel); 8] = [
    ("nothing", |_, _| Ok(0)),
    ("projection", |n, _| Ok(pixels::projection(n))),
    ("filter", |n, _| Ok(pixels::filter(n))),
    ("labelling", |n, _| Ok(pixels::labelling(n))),
    ("json", |n, _| text::json(n)),
    ("write", files::write),
    ("read", files::read),
    ("small_files", files::small_files),
];

/// Numbers that look random and are the same everywhere (xorshift, 64 bits).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A checksum of values in their order.
fn checksum(values: impl IntoIterator<Item = u64>) -> u64 {
    values
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, value| {
            (sum ^ value).wrapping_mul(0x0100_0000_01b3)
        })
}
