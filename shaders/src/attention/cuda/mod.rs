//! Attention in CUDA C++ (shaders/cuda/attention.cuh): compute capability 8.0 and later, fp16 and bf16, heads of 64
//! elements, sequences of whole blocks of 64.

mod program;

use cubecl::ir::FloatKind;
use cubecl::prelude::*;
use cubecl::server::{Binding, TensorMapBinding};
use cubecl_cuda::CudaRuntime;

use self::program::{Attention, Instructions, Kernel};
use super::{DropoutScalars, Gradients, Pass, Projection, Shape};
use crate::cuda::{
    ALIGN, KernelFamily, Task, WIDTH, ampere, arguments, float, hopper, strides_in_any_order, tensor_map,
};
use crate::device::Buffer;
use crate::philox::round_keys;
use crate::tuning::Choice;

/// Elements of a head, and rows of a block.
const DIMS: usize = WIDTH;
const BLOCK: usize = WIDTH;
/// Rows of a product of wgmma, and of mma.sync.
const HOPPER_ROWS: usize = 64;
const AMPERE_ROWS: usize = 16;

/// What is decided before a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blueprint {
    instructions: Instructions,
    warpgroups: usize,
    stages: usize,
    input: FloatKind,
}

impl Blueprint {
    /// `None` where the device or the shape does not suit, or another kernel is chosen. `dtypes` are of all matrices.
    pub(super) fn new<R: Runtime>(
        client: &ComputeClient<R>,
        shape: &Shape,
        pass: Pass,
        dtypes: &[StorageType],
    ) -> Option<Self> {
        ampere(client)?;
        let input = float(dtypes[0]).filter(|kind| *kind != FloatKind::F32)?;
        let Shape { batch, seq, heads, head_dim, width, .. } = *shape;
        // Places in matrices are signed words, and so are those of two stats a query and head.
        let few = [batch * seq, width, 2 * batch * heads * seq].iter().all(|size| i32::try_from(*size).is_ok());
        let suits = dtypes.iter().all(|dtype| *dtype == dtypes[0])
            && head_dim == DIMS
            && seq.is_multiple_of(BLOCK)
            && width.is_multiple_of(ALIGN / 2)
            && few;
        // Two numbers choose the kernels in attention/tensor_cores.
        let choice = match pass {
            Pass::Forward => Choice::AttentionForward,
            Pass::Backward => Choice::AttentionBackward,
        };
        // With dropout keys come in another order than they lie (`Launch::keys`).
        let on_hopper =
            hopper(client).filter(|_| !KernelFamily::WgmmaAttention.is_refused() && strides_in_any_order(client));
        let [warpgroups, stages, rows] = match (choice.three(), choice.two(), on_hopper, pass) {
            (Some(chosen), ..) => chosen,
            (None, Some(_), ..) => return None,
            // On Hopper 3 warpgroups have 160 registers a thread, 2 have 240, and gradients need more than 160.
            (None, None, Some(_), Pass::Forward) => [3, 4, HOPPER_ROWS],
            (None, None, Some(_), Pass::Backward) => [2, 4, HOPPER_ROWS],
            (None, None, None, _) if KernelFamily::MmaAttention.is_refused() => return None,
            // Blocks of the grid that do not wait for each other.
            (None, None, None, _) => [1, 3, AMPERE_ROWS],
        };
        let instructions = if rows == HOPPER_ROWS { Instructions::Hopper } else { Instructions::Ampere };
        suits.then_some(Self { instructions, warpgroups, stages, input })
    }
}

/// Values of `Choice::AttentionForward` and `AttentionBackward` for these kernels: warpgroups x stages x rows of an instruction.
pub(crate) fn values<R: Runtime>(client: &ComputeClient<R>, pass: Pass) -> &'static [&'static [usize]] {
    let (on_hopper, on_ampere): (&[&[usize]], &[&[usize]]) = match pass {
        Pass::Forward => (
            &[
                &[3, 3, 64],
                &[3, 4, 64],
                &[3, 6, 64],
                &[2, 3, 64],
                &[2, 4, 64],
                &[2, 6, 64],
                &[1, 3, 16],
                &[1, 4, 16],
                &[2, 3, 16],
                &[2, 4, 16],
                &[3, 3, 16],
            ],
            &[&[1, 3, 16], &[1, 4, 16], &[2, 3, 16], &[2, 4, 16], &[3, 3, 16]],
        ),
        Pass::Backward => (
            &[&[2, 2, 64], &[2, 3, 64], &[2, 4, 64], &[2, 6, 64], &[1, 3, 16], &[1, 4, 16], &[2, 3, 16], &[2, 4, 16]],
            &[&[1, 3, 16], &[1, 4, 16], &[2, 3, 16], &[2, 4, 16]],
        ),
    };
    match (hopper(client).filter(|_| strides_in_any_order(client)), ampere(client)) {
        (Some(_), _) => on_hopper,
        (None, Some(_)) => on_ampere,
        (None, None) => &[],
    }
}

/// A pass of attention about to be launched.
struct Launch<'a> {
    client: &'a ComputeClient<CudaRuntime>,
    blueprint: Blueprint,
    shape: Shape,
    dropout: Option<DropoutScalars>,
    /// See `Attention`.
    turned: Option<usize>,
}

impl Launch<'_> {
    fn tokens(&self) -> usize {
        self.shape.batch * self.shape.seq
    }

    /// Matrices with rows of `width` elements, fetched 64 rows at a time.
    fn rows(&self, buffer: &Binding, dtype: StorageType, width: usize) -> TensorMapBinding {
        tensor_map(buffer.clone(), dtype, &[(self.tokens(), width, BLOCK), (width, 1, WIDTH)])
    }

    /// The fused projection as keys and values are fetched of it (`fetch_keys`). With dropout row 16 t + 2 p + e of a block
    /// comes as 8 p + 2 t + e.
    fn keys(&self, fused: &Binding, dtype: StorageType) -> TensorMapBinding {
        let width = self.shape.width;
        if self.dropout.is_none() {
            return self.rows(fused, dtype, width);
        }
        let (blocks, p, t, e) = (self.tokens() / BLOCK, (8, 2 * width, 8), (4, 16 * width, 4), (2, width, 2));
        tensor_map(fused.clone(), dtype, &[(blocks, BLOCK * width, 1), p, t, e, (width, 1, WIDTH)])
    }

    /// `tiles` of a head, one block of the grid each.
    fn start(&self, kernel: Kernel, maps: Vec<TensorMapBinding>, buffers: Vec<Binding>) {
        let Self { client, blueprint: Blueprint { instructions, warpgroups, stages, input }, shape, dropout, turned } =
            *self;
        let Shape { batch, seq, heads, width, scale, .. } = shape;
        let turned = turned.filter(|_| matches!(kernel, Kernel::Dq | Kernel::DkDv));
        let task =
            Task(Attention { kernel, instructions, warpgroups, stages, input, dropout: dropout.is_some(), turned });
        let tiles = seq.div_ceil(warpgroups * BLOCK);
        let blocks = tiles * heads * batch;
        let none = DropoutScalars { key: [0; 2], first_sequence: 0, place: 0, threshold: 0, scale: 1.0 };
        let DropoutScalars { key, first_sequence, place, threshold, scale: kept } = dropout.unwrap_or(none);
        let mut numbers = [tiles, seq, heads, width].map(|size| size as u64).to_vec();
        numbers.extend([scale.to_bits(), kept.to_bits(), first_sequence, place, threshold].map(u64::from));
        numbers.extend(round_keys(key).map(|[first, second]| u64::from(second) << 32 | u64::from(first)));
        // Without TMA nothing reads through maps.
        let maps = if instructions == Instructions::Hopper { maps } else { Vec::new() };
        let arguments = arguments(buffers, numbers).with_tensor_maps(maps);
        client.launch(Box::new(task), CubeCount::Static(blocks as u32, 1, 1), arguments);
    }
}

/// Whether vectors of the buffer are aligned.
fn aligned(binding: &Binding) -> bool {
    binding.offset_start.unwrap_or(0).is_multiple_of(ALIGN as u64)
}

/// Launches `attention_forward`, where everything suits.
pub(super) fn forward<R: Runtime>(
    client: &ComputeClient<R>,
    shape: Shape,
    dropout: Option<DropoutScalars>,
    fused: &Buffer<R>,
    o: &Buffer<R>,
    lse: &TensorBinding<R>,
) -> bool {
    let blueprint = Blueprint::new(client, &shape, Pass::Forward, &[fused.dtype, o.dtype]);
    let (Some(client), Some(blueprint)) = (ampere(client), blueprint) else { return false };
    let [fused_binding, o, lse] = [&fused.binding, &o.binding, lse].map(|binding| binding.handle.clone());
    if ![&fused_binding, &o].into_iter().all(aligned) {
        return false;
    }
    let launch = Launch { client, blueprint, shape, dropout, turned: None };
    let maps = vec![launch.keys(&fused_binding, fused.dtype)];
    // What maps are of once more as buffers: CubeCL waits for other streams only of those.
    launch.start(Kernel::Forward, maps, vec![fused_binding, o, lse]);
    true
}

/// Rows that one of `Projection::sums` is over: a warp's.
const SUMMED_ROWS: usize = 16;

/// Rows of `Projection::sums`, where `backward` takes gradients on to what was projected. `half` is half the elements of a
/// head that turned. `None` where it leaves that to others.
pub(super) fn projected_sums<R: Runtime>(
    client: &ComputeClient<R>,
    shape: &Shape,
    dtypes: &[StorageType],
    half: usize,
) -> Option<usize> {
    Blueprint::new(client, shape, Pass::Backward, dtypes)?;
    // A lane has both of a pair where they are eights apart.
    half.is_multiple_of(8).then_some(shape.batch * shape.seq / SUMMED_ROWS)
}

/// Launches `attention_backward`, where everything suits; with a projection where `projected_sums` says that it does.
pub(super) fn backward<R: Runtime>(
    client: &ComputeClient<R>,
    shape: Shape,
    dropout: Option<DropoutScalars>,
    gradients: &Gradients<R>,
) -> bool {
    let Gradients { d_o, fused, o, lse, delta: stats, into, projection, .. } = gradients;
    let dtypes = [fused.dtype, d_o.dtype, into.dtype, o.dtype];
    let blueprint = Blueprint::new(client, &shape, Pass::Backward, &dtypes);
    let (Some(client), Some(blueprint)) = (ampere(client), blueprint) else { return false };
    let bindings = [&d_o.binding, &fused.binding, &o.binding, lse, stats, &into.binding];
    let bindings = bindings.map(|binding| binding.handle.clone());
    let projection = projection.as_ref().map(|Projection { half, cosines, sines, sums }| {
        (half / 8, [cosines, sines, sums].map(|binding| binding.handle.clone()))
    });
    let mut all = bindings.iter().chain(projection.iter().flat_map(|(_, bindings)| bindings));
    if !all.all(aligned) {
        return false;
    }
    let [d_o_binding, fused_binding, o, lse, stats, into] = bindings;
    let launch = Launch { client, blueprint, shape, dropout, turned: projection.as_ref().map(|(turned, _)| *turned) };
    let further: Vec<Binding> = projection.into_iter().flat_map(|(_, bindings)| bindings).collect();
    let mut dq = [&fused_binding, &d_o_binding, &o, &lse, &stats, &into].map(Binding::clone).to_vec();
    dq.extend(further.iter().cloned());
    launch.start(Kernel::Dq, vec![launch.keys(&fused_binding, fused.dtype)], dq);
    let fp32 = f32::as_type_native_unchecked().storage_type();
    let all_stats = 2 * launch.tokens() * shape.heads;
    let maps = vec![
        launch.rows(&fused_binding, fused.dtype, shape.width),
        launch.rows(&d_o_binding, d_o.dtype, shape.heads * DIMS),
        tensor_map(stats.clone(), fp32, &[(all_stats, 1, 2 * BLOCK)]),
    ];
    let mut dk_dv = vec![fused_binding, d_o_binding, stats, into];
    dk_dv.extend(further);
    launch.start(Kernel::DkDv, maps, dk_dv);
    true
}
