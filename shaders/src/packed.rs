//! Two fp32 values as one 64-bit word.
//!
//! llvmpipe reads and writes storage lane by lane and component by component, some fifteen instructions each, whatever the
//! component's width, so a kernel of fp32 products spends four fifths of its time on reading. Words halve that. The values
//! are bits in both forms: nothing is rounded.

use cubecl::ir::{ElemType, UIntKind};
use cubecl::prelude::*;

use crate::device::Class;

/// How a buffer's fours are bound: as four elements, or, of fp32 on a processor's lanes, as two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packing {
    pub packed: bool,
    /// Of the binding's vectors.
    pub(crate) dtype: StorageType,
    /// Components of the binding's vectors.
    pub(crate) components: usize,
}

impl Packing {
    /// For vectors of `width` elements of `dtype`.
    pub(crate) fn of<R: Runtime>(client: &ComputeClient<R>, dtype: StorageType, width: usize) -> Self {
        let word: StorageType = ElemType::UInt(UIntKind::U64).into();
        let fp32 = f32::as_type_native_unchecked().storage_type();
        let packed = width.is_multiple_of(2)
            && dtype == fp32
            && Class::of(client) == Class::Narrow
            && client.properties().supports_type(word);
        if packed {
            Self { packed, dtype: word, components: width / 2 }
        } else {
            Self { packed, dtype, components: width }
        }
    }
}

/// A vector that was read, in fp32.
#[cube]
pub(crate) fn unpacked<T: Numeric, M: Size, N: Size>(x: Vector<T, M>, #[comptime] packed: bool) -> Vector<f32, N> {
    if comptime!(packed) {
        let words = Vector::<u64, M>::cast_from(x);
        let low = Vector::<u32, M>::cast_from(words);
        let high = Vector::<u32, M>::cast_from(words >> Vector::new(32u64));
        let mut values = Vector::<f32, N>::empty();
        #[unroll]
        for word in 0..M::value() {
            values[2 * word] = f32::reinterpret(low[word]);
            values[2 * word + 1] = f32::reinterpret(high[word]);
        }
        values
    } else {
        Vector::<f32, N>::cast_from(x)
    }
}

/// A vector of fp32 as it is written.
#[cube]
pub(crate) fn packed<T: Numeric, M: Size, N: Size>(x: Vector<f32, N>, #[comptime] packed: bool) -> Vector<T, M> {
    if comptime!(packed) {
        let mut low = Vector::<u32, M>::empty();
        let mut high = Vector::<u32, M>::empty();
        #[unroll]
        for word in 0..M::value() {
            low[word] = u32::reinterpret(x[2 * word]);
            high[word] = u32::reinterpret(x[2 * word + 1]);
        }
        let words = Vector::<u64, M>::cast_from(low) | (Vector::<u64, M>::cast_from(high) << Vector::new(32u64));
        Vector::<T, M>::cast_from(words)
    } else {
        Vector::<T, M>::cast_from(x)
    }
}
