//! Flash attention of q, k and v inside the fused projection.

use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use burn_tensor::{DType, Tensor};
use trainer_shaders::attention::{DropoutScalars, Gradients, Shape, attention_backward, attention_forward};

use super::tensor::{buffer, contiguous, empty, owned, primitive, tensor};
use crate::dropout::{Dropout, Site};
use crate::ops::{Attended, BlockDims};

fn shape(dims: BlockDims) -> Shape {
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

pub fn forward<R, F, I, BT>(
    fused: Tensor<CubeBackend<R, F, I, BT>, 2>,
    dims: BlockDims,
    dropout: Option<Dropout>,
) -> Attended<CubeBackend<R, F, I, BT>>
where
    R: CubeRuntime,
    R::Server: cubecl::server::ComputeServer,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    let fused = contiguous(fused);
    let o = empty(&fused, [dims.tokens(), dims.hidden()], fused.dtype);
    let lse = empty(&fused, [dims.batch * dims.heads * dims.seq], DType::F32);
    let client = fused.client.clone();
    let (q_k_v, out, saved) = (buffer(fused), buffer(o.clone()), lse.clone().binding());
    attention_forward(&client, shape(dims), dropout.map(scalars), q_k_v, out, saved);
    Attended { o: tensor(o), lse: tensor(lse) }
}

pub fn backward<R, F, I, BT>(
    d_o: Tensor<CubeBackend<R, F, I, BT>, 2>,
    fused: Tensor<CubeBackend<R, F, I, BT>, 2>,
    attended: Attended<CubeBackend<R, F, I, BT>>,
    dims: BlockDims,
    dropout: Option<Dropout>,
    into: Tensor<CubeBackend<R, F, I, BT>, 2>,
) -> Tensor<CubeBackend<R, F, I, BT>, 2>
where
    R: CubeRuntime,
    R::Server: cubecl::server::ComputeServer,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    let into = owned(primitive(into));
    let delta = empty(&into, [dims.batch * dims.heads * dims.seq], DType::F32);
    let gradients = Gradients {
        d_o: buffer(contiguous(d_o)),
        fused: buffer(contiguous(fused)),
        o: buffer(contiguous(attended.o)),
        lse: contiguous(attended.lse).binding(),
        delta: delta.binding(),
        into: buffer(into.clone()),
    };
    attention_backward(&into.client, shape(dims), dropout.map(scalars), gradients);
    tensor(into)
}
