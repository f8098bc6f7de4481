use std::fs;

use super::*;
use crate::data::dataset::Dataset;

const EOT: u16 = 50_256;

struct Corpus {
    dir: tempfile::TempDir,
}

impl Corpus {
    /// Some sixty Python files, JSON lines in three wrappings, a bad file, an empty one and one of another kind.
    fn new() -> Self {
        let corpus = Self { dir: tempfile::tempdir().unwrap() };
        for i in 0..60 {
            corpus.file(&format!("src/p{}/m{i:02}.py", i % 3), python(i).as_bytes());
        }
        let lines: String =
            (0..500).map(|i| format!("{}\n", serde_json::json!({"id": i, "content": python(i)}))).collect();
        corpus.file("src/data.jsonl", lines.as_bytes());
        corpus.file("src/data.jsonl.zst", &zstd::encode_all(lines.replace("def", "async def").as_bytes(), 1).unwrap());
        corpus.file("src/notes.md", "# Été\n".as_bytes());
        corpus.file("src/latin1.txt", b"caf\xe9");
        corpus.file("src/empty.py", b"");
        corpus.file("src/picture.png", b"\x89PNG");
        corpus.file("src/bad.jsonl", b"{\"text\": \"good\"}\nnot json\n\n[1]\n{\"other\": 1}\n");
        corpus
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn options(&self, out: &str) -> PrepareOptions {
        PrepareOptions {
            val_fraction: 0.1,
            shard_tokens: 7001,
            ..PrepareOptions::new(vec![self.dir.path().join("src")], self.dir.path().join(out))
        }
    }

    /// Names beside the corpus: outputs, and whatever a run left behind.
    fn entries(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn python(i: usize) -> String {
    format!("def f{i}(x):\n    \"\"\"It's number {i}.\"\"\"\n    return x * {i}\n{}", "\n\n# more\n".repeat(i % 5))
}

fn quiet(_: Progress) {}

fn all_tokens(dir: &Path, split: Split) -> Vec<u16> {
    let dataset = Dataset::open(dir, split).unwrap();
    dataset.verify().unwrap();
    let mut tokens = vec![0; dataset.tokens() as usize];
    dataset.read(0, &mut tokens).unwrap();
    tokens
}

/// The documents of a split, decoded.
fn documents(dir: &Path, split: Split) -> Vec<String> {
    let (tokenizer, tokens) = (Tokenizer::codegen(), all_tokens(dir, split));
    assert_eq!(tokens.last(), Some(&EOT), "each document is followed by end of text");
    tokens[..tokens.len() - 1]
        .split(|&token| token == EOT)
        .map(|ids| tokenizer.decode(&ids.iter().map(|&id| u32::from(id)).collect::<Vec<_>>()).unwrap())
        .collect()
}

fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn every_document_arrives_once_whole_and_in_order() {
    let corpus = Corpus::new();
    let mut last = Progress::default();
    let summary = run(&corpus.options("out"), |progress| last = progress).unwrap();
    let out = corpus.dir.path().join("out");
    let (train, val) = (documents(&out, Split::Train), documents(&out, Split::Val));

    let mut expected = vec!["good".to_string()];
    expected.extend((0..500).map(python));
    expected.extend((0..500).map(|i| python(i).replace("def", "async def")));
    expected.push("# Été\n".to_string());
    expected.extend((0..3).flat_map(|p| (0..60).filter(move |i| i % 3 == p)).map(python));
    let held_out: std::collections::HashSet<&String> = val.iter().collect();
    let (expected_val, expected_train): (Vec<_>, Vec<_>) =
        expected.into_iter().partition(|text| held_out.contains(text));
    assert_eq!(train, expected_train);
    assert_eq!(val, expected_val);
    // A tenth of 1062, copies together: the standard deviation is 14.
    assert!((50..170).contains(&val.len()), "{}", val.len());

    let manifest = &summary.manifest;
    assert_eq!((manifest.train.documents, manifest.val.documents), (train.len() as u64, val.len() as u64));
    assert_eq!(manifest.train.bytes, train.iter().map(|text| text.len() as u64).sum::<u64>());
    assert!(manifest.train.shards.len() > 2);
    assert!(manifest.train.shards.iter().rev().skip(1).all(|shard| shard.tokens == 7001));
    assert_eq!((manifest.empty_documents, manifest.other_files), (1, 1));
    let skipped: Vec<_> = manifest
        .skipped
        .iter()
        .map(|s| (s.path.rsplit(['/', '\\']).next().unwrap(), s.reason.as_str(), s.records, s.first))
        .collect();
    assert_eq!(
        skipped,
        [
            ("bad.jsonl", "has no field `text` or `content` or `code`", Some(1), Some(5)),
            ("bad.jsonl", "not a JSON object", Some(1), Some(4)),
            ("bad.jsonl", "not a JSON object: expected ident", Some(1), Some(2)),
            ("latin1.txt", "not UTF-8", None, None),
        ]
    );
    assert_eq!(last.source_bytes, last.source_bytes_total);
    assert_eq!(last.text_bytes, summary.text_bytes());
    assert_eq!(Manifest::read(&out).unwrap().as_ref(), Some(manifest));
    let report = summary.to_string();
    assert!(report.contains("latin1.txt: not UTF-8") && report.contains("the first is number 5"), "{report}");
    assert!(report.contains("1 file of other kinds was left aside"), "{report}");
    assert_eq!(corpus.entries(), ["out", "src"]);
    // The directory is a tokenizer's directory too.
    let tokenizer = Tokenizer::load(out.to_str().unwrap()).unwrap();
    assert_eq!(fingerprint_hex(tokenizer.fingerprint()), manifest.tokenizer.fingerprint);
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    let corpus = Corpus::new();
    for threads in [1, 2, 5] {
        run(&PrepareOptions { threads, ..corpus.options(&format!("out{threads}")) }, quiet).unwrap();
    }
    let one = contents(&corpus.dir.path().join("out1"));
    assert_eq!(one, contents(&corpus.dir.path().join("out2")));
    assert_eq!(one, contents(&corpus.dir.path().join("out5")));
    run(&PrepareOptions { seed: 1, ..corpus.options("other-seed") }, quiet).unwrap();
    assert_ne!(
        documents(&corpus.dir.path().join("out1"), Split::Val),
        documents(&corpus.dir.path().join("other-seed"), Split::Val)
    );
}

#[test]
fn tiny_corpora_still_get_a_validation_document_where_they_can() {
    for (texts, fraction, train, val) in [
        (&["one"][..], 0.5, 1, 0),
        (&["one"], 0.999_999_999, 1, 0),
        (&["one", "two"], 1e-9, 1, 1),
        (&["one", "two"], 0.999_999_999, 1, 1),
        (&["same", "same"], 0.5, 1, 1),
        (&["one", "two", "three"], 0.0, 3, 0),
    ] {
        let corpus = Corpus { dir: tempfile::tempdir().unwrap() };
        for (i, text) in texts.iter().enumerate() {
            corpus.file(&format!("src/{i}.txt"), text.as_bytes());
        }
        let summary = run(&PrepareOptions { val_fraction: fraction, ..corpus.options("out") }, quiet).unwrap();
        let found = (summary.manifest.train.documents, summary.manifest.val.documents);
        assert_eq!(found, (train, val), "{texts:?} {fraction}");
        let out = corpus.dir.path().join("out");
        assert_eq!(documents(&out, Split::Train).len() as u64, train);
        assert!(summary.warnings.iter().any(|warning| warning.contains("training part has only")));
        if val == 0 {
            let refusal = Dataset::open(&out, Split::Val).err().unwrap().to_string();
            assert!(refusal.contains("no validation part"), "{refusal}");
            assert_eq!(summary.warnings.iter().any(|warning| warning.contains("only one document")), fraction > 0.0);
        }
    }
}

#[test]
fn of_few_documents_the_smallest_is_held_out() {
    let texts = ["large\n".repeat(500), "middle\n".repeat(100), "small".to_string()];
    for (fraction, seed) in [(1e-9, 0), (1e-9, 1), (0.999_999_999, 0), (0.999_999_999, 1)] {
        let corpus = Corpus { dir: tempfile::tempdir().unwrap() };
        for (i, text) in texts.iter().enumerate() {
            corpus.file(&format!("src/{i}.txt"), text.as_bytes());
        }
        run(&PrepareOptions { val_fraction: fraction, seed, ..corpus.options("out") }, quiet).unwrap();
        assert_eq!(documents(&corpus.dir.path().join("out"), Split::Val), ["small"], "{fraction} {seed}");
    }
}

#[test]
fn a_validation_part_far_from_what_was_asked_for_is_noted() {
    let corpus = Corpus { dir: tempfile::tempdir().unwrap() };
    corpus.file("src/a.txt", b"some words");
    corpus.file("src/b.txt", b"as many words");
    let summary = run(&PrepareOptions { val_fraction: 1e-9, ..corpus.options("out") }, quiet).unwrap();
    let noted = |warning: &String| warning.contains("where --val-fraction asked for 0%");
    assert!(summary.warnings.iter().any(noted), "{:?}", summary.warnings);
}

#[test]
fn names_and_marks_of_text_files() {
    let corpus = Corpus { dir: tempfile::tempdir().unwrap() };
    corpus.file("src/mark.py", "\u{feff}x = 1".as_bytes());
    let odd = if cfg!(windows) { "src/odd.py" } else { "src/o\u{1b}dd.py" };
    corpus.file(odd, b"\xff");
    let summary = run(&corpus.options("out"), quiet).unwrap();
    assert_eq!(documents(&corpus.dir.path().join("out"), Split::Train), ["x = 1"]);
    assert!(!summary.to_string().contains('\u{1b}'), "{summary:?}");
}

#[test]
fn what_cannot_be_prepared_leaves_nothing_behind() {
    let corpus = Corpus::new();
    let refusal = |options: PrepareOptions| {
        let error = run(&options, quiet).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert_eq!(corpus.entries(), ["src"]);
        error.to_string()
    };
    let only = |name: &str| vec![corpus.dir.path().join("src").join(name)];
    let options = || corpus.options("out");
    assert!(refusal(PrepareOptions { inputs: vec![], ..options() }).contains("nothing to prepare"));
    assert!(refusal(PrepareOptions { inputs: only("nowhere"), ..options() }).contains("cannot read"));
    assert!(refusal(PrepareOptions { inputs: only("latin1.txt"), ..options() }).contains("latin1.txt: not UTF-8"));
    assert!(refusal(PrepareOptions { inputs: only("empty.py"), ..options() }).contains("no text found"));
    assert!(refusal(PrepareOptions { val_fraction: 1.0, ..options() }).contains("below 1"));
    assert!(refusal(PrepareOptions { val_fraction: f64::NAN, ..options() }).contains("below 1"));
    assert!(refusal(PrepareOptions { shard_tokens: 0, ..options() }).contains("between 1 and"));
    assert!(refusal(PrepareOptions { tokenizer: "nope".into(), ..options() }).contains("no tokenizer nope"));
}

#[test]
fn a_vocabulary_that_does_not_fit_is_refused() {
    let corpus = Corpus::new();
    let json = r#"{"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"Whitespace"},
        "post_processor":null,"decoder":null,"truncation":null,"padding":null,
        "model":{"type":"WordLevel","vocab":{"</s>":0,"[UNK]":65536},"unk_token":"[UNK]"}}"#;
    corpus.file("tokenizer.json", json.as_bytes());
    let tokenizer = corpus.dir.path().join("tokenizer.json").display().to_string();
    let message = run(&PrepareOptions { tokenizer, ..corpus.options("out") }, quiet).unwrap_err().to_string();
    assert!(message.contains("at most 65536 ids; this tokenizer has 65537"), "{message}");
}

#[cfg(unix)]
#[test]
fn behind_a_link_the_folder_is_replaced_and_not_the_link() {
    let corpus = Corpus::new();
    let at = |name: &str| corpus.dir.path().join(name);
    fs::create_dir_all(at("disk/real")).unwrap();
    for (target, link) in [("disk/real", "link"), ("disk/nothing", "dangling")] {
        std::os::unix::fs::symlink(at(target), at(link)).unwrap();
    }
    run(&corpus.options("link"), quiet).unwrap();
    run(&PrepareOptions { force: true, seed: 3, ..corpus.options("link") }, quiet).unwrap();
    assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink() && at("disk/real/manifest.json").is_file());
    let names = |dir: &str| fs::read_dir(at(dir)).unwrap().count();
    assert_eq!(names("disk"), 1);
    let refused = run(&corpus.options("dangling"), quiet).unwrap_err().to_string();
    assert!(refused.contains("is a link to what is not there"), "{refused}");
}

#[test]
fn an_existing_directory_is_replaced_only_if_it_is_a_data_set_and_force_is_set() {
    let corpus = Corpus::new();
    let (options, out) = (corpus.options("out"), corpus.dir.path().join("out"));
    let forced = PrepareOptions { force: true, seed: 3, ..options.clone() };
    // Another folder, whatever force says.
    corpus.file("out/thesis.txt", b"years of work");
    for options in [&options, &forced] {
        assert!(run(options, quiet).unwrap_err().to_string().contains("thesis.txt"));
    }
    fs::remove_file(out.join("thesis.txt")).unwrap();
    // An empty one is as good as none.
    run(&options, quiet).unwrap();
    let first = contents(&out);
    assert!(run(&options, quiet).unwrap_err().to_string().contains("--force"));
    assert_eq!(contents(&out), first);
    run(&forced, quiet).unwrap();
    assert_ne!(contents(&out), first);
    assert_eq!(corpus.entries(), ["out", "src"]);
    // A stranger in a data set protects it.
    corpus.file("out/notes.txt", b"mine");
    assert!(run(&forced, quiet).unwrap_err().to_string().contains("notes.txt"));
    // A file in its place.
    corpus.file("flat", b"x");
    let message = run(&corpus.options("flat"), quiet).unwrap_err().to_string();
    assert!(message.contains("flat: is a file"), "{message}");
    let message = run(&corpus.options("flat/x"), quiet).unwrap_err().to_string();
    assert!(message.contains("flat: is a file"), "{message}");
}

#[test]
fn what_a_run_killed_between_its_renames_moved_aside_is_put_back() {
    let corpus = Corpus::new();
    let (options, out) = (corpus.options("out"), corpus.dir.path().join("out"));
    run(&options, quiet).unwrap();
    let first = contents(&out);
    let killed = || fs::rename(&out, corpus.dir.path().join(".out.replaced")).unwrap();
    killed();
    assert!(run(&options, quiet).unwrap_err().to_string().contains("--force"));
    assert_eq!(contents(&out), first);
    killed();
    let inputs = vec![corpus.dir.path().join("src/latin1.txt")];
    assert!(run(&PrepareOptions { inputs, force: true, ..options.clone() }, quiet).is_err());
    assert_eq!(contents(&out), first);
    killed();
    run(&PrepareOptions { force: true, seed: 3, ..options }, quiet).unwrap();
    assert_ne!(contents(&out), first);
    assert_eq!(corpus.entries(), ["out", "src"]);
}

#[test]
fn what_a_killed_run_left_is_removed_and_a_failing_one_keeps_the_old_data() {
    let corpus = Corpus::new();
    let options = corpus.options("out");
    corpus.file(".out.partial/train-00000.bin.tmp", b"half");
    corpus.file(".out.lock", b"");
    run(&options, quiet).unwrap();
    assert_eq!(corpus.entries(), ["out", "src"]);
    let before = contents(&corpus.dir.path().join("out"));
    let inputs = vec![corpus.dir.path().join("src/latin1.txt")];
    assert!(run(&PrepareOptions { inputs, force: true, ..options }, quiet).is_err());
    assert_eq!(contents(&corpus.dir.path().join("out")), before);
    assert_eq!(corpus.entries(), ["out", "src"]);
}

#[test]
fn two_runs_at_once_do_not_share_a_directory() {
    let corpus = Corpus::new();
    let staging = Staging::begin(&corpus.dir.path().join("out"), false).unwrap();
    let message = run(&corpus.options("out"), quiet).unwrap_err().to_string();
    assert!(message.contains("another `trainer prepare`"), "{message}");
    assert!(staging.dir().exists());
}
