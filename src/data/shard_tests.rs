use super::*;

const META: ShardMeta = ShardMeta { vocab_size: 50_295, tokenizer: 0x0123_4567_89ab_cdef, end_of_text: 50_256 };

fn tokens(n: usize) -> Vec<u16> {
    (0..n).map(|i| (i * 7919 % 50_295) as u16).collect()
}

fn shard(dir: &Path, n: usize) -> PathBuf {
    let path = dir.join("train-00000.bin");
    let mut writer = ShardWriter::create(&path, META).unwrap();
    for chunk in tokens(n).chunks(1000) {
        writer.push(chunk).unwrap();
    }
    assert_eq!(writer.finish().unwrap().tokens, n as u64);
    path
}

fn llm_c_file(path: &Path, tokens: &[u16]) {
    let mut bytes = Vec::new();
    for word in [20_240_520i32, 1, tokens.len() as i32].into_iter().chain(std::iter::repeat_n(0, 253)) {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    fs::write(path, bytes).unwrap();
}

fn refusal(path: &Path) -> String {
    let error = TokenShard::open(path).err().expect("a damaged shard is refused");
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for n in [0, 1, 2, 12_345] {
        let shard = TokenShard::open(&shard(dir.path(), n)).unwrap();
        assert_eq!((shard.tokens(), shard.meta()), (n as u64, Some(META)));
        let mut read = vec![0; n];
        shard.read(0, &mut read);
        assert_eq!(read, tokens(n));
        if n > 1 {
            let mut middle = vec![0; n / 2];
            shard.read(1, &mut middle);
            assert_eq!(middle, tokens(n)[1..1 + n / 2]);
        }
        shard.verify().unwrap();
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn llm_c_reads_the_first_three_words_and_the_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(shard(dir.path(), 300)).unwrap();
    assert_eq!(bytes[..12], [20_240_520i32, 1, 300].map(i32::to_le_bytes).concat());
    assert_eq!(bytes[1024..], tokens(300).iter().flat_map(|t| t.to_le_bytes()).collect::<Vec<_>>());
}

#[test]
fn files_without_our_words_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fineweb_train_000001.bin");
    llm_c_file(&path, &tokens(100));
    let shard = TokenShard::open(&path).unwrap();
    assert_eq!((shard.tokens(), shard.meta(), shard.stored_crc32()), (100, None, None));
    shard.verify().unwrap();
}

#[test]
fn every_damage_has_its_own_message() {
    let dir = tempfile::tempdir().unwrap();
    let path = shard(dir.path(), 500);
    let whole = fs::read(&path).unwrap();
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        let path = dir.path().join("damaged.bin");
        fs::write(&path, bytes).unwrap();
        path
    };
    assert!(refusal(&damaged(&|b| b.truncate(10))).contains("found only 10 bytes"));
    assert!(refusal(&damaged(&|b| b.truncate(1500))).contains("it is truncated"));
    assert!(refusal(&damaged(&|b| b.push(0))).contains("trailing bytes"));
    assert!(refusal(&damaged(&|b| b[0] ^= 1)).contains("found magic"));
    assert!(refusal(&damaged(&|b| b[4] = 2)).contains("version 2 (u32 tokens"));
    assert!(refusal(&damaged(&|b| b[4] = 7)).contains("found version 7"));
    assert!(refusal(&damaged(&|b| b[11] = 0xff)).contains("says -"));
    assert!(refusal(&damaged(&|b| b[44] ^= 1)).contains("header's own checksum"));
    assert!(refusal(&damaged(&|b| b[34] ^= 8)).contains("header's own checksum"), "our own magic");
    let flipped = TokenShard::open(&damaged(&|b| b[1400] ^= 4)).unwrap();
    assert!(flipped.verify().unwrap_err().to_string().contains("damaged after it was"));
    assert!(refusal(&dir.path().join("missing.bin")).contains("cannot open"));
}

#[test]
fn an_unfinished_shard_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train-00000.bin");
    let mut writer = ShardWriter::create(&path, META).unwrap();
    writer.push(&tokens(10)).unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn ids_outside_the_vocabulary_and_vocabularies_outside_u16_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train-00000.bin");
    let mut writer = ShardWriter::create(&path, META).unwrap();
    assert!(writer.push(&[50_295]).unwrap_err().to_string().contains("made id 50295"));
    let wide = ShardMeta { vocab_size: 65_537, ..META };
    assert!(ShardWriter::create(&path, wide).err().unwrap().to_string().contains("at most 65536"));
}
