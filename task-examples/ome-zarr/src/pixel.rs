//! Types of pixels, and planes whose type is known only at run time.

use crate::plane::Plane;
use crate::pyramid;

/// Type of the pixels of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelType {
    /// 8 bits, unsigned.
    U8,
    /// 16 bits, unsigned.
    U16,
    /// 32 bits, unsigned.
    U32,
    /// 16 bits, signed.
    I16,
    /// 32 bits, floating point.
    F32,
}

impl PixelType {
    /// All types.
    pub const ALL: [Self; 5] = [Self::U8, Self::U16, Self::U32, Self::I16, Self::F32];

    /// Name in the metadata of Zarr 2: `<u2`.
    pub fn dtype(self) -> &'static str {
        match self {
            Self::U8 => "|u1",
            Self::U16 => "<u2",
            Self::U32 => "<u4",
            Self::I16 => "<i2",
            Self::F32 => "<f4",
        }
    }

    /// Name in numpy and in the metadata of Zarr 3: `uint16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::I16 => "int16",
            Self::F32 => "float32",
        }
    }

    /// Size of a pixel in bytes.
    pub fn n_bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::F32 => 4,
        }
    }

    /// The smallest and the largest value; `None` for floating-point numbers.
    pub fn limits(self) -> Option<[f64; 2]> {
        match self {
            Self::U8 => Some([0.0, u8::MAX.into()]),
            Self::U16 => Some([0.0, u16::MAX.into()]),
            Self::U32 => Some([0.0, u32::MAX.into()]),
            Self::I16 => Some([i16::MIN.into(), i16::MAX.into()]),
            Self::F32 => None,
        }
    }
}

/// A kind of pixel that an array may have.
pub trait Pixel: Copy + Default + PartialOrd + 'static {
    /// Its type.
    const TYPE: PixelType;
    /// Writes it, little endian, into `bytes`, as many as its type has.
    fn put(self, bytes: &mut [u8]);
    /// Reads it from `bytes`, as many as its type has.
    fn take(bytes: &[u8]) -> Self;
    /// Its value, exactly.
    fn to_f64(self) -> f64;
    /// The value without its fraction, cut at the limits of the type. Floating-point pixels keep
    /// the fraction.
    fn from_f64(value: f64) -> Self;
    /// The mean of four pixels. Integers are rounded, and halfway between two integers to the even
    /// one.
    fn mean(four: [Self; 4]) -> Self;
    /// Wraps a plane of such pixels.
    fn wrap(plane: Plane<Self>) -> AnyPlane;
    /// Unwraps a plane of such pixels; `None` for a plane of other pixels.
    fn unwrap(plane: AnyPlane) -> Option<Plane<Self>>;
}

/// * `$sum`: type that holds the sum of four pixels.
/// * `$from`: converts a number.
macro_rules! pixel {
    ($type:ty, $variant:ident, $sum:ty, |$total:ident| $mean:expr, |$number:ident| $from:expr) => {
        impl Pixel for $type {
            const TYPE: PixelType = PixelType::$variant;

            fn put(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }

            fn take(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<Self>()];
                array.copy_from_slice(bytes);
                Self::from_le_bytes(array)
            }

            fn to_f64(self) -> f64 {
                self.into()
            }

            fn from_f64($number: f64) -> Self {
                ($from) as Self
            }

            fn mean(four: [Self; 4]) -> Self {
                let [a, b, c, d] = four.map(<$sum>::from);
                let $total = a + b + c + d;
                $mean as Self
            }

            fn wrap(plane: Plane<Self>) -> AnyPlane {
                AnyPlane::$variant(plane)
            }

            fn unwrap(plane: AnyPlane) -> Option<Plane<Self>> {
                match plane {
                    AnyPlane::$variant(plane) => Some(plane),
                    _ => None,
                }
            }
        }
    };
}

// A shift divides by 4 and rounds down, for negative sums too. Modules convert numbers to signed
// integers of 32 bits faster than to others.
pixel!(u8, U8, u32, |sum| (sum + 1 + (sum >> 2 & 1)) >> 2, |n| {
    low_bits_of_whole(n, 255.0)
});
pixel!(u16, U16, u32, |sum| (sum + 1 + (sum >> 2 & 1)) >> 2, |n| {
    low_bits_of_whole(n, 65_535.0)
});
pixel!(u32, U32, u64, |sum| (sum + 1 + (sum >> 2 & 1)) >> 2, |n| n);
pixel!(i16, I16, i32, |sum| (sum + 1 + (sum >> 2 & 1)) >> 2, |n| {
    (n as i32).clamp(-32_768, 32_767)
});
pixel!(f32, F32, f64, |sum| sum / 4.0, |n| n);

/// A value without its fraction, from 0 to `max`, as the low bits of the result; 0 for NaN.
///
/// * `max`: less than 2^52, a whole number.
///
/// A conversion of Rust would do, but the compilers use no vectors for it in a module.
fn low_bits_of_whole(value: f64, max: f64) -> u64 {
    /// From here to its double, the numbers are whole and their last bits are those of integers.
    const WHOLE: f64 = (1_u64 << 52) as f64;
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < max { value } else { max };
    let nearest = (value + WHOLE) - WHOLE;
    let whole = if nearest > value {
        nearest - 1.0
    } else {
        nearest
    };
    (whole + WHOLE).to_bits()
}

/// A plane of any type of pixels.
#[derive(Debug, Clone, PartialEq)]
pub enum AnyPlane {
    /// 8 bits, unsigned.
    U8(Plane<u8>),
    /// 16 bits, unsigned.
    U16(Plane<u16>),
    /// 32 bits, unsigned.
    U32(Plane<u32>),
    /// 16 bits, signed.
    I16(Plane<i16>),
    /// 32 bits, floating point.
    F32(Plane<f32>),
}

/// Evaluates an expression for the plane in an [`AnyPlane`], whatever its type.
#[macro_export]
macro_rules! each_plane {
    ($any:expr, $plane:ident => $body:expr) => {
        match $any {
            $crate::pixel::AnyPlane::U8($plane) => $body,
            $crate::pixel::AnyPlane::U16($plane) => $body,
            $crate::pixel::AnyPlane::U32($plane) => $body,
            $crate::pixel::AnyPlane::I16($plane) => $body,
            $crate::pixel::AnyPlane::F32($plane) => $body,
        }
    };
}

/// Evaluates an expression with a type of Rust in place of a [`PixelType`].
#[macro_export]
macro_rules! each_type {
    ($pixel_type:expr, $type:ident => $body:expr) => {
        match $pixel_type {
            $crate::pixel::PixelType::U8 => {
                type $type = u8;
                $body
            }
            $crate::pixel::PixelType::U16 => {
                type $type = u16;
                $body
            }
            $crate::pixel::PixelType::U32 => {
                type $type = u32;
                $body
            }
            $crate::pixel::PixelType::I16 => {
                type $type = i16;
                $body
            }
            $crate::pixel::PixelType::F32 => {
                type $type = f32;
                $body
            }
        }
    };
}

impl AnyPlane {
    /// Decodes little-endian values.
    ///
    /// * `bytes`: as many as the size and the type of the pixels need.
    pub fn from_le_bytes(
        pixel_type: PixelType,
        (width, height): (usize, usize),
        bytes: &[u8],
    ) -> Self {
        each_type!(pixel_type, T => {
            let values: Vec<T> = bytes.chunks_exact(T::TYPE.n_bytes()).map(T::take).collect();
            T::wrap(Plane { width, height, values })
        })
    }

    /// The type of its pixels.
    pub fn pixel_type(&self) -> PixelType {
        match self {
            Self::U8(_) => PixelType::U8,
            Self::U16(_) => PixelType::U16,
            Self::U32(_) => PixelType::U32,
            Self::I16(_) => PixelType::I16,
            Self::F32(_) => PixelType::F32,
        }
    }

    /// Width and height.
    pub fn size(&self) -> (usize, usize) {
        each_plane!(self, plane => (plane.width, plane.height))
    }

    /// Halves it in both directions: [`pyramid::halve`].
    pub fn halve(&self) -> Self {
        each_plane!(self, plane => Pixel::wrap(pyramid::halve(plane)))
    }

    /// The smallest and the largest value, without NaN; infinite and negative infinite if there is
    /// none.
    pub fn range(&self) -> [f64; 2] {
        each_plane!(self, plane => range(&plane.values))
    }

    /// All values, exactly, row after row.
    pub fn to_f64(&self) -> Vec<f64> {
        each_plane!(self, plane => plane.values.iter().map(|value| value.to_f64()).collect())
    }

    /// All values as numbers of 32 bits, row after row, for pictures.
    pub fn to_f32(&self) -> Plane<f32> {
        let (width, height) = self.size();
        let values = each_plane!(self, plane => plane.values.iter().map(|value| value.to_f64() as f32).collect());
        Plane {
            width,
            height,
            values,
        }
    }

    /// Keeps the larger value of each pair of pixels. Planes of other pixels or another size change
    /// nothing.
    ///
    /// Returns true if the two planes have the same type and size.
    #[must_use]
    pub fn keep_larger(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::U8(one), Self::U8(other)) => keep_larger(one, other),
            (Self::U16(one), Self::U16(other)) => keep_larger(one, other),
            (Self::U32(one), Self::U32(other)) => keep_larger(one, other),
            (Self::I16(one), Self::I16(other)) => keep_larger(one, other),
            (Self::F32(one), Self::F32(other)) => keep_larger(one, other),
            _ => false,
        }
    }
}

fn range<T: Pixel>(values: &[T]) -> [f64; 2] {
    let mut known = values
        .iter()
        .copied()
        .filter(|value| value.partial_cmp(value).is_some());
    let Some(first) = known.next() else {
        return [f64::INFINITY, f64::NEG_INFINITY];
    };
    let mut range = [first; 2];
    for value in known {
        if value < range[0] {
            range[0] = value;
        }
        if value > range[1] {
            range[1] = value;
        }
    }
    range.map(T::to_f64)
}

fn keep_larger<T: Pixel>(one: &mut Plane<T>, other: &Plane<T>) -> bool {
    let same = (one.width, one.height) == (other.width, other.height);
    if same {
        for (value, &other) in one.values.iter_mut().zip(&other.values) {
            let old = *value;
            // A NaN gives way to any number.
            *value = if other > old || old.partial_cmp(&old).is_none() {
                other
            } else {
                old
            };
        }
    }
    same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_rounded_halves_to_even() {
        assert_eq!(
            [
                u8::mean([1, 2, 3, 4]),
                u8::mean([255; 4]),
                u8::mean([0, 1, 1, 0])
            ],
            [2, 255, 0]
        );
        assert_eq!(
            [
                i16::mean([-1, -2, -3, -4]),
                i16::mean([-1, -1, 0, 0]),
                i16::mean([i16::MIN; 4])
            ],
            [-2, 0, -32768]
        );
        assert_eq!(i16::mean([-1, -1, -1, 0]), -1);
        assert_eq!(
            [u32::mean([u32::MAX; 4]), u32::mean([1, 2, 2, 1])],
            [u32::MAX, 2]
        );
        assert_eq!(f32::mean([0.5, 1.0, 0.0, 0.5]), 0.5);
        assert_eq!(f32::mean([f32::MAX; 4]), f32::MAX);
    }

    #[test]
    fn numbers_lose_their_fraction_and_are_cut_at_the_limits() {
        let numbers = [
            f64::NEG_INFINITY,
            -40_000.5,
            -1.5,
            1.9,
            254.99,
            65_535.9,
            5e9,
            f64::NAN,
        ];
        assert_eq!(numbers.map(u8::from_f64), [0, 0, 0, 1, 254, 255, 255, 0]);
        assert_eq!(
            numbers.map(u16::from_f64),
            [0, 0, 0, 1, 254, 65_535, 65_535, 0]
        );
        assert_eq!(
            numbers.map(i16::from_f64),
            [-32_768, -32_768, -1, 1, 254, 32_767, 32_767, 0]
        );
        assert_eq!(
            numbers.map(u32::from_f64),
            [0, 0, 0, 1, 254, 65_535, u32::MAX, 0]
        );
        assert_eq!(f32::from_f64(-1.5), -1.5);
    }

    #[test]
    fn bytes_are_values_of_each_type() {
        for pixel_type in PixelType::ALL {
            let bytes: Vec<u8> = (0..pixel_type.n_bytes() as u8 * 2).collect();
            let plane = AnyPlane::from_le_bytes(pixel_type, (2, 1), &bytes);
            assert_eq!((plane.pixel_type(), plane.size()), (pixel_type, (2, 1)));
        }
        let plane = AnyPlane::from_le_bytes(PixelType::I16, (2, 1), &[0xff, 0xff, 1, 0]);
        assert_eq!(
            (plane.range(), plane.to_f64()),
            ([-1.0, 1.0], vec![-1.0, 1.0])
        );
    }

    #[test]
    fn nan_is_no_value() {
        let plane = |values: Vec<f32>| {
            AnyPlane::F32(Plane {
                width: values.len(),
                height: 1,
                values,
            })
        };
        let mut one = plane(vec![f32::NAN, 2.0, -1.0]);
        assert_eq!(one.range(), [-1.0, 2.0]);
        assert!(one.keep_larger(&plane(vec![1.0, f32::NAN, 3.0])));
        assert_eq!(one, plane(vec![1.0, 2.0, 3.0]));
        assert!(!one.keep_larger(&plane(vec![9.0])));
        assert_eq!(
            plane(vec![f32::NAN]).range(),
            [f64::INFINITY, f64::NEG_INFINITY]
        );
    }
}
