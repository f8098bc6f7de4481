//! The text column of a Parquet file, a batch of rows at a time.

use std::fs::File;
use std::path::Path;

use parquet::basic::Type as PhysicalType;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::parquet_pages::CheckedPages;
use super::{NOT_UTF8, TextField};
use crate::data::guard::guarded;
use crate::error::Short;

/// Rows decoded at once.
const ROWS: usize = 64;
/// Batches are handed on once their texts are about this long.
const BATCH_BYTES: usize = 1 << 20;

/// Some rows' texts, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub texts: Vec<String>,
    /// Rows without text: (row counted from 1, reason).
    pub skipped: Vec<(u64, String)>,
    /// Bytes of the file that these rows account for.
    pub source_bytes: u64,
}

/// Reads the text column. `emit`'s error is passed through.
///
/// # Errors
/// In the inner result: the reason why the file cannot be read (to its end: the batches before it were emitted).
pub fn batches<E>(
    path: &Path,
    file_bytes: u64,
    field: &TextField,
    mut emit: impl FnMut(Batch) -> Result<(), E>,
) -> Result<Result<(), String>, E> {
    let opened = File::open(path)
        .map_err(|error| format!("cannot be read: {error}"))
        .and_then(|file| {
            library(|| SerializedFileReader::new(file)).map_err(|why| format!("not a Parquet file: {why}"))
        })
        .and_then(|reader| Ok((text_column(&reader, field)?, reader)));
    let (column, reader) = match opened {
        Ok(opened) => opened,
        Err(reason) => return Ok(Err(reason)),
    };
    let rows_total = reader.metadata().file_metadata().num_rows().max(1) as u64;
    let share = |row: u64| (u128::from(file_bytes) * u128::from(row) / u128::from(rows_total)) as u64;
    let (mut row, mut counted, mut batch, mut length) = (0u64, 0u64, Batch::default(), 0);
    let mut damage = None;
    'groups: for group in 0..reader.num_row_groups() {
        let mut values = match library(|| group_reader(&reader, group, column)) {
            Ok(values) => values,
            Err(error) => {
                damage = Some(error);
                break;
            }
        };
        loop {
            let texts = match library(|| values.next_rows()) {
                Ok(texts) if texts.is_empty() => break,
                Ok(texts) => texts,
                Err(error) => {
                    damage = Some(error);
                    break 'groups;
                }
            };
            for text in texts {
                row += 1;
                match text.map(|bytes| String::from_utf8(bytes.data().to_vec())) {
                    Some(Ok(text)) => {
                        length += text.len();
                        batch.texts.push(text);
                    }
                    Some(Err(_)) => batch.skipped.push((row, NOT_UTF8.to_string())),
                    None => batch.skipped.push((row, "has no text (null)".to_string())),
                }
            }
            if length >= BATCH_BYTES || batch.texts.len() + batch.skipped.len() >= 1 << 14 {
                batch.source_bytes = share(row) - counted;
                counted = share(row);
                emit(std::mem::take(&mut batch))?;
                length = 0;
            }
        }
    }
    // Of a damaged file, the rows before the damage.
    let end = if damage.is_some() { share(row) } else { file_bytes };
    batch.source_bytes = end.saturating_sub(counted);
    emit(batch)?;
    Ok(damage.map_or(Ok(()), |error| Err(format!("cannot be read past row {row}: {error}"))))
}

/// Calls the library, which panics on some damaged files; after an error its reader is not used again.
fn library<T>(call: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    guarded(call).and_then(|outcome| outcome.map_err(|error| Short(error).to_string()))
}

/// Index of the text column among the file's leaf columns.
fn text_column(reader: &SerializedFileReader<File>, field: &TextField) -> Result<usize, String> {
    let columns = reader.metadata().file_metadata().schema_descr().columns();
    let is_text = |name: &str, index: usize| {
        let column = &columns[index];
        column.path().parts() == [name]
            && column.physical_type() == PhysicalType::BYTE_ARRAY
            && column.max_rep_level() == 0
    };
    field.names().iter().find_map(|name| (0..columns.len()).find(|&index| is_text(name, index))).ok_or_else(|| {
        let names: Vec<String> = columns.iter().map(|column| Short(column.path().string()).to_string()).collect();
        format!("has no text column {} (its columns: {})", field.describe(), names.join(", "))
    })
}

/// The column of one row group.
struct GroupReader {
    values: ColumnReaderImpl<ByteArrayType>,
    /// Definition level of a value that is there; lower ones are nulls.
    present: i16,
}

fn group_reader(reader: &SerializedFileReader<File>, group: usize, column: usize) -> Result<GroupReader, ParquetError> {
    let description = reader.metadata().file_metadata().schema_descr().column(column);
    let present = description.max_def_level();
    let pages = reader.get_row_group(group)?.get_column_page_reader(column)?;
    let pages = CheckedPages { pages, optional: present > 0 };
    Ok(GroupReader { values: ColumnReaderImpl::new(description, Box::new(pages)), present })
}

impl GroupReader {
    /// The next rows' values, `None` for a null; empty at the end of the group.
    fn next_rows(&mut self) -> Result<Vec<Option<ByteArray>>, ParquetError> {
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let (rows, ..) = self.values.read_records(ROWS, Some(&mut levels), None, &mut values)?;
        if self.present == 0 {
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        Ok((0..rows).map(|row| if levels.get(row) == Some(&self.present) { values.next() } else { None }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::data_type::Int64Type;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    /// Row groups of 1000 rows of an `id` and an optional `content`, null in every seventh row.
    fn write(path: &Path, schema: &str, texts: &[Option<Vec<u8>>]) {
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let optional = schema.get_fields()[1].is_optional();
        let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
        for texts in texts.chunks(1000) {
            let mut group = writer.next_row_group().unwrap();
            let ids: Vec<i64> = (0..texts.len() as i64).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&ids, None, None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let values: Vec<ByteArray> = texts.iter().flatten().map(|text| text.clone().into()).collect();
            let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
            column.typed::<ByteArrayType>().write_batch(&values, optional.then_some(&levels), None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.close().unwrap();
    }

    fn read(path: &Path, field: Option<&str>) -> (Vec<Batch>, Result<(), String>) {
        let mut all = Vec::new();
        let outcome = batches::<()>(path, 10_000, &TextField::new(field), |batch| {
            all.push(batch);
            Ok(())
        });
        (all, outcome.unwrap())
    }

    #[test]
    fn rows_come_in_order_with_nulls_and_bad_bytes_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let mut texts: Vec<Option<Vec<u8>>> =
            (0..2500).map(|i| (i % 7 != 3).then(|| format!("{i} {}", "é".repeat(i % 700)).into_bytes())).collect();
        texts[10] = Some(vec![0xff]);
        write(&path, "message m { required int64 id; optional binary content (UTF8); }", &texts);
        let (batches, outcome) = read(&path, None);
        assert_eq!(outcome, Ok(()));
        assert!(batches.len() > 1);
        let read: Vec<&[u8]> = batches.iter().flat_map(|b| &b.texts).map(|text| text.as_bytes()).collect();
        let expected: Vec<&[u8]> =
            texts.iter().enumerate().filter(|(i, _)| *i != 10).filter_map(|(_, text)| text.as_deref()).collect();
        assert_eq!(read, expected);
        let skipped: Vec<_> = batches.iter().flat_map(|b| b.skipped.clone()).collect();
        assert_eq!(skipped[..2], [(4, "has no text (null)".to_string()), (11, NOT_UTF8.to_string())]);
        assert_eq!(skipped.len(), 2500 - expected.len());
        assert_eq!(batches.iter().map(|b| b.source_bytes).sum::<u64>(), 10_000);
    }

    #[test]
    fn the_rows_before_the_damage_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let texts: Vec<Option<Vec<u8>>> =
            (0..2500).map(|i| (i % 7 != 3).then(|| format!("text {i}").into_bytes())).collect();
        write(&path, "message m { required int64 id; optional binary content (UTF8); }", &texts);
        let mut bytes = std::fs::read(&path).unwrap();
        // The last zstd frame is the last group's page of texts.
        let last = bytes.windows(4).rposition(|four| four == b"\x28\xb5\x2f\xfd").unwrap();
        bytes[last..last + 8].fill(0xff);
        std::fs::write(&path, &bytes).unwrap();
        let (batches, outcome) = read(&path, None);
        assert!(outcome.as_ref().is_err_and(|why| why.starts_with("cannot be read past row 2000: ")), "{outcome:?}");
        let rows = batches.iter().map(|batch| batch.texts.len() + batch.skipped.len()).sum::<usize>();
        assert_eq!((rows, batches.iter().map(|batch| batch.source_bytes).sum::<u64>()), (2000, 8000));
        assert_eq!(batches.last().unwrap().texts.last().unwrap(), "text 1999");
    }

    /// A page that claims a dictionary of two thousand million texts, for which the library would fill 64 GiB.
    #[test]
    fn a_dictionary_longer_than_its_page_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let texts: Vec<Option<Vec<u8>>> = (0..20).map(|i| Some(format!("{}", i % 5).into_bytes())).collect();
        write(&path, "message m { required int64 id; required binary text (UTF8); }", &texts);
        let whole = std::fs::read(&path).unwrap();
        // Thrift: field 1 of a dictionary's header, an i32, zigzag: 5 distinct texts; then field 2, the encoding.
        let header = [0x4c, 0x15, 10, 0x15];
        let places: Vec<usize> = (0..whole.len()).filter(|at| whole[*at..].starts_with(&header)).collect();
        assert_eq!(places.len(), 1, "{places:?}");
        let mut bytes = whole.clone();
        bytes[places[0] + 2] = 126;
        std::fs::write(&path, &bytes).unwrap();
        let why = read(&path, None).1.unwrap_err();
        assert!(why.contains("a dictionary of 63 texts in 25 bytes: the file is damaged"), "{why}");
    }

    /// The library answers some of these with a panic: a page whose size is not that of its values, a dictionary that is
    /// said to be elsewhere.
    #[test]
    fn no_changed_byte_panics() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let texts: Vec<Option<Vec<u8>>> =
            (0..20).map(|i| (i % 7 != 3).then(|| format!("{}", i % 5).into_bytes())).collect();
        write(&path, "message m { required int64 id; optional binary text (UTF8); }", &texts);
        let whole = std::fs::read(&path).unwrap();
        let mut refused = 0;
        for at in 0..whole.len() {
            for change in [0x01, 0x02, 0x08, 0x40, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                std::fs::write(&path, &bytes).unwrap();
                let (batches, outcome) = read(&path, None);
                refused += usize::from(outcome.is_err());
                assert!(outcome.is_err() || !batches.is_empty(), "byte {at}");
            }
        }
        assert!(refused > whole.len() / 2, "{refused} of {}", whole.len());
    }

    #[test]
    fn required_columns_other_names_and_files_without_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        write(
            &path,
            "message m { required int64 id; required binary body; }",
            &[Some(b"a".to_vec()), Some(b"b".to_vec())],
        );
        let (batches, outcome) = read(&path, Some("body"));
        assert_eq!((batches[0].texts.join(","), outcome), ("a,b".to_string(), Ok(())));
        let reason = read(&path, None).1.unwrap_err();
        assert!(reason.contains("no text column") && reason.contains("id, body"), "{reason}");
        assert!(read(&path, Some("id")).1.unwrap_err().contains("no text column `id`"));
        std::fs::write(&path, "not parquet at all").unwrap();
        assert!(read(&path, None).1.unwrap_err().contains("not a Parquet file"));
    }
}
