//! Plain text tables for the terminal, and the way that they write numbers.

use std::fmt;

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// A table of aligned columns, two spaces apart, with an optional header and rules between groups of rows.
#[derive(Clone, Debug)]
pub struct Table {
    align: Vec<Align>,
    header: Option<Vec<String>>,
    /// `None` is a rule.
    rows: Vec<Option<Vec<String>>>,
}

impl Table {
    /// A table with a header, one alignment a column.
    pub fn new<S: Into<String>>(columns: impl IntoIterator<Item = (S, Align)>) -> Self {
        let (header, align) = columns.into_iter().map(|(name, align)| (name.into(), align)).unzip();
        Self { align, header: Some(header), rows: Vec::new() }
    }

    /// Names on the left, values on their right, no header.
    pub fn pairs() -> Self {
        Self { align: vec![Align::Left, Align::Left], header: None, rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty, cells beyond the columns widen the table with left-aligned ones.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) -> &mut Self {
        let cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        self.align.resize(self.align.len().max(cells.len()), Align::Left);
        self.rows.push(Some(cells));
        self
    }

    /// Adds a line across the table, as above a total.
    pub fn rule(&mut self) -> &mut Self {
        self.rows.push(None);
        self
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filled = || self.header.iter().chain(self.rows.iter().flatten());
        let mut widths = vec![0; self.align.len()];
        for (column, cell) in filled().flat_map(|cells| cells.iter().enumerate()) {
            widths[column] = widths[column].max(cell.chars().count());
        }
        let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1));
        if let Some(header) = &self.header {
            writeln!(f, "{}", self.line(header, &widths))?;
            writeln!(f, "{rule}")?;
        }
        for row in &self.rows {
            match row {
                Some(cells) => writeln!(f, "{}", self.line(cells, &widths))?,
                None => writeln!(f, "{rule}")?,
            }
        }
        Ok(())
    }
}

impl Table {
    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let padded: Vec<String> = cells
            .iter()
            .zip(widths.iter().zip(&self.align))
            .map(|(cell, (&width, align))| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            })
            .collect();
        padded.join("  ").trim_end().to_owned()
    }
}

/// Bytes in the binary unit that leaves 1 to 1023 before the point: "26.4 GiB".
pub fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be printed as 1024.0.
    while value >= 1023.95 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

/// A count with a comma between groups of three digits: "1,418,270,720".
pub fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with four significant digits and a decimal prefix: 9.085e9 is "9.085 G", to be followed by its unit.
pub fn si(value: f64) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"];
    let mut value = value;
    let mut prefix = 0;
    while value.abs() >= 999.95 && prefix + 1 < prefixes.len() {
        value /= 1000.0;
        prefix += 1;
    }
    let decimals = match value.abs() {
        x if x < 9.9995 => 3,
        x if x < 99.995 => 2,
        _ => 1,
    };
    format!("{value:.decimals$} {}", prefixes[prefix])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new([("part", Align::Left), ("bytes", Align::Right)]);
        table.row(["weights", "12"]).row(["é", "3456789"]).rule().row(["total"]);
        let text = "part       bytes\n----------------\nweights       12\né        3456789\n----------------\ntotal\n";
        assert_eq!(table.to_string(), text);
    }

    #[test]
    fn pairs_have_no_header_and_rows_may_be_wider() {
        let mut table = Table::pairs();
        table.row(["a", "1"]).row(["long", "2", "three"]);
        assert_eq!(table.to_string(), "a     1\nlong  2  three\n");
        assert_eq!(Table::pairs().to_string(), "");
    }

    #[test]
    fn numbers() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_418_270_720), "1,418,270,720");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(si(9.085e9), "9.085 G");
        assert_eq!(si(999_999.0), "1.000 M");
        assert_eq!(si(0.0), "0.000 ");
        assert_eq!(si(45.678e6), "45.68 M");
    }
}
