//! Two Fractal tasks for plates of 16-bit images, one file a channel: [`list_images::list_images`]
//! finds the images, [`convert::convert`] writes one of them as OME-Zarr 0.4.
//!
//! [`name`] has the names, [`plane`] reads TIFF and PNG, [`pyramid`] makes the smaller levels,
//! [`pixel`] has the types of pixels, [`zarr`] reads and writes arrays, and [`ngff`] says what they mean.

pub mod convert;
pub mod list_images;
pub mod name;
pub mod ngff;
pub mod pixel;
pub mod plane;
pub mod pyramid;
pub mod zarr;
