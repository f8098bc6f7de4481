//! Choices that a device's kernels leave to measurements, by name: what `trainer sweep` tries out and `--tune` sets.

/// A choice and what it may be on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunable {
    /// `norm.units`; `product.forward.2048x14336` of a product that takes 2048 numbers to 14336.
    pub name: String,
    pub values: Vec<String>,
}

/// The three products of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// y = x W^T.
    Forward,
    /// dx = dy W.
    InputGrad,
    /// dW = dy^T x.
    WeightGrad,
}

impl Product {
    pub const ALL: [Self; 3] = [Self::Forward, Self::InputGrad, Self::WeightGrad];

    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::InputGrad => "input-grad",
            Self::WeightGrad => "weight-grad",
        }
    }

    /// The name of the choice that this product of a layer `[outputs, inputs]` is left to.
    pub fn tunable(self, [inputs, outputs]: [usize; 2]) -> String {
        format!("product.{}.{inputs}x{outputs}", self.name())
    }

    /// The product and the layer's inputs and outputs that such a name means.
    pub fn parse(tunable: &str) -> Option<(Self, [usize; 2])> {
        let (product, sizes) = tunable.strip_prefix("product.")?.split_once('.')?;
        let product = Self::ALL.into_iter().find(|known| known.name() == product)?;
        let (inputs, outputs) = sizes.split_once('x')?;
        Some((product, [inputs.parse().ok()?, outputs.parse().ok()?]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_named_as_they_are_parsed() {
        for product in Product::ALL {
            assert_eq!(Product::parse(&product.tunable([2048, 14_336])), Some((product, [2048, 14_336])));
        }
        for name in
            ["product.forward", "product.sideways.2x3", "product.forward.2x", "norm.units", "product.forward.-2x3"]
        {
            assert_eq!(Product::parse(name), None, "{name}");
        }
    }
}
