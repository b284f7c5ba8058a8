//! Two Fractal tasks for plates of 16-bit images, one file a channel: [`list_images::list_images`]
//! finds the images, [`convert::convert`] writes one of them as OME-Zarr 0.4.
//!
//! [`name`] has the names, [`plane`] reads TIFF and PNG, [`pyramid`] makes the smaller levels,
//! [`zarr`] reads and writes arrays, [`values`] those of tables, [`group`] groups with their
//! attributes, and [`ngff`] has the metadata that say what the pixels mean. [`pixel`] has the types
//! of pixels, [`codec`] the compression of chunks.

mod blosc;
pub mod codec;
pub mod convert;
pub mod group;
pub mod list_images;
pub mod name;
pub mod ngff;
pub mod pixel;
pub mod plane;
pub mod pyramid;
mod shard;
pub mod values;
pub mod zarr;
