//! Tokenises units of a corpus on all cores and hands the results on in the corpus's order.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;

use super::skip_log::SkipLog;
use crate::data::corpus::{Source, Stopped, TextField, Unit, read_units};
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// A document, or a part of one, as tokens `start..end` of [`Encoded::tokens`].
pub struct Piece {
    pub start: usize,
    pub end: usize,
    /// Bytes of text.
    pub bytes: u64,
    /// Hash of the whole document's text.
    pub hash: u64,
    /// Whether the document ends here.
    pub last: bool,
}

/// A unit of the corpus, tokenised.
#[derive(Default)]
pub struct Encoded {
    pub tokens: Vec<u16>,
    pub pieces: Vec<Piece>,
    pub skipped: SkipLog,
    pub empty_documents: u64,
    /// Bytes on disk that this accounts for.
    pub source_bytes: u64,
}

/// What every worker needs.
pub struct Context {
    pub tokenizer: Tokenizer,
    pub field: TextField,
    pub sources: Vec<Source>,
}

/// Runs the whole corpus through `take`, unit by unit in order, whatever the number of threads of `pool`.
///
/// Memory is bounded: a unit is read only when one of `4 x threads + 4` permits is free, and its permit comes back once
/// `take` is done with it.
pub fn run(
    context: &Arc<Context>,
    pool: &rayon::ThreadPool,
    mut take: impl FnMut(Encoded) -> Result<()>,
) -> Result<()> {
    let (results, received) = mpsc::channel();
    let (permits, granted) = mpsc::channel();
    for _ in 0..4 * pool.current_num_threads() + 4 {
        // The receiver is alive: it is two lines above.
        let _ = permits.send(());
    }
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut number = 0u64;
            // Stopped means that the loop below ended early; its error says why.
            let _ = read_units(&context.sources, &context.field, |unit| {
                granted.recv().map_err(|_| Stopped)?;
                let (context, results) = (context.clone(), results.clone());
                pool.spawn(move || {
                    // A closed channel is the same early end.
                    let _ = results.send((number, encode(&context, unit)));
                });
                number += 1;
                Ok(())
            });
        });
        let (mut waiting, mut next) = (BTreeMap::new(), 0u64);
        // Owned by this closure, so that an early return closes it and the reader stops.
        let permits = permits;
        for (number, encoded) in received {
            waiting.insert(number, encoded);
            while let Some(encoded) = waiting.remove(&next) {
                take(encoded?)?;
                next += 1;
                let _ = permits.send(());
            }
        }
        Ok(())
    })
}

/// An error of a worker: of the file system, or our own.
struct WorkerError(Error);

impl From<io::Error> for WorkerError {
    fn from(error: io::Error) -> Self {
        Self(Error::failed(format!("the corpus cannot be read: {error}; run `trainer prepare` again")))
    }
}

fn encode(context: &Context, unit: Unit) -> Result<Encoded> {
    let mut encoded = Encoded { source_bytes: unit.source_bytes(), ..Encoded::default() };
    let Encoded { tokens, pieces, skipped, empty_documents, .. } = &mut encoded;
    let mut ids = Vec::new();
    unit.for_each(
        &context.field,
        |fragment| {
            if fragment.text.is_empty() {
                *empty_documents += 1;
                return Ok(());
            }
            ids.clear();
            context.tokenizer.encode_into(fragment.text, &mut ids).map_err(WorkerError)?;
            let start = tokens.len();
            // Ids fit: the vocabulary was checked against u16 before the first unit.
            tokens.extend(ids.iter().map(|&id| id as u16));
            let (end, bytes) = (tokens.len(), fragment.text.len() as u64);
            pieces.push(Piece { start, end, bytes, hash: fragment.hash, last: fragment.last });
            Ok(())
        },
        |skip| skipped.add(skip),
    )
    .map_err(|WorkerError(error)| error)?;
    Ok(encoded)
}
