//! AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", algorithm 2; decay scaled by lr as in PyTorch)
//! over flat buffers, one launch a buffer.

use cubecl::prelude::*;

use crate::device::Buffer;
use crate::elementwise::{array, spread, unit_index, width};
use crate::tuning::Choice;

/// One step's scalars, bias corrections included.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
struct Scalars {
    lr: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    /// 1 - lr x weight decay.
    keep: f32,
    correction1: f32,
    correction2: f32,
}

/// One step's scalars on the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub lr: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    /// 1 - lr x weight decay.
    pub keep: f32,
    /// 1 - beta1^t and 1 - beta2^t.
    pub corrections: [f32; 2],
}

/// The fp32 buffers of a group, all of the same length.
pub struct Group<R: Runtime> {
    pub master: TensorBinding<R>,
    pub m: TensorBinding<R>,
    pub v: TensorBinding<R>,
    pub grads: TensorBinding<R>,
    /// `[1]`: what gradients are multiplied with first; where it is zero, nothing is updated.
    pub factor: TensorBinding<R>,
}

/// m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, w = w keep - lr (m / c1) / (sqrt(v / c2) + eps). Returns w.
#[cube]
#[allow(clippy::too_many_arguments)]
fn update<N: Size>(
    at: usize,
    w: &mut Array<Vector<f32, N>>,
    m: &mut Array<Vector<f32, N>>,
    v: &mut Array<Vector<f32, N>>,
    grads: &Array<Vector<f32, N>>,
    factor: f32,
    decay_len: usize,
    s: &Scalars,
) -> Vector<f32, N> {
    // All of it is asked for before any of it is used: one wait, and none for the weights behind divisions.
    let (w_old, m_old, v_old, g) = (w[at], m[at], v[at], grads[at]);
    let g = g * Vector::new(factor);
    let m_new = m_old * Vector::new(s.beta1) + g * Vector::new(1.0f32 - s.beta1);
    let v_new = v_old * Vector::new(s.beta2) + g * g * Vector::new(1.0f32 - s.beta2);
    let deviation = Vector::<f32, N>::sqrt(v_new / Vector::new(s.correction2)) + Vector::new(s.eps);
    let keep = select(at < decay_len, s.keep, 1.0f32);
    let w_new = w_old * Vector::new(keep) - m_new / Vector::new(s.correction1) / deviation * Vector::new(s.lr);
    m[at] = m_new;
    v[at] = v_new;
    w[at] = w_new;
    w_new
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn master_kernel<N: Size>(
    w: &mut Array<Vector<f32, N>>,
    m: &mut Array<Vector<f32, N>>,
    v: &mut Array<Vector<f32, N>>,
    grads: &Array<Vector<f32, N>>,
    factor: &Array<f32>,
    len: usize,
    decay_len: usize,
    scalars: &Scalars,
) {
    let at = unit_index();
    let factor = factor[0];
    if at < len && factor != 0.0f32 {
        update::<N>(at, w, m, v, grads, factor, decay_len, scalars);
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn working_kernel<T: Float, N: Size>(
    w: &mut Array<Vector<f32, N>>,
    m: &mut Array<Vector<f32, N>>,
    v: &mut Array<Vector<f32, N>>,
    grads: &Array<Vector<f32, N>>,
    factor: &Array<f32>,
    working: &mut Array<Vector<T, N>>,
    len: usize,
    decay_len: usize,
    scalars: &Scalars,
    #[define(T)] _dtype: StorageType,
) {
    let at = unit_index();
    let factor = factor[0];
    if at < len && factor != 0.0f32 {
        working[at] = Vector::cast_from(update::<N>(at, w, m, v, grads, factor, decay_len, scalars));
    }
}

/// Updates the `len` elements of a group in place; decay applies to the first `decay_len`. `working` receives the weights
/// rounded to its dtype; `None` where the master weights are the working ones.
pub fn step<R: Runtime>(
    client: &ComputeClient<R>,
    [len, decay_len]: [usize; 2],
    group: Group<R>,
    working: Option<Buffer<R>>,
    step: Step,
) {
    let n = width(&[len, decay_len]);
    let (count, dim) = spread(client, len / n, Some(Choice::AdamwUnits));
    let [master, m, v, grads, factor] = [group.master, group.m, group.v, group.grads, group.factor].map(array);
    let [c1, c2] = step.corrections;
    let scalars = ScalarsLaunch::new(step.lr, step.beta1, step.beta2, step.eps, step.keep, c1, c2);
    // SAFETY: each unit compares its index with the length and alone reads and writes its elements.
    unsafe {
        match working {
            None => master_kernel::launch_unchecked(
                client,
                count,
                dim,
                n,
                master,
                m,
                v,
                grads,
                factor,
                len / n,
                decay_len / n,
                scalars,
            ),
            Some(working) => {
                let dtype = working.dtype;
                working_kernel::launch_unchecked(
                    client,
                    count,
                    dim,
                    n,
                    master,
                    m,
                    v,
                    grads,
                    factor,
                    working.arg(),
                    len / n,
                    decay_len / n,
                    scalars,
                    dtype,
                );
            }
        }
    }
}
