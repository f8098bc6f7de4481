//! Flash attention of q, k and v inside the fused projection.

use burn_cubecl::CubeRuntime;
use burn_tensor::{DType, Tensor};
use trainer_shaders::attention::{
    DropoutScalars, Gradients, Pass, Projection, Shape, attention_backward, attention_forward, delta_len,
    projected_sums, refused, scratch_len,
};

use super::super::tuning;
use super::rotary::rotary;
use super::tensor::{CubeTensors, binding, buffer, cube, empty, float, owned};
use crate::dropout::{Dropout, Site};
use crate::ops::{Attended, BlockDims, RotaryTable, Turn};

pub(super) fn shape(dims: BlockDims) -> Shape {
    let BlockDims { batch, seq, heads, head_dim, .. } = dims;
    Shape { batch, seq, heads, head_dim, width: dims.fused(), scale: dims.scale() }
}

fn scalars(dropout: Dropout) -> DropoutScalars {
    DropoutScalars {
        key: dropout.key,
        first_sequence: dropout.first_sequence,
        place: dropout.layer << 16 | Site::Attention as u32,
        threshold: dropout.threshold,
        scale: dropout.scale(),
    }
}

pub fn forward<R: CubeRuntime, B: CubeTensors<R>>(
    fused: Tensor<B, 2>,
    dims: BlockDims,
    dropout: Option<Dropout>,
) -> Attended<B> {
    let fused = cube(fused);
    let o = empty(&fused, [dims.tokens(), dims.hidden()], fused.dtype);
    let lse = empty(&fused, [dims.tokens() * dims.heads], DType::F32);
    let dtypes = [fused.dtype, o.dtype].map(Into::into);
    if refused(&fused.client, &shape(dims), Pass::Forward, &dtypes) {
        tuning::refuse();
    }
    let len = scratch_len(&fused.client, &shape(dims), &dtypes);
    let scratch = empty(&fused, [len], DType::F32);
    let saved = [&lse, &scratch].map(binding);
    attention_forward(&fused.client, shape(dims), dropout.map(scalars), buffer(&fused), buffer(&o), saved);
    Attended { o: float(o), lse: float(lse) }
}

pub fn backward<R: CubeRuntime, B: CubeTensors<R>>(
    d_o: Tensor<B, 2>,
    fused: Tensor<B, 2>,
    attended: Attended<B>,
    dims: BlockDims,
    dropout: Option<Dropout>,
    into: Tensor<B, 2>,
) -> Tensor<B, 2> {
    projected(d_o, fused, attended, None, dims, dropout, into).0
}

/// As `backward`, and through the rotation, in the kernels where they do that.
pub fn rotary_backward<R: CubeRuntime, B: CubeTensors<R>>(
    d_o: Tensor<B, 2>,
    fused: Tensor<B, 2>,
    attended: Attended<B>,
    table: &RotaryTable<B>,
    dims: BlockDims,
    dropout: Option<Dropout>,
    into: Tensor<B, 2>,
) -> (Tensor<B, 2>, Option<Tensor<B, 2>>) {
    match projected(d_o, fused, attended, Some(table), dims, dropout, into) {
        (into, Some(sums)) => (into, Some(sums)),
        (into, None) => (rotary(into, table, dims, Turn::Back), None),
    }
}

/// The gradients. Where there is a table and the kernels take it, also through the rotation, and rows that add up to the
/// bias' gradient.
fn projected<R: CubeRuntime, B: CubeTensors<R>>(
    d_o: Tensor<B, 2>,
    fused: Tensor<B, 2>,
    attended: Attended<B>,
    table: Option<&RotaryTable<B>>,
    dims: BlockDims,
    dropout: Option<Dropout>,
    into: Tensor<B, 2>,
) -> (Tensor<B, 2>, Option<Tensor<B, 2>>) {
    let into = owned(into);
    let (d_o, fused, o, lse) = (cube(d_o), cube(fused), cube(attended.o), cube(attended.lse));
    let dtypes = [fused.dtype, d_o.dtype, into.dtype].map(Into::into);
    if refused(&fused.client, &shape(dims), Pass::Backward, &dtypes) {
        tuning::refuse();
    }
    let delta = empty(&into, [delta_len(&fused.client, &shape(dims), &dtypes)], DType::F32);
    let len = scratch_len(&fused.client, &shape(dims), &dtypes);
    let scratch = [(); 2].map(|()| empty(&into, [len], DType::F32));
    let half = dims.rotary_dim / 2;
    let table = table.and_then(|table| {
        let rows = projected_sums(&into.client, &shape(dims), &dtypes, half)?;
        let sums = empty(&into, [rows, 3 * dims.hidden()], DType::F32);
        Some([cube(table.cos.clone()), cube(table.sin.clone()), sums])
    });
    let projection = table.as_ref().map(|[cosines, sines, sums]| Projection {
        half,
        cosines: binding(cosines),
        sines: binding(sines),
        sums: binding(sums),
    });
    let gradients = Gradients {
        d_o: buffer(&d_o),
        fused: buffer(&fused),
        o: buffer(&o),
        lse: binding(&lse),
        delta: binding(&delta),
        scratch: scratch.each_ref().map(binding),
        into: buffer(&into),
        projection,
    };
    let projected = attention_backward(&into.client, shape(dims), dropout.map(scalars), gradients);
    (float(into), table.filter(|_| projected).map(|[.., sums]| float(sums)))
}
