//! Token shards and the directories that they lie in.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rayon::prelude::*;

use super::{Checks, Progress, is_bin, size};
use crate::data::dataset::{Split, open_listed};
use crate::data::manifest::{MANIFEST, Manifest, Part, ShardEntry};
use crate::data::shard::TokenShard;
use crate::data::tokenizer::{Tokenizer, fingerprint_hex};
use crate::error::{Error, Result};
use crate::report::table::thousands;

const AGAIN: &str = "copy it again or run `trainer prepare` again";

pub(super) fn check(dir: &Path, checks: &mut Checks) {
    let path = dir.join(MANIFEST);
    match Manifest::read(dir) {
        Ok(Some(manifest)) => prepared(dir, &manifest, checks),
        Ok(None) => foreign(dir, checks),
        Err(error) => checks.add(&path, Err(error)),
    }
}

pub(super) fn check_shard(path: &Path, checks: &mut Checks) {
    checks.progress.expect(size(path));
    checks.add(path, TokenShard::open(path).and_then(|shard| whole(&shard, checks.progress)));
}

/// What `trainer prepare` wrote: every shard must be the one that the manifest lists.
fn prepared(dir: &Path, manifest: &Manifest, checks: &mut Checks) {
    checks.add(&dir.join(MANIFEST), counted(dir, manifest));
    let listed: Vec<&ShardEntry> = manifest.train.shards.iter().chain(&manifest.val.shards).collect();
    listed.iter().for_each(|entry| checks.progress.expect(size(&dir.join(&entry.file))));
    let places = places(dir);
    let progress = checks.progress;
    let outcomes: Vec<Result<String>> = listed
        .par_iter()
        .map(|entry| {
            let shard = open_listed(dir, entry).map_err(|error| found_elsewhere(error, dir, entry, &places))?;
            let tokenizer = shard.meta().map(|meta| fingerprint_hex(meta.tokenizer));
            if tokenizer.as_ref() != Some(&manifest.tokenizer.fingerprint) {
                return Err(Error::file(
                    shard.path(),
                    format!("was made with another tokenizer than the manifest's: {AGAIN}"),
                ));
            }
            whole(&shard, progress)
        })
        .collect();
    for (entry, outcome) in listed.iter().zip(outcomes) {
        checks.add(&dir.join(&entry.file), outcome);
    }
    let path = dir.join("tokenizer.json");
    checks.add(&path, tokenizer(&path, manifest));
}

/// That the manifest's own counts add up.
fn counted(dir: &Path, manifest: &Manifest) -> Result<String> {
    for split in [Split::Train, Split::Val] {
        let Part { tokens, shards, .. } = manifest.part(split);
        let sum = shards.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.tokens));
        if sum != *tokens {
            let what = format!("lists {tokens} {} tokens, but shards of {sum}: {AGAIN}", split.name());
            return Err(Error::file(dir.join(MANIFEST), what));
        }
    }
    Ok(format!(
        "{} training and {} validation tokens",
        thousands(manifest.train.tokens),
        thousands(manifest.val.tokens)
    ))
}

fn tokenizer(path: &Path, manifest: &Manifest) -> Result<String> {
    if !path.is_file() {
        return Err(Error::file(path, format!("is missing: {AGAIN}")));
    }
    let name = path.to_str().ok_or_else(|| Error::file(path, "this path is not UTF-8: move it"))?;
    let tokenizer = Tokenizer::load(name)?;
    if fingerprint_hex(tokenizer.fingerprint()) != manifest.tokenizer.fingerprint {
        return Err(Error::file(path, format!("is another tokenizer than the one that made the shards: {AGAIN}")));
    }
    Ok("has the tokens and ids that the shards were made with, by their fingerprint".to_string())
}

/// Shards without a manifest: llm.c's own, or ours of which it was lost.
fn foreign(dir: &Path, checks: &mut Checks) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = entries.filter(|path| is_bin(path)).collect();
    paths.sort();
    paths.iter().for_each(|path| check_shard(path, checks));
    if paths.iter().any(|path| TokenShard::open(path).is_ok_and(|shard| shard.meta().is_some())) {
        let what = format!("is missing, without which a lost or exchanged shard cannot be told: {AGAIN}");
        checks.add(&dir.join(MANIFEST), Err(Error::file(dir.join(MANIFEST), what)));
    }
}

/// The tokens, and that each is an id of the vocabulary.
fn whole(shard: &TokenShard, progress: &dyn Progress) -> Result<String> {
    shard.verify()?;
    progress.read(size(shard.path()));
    let tokens = thousands(shard.tokens());
    let ids = shard.bytes().as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair));
    let highest = ids.max();
    let Some(meta) = shard.meta() else {
        let highest = highest.map_or_else(String::new, |id| format!(", ids up to {id}"));
        return Ok(format!("{tokens} tokens, as long as its header says{highest}; llm.c's format has no checksum"));
    };
    match highest {
        Some(id) if u32::from(id) >= meta.vocab_size => {
            let what =
                format!("holds token id {id}, but its header says that ids are below {}: {AGAIN}", meta.vocab_size);
            Err(Error::file(shard.path(), what))
        }
        _ => Ok(format!("{tokens} tokens, by their checksum")),
    }
}

/// The names of the shards in a directory by their length and checksum.
fn places(dir: &Path) -> BTreeMap<(u64, String), String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let place = |path: &Path| {
        let shard = TokenShard::open(path).ok()?;
        Some(((shard.tokens(), format!("{:08x}", shard.stored_crc32()?)), path.file_name()?.to_str()?.to_string()))
    };
    entries.filter(|path| is_bin(path)).filter_map(|path| place(&path)).collect()
}

/// Where the tokens of a shard that is not in its place are, if they are in the same directory.
fn found_elsewhere(error: Error, dir: &Path, entry: &ShardEntry, places: &BTreeMap<(u64, String), String>) -> Error {
    match (error, places.get(&(entry.tokens, entry.crc32.clone()))) {
        (Error::File { path, what }, Some(place)) if *place != entry.file => {
            let place = dir.join(place);
            Error::file(path, format!("{what}; its tokens are in {}: give the files their names back", place.display()))
        }
        (error, _) => error,
    }
}
