//! Tensor maps: what cuTensorMapEncodeTiled checks, and how cp.async.bulk.tensor reads them (CUDA Driver API, "Tensor
//! Map Object Management"; PTX ISA, "Tensors", "Tiled Mode", "Swizzling Modes").
//!
//! The 128 bytes are opaque; here they are sixteen words of our own. A map without our first word is none.

/// Of sixteen words.
pub const BYTES: usize = 128;
pub const ALIGN: u64 = 64;
const MAGIC: u64 = 0x7465_6e73_6f72_6d70;

/// A tile mode map. Dimensions are innermost first; `strides[i]` is that of dimension i + 1, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    pub address: u64,
    pub element: u64,
    pub dims: Vec<u64>,
    pub strides: Vec<u64>,
    pub box_dims: Vec<u64>,
    pub swizzle: Swizzle,
    /// What is outside becomes NaN, not zero.
    pub fills_nan: bool,
}

/// CUtensorMapSwizzle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swizzle {
    None,
    B32,
    B64,
    B128,
}

impl Swizzle {
    fn of(number: u64) -> Option<Self> {
        [Self::None, Self::B32, Self::B64, Self::B128].get(number as usize).copied()
    }

    /// Largest inner dimension of a box, in bytes.
    pub fn span(self) -> u64 {
        match self {
            Self::None => u64::MAX,
            Self::B32 => 32,
            Self::B64 => 64,
            Self::B128 => 128,
        }
    }

    /// Where the byte at shared address `address` of the dense tile goes: within each `span` bytes, chunks of 16 are
    /// permuted by exclusive or with the number of the 128-byte line, modulo the number of chunks in the span.
    pub fn place(self, address: u64) -> u64 {
        let line = address / 128;
        match self {
            Self::None => address,
            swizzle => address ^ ((line % (swizzle.span() / 16)) * 16),
        }
    }
}

/// Bytes of CUtensorMapDataType's elements.
fn element_bytes(kind: u64) -> Option<u64> {
    Some(match kind {
        0 => 1,
        1 | 6 | 9 => 2,
        2 | 3 | 7 | 10 | 11 | 12 => 4,
        4 | 5 | 8 => 8,
        _ => return None,
    })
}

/// The arguments of cuTensorMapEncodeTiled but the map, as numbers; `strides` has one less than `dims`.
#[derive(Clone, Debug)]
pub struct Arguments {
    pub kind: u64,
    pub address: u64,
    pub dims: Vec<u64>,
    pub strides: Vec<u64>,
    pub box_dims: Vec<u64>,
    pub element_strides: Vec<u64>,
    pub interleave: u64,
    pub swizzle: u64,
    pub fill: u64,
}

impl Arguments {
    /// The map, where the driver would make one; `None` for what it refuses, and for interleaving and strides of
    /// elements, which nothing here uses.
    pub fn map(self) -> Option<TensorMap> {
        let element = element_bytes(self.kind)?;
        let swizzle = Swizzle::of(self.swizzle)?;
        let inner = self.box_dims.first()? * element;
        let fits = (1..=5).contains(&self.dims.len())
            && self.address.is_multiple_of(16)
            && self.dims.iter().all(|dim| (1..=1 << 32).contains(dim))
            && self.strides.iter().all(|stride| stride.is_multiple_of(16) && *stride < 1 << 40)
            && self.box_dims.iter().all(|dim| (1..=256).contains(dim))
            && self.element_strides.iter().all(|stride| *stride == 1)
            && self.interleave == 0
            && inner.is_multiple_of(16)
            && inner <= swizzle.span()
            && self.fill < 2;
        fits.then_some(TensorMap {
            address: self.address,
            element,
            dims: self.dims,
            strides: self.strides,
            box_dims: self.box_dims,
            swizzle,
            fills_nan: self.fill == 1,
        })
    }
}

impl TensorMap {
    pub fn to_words(&self) -> [u64; BYTES / 8] {
        let mut words = [0; BYTES / 8];
        (words[0], words[1]) = (MAGIC, self.address);
        words[2] =
            self.dims.len() as u64 | self.element << 8 | (self.swizzle as u64) << 16 | u64::from(self.fills_nan) << 24;
        for (at, dim) in self.dims.iter().enumerate() {
            words[3 + at] = *dim | self.box_dims[at] << 40;
        }
        words[8..8 + self.strides.len()].copy_from_slice(&self.strides);
        words
    }

    /// `None` where the words are no map.
    pub fn from_words(words: &[u64; BYTES / 8]) -> Option<Self> {
        let rank = (words[2] & 0xff) as usize;
        if words[0] != MAGIC || !(1..=5).contains(&rank) {
            return None;
        }
        Some(Self {
            address: words[1],
            element: words[2] >> 8 & 0xff,
            dims: words[3..3 + rank].iter().map(|word| word & ((1 << 40) - 1)).collect(),
            strides: words[8..7 + rank].to_vec(),
            box_dims: words[3..3 + rank].iter().map(|word| word >> 40).collect(),
            swizzle: Swizzle::of(words[2] >> 16 & 0xff)?,
            fills_nan: words[2] >> 24 & 1 == 1,
        })
    }

    pub fn box_bytes(&self) -> u64 {
        self.box_dims.iter().product::<u64>() * self.element
    }

    /// Bytes of the box along the innermost dimension.
    pub fn row_bytes(&self) -> u64 {
        self.box_dims[0] * self.element
    }

    /// The global address of each row of the box at `at`, and how many of its bytes, from which on, are inside the
    /// tensor.
    pub fn rows(&self, at: &[i32]) -> Vec<Row> {
        let count: u64 = self.box_dims[1..].iter().product();
        let first = i64::from(at[0]);
        let inside = |dim: usize, place: i64| (0..self.dims[dim] as i64).contains(&place);
        let begin = first.clamp(0, self.dims[0] as i64);
        let end = (first + self.box_dims[0] as i64).clamp(0, self.dims[0] as i64);
        let (skipped, bytes) = ((begin - first).max(0) as u64 * self.element, (end - begin) as u64 * self.element);
        (0..count)
            .map(|row| {
                let (mut rest, mut address, mut all_inside) = (row, self.address + begin as u64 * self.element, true);
                for dim in 1..self.dims.len() {
                    let place = i64::from(at[dim]) + (rest % self.box_dims[dim]) as i64;
                    rest /= self.box_dims[dim];
                    all_inside &= inside(dim, place);
                    address = address.wrapping_add(self.strides[dim - 1].wrapping_mul(place as u64));
                }
                Row { address, skipped, bytes: if all_inside { bytes } else { 0 } }
            })
            .collect()
    }
}

/// A row of a box: `bytes` at `address` follow `skipped` ones that lie before the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub address: u64,
    pub skipped: u64,
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> Arguments {
        Arguments {
            kind: 6,
            address: 0x1000,
            dims: vec![100, 7],
            strides: vec![208],
            box_dims: vec![64, 4],
            element_strides: vec![1, 1],
            interleave: 0,
            swizzle: 3,
            fill: 0,
        }
    }

    #[test]
    fn maps_survive_their_words() {
        let map = arguments().map().unwrap();
        assert_eq!(TensorMap::from_words(&map.to_words()), Some(map));
        assert_eq!(TensorMap::from_words(&[u64::MAX; 16]), None);
    }

    #[test]
    fn what_the_driver_refuses() {
        let refused: [fn(&mut Arguments); 6] = [
            |arguments| arguments.address = 0x1008,
            |arguments| arguments.strides = vec![200],
            |arguments| arguments.box_dims = vec![128, 4],
            |arguments| arguments.box_dims = vec![64, 257],
            |arguments| arguments.dims = vec![0, 7],
            |arguments| arguments.box_dims = vec![4, 4],
        ];
        for change in refused {
            let mut arguments = arguments();
            change(&mut arguments);
            assert_eq!(arguments.clone().map(), None, "{arguments:?}");
        }
    }

    /// Across both ends of the rows, and past the last row.
    #[test]
    fn rows_are_cut_at_the_tensor() {
        let map = arguments().map().unwrap();
        let rows = map.rows(&[80, 5]);
        assert_eq!(rows[0], Row { address: 0x1000 + 5 * 208 + 160, skipped: 0, bytes: 40 });
        assert_eq!(rows.iter().map(|row| row.bytes).collect::<Vec<_>>(), [40, 40, 0, 0]);
        let rows = map.rows(&[-3, -1]);
        assert_eq!((rows[0].bytes, rows[1]), (0, Row { address: 0x1000, skipped: 6, bytes: 122 }));
        assert_eq!(map.rows(&[100, 0])[0].bytes, 0);
    }

    /// PTX ISA, "Swizzling Modes", the table of the 128B mode: row r of the pattern holds chunk c at c xor r; 64B
    /// repeats each row's order for two chunks of 64 bytes and changes every line; so does 32B.
    #[test]
    fn chunks_are_permuted_as_the_tables_say() {
        let order = |swizzle: Swizzle, line: u64| -> Vec<u64> {
            (0..8).map(|chunk| swizzle.place(line * 128 + chunk * 16) / 16 % 8).collect()
        };
        assert_eq!(order(Swizzle::B128, 0), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(order(Swizzle::B128, 3), [3, 2, 1, 0, 7, 6, 5, 4]);
        assert_eq!(order(Swizzle::B128, 13), [5, 4, 7, 6, 1, 0, 3, 2]);
        assert_eq!(order(Swizzle::B64, 2), [2, 3, 0, 1, 6, 7, 4, 5]);
        assert_eq!(order(Swizzle::B32, 1), [1, 0, 3, 2, 5, 4, 7, 6]);
    }
}
