//! Where a checkpoint keeps each tensor of ours: today's names, and three older layouts of phi's weights.
//!
//! Sources: Microsoft's modeling_mixformer_sequential.py (phi-1, September 2023) and modeling_phi.py (model_type
//! phi-msft), whose `Wqkv` is split as "(three h d)"; transformers' convert_phi_weights_to_hf.py, which turns those
//! rows into [heads, 3, head_dim] for the `query_key_value` of its version 4.36.

use std::collections::BTreeMap;
use std::ops::Range;

use super::WeightsReader;
use crate::model::architecture::Architecture;
use crate::model::table::{Entry, ParameterTable};

/// How a checkpoint names its tensors, and in what order the rows of q, k and v lie in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightLayout {
    /// transformers from 4.37 on, and this program: `model.layers.N.self_attn.{q,k,v}_proj`.
    Separate,
    /// transformers 4.36: `model.layers.N.self_attn.query_key_value`, rows [heads, 3, head_dim].
    FusedByHead,
    /// `layers.0.wte`, `layers.1..=L.mixer.Wqkv`, `layers.L+1.linear`; rows [3, heads, head_dim].
    MixFormerSequential,
    /// `transformer.embd.wte`, `transformer.h.N.mixer.Wqkv`, `lm_head.linear`; rows [3, heads, head_dim].
    PhiMsft,
}

/// The place of one tensor of ours in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    /// Of the whole tensor in the checkpoint.
    pub shape: Vec<usize>,
    /// Its elements that, one range after the other, are ours.
    pub pieces: Vec<Range<usize>>,
}

/// Which of the three projections a tensor is.
const PROJECTIONS: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

impl WeightLayout {
    /// The layout whose names the weights have; today's where they have none that tells.
    pub fn of(weights: &WeightsReader) -> Self {
        let has = |name: &str| weights.names().any(|found| found == name);
        if has("layers.0.wte.weight") {
            Self::MixFormerSequential
        } else if has("transformer.embd.wte.weight") {
            Self::PhiMsft
        } else if has("model.layers.0.self_attn.query_key_value.weight") {
            Self::FusedByHead
        } else {
            Self::Separate
        }
    }

    /// Where each entry of the table is, in the table's order.
    pub fn sources(self, arch: &Architecture, table: &ParameterTable) -> Vec<Source> {
        table.entries.iter().map(|entry| self.source(arch, entry)).collect()
    }

    fn source(self, arch: &Architecture, entry: &Entry) -> Source {
        let whole = |name: String| Source { name, shape: entry.shape.clone(), pieces: vec![0..entry.len()] };
        let Some((layer, part)) = block_part(&entry.name) else {
            return whole(self.outside_blocks(arch, &entry.name));
        };
        let projection = PROJECTIONS.iter().position(|name| part.contains(name));
        let suffix = part.rsplit('.').next().unwrap_or_default();
        match (self, projection) {
            (Self::Separate, _) | (Self::FusedByHead, None) => whole(entry.name.clone()),
            (Self::FusedByHead, Some(index)) => {
                let name = format!("model.layers.{layer}.self_attn.query_key_value.{suffix}");
                let head = entry.len() / arch.heads;
                let pieces = (0..arch.heads).map(|h| (3 * h + index) * head..(3 * h + index + 1) * head).collect();
                Source { name, shape: fused(&entry.shape), pieces }
            }
            (Self::MixFormerSequential | Self::PhiMsft, None) => whole(self.in_block(layer, &microsofts(part))),
            (Self::MixFormerSequential | Self::PhiMsft, Some(index)) => {
                let name = self.in_block(layer, &format!("mixer.Wqkv.{suffix}"));
                let pieces = std::iter::once(index * entry.len()..(index + 1) * entry.len()).collect();
                Source { name, shape: fused(&entry.shape), pieces }
            }
        }
    }

    /// MixFormer's embedding is layer 0, so that its blocks count from 1.
    fn in_block(self, layer: usize, part: &str) -> String {
        match self {
            Self::MixFormerSequential => format!("layers.{}.{part}", layer + 1),
            _ => format!("transformer.h.{layer}.{part}"),
        }
    }

    fn outside_blocks(self, arch: &Architecture, name: &str) -> String {
        let (embedding, head) = match self {
            Self::Separate | Self::FusedByHead => return name.to_string(),
            Self::MixFormerSequential => ("layers.0.wte", format!("layers.{}", arch.layers + 1)),
            Self::PhiMsft => ("transformer.embd.wte", "lm_head".to_string()),
        };
        name.replace("model.embed_tokens", embedding)
            .replace("model.final_layernorm", &format!("{head}.ln"))
            .replace("lm_head.weight", &format!("{head}.linear.weight"))
            .replace("lm_head.bias", &format!("{head}.linear.bias"))
    }
}

/// (N, the rest) of `model.layers.N.`...
fn block_part(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}

/// Microsoft's name of a block's tensor that is no projection of q, k or v.
fn microsofts(part: &str) -> String {
    part.replace("input_layernorm", "ln").replace("self_attn.dense", "mixer.out_proj")
}

/// The shape of q, k and v over each other.
fn fused(shape: &[usize]) -> Vec<usize> {
    let mut shape = shape.to_vec();
    shape[0] *= 3;
    shape
}

/// Each tensor of the checkpoint once, with its shape: what `WeightsReader::check` wants.
pub fn names_and_shapes(sources: &[Source]) -> Vec<(String, Vec<usize>)> {
    let mut seen = BTreeMap::new();
    let first = sources.iter().filter(|source| seen.insert(&source.name, ()).is_none());
    first.map(|source| (source.name.clone(), source.shape.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(layout: WeightLayout) -> (ParameterTable, Vec<Source>) {
        let arch = Architecture { mlp: 20, ..Architecture::phi(2, 12, 3, 30, 16) };
        let table = ParameterTable::new(&arch);
        let sources = layout.sources(&arch, &table);
        (table, sources)
    }

    #[test]
    fn todays_layout_is_the_table() {
        let (table, sources) = sources(WeightLayout::Separate);
        assert_eq!(names_and_shapes(&sources), table.names_and_shapes());
        assert!(sources.iter().zip(&table.entries).all(|(source, entry)| source.pieces == vec![0..entry.len()]));
    }

    /// The names as Microsoft's files have them, spelled out.
    #[test]
    fn the_older_names_are_those_of_the_files() {
        let block = ["ln", "mixer.Wqkv", "mixer.out_proj", "mlp.fc1", "mlp.fc2"];
        let mixformer = (1..=2).flat_map(|layer| block.map(|part| format!("layers.{layer}.{part}")));
        let mixformer = mixformer.chain(["layers.3.ln".to_string(), "layers.3.linear".to_string()]);
        let msft = (0..2).flat_map(|layer| block.map(|part| format!("transformer.h.{layer}.{part}")));
        let msft = msft.chain(["lm_head.ln".to_string(), "lm_head.linear".to_string()]);
        let block = ["input_layernorm", "self_attn.query_key_value", "self_attn.dense", "mlp.fc1", "mlp.fc2"];
        let by_head = (0..2).flat_map(|layer| block.map(|part| format!("model.layers.{layer}.{part}")));
        let by_head = by_head.chain(["model.final_layernorm".to_string(), "lm_head".to_string()]);
        for (layout, embedding, modules) in [
            (WeightLayout::MixFormerSequential, "layers.0.wte.weight", mixformer.collect::<Vec<_>>()),
            (WeightLayout::PhiMsft, "transformer.embd.wte.weight", msft.collect()),
            (WeightLayout::FusedByHead, "model.embed_tokens.weight", by_head.collect()),
        ] {
            let mut expected: Vec<String> =
                modules.iter().flat_map(|name| ["weight", "bias"].map(|part| format!("{name}.{part}"))).collect();
            expected.push(embedding.to_string());
            expected.sort();
            let (_, sources) = sources(layout);
            let mut found: Vec<String> = names_and_shapes(&sources).into_iter().map(|(name, _)| name).collect();
            found.sort();
            assert_eq!(found, expected, "{layout:?}");
        }
    }

    #[test]
    fn every_element_of_a_fused_tensor_is_used_once() {
        for layout in [WeightLayout::FusedByHead, WeightLayout::MixFormerSequential, WeightLayout::PhiMsft] {
            let (table, sources) = sources(layout);
            let mut used: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
            for (source, entry) in sources.iter().zip(&table.entries) {
                let len = source.shape.iter().product();
                let used = used.entry(&source.name).or_insert_with(|| vec![false; len]);
                assert_eq!(source.pieces.iter().map(|piece| piece.len()).sum::<usize>(), entry.len());
                for place in source.pieces.iter().cloned().flatten() {
                    assert!(!std::mem::replace(&mut used[place], true), "{} twice in {}", entry.name, source.name);
                }
            }
            assert!(used.values().all(|used| used.iter().all(|used| *used)), "{layout:?}");
        }
    }
}
