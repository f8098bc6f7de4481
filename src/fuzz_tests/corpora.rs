//! What `trainer prepare` reads: text, JSON lines and Parquet, compressed or not.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::Target;
use crate::data::corpus::{Skip, TextField, find, read_units};
use crate::error::{Error, Result};

const LINES: &str =
    "{\"text\": \"def f(x):\\n    return x\", \"id\": 12}\n\n{\"id\": [1, {\"text\": 2}], \"content\": \"é\"}\n";

/// Reads a corpus of one file as `prepare` does; what cannot be read is an error here.
fn read(path: &Path) -> Result<()> {
    let found = find(&[path.to_path_buf()])?;
    let field = TextField::new(None);
    let (mut skipped, mut bytes) = (None, 0);
    let stopped = read_units(&found.sources, &field, |unit| {
        let each = |fragment: crate::data::corpus::Fragment| -> std::io::Result<()> {
            bytes += fragment.text.len();
            Ok(())
        };
        // A row without a text is no damage.
        let is_null = |skip: &Skip| skip.reason == "has no text (null)";
        unit.for_each(&field, each, |skip| skipped = skipped.take().or(Some(skip).filter(|skip| !is_null(skip))))
            .unwrap();
        Ok(())
    });
    assert!(stopped.is_ok());
    skipped.map_or(Ok(()), |Skip { path, reason, .. }| Err(Error::file(path, reason)))
}

#[test]
fn json_lines() {
    Target::new(file!(), "lines.jsonl", vec![LINES.into()]).run(|_| {}, read);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, LINES.as_bytes()).unwrap();
    Target::new(file!(), "lines.jsonl.gz", vec![gz.finish().unwrap()]).run(|_| {}, read);
    let zst = zstd::encode_all(LINES.as_bytes(), 1).unwrap();
    Target::new(file!(), "lines.jsonl.zst", vec![zst]).run(|_| {}, read);
}

#[test]
fn text() {
    Target::new(file!(), "file.py", vec!["# été\ndef f(x):\n\treturn 3\n".into()]).run(|_| {}, read);
}

fn parquet(compression: Compression, schema: &str, version: WriterVersion) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_dictionary_enabled(compression != Compression::UNCOMPRESSED)
        .set_writer_version(version)
        .build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let optional = schema.get_fields()[0].is_optional();
    let mut writer = SerializedFileWriter::new(File::create(&path).unwrap(), schema, Arc::new(properties)).unwrap();
    for group in 0..2 {
        let mut rows = writer.next_row_group().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> =
            (0..20).map(|i| format!("def f{group}(): return {}", i % 3).into_bytes().into()).collect();
        let levels = if optional { (0..30).map(|i| i16::from(i % 3 > 0)).collect() } else { vec![1; 20] };
        column.typed::<ByteArrayType>().write_batch(&values, optional.then_some(&levels), None).unwrap();
        column.close().unwrap();
        rows.close().unwrap();
    }
    writer.close().unwrap();
    fs::read(&path).unwrap()
}

#[test]
fn parquet_files() {
    let files = vec![
        parquet(Compression::UNCOMPRESSED, "message m { required binary text (UTF8); }", WriterVersion::PARQUET_1_0),
        parquet(
            Compression::ZSTD(ZstdLevel::default()),
            "message m { required binary text; }",
            WriterVersion::PARQUET_1_0,
        ),
        parquet(
            Compression::ZSTD(ZstdLevel::default()),
            "message m { optional binary text; }",
            WriterVersion::PARQUET_2_0,
        ),
    ];
    // A page says its size in 31 bits, which the library reserves before it looks; the operating system gives none of it that
    // is not written to.
    let target = Target { extra: 5 << 30, ..Target::new(file!(), "rows.parquet", files) };
    target.run(|_| {}, read);
}
