//! The one table of parameters: names, shapes and places in the flat buffers.
//!
//! Weights, gradients and optimizer state are flat buffers, one a group: the embedding, each block, the head. A group
//! lists its matrices first (they decay), then its vectors (they do not). The rows of q, k, v and fc1 follow each other,
//! so that the four projections of a block, which share their input, are one matrix product.

use std::ops::Range;

use trainer_backends::ops::{MatrixSlot, VectorSlot};

use super::architecture::Architecture;

/// Slots start at multiples of this many elements: 512 bytes in fp16, 1024 in fp32, which suits CUDA's and WGPU's needs.
const ALIGN: usize = 256;

/// One tensor, under its Hugging Face name.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: String,
    pub shape: Vec<usize>,
    pub group: usize,
    /// Elements from the start of the group's buffer.
    pub offset: usize,
}

impl Entry {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// One flat buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Elements, padding included.
    pub len: usize,
    /// Weight decay applies to the elements before this one.
    pub decay_len: usize,
}

/// Where a block's weights are in its group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockSlots {
    /// `[3C + F, C]`: q, k, v, fc1.
    pub fused: MatrixSlot,
    pub fused_bias: VectorSlot,
    pub dense: MatrixSlot,
    pub dense_bias: VectorSlot,
    pub fc2: MatrixSlot,
    pub fc2_bias: VectorSlot,
    pub gamma: VectorSlot,
    pub beta: VectorSlot,
}

/// Where the final norm and the head are in the last group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadSlots {
    pub weight: MatrixSlot,
    pub bias: VectorSlot,
    pub gamma: VectorSlot,
    pub beta: VectorSlot,
}

/// Every parameter of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterTable {
    pub entries: Vec<Entry>,
    pub groups: Vec<Group>,
    pub embedding: MatrixSlot,
    /// The same in every block's group.
    pub block: BlockSlots,
    pub head: HeadSlots,
}

/// Lays out one group.
struct Layout<'a> {
    entries: &'a mut Vec<Entry>,
    group: usize,
    end: usize,
}

impl Layout<'_> {
    fn align(&mut self) -> usize {
        self.end = self.end.next_multiple_of(ALIGN);
        self.end
    }

    fn push(&mut self, name: String, shape: Vec<usize>) {
        let entry = Entry { name, shape, group: self.group, offset: self.end };
        self.end += entry.len();
        self.entries.push(entry);
    }

    /// Matrices of `cols` columns stacked over each other, as one slot.
    fn matrix(&mut self, parts: &[(String, usize)], cols: usize) -> MatrixSlot {
        let offset = self.align();
        for (name, rows) in parts {
            self.push(name.clone(), vec![*rows, cols]);
        }
        MatrixSlot { offset, rows: parts.iter().map(|(_, rows)| rows).sum(), cols }
    }

    /// Vectors behind each other, as one slot.
    fn vector(&mut self, parts: &[(String, usize)]) -> VectorSlot {
        let offset = self.align();
        for (name, len) in parts {
            self.push(name.clone(), vec![*len]);
        }
        VectorSlot { offset, len: self.end - offset }
    }
}

impl ParameterTable {
    pub fn new(arch: &Architecture) -> Self {
        let (c, f, v) = (arch.hidden, arch.mlp, arch.vocab);
        let mut entries = Vec::new();
        let mut groups = Vec::new();

        let mut layout = Layout { entries: &mut entries, group: 0, end: 0 };
        let embedding = layout.matrix(&[("model.embed_tokens.weight".into(), v)], c);
        let len = layout.align();
        groups.push(Group { len, decay_len: len });

        let mut block = None;
        for layer in 0..arch.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let fused = |suffix: &str| {
                [("self_attn.q_proj", c), ("self_attn.k_proj", c), ("self_attn.v_proj", c), ("mlp.fc1", f)]
                    .map(|(part, rows)| (name(&format!("{part}.{suffix}")), rows))
            };
            let mut layout = Layout { entries: &mut entries, group: groups.len(), end: 0 };
            let matrices = (
                layout.matrix(&fused("weight"), c),
                layout.matrix(&[(name("self_attn.dense.weight"), c)], c),
                layout.matrix(&[(name("mlp.fc2.weight"), c)], f),
            );
            let decay_len = layout.align();
            let slots = BlockSlots {
                fused: matrices.0,
                dense: matrices.1,
                fc2: matrices.2,
                fused_bias: layout.vector(&fused("bias")),
                dense_bias: layout.vector(&[(name("self_attn.dense.bias"), c)]),
                fc2_bias: layout.vector(&[(name("mlp.fc2.bias"), c)]),
                gamma: layout.vector(&[(name("input_layernorm.weight"), c)]),
                beta: layout.vector(&[(name("input_layernorm.bias"), c)]),
            };
            groups.push(Group { len: layout.align(), decay_len });
            block = Some(slots);
        }

        let mut layout = Layout { entries: &mut entries, group: groups.len(), end: 0 };
        let weight = layout.matrix(&[("lm_head.weight".into(), v)], c);
        let decay_len = layout.align();
        let head = HeadSlots {
            weight,
            bias: layout.vector(&[("lm_head.bias".into(), v)]),
            gamma: layout.vector(&[("model.final_layernorm.weight".into(), c)]),
            beta: layout.vector(&[("model.final_layernorm.bias".into(), c)]),
        };
        groups.push(Group { len: layout.align(), decay_len });

        #[expect(clippy::expect_used, reason = "every reader of an architecture validates it")]
        let block = block.expect("an architecture has at least one layer (Architecture::validate)");
        Self { entries, groups, embedding, block, head }
    }

    /// Names and shapes, as a Hugging Face directory must have them.
    pub fn names_and_shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.entries.iter().map(|entry| (entry.name.clone(), entry.shape.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_aligned_disjoint_and_complete() {
        let arch = Architecture::phi(3, 96, 3, 500, 64);
        let table = ParameterTable::new(&arch);
        let total: usize = table.entries.iter().map(Entry::len).sum();
        assert_eq!(total as u64, arch.parameters());
        assert_eq!(table.groups.len(), arch.layers + 2);
        for pair in table.entries.windows(2).filter(|pair| pair[0].group == pair[1].group) {
            assert!(pair[0].range().end <= pair[1].offset);
        }
        for entry in &table.entries {
            let group = &table.groups[entry.group];
            assert!(entry.range().end <= group.len);
            assert_eq!(entry.shape.len() == 2, entry.offset < group.decay_len, "{}", entry.name);
        }
        let k = table.entries.iter().find(|entry| entry.name.ends_with("1.self_attn.k_proj.weight")).unwrap();
        assert_eq!(k.offset, table.block.fused.offset + 96 * 96);
        for offset in [table.block.dense.offset, table.block.fc2_bias.offset, table.head.gamma.offset] {
            assert_eq!(offset % ALIGN, 0);
        }
    }
}
