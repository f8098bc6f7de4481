//! The choices of our kernels (shaders/src/tuning.rs), and which kernel multiplies which matrices.

use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use burn_tensor::DType;
use cubecl::features::Tma;
use cubecl::prelude::*;
use cubek::matmul::launch::Strategy;
use cubek::matmul::routines::BlueprintStrategy;
use cubek::matmul::routines::simple::SimpleArgs;
use trainer_shaders::tuning::{Choice, Value};

use super::kernels::has_tensor_cores;
use crate::error::{Error, Result};
use crate::tuning::{Product, Tunable};

/// A kernel for matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multiplier {
    /// Ours: register tiles (shaders/src/gemm.rs).
    Registers,
    /// cubek's.
    Cubek(Routine),
    /// Ours for compute capability 9.0 (shaders/cuda/hopper_gemm.cu), by its blueprint's text.
    Wgmma(&'static str),
    /// Ours for compute capability 8.0 and later (shaders/cuda/ampere_gemm.cu), likewise.
    Mma(&'static str),
}

/// Blueprints of `Multiplier::Wgmma`: those that its own rule takes, and their neighbours.
const WGMMA: [&str; 9] = [
    "128x256x4x16x1",
    "128x256x4x4x2",
    "128x256x4x8x2",
    "128x256x4x16x2",
    "256x128x4x8x1",
    "256x128x4x4x2",
    "128x128x6x16x1",
    "128x128x6x8x2",
    "128x64x8x16x1",
];

/// Blueprints of `Multiplier::Mma`, likewise.
const MMA: [&str; 8] = [
    "128x256x3x8",
    "128x256x2x8",
    "128x256x3x16",
    "256x128x3x4",
    "128x128x4x8",
    "128x128x2x8",
    "64x128x3x16",
    "128x64x3x8",
];

/// cubek's routines that our shapes may gain from. Not among them: `double_unit`, which is wrong for an odd number of
/// stages along k (tracel-ai/burn issue 5626); `specialized_tma`, where one lane of a plane comes to operations of the whole
/// plane, which is undefined (the emulated driver ends in a deadlock); those for vectors, and `naive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routine {
    SimpleUnit,
    /// Several rows of tiles a plane.
    SimpleCyclicCmma,
    SimpleCyclicMma,
    SimpleTilewiseMma,
    SimpleTmaMma,
    DoubleCyclicCmma,
    DoubleCyclicMma,
    DoubleTilewiseMma,
    DoubleAsyncCyclicMma,
    DoubleTmaMma,
    OrderedDoubleCmma,
    OrderedDoubleMma,
    SpecializedCyclicMma,
    SpecializedStridedMma,
}

impl Routine {
    const ALL: [Self; 14] = [
        Self::SimpleUnit,
        Self::SimpleCyclicCmma,
        Self::SimpleCyclicMma,
        Self::SimpleTilewiseMma,
        Self::SimpleTmaMma,
        Self::DoubleCyclicCmma,
        Self::DoubleCyclicMma,
        Self::DoubleTilewiseMma,
        Self::DoubleAsyncCyclicMma,
        Self::DoubleTmaMma,
        Self::OrderedDoubleCmma,
        Self::OrderedDoubleMma,
        Self::SpecializedCyclicMma,
        Self::SpecializedStridedMma,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::SimpleUnit => "simple-unit",
            Self::SimpleCyclicCmma => "simple-cyclic-cmma",
            Self::SimpleCyclicMma => "simple-cyclic-mma",
            Self::SimpleTilewiseMma => "simple-tilewise-mma",
            Self::SimpleTmaMma => "simple-tma-mma",
            Self::DoubleCyclicCmma => "double-cyclic-cmma",
            Self::DoubleCyclicMma => "double-cyclic-mma",
            Self::DoubleTilewiseMma => "double-tilewise-mma",
            Self::DoubleAsyncCyclicMma => "double-async-cyclic-mma",
            Self::DoubleTmaMma => "double-tma-mma",
            Self::OrderedDoubleCmma => "ordered-double-cmma",
            Self::OrderedDoubleMma => "ordered-double-mma",
            Self::SpecializedCyclicMma => "specialized-cyclic-mma",
            Self::SpecializedStridedMma => "specialized-strided-mma",
        }
    }

    /// Whether the device has what it is made of; what it has not would leave CubeCL's server broken.
    fn runs_on<R: Runtime>(self, client: &ComputeClient<R>) -> bool {
        match self {
            Self::SimpleUnit => true,
            Self::SimpleTmaMma | Self::DoubleTmaMma => {
                has_tensor_cores(client) && client.properties().features.tma.contains(Tma::Base)
            }
            _ => has_tensor_cores(client),
        }
    }

    /// Whether it can sum `k` products of operands of `dtype`: on tensor cores fp32 would be rounded to TF32.
    ///
    /// The asynchronous routines work on an even number of stages along k: where there is an odd one, the last of them reads
    /// what lies behind the operands (cubek-matmul 0.2, as in tracel-ai/burn issue 5626; NaN at 96 and 160, with stages of 32).
    pub fn takes(self, dtype: DType, k: usize) -> bool {
        /// Two of the longest stages.
        const STAGES: usize = 256;
        match self {
            Self::SimpleUnit => true,
            Self::DoubleAsyncCyclicMma | Self::SpecializedCyclicMma | Self::SpecializedStridedMma => {
                dtype != DType::F32 && k.is_multiple_of(STAGES)
            }
            _ => dtype != DType::F32,
        }
    }

    pub fn strategy(self) -> Strategy {
        // Several rows of tiles a plane: without them the kernel of phi-1's weight gradients spills 412 bytes a thread on sm_80.
        let rows = SimpleArgs { multi_rows: true, ..Default::default() };
        match self {
            Self::SimpleUnit => Strategy::SimpleUnit(Default::default()),
            Self::SimpleCyclicCmma => Strategy::SimpleCyclicCmma(BlueprintStrategy::Inferred(rows)),
            Self::SimpleCyclicMma => Strategy::SimpleCyclicMma(BlueprintStrategy::Inferred(rows)),
            Self::SimpleTilewiseMma => Strategy::SimpleTilewiseMma(BlueprintStrategy::Inferred(rows)),
            Self::SimpleTmaMma => Strategy::SimpleTmaMma(BlueprintStrategy::Inferred(rows)),
            Self::DoubleCyclicCmma => Strategy::DoubleCyclicCmma(Default::default()),
            Self::DoubleCyclicMma => Strategy::DoubleCyclicMma(Default::default()),
            Self::DoubleTilewiseMma => Strategy::DoubleTilewiseMma(Default::default()),
            Self::DoubleAsyncCyclicMma => Strategy::DoubleAsyncCyclicMma(Default::default()),
            Self::DoubleTmaMma => Strategy::DoubleTmaMma(Default::default()),
            Self::OrderedDoubleCmma => Strategy::OrderedDoubleCmma(Default::default()),
            Self::OrderedDoubleMma => Strategy::OrderedDoubleMma(Default::default()),
            Self::SpecializedCyclicMma => Strategy::SpecializedCyclicMma(Default::default()),
            Self::SpecializedStridedMma => Strategy::SpecializedStridedMma(Default::default()),
        }
    }
}

impl Multiplier {
    fn all() -> impl Iterator<Item = Self> {
        [Self::Registers]
            .into_iter()
            .chain(Routine::ALL.map(Self::Cubek))
            .chain(MMA.map(Self::Mma))
            .chain(WGMMA.map(Self::Wgmma))
    }

    fn name(self) -> String {
        match self {
            Self::Registers => "registers".into(),
            Self::Cubek(routine) => routine.name().into(),
            Self::Wgmma(blueprint) => format!("wgmma-{blueprint}"),
            Self::Mma(blueprint) => format!("mma-{blueprint}"),
        }
    }
}

type Chosen = (Product, [usize; 2], Multiplier);

/// Few, so a list.
static PRODUCTS: RwLock<Vec<Chosen>> = RwLock::new(Vec::new());
static REFUSED: AtomicBool = AtomicBool::new(false);
/// MiB of logits at a time; 0 is the rule's.
static LOGITS: AtomicUsize = AtomicUsize::new(0);
const LOGITS_NAME: &str = "loss.logits-mib";
const LOGITS_MIB: [usize; 6] = [8, 32, 128, 256, 512, 1024];

/// The kernel that was chosen for a product of a layer of `[inputs, outputs]`.
pub fn multiplier(product: Product, sizes: [usize; 2]) -> Option<Multiplier> {
    let products = PRODUCTS.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    products.iter().find(|(known, of, _)| *known == product && *of == sizes).map(|(.., multiplier)| *multiplier)
}

/// Bytes of logits at a time, where they were chosen.
pub fn logits_bytes() -> Option<usize> {
    let mib = LOGITS.load(Ordering::Relaxed);
    (mib > 0).then_some(mib << 20)
}

/// A chosen kernel does not take what it was given, and another one was taken.
pub fn refuse() {
    REFUSED.store(true, Ordering::Relaxed);
}

/// Whether that happened since the last call.
pub fn take_refused() -> bool {
    REFUSED.swap(false, Ordering::Relaxed)
}

/// The kernels that may multiply on this device.
fn multipliers<R: Runtime>(client: &ComputeClient<R>) -> Vec<String> {
    let runs = |multiplier: &Multiplier| match multiplier {
        Multiplier::Registers => true,
        Multiplier::Cubek(routine) => routine.runs_on(client),
        Multiplier::Wgmma(_) => has_kernels(client)[0],
        Multiplier::Mma(_) => has_kernels(client)[1],
    };
    Multiplier::all().filter(runs).map(Multiplier::name).collect()
}

/// Whether the device runs our kernels on wgmma and on mma.sync.
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
fn has_kernels<R: Runtime>(client: &ComputeClient<R>) -> [bool; 2] {
    use trainer_shaders::cuda_gemm::available;
    [available::hopper(client), available::ampere(client)]
}

#[cfg(not(all(feature = "cuda", not(target_os = "macos"))))]
fn has_kernels<R: Runtime>(_: &ComputeClient<R>) -> [bool; 2] {
    [false; 2]
}

/// `DecoderBackend::tunables`; `products` are the layers' inputs and outputs.
pub fn tunables<R: Runtime>(client: &ComputeClient<R>, products: &[[usize; 2]]) -> Vec<Tunable> {
    let sizes = Choice::ALL.into_iter().map(|choice| Tunable {
        name: choice.name().to_owned(),
        values: choice.values(client).iter().map(Value::to_string).collect(),
    });
    let logits = Tunable { name: LOGITS_NAME.into(), values: LOGITS_MIB.map(|mib| mib.to_string()).into() };
    let values = multipliers(client);
    let products = products.iter().flat_map(|sizes| Product::ALL.map(|product| product.tunable(*sizes)));
    let products = products.map(|name| Tunable { name, values: values.clone() });
    sizes.filter(|tunable| !tunable.values.is_empty()).chain([logits]).chain(products).collect()
}

/// `DecoderBackend::tune`.
pub fn tune<R: Runtime>(client: &ComputeClient<R>, name: &str, value: Option<&str>) -> Result<()> {
    let product = Product::parse(name);
    let layer = product.map(|(_, sizes)| sizes);
    let known = tunables(client, layer.as_slice());
    let Some(tunable) = known.iter().find(|tunable| tunable.name == name) else {
        let known: Vec<&str> = known.iter().map(|tunable| &*tunable.name).collect();
        return Err(Error::NoSuchChoice { name: name.into(), known: known.join(", ") });
    };
    if let Some(value) = value.filter(|value| !tunable.values.iter().any(|known| known == value)) {
        let known = tunable.values.join(", ");
        return Err(Error::NoSuchValue { name: name.into(), value: value.into(), known });
    }
    if let Some((product, sizes)) = product {
        let mut products = PRODUCTS.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        products.retain(|(known, of, _)| (*known, *of) != (product, sizes));
        let chosen = value.and_then(|value| Multiplier::all().find(|multiplier| multiplier.name() == value));
        products.extend(chosen.map(|multiplier| (product, sizes, multiplier)));
    } else if name == LOGITS_NAME {
        LOGITS.store(value.and_then(|value| value.parse().ok()).unwrap_or(0), Ordering::Relaxed);
    } else if let Some(choice) = Choice::ALL.into_iter().find(|choice| choice.name() == name) {
        choice.set(value.and_then(Value::parse));
    }
    Ok(())
}

#[cfg(all(test, feature = "cuda", not(target_os = "macos")))]
mod tests {
    use trainer_shaders::cuda_gemm::blueprint::{Ampere, Hopper};

    use super::*;

    #[test]
    fn every_blueprint_is_possible() {
        for blueprint in WGMMA {
            assert!(blueprint.parse::<Hopper>().is_ok(), "{blueprint}");
        }
        for blueprint in MMA {
            assert!(blueprint.parse::<Ampere>().is_ok(), "{blueprint}");
        }
    }
}
