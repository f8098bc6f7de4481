//! Token shards and the manifests of prepared data.

use std::fs;
use std::path::Path;

use super::Target;
use crate::data::dataset::{Dataset, Split};
use crate::data::manifest::{MANIFEST, Manifest};
use crate::data::shard::{ShardMeta, ShardWriter, TokenShard};
use crate::error::Result;
use crate::{fixtures, verify};

fn shards() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, tokens: u16| {
        let path = dir.path().join(name);
        let mut writer =
            ShardWriter::create(&path, ShardMeta { vocab_size: 300, tokenizer: 7, end_of_text: 256 }).unwrap();
        writer.push(&(0..tokens).collect::<Vec<_>>()).unwrap();
        writer.finish().unwrap();
        fs::read(path).unwrap()
    };
    let ours = write("a.bin", 200);
    let mut llm_c = write("b.bin", 50);
    llm_c[12..1024].fill(0);
    vec![ours, llm_c]
}

/// The header's and the tokens' checksums.
#[expect(clippy::ptr_arg, reason = "as every mender of a file has it")]
fn mend(shard: &mut Vec<u8>) {
    if shard.len() >= 1024 {
        let tokens = crc32fast::hash(&shard[1024..]);
        shard[40..44].copy_from_slice(&tokens.to_le_bytes());
        let header = crc32fast::hash(&shard[..60]);
        shard[60..64].copy_from_slice(&header.to_le_bytes());
    }
}

#[test]
fn token_shards() {
    let target = Target { finish: mend, ..Target::new(file!(), "train.bin", shards()) };
    target.run(
        |_| {},
        |path| {
            let shard = TokenShard::open(path)?;
            shard.verify()?;
            let dataset = Dataset::open(path, Split::Train)?;
            dataset.verify()?;
            let mut all = vec![0; dataset.tokens() as usize];
            dataset.read(0, &mut all)?;
            dataset.fingerprint();
            assert_eq!(all.iter().max(), Some(&dataset.highest_id()));
            dataset.check_vocab(300)
        },
    );
}

#[test]
fn manifests_of_data() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fixtures::data(&data);
    let whole = fs::read(data.join(MANIFEST)).unwrap();
    let around = |place: &Path| {
        for entry in fs::read_dir(&data).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, place.join(path.file_name().unwrap())).unwrap();
        }
    };
    let read = |path: &Path| -> Result<()> {
        let dir = path.parent().unwrap();
        let report = verify::verify(dir, &()).unwrap();
        // A change that nothing else tells (the name of an input) leaves a manifest that can be used.
        if report.damaged().next().is_none() {
            Dataset::open(dir, Split::Train)?.verify()?;
            Dataset::open(dir, Split::Val)?.verify()?;
        }
        Manifest::read(dir).map(|_| ())
    };
    Target::new(file!(), MANIFEST, vec![whole]).run(around, read);
}
