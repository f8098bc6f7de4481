use super::*;
use crate::data::manifest::{Options, Part, TokenizerEntry};
use crate::data::shard::ShardWriter;

const META: ShardMeta = ShardMeta { vocab_size: 1000, tokenizer: 5, end_of_text: 999 };

fn write(dir: &Path, name: &str, tokens: std::ops::Range<u16>, meta: ShardMeta) {
    let mut writer = ShardWriter::create(&dir.join(name), meta).unwrap();
    writer.push(&tokens.collect::<Vec<_>>()).unwrap();
    writer.finish().unwrap();
}

/// Three training shards of 10, 1 and 20 tokens that count from 0, and a validation shard.
fn shards(dir: &Path) {
    write(dir, "x_train_0.bin", 0..10, META);
    write(dir, "x_train_1.bin", 10..11, META);
    write(dir, "x_train_2.bin", 11..31, META);
    write(dir, "x_val_0.bin", 100..140, META);
    list(dir);
}

/// Writes the manifest of the shards that are there.
fn list(dir: &Path) {
    let part = |names: &[&str]| {
        let entry = |name: &&str| {
            let shard = TokenShard::open(&dir.join(name)).unwrap();
            let crc32 = format!("{:08x}", shard.stored_crc32().unwrap());
            ShardEntry { file: name.to_string(), tokens: shard.tokens(), crc32 }
        };
        Part { shards: names.iter().map(entry).collect(), ..Part::default() }
    };
    let (format, version) = Manifest::mark();
    let name = String::new();
    let manifest = Manifest {
        format,
        version,
        trainer: name.clone(),
        tokenizer: TokenizerEntry { name: name.clone(), fingerprint: name, vocab_size: 1000, end_of_text: 999 },
        train: part(&["x_train_0.bin", "x_train_1.bin", "x_train_2.bin"]),
        val: part(&["x_val_0.bin"]),
        empty_documents: 0,
        other_files: 0,
        skipped: Vec::new(),
        options: Options { inputs: Vec::new(), val_fraction: 0.1, shard_tokens: 20, seed: 0, text_field: None },
    };
    manifest.write(dir).unwrap();
}

/// The same file with our header words cleared, as llm.c would have written it.
fn without_our_words(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[12..1024].fill(0);
    fs::write(path, bytes).unwrap();
}

#[test]
fn reads_go_across_the_borders_of_shards() {
    let dir = tempfile::tempdir().unwrap();
    shards(dir.path());
    let dataset = Dataset::open(dir.path(), Split::Train).unwrap();
    assert_eq!((dataset.tokens(), dataset.vocab_size(), dataset.end_of_text()), (31, Some(1000), Some(999)));
    for start in 0..=31u16 {
        for end in start..=31 {
            let mut out = vec![0; usize::from(end - start)];
            dataset.read(u64::from(start), &mut out).unwrap();
            assert!(out.into_iter().eq(start..end), "{start}..{end}");
        }
    }
    assert!(dataset.read(30, &mut [0; 2]).unwrap_err().to_string().contains("holds 31"));
    assert!(dataset.read(u64::MAX, &mut [0; 2]).is_err());
    dataset.verify().unwrap();
    assert_eq!(Dataset::open(dir.path(), Split::Val).unwrap().tokens(), 40);
    assert_eq!(Dataset::open(&dir.path().join("x_train_2.bin"), Split::Val).unwrap().tokens(), 20);
}

#[test]
fn fingerprints_tell_data_sets_apart() {
    let dir = tempfile::tempdir().unwrap();
    shards(dir.path());
    let open = || Dataset::open(dir.path(), Split::Train).unwrap().fingerprint();
    let before = open();
    assert_eq!(before, open());
    write(dir.path(), "x_train_1.bin", 9..10, META);
    list(dir.path());
    assert_ne!(before, open());
    fs::remove_file(dir.path().join(MANIFEST)).unwrap();
    for name in ["x_train_0.bin", "x_train_1.bin", "x_train_2.bin"] {
        without_our_words(&dir.path().join(name));
    }
    let foreign = open();
    write(dir.path(), "x_train_1.bin", 8..9, META);
    without_our_words(&dir.path().join("x_train_1.bin"));
    assert_ne!(foreign, open());
    let memory = |tokens: std::ops::Range<u16>| Dataset::from_tokens(tokens.collect(), None).unwrap().fingerprint();
    assert_ne!(memory(0..9), memory(1..10));
}

#[test]
fn vocabularies_are_checked_by_header_or_by_reading() {
    let dir = tempfile::tempdir().unwrap();
    shards(dir.path());
    let path = dir.path().join("x_val_0.bin");
    let dataset = Dataset::open(&path, Split::Val).unwrap();
    dataset.check_vocab(1000).unwrap();
    let (untrained, trained) = (dataset.check_vocab(999), dataset.check_vocab_of_trained(999));
    dataset.check_vocab_of_trained(1000).unwrap();
    for (refused, advice) in [(untrained, "set model.vocab to at least 1000"), (trained, "MODEL/tokenizer.json")] {
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("vocabulary of 1000 ids") && message.contains(advice), "{message}");
    }
    drop(dataset);
    without_our_words(&path);
    let dataset = Dataset::open(&path, Split::Val).unwrap();
    assert_eq!(dataset.highest_id(), 139);
    dataset.check_vocab(140).unwrap();
    assert!(dataset.check_vocab(139).unwrap_err().to_string().contains("token id 139"));
    assert!(Dataset::from_tokens(vec![1, 5], Some(5)).is_err());
}

#[test]
fn what_is_not_a_data_set_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = |path: &Path| {
        let error = Dataset::open(path, Split::Train).err().unwrap();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    assert!(refusal(dir.path()).contains("found neither"));
    assert!(refusal(&dir.path().join("missing")).contains("no such file or folder"));
    write(dir.path(), "train.bin", 0..0, META);
    assert!(refusal(dir.path()).contains("without their manifest.json"));
    without_our_words(&dir.path().join("train.bin"));
    assert!(refusal(dir.path()).contains("holds no tokens"));
    let unvalidated = Dataset::open(dir.path(), Split::Val).err().unwrap().to_string();
    assert!(unvalidated.contains("no validation part") && unvalidated.contains("validation.every=0"), "{unvalidated}");
    fs::write(dir.path().join(MANIFEST), "{}").unwrap();
    assert!(refusal(dir.path()).contains("does not parse"));
    fs::write(dir.path().join(MANIFEST), r#"{"format":"other","version":1}"#).unwrap();
    assert!(refusal(dir.path()).contains("found other version 1"));
}

#[test]
fn shards_of_different_tokenizers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    shards(dir.path());
    write(dir.path(), "x_train_1.bin", 10..11, ShardMeta { tokenizer: 6, ..META });
    list(dir.path());
    let refused = Dataset::open(dir.path(), Split::Train).err().unwrap().to_string();
    assert!(refused.contains("another tokenizer"), "{refused}");
}

#[test]
fn llm_cs_shards_are_told_apart_by_whole_words() {
    let dir = tempfile::tempdir().unwrap();
    let shard = |name: &str, tokens| {
        write(dir.path(), name, tokens, META);
        without_our_words(&dir.path().join(name));
    };
    shard("fineweb_train_000001.bin", 0..3);
    shard("pretrain_val_000000.bin", 3..5);
    shard("TinyStories-valid1.bin", 5..6);
    shard("constraints.bin", 6..30);
    let tokens = |split| Dataset::open(dir.path(), split).map(|dataset| dataset.tokens());
    assert_eq!((tokens(Split::Train).unwrap(), tokens(Split::Val).unwrap()), (3, 3));
    shard("train_val.bin", 0..1);
    let refused = tokens(Split::Val).unwrap_err().to_string();
    assert!(refused.contains("train_val.bin: has both train and val"), "{refused}");
}
