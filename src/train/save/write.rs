//! A snapshot's files.
//!
//! `model/` holds the weights in the compute dtype; fp32 master weights and both moments are in the optimizer files, tensor
//! by tensor under their Hugging Face names, so that another layout or number of devices can read them.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::common;
use super::loop_state::{LoopState, STATE};
use super::snapshot::{HostCopy, Snapshot};
use crate::checkpoint::hugging_face::{ConfigExtras, DEFAULT_SHARD_BYTES, write_config, write_weights};
use crate::checkpoint::optimizer_files::{file_name, part_name};
use crate::checkpoint::{CheckpointWriter, Dtype, TensorEntry, model_files};
use crate::config::Config;
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::model::{Architecture, ParameterTable};
use crate::parallel::Replica;

/// What all checkpoints of a run have in common.
pub struct Description {
    arch: Architecture,
    table: ParameterTable,
    extras: ConfigExtras,
    tokenizer: Option<Arc<Tokenizer>>,
}

impl Description {
    pub fn new(
        config: &Config,
        arch: &Architecture,
        table: &ParameterTable,
        tokenizer: Option<Arc<Tokenizer>>,
    ) -> Self {
        let mut extras = ConfigExtras::new(model_files::dtype(config.train.precision));
        extras.eos_token_id = tokenizer.as_deref().map(Tokenizer::end_of_text);
        extras.residual_dropout = config.model.residual_dropout;
        extras.attention_dropout = config.model.attention_dropout;
        extras.embedding_dropout = config.model.embedding_dropout;
        Self { arch: arch.clone(), table: table.clone(), extras, tokenizer }
    }

    /// Writes a rank's files: the optimizer state that it owns and, the first one, all else.
    pub fn write(
        &self,
        writer: &CheckpointWriter,
        snapshot: &Snapshot,
        loop_state: &LoopState,
        share: &Share,
    ) -> Result<()> {
        writer.write_tensors(&file_name(share.rank, share.ranks), self.optimizer(snapshot, share))?;
        if share.rank > 0 {
            return Ok(());
        }
        writer.write_model(|model| {
            write_config(model, &self.arch, &self.extras)?;
            let entries = self.table.entries.iter().map(|entry| {
                let bytes = elements(&snapshot.weights[entry.group], entry.range());
                TensorEntry::bytes(entry.name.clone(), self.extras.dtype, entry.shape.clone(), bytes)
            });
            write_weights(model, entries, DEFAULT_SHARD_BYTES)?;
            self.tokenizer.as_deref().map_or(Ok(()), |tokenizer| tokenizer.save(model))
        })?;
        let json = serde_json::to_vec_pretty(loop_state).map_err(|error| Error::failed(format!("{STATE}: {error}")))?;
        writer.write_file(STATE, &json)
    }

    /// Whole tensors where the rank is alone, else what it owns of each.
    fn optimizer<'a>(&self, snapshot: &'a Snapshot, share: &Share) -> Vec<TensorEntry<'a>> {
        let mut entries = Vec::new();
        for (prefix, groups) in &snapshot.optimizer {
            for entry in &self.table.entries {
                let (group, name) = (&groups[entry.group], format!("{prefix}{}", entry.name));
                if share.ranks == 1 {
                    let bytes = elements(group, entry.range());
                    entries.push(TensorEntry::bytes(name, Dtype::F32, entry.shape.clone(), bytes));
                    continue;
                }
                let (kept, own) = &share.groups[entry.group];
                let owned = common(own, &entry.range());
                if !owned.is_empty() {
                    let part = owned.start - entry.offset..owned.end - entry.offset;
                    let bytes = elements(group, owned.start - kept.start..owned.end - kept.start);
                    entries.push(TensorEntry::bytes(part_name(&name, &part), Dtype::F32, vec![part.len()], bytes));
                }
            }
        }
        entries
    }
}

/// Which part of the optimizer's files a rank writes.
pub struct Share {
    pub rank: usize,
    pub ranks: usize,
    /// By parameter group: the elements that are in the rank's memory, and those of them that it writes.
    groups: Vec<(Range<usize>, Range<usize>)>,
}

impl Share {
    pub fn new(replica: &Replica, table: &ParameterTable) -> Self {
        let groups = (0..table.groups.len()).map(|group| (replica.kept(group), replica.own(group))).collect();
        Self { rank: replica.group.rank(), ranks: replica.group.size(), groups }
    }
}

/// The bytes of some elements.
fn elements(copy: &HostCopy, range: Range<usize>) -> Cow<'_, [u8]> {
    let size = copy.dtype().size();
    Cow::Borrowed(&copy.bytes()[range.start * size..range.end * size])
}
