//! PTX text to tokens (PTX ISA, chapter "Syntax").

/// A token and the line it stands on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token<'a> {
    pub text: &'a str,
    pub line: u32,
}

impl Token<'_> {
    /// An identifier, directive, mnemonic, register or label.
    pub fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_alphabetic() || "_.$%".contains(c))
    }

    pub fn is_number(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_digit())
    }
}

/// Words keep their dots and `::`, so a mnemonic with its suffixes is one token; other punctuation stands alone.
///
/// # Errors
/// A character that PTX does not have, or a comment or string without an end.
pub fn tokens(text: &str) -> Result<Vec<Token<'_>>, String> {
    let bytes = text.as_bytes();
    let mut result = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &text[at..];
        let byte = bytes[at];
        let length = match byte {
            b'\n' => {
                line += 1;
                at += 1;
                continue;
            }
            b'\0' => break,
            _ if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            _ if rest.starts_with("//") => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            _ if rest.starts_with("/*") => {
                let end = rest.find("*/").ok_or(format!("line {line}: a comment without an end"))? + 2;
                line += rest[..end].matches('\n').count() as u32;
                at += end;
                continue;
            }
            b'"' => rest[1..].find('"').ok_or(format!("line {line}: a string without an end"))? + 2,
            _ if byte.is_ascii_digit() => rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len()),
            _ if byte.is_ascii_alphabetic() || b"_.$%".contains(&byte) => word_length(rest),
            _ if b"@!+-|[]{}()<>,;=:*~&".contains(&byte) => 1,
            _ => return Err(format!("line {line}: unexpected character {:?}", byte as char)),
        };
        result.push(Token { text: &rest[..length], line });
        at += length;
    }
    Ok(result)
}

fn word_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut end = 1;
    while end < bytes.len() {
        if bytes[end].is_ascii_alphanumeric() || b"_.$%".contains(&bytes[end]) {
            end += 1;
        } else if rest[end..].starts_with("::") {
            end += 2;
        } else {
            break;
        }
    }
    end
}

/// Decimal, octal, hexadecimal and binary integers with an optional U; 0f and 0d floats as bits (PTX ISA, "Constants").
pub fn number(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0f").or(text.strip_prefix("0F")) {
        return u32::from_str_radix(digits, 16).ok().map(u64::from);
    }
    if let Some(digits) = text.strip_prefix("0d").or(text.strip_prefix("0D")) {
        return u64::from_str_radix(digits, 16).ok();
    }
    let text = text.trim_end_matches('U');
    let lower = text.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    if let Some(digits) = lower.strip_prefix("0b") {
        return u64::from_str_radix(digits, 2).ok();
    }
    if lower.len() > 1 && lower.starts_with('0') {
        return u64::from_str_radix(&lower[1..], 8).ok();
    }
    lower.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number("0f3F800000"), Some(0x3f80_0000));
        assert_eq!(number("0d3FF0000000000000"), Some(0x3ff0_0000_0000_0000));
        assert_eq!(number("0x1FU"), Some(31));
        assert_eq!(number("017"), Some(15));
        assert_eq!(number("nan"), None);
    }
}
