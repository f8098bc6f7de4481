//! The keys and values of positions that a model has seen, so that each further token costs one position.

use burn_backend::Backend;
use burn_tensor::{DType, Int, Tensor, TensorData};

use crate::ops::BlockDims;

/// Positions of a cache come in multiples of this, so that devices may read several keys at a time.
pub const POSITIONS: usize = 8;

/// One layer's keys and values: a slot a sequence, for up to `capacity` positions each. S slots, H heads, D = C / H.
pub struct KeyValues<B: Backend> {
    /// Rotated keys `[S * H, D, capacity]` in the compute dtype: a query's scores of neighbouring positions are then sums
    /// over neighbouring elements.
    pub keys: Tensor<B, 3>,
    /// `[S * H, capacity, D]`.
    pub values: Tensor<B, 3>,
}

impl<B: Backend> KeyValues<B> {
    /// For `slots` sequences of up to `positions` positions; what it holds is undefined until written.
    pub fn new(slots: usize, positions: usize, dims: BlockDims, dtype: DType, device: &B::Device) -> Self {
        let (rows, capacity) = (slots * dims.heads, positions.next_multiple_of(POSITIONS));
        Self {
            keys: Tensor::empty([rows, dims.head_dim, capacity], (device, dtype)),
            values: Tensor::empty([rows, capacity, dims.head_dim], (device, dtype)),
        }
    }

    /// Positions that a slot holds.
    pub fn capacity(&self) -> usize {
        self.values.dims()[1]
    }
}

/// Where in a cache the sequences of a batch are.
pub struct Places<B: Backend> {
    /// Of each sequence, all different.
    pub slots: Vec<usize>,
    /// Of each sequence: the position of its first new token, from 0.
    pub positions: Vec<usize>,
    /// `[2, batch]`: slots, then positions.
    pub on_device: Tensor<B, 2, Int>,
}

impl<B: Backend> Places<B> {
    /// # Panics
    /// If there are not as many slots as positions.
    pub fn new(slots: Vec<usize>, positions: Vec<usize>, device: &B::Device) -> Self {
        assert_eq!(slots.len(), positions.len(), "a slot and a position for each sequence");
        let both: Vec<i32> = slots.iter().chain(&positions).map(|index| *index as i32).collect();
        let data = TensorData::new(both, [2, slots.len()]);
        Self { slots, positions, on_device: Tensor::from_data(data, (device, DType::I32)) }
    }

    /// Positions of the longest sequence, its first new token included.
    pub fn longest(&self) -> usize {
        self.positions.iter().max().map_or(0, |position| position + 1)
    }
}
