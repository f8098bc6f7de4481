//! The pages of a text column, looked at before the library decodes them.

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};

/// Bytes of the length before each text.
const LENGTH: usize = 4;

/// Values of a page that are coded by their differences, at most; writers make pages of some ten thousand.
const MOST_VALUES: u64 = 1 << 24;

/// Refuses what the library would fill memory with before it looks at the page: a dictionary of more texts than its page has
/// bytes for, or a number of differences that no page has.
pub struct CheckedPages {
    pub pages: Box<dyn PageReader>,
    /// Whether values can be null, so that a page of the first version begins with what says which are.
    pub optional: bool,
}

impl CheckedPages {
    fn check(&self, page: &Page) -> Result<()> {
        let (buf, values) = match page {
            Page::DictionaryPage { buf, num_values, .. } => {
                return match *num_values as usize <= buf.len() / LENGTH {
                    true => Ok(()),
                    false => damaged(&format!("a dictionary of {num_values} texts in {} bytes", buf.len())),
                };
            }
            Page::DataPage { buf, .. } if self.optional => {
                let levels = buf.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
                (buf, levels.saturating_add(LENGTH))
            }
            Page::DataPage { buf, .. } => (buf, 0),
            Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, .. } => {
                (buf, (*def_levels_byte_len as usize).saturating_add(*rep_levels_byte_len as usize))
            }
        };
        if !matches!(page.encoding(), Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY) {
            return Ok(());
        }
        // Block size, blocks, number of values (Parquet's encodings, "Delta encoding").
        let mut rest = buf.get(values..).unwrap_or_default().iter();
        let [_, _, count] = [(); 3].map(|()| varint(&mut rest));
        if count > MOST_VALUES { damaged(&format!("{count} values in a page of {} bytes", buf.len())) } else { Ok(()) }
    }
}

fn damaged(what: &str) -> Result<()> {
    Err(ParquetError::General(format!("{what}: the file is damaged")))
}

/// A number in groups of seven bits, the lowest first.
fn varint<'a>(bytes: &mut impl Iterator<Item = &'a u8>) -> u64 {
    let mut number = 0;
    for place in 0..10 {
        let Some(byte) = bytes.next() else { break };
        number |= u64::from(byte & 0x7f).checked_shl(7 * place).unwrap_or(0);
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        page.as_ref().map_or(Ok(()), |page| self.check(page))?;
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}
